"""The schema over time: an upgrade while servers of the release before run, a refusal, a death in the middle."""

import asyncio
import itertools
import os
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import apsw
import asyncpg
import pytest
from tests import databases, postgres
from tests.kit.polling import until
from tests.store.world import World, step

from perdure.store import copying, inspection
from perdure.store.base.interface import Store
from perdure.store.copying import copy_store
from perdure.store.drivers import postgres_connection, sqlite
from perdure.store.drivers.migrate import FIRST, Migration, Schema, migrations
from perdure.store.inspection import read_schema
from perdure.store.open import is_postgres, open_store
from perdure.store.verbs.runs import queries
from perdure.wire.base.errors import Conflict, PerdureError, Unavailable

ROOT = Path(__file__).parents[3]
KNOWN = migrations("sqlite")[-1].number
LEAST = max(one.number for one in migrations("sqlite") if not one.compatible)
ADDS = "ALTER TABLE executions ADD COLUMN mood TEXT; CREATE TABLE moods (id TEXT PRIMARY KEY, mood TEXT NOT NULL)"
COMPATIBLE = Migration(KNOWN + 1, "moods", ADDS, True)
INCOMPATIBLE = Migration(KNOWN + 1, "stern", "ALTER TABLE executions ADD COLUMN stern INTEGER", False)
Pretend = Callable[..., None]
on_postgres = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Has this release know more migrations, like a later release."""

    def set_known(*more: Migration) -> None:
        for module in (inspection, postgres_connection, sqlite):
            monkeypatch.setattr(module, "migrations", lambda dialect: [*migrations(dialect), *more])

    return set_known


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """An empty store in PostgreSQL."""
    async with postgres.fresh(databases.migrated) as url:
        yield url


@pytest.fixture
async def empty() -> AsyncIterator[str]:
    """A PostgreSQL database that has nothing of ours."""
    async with postgres.fresh() as url:
        yield url


@pytest.fixture(params=databases.KINDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An address for a new store, used by no other test."""
    if request.param == databases.SQLITE:
        yield str(tmp_path / "perdure.db")
    else:
        async with postgres.fresh() as url:
            yield url


_numbers = itertools.count(1)


async def works(store: Store) -> None:
    """An execution is started, claimed, makes a step and is completed, whatever others do meanwhile."""
    world = await World.make(store)
    number = next(_numbers)
    world._ids = number * 1_000
    name = f"w{number}"
    await world.register(name, deployment=name)
    id = await world.running(name, deployment_id=name)
    await world.report(id, [step("step")], worker=name)
    await world.finish(id, name)
    assert await world.kinds(id) == ["claimed", "step", "completed"]


async def opens(place: str) -> None:
    await (await open_store(place)).close()


async def test_the_least_release_is_that_of_the_last_change_that_is_not_compatible(
    place: str, pretend: Pretend
) -> None:
    await opens(place)
    assert (await read_schema(place))[0] == Schema(KNOWN, LEAST)
    more = [COMPATIBLE, INCOMPATIBLE._replace(number=KNOWN + 2), Migration(KNOWN + 3, "none", "", True)]
    for amount, least in ((1, LEAST), (2, KNOWN + 2), (3, KNOWN + 2)):
        pretend(*more[:amount])
        await opens(place)
        assert (await read_schema(place))[0] == Schema(KNOWN + amount, least)


async def test_a_release_works_with_a_newer_schema_that_is_compatible(place: str, pretend: Pretend) -> None:
    pretend(COMPATIBLE)
    await opens(place)
    pretend()
    for _ in range(2):
        store = await open_store(place)
        await works(store)
        await store.close()
    schema, pending = await read_schema(place)
    assert schema == Schema(KNOWN + 1, LEAST) and not pending


async def test_a_newer_schema_that_is_not_compatible_is_refused(place: str, pretend: Pretend) -> None:
    pretend(INCOMPATIBLE)
    await opens(place)
    pretend()
    for refused in (opens, read_schema):
        with pytest.raises(PerdureError, match=f"has schema {KNOWN + 1}, .* up to {KNOWN}; install a newer Perdure"):
            await refused(place)


@pytest.mark.parametrize("number", [1, FIRST - 1])
async def test_a_store_of_a_build_before_the_first_release_is_refused_and_stays(place: str, number: int) -> None:
    await opens(place)
    await _set_schema(place, number)
    before = None if is_postgres(place) else Path(place).read_bytes()
    for refused in (opens, read_schema):
        with pytest.raises(PerdureError, match=f"has schema {number}: a build before the first release made it"):
            await refused(place)
    assert before is None or Path(place).read_bytes() == before
    await _set_schema(place, KNOWN)
    await opens(place)


async def _set_schema(place: str, number: int) -> None:
    if is_postgres(place):
        connection = await asyncpg.connect(place)
        await connection.execute("UPDATE meta SET value = $1 WHERE name = 'schema'", str(number))
        await connection.close()
    else:
        with apsw.Connection(place) as file:
            file.pragma("user_version", number)
        file.close()


@on_postgres
async def test_a_server_that_runs_goes_on_while_another_migrates(
    url: str, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file has one server, and is migrated when the server starts."""
    monkeypatch.setattr("perdure.store.drivers.postgres_lock_queue.WAIT_SECONDS_MAX", 60.0)
    running = await open_store(url)
    await works(running)
    stop = asyncio.Event()

    async def load() -> int:
        rounds = 0
        while not stop.is_set():
            await works(running)
            rounds += 1
        return rounds

    loading = asyncio.create_task(load())
    pretend(COMPATIBLE)
    newer = await open_store(url)
    await works(newer)
    await works(running)
    stop.set()
    assert await loading > 0
    assert (await read_schema(url))[0] == Schema(KNOWN + 1, LEAST)
    assert not any((await newer.scan(queries.doctor())).values())
    await running.close()
    await newer.close()


@on_postgres
async def test_servers_that_could_not_live_with_a_change_are_not_surprised_by_it(url: str, pretend: Pretend) -> None:
    running = await open_store(url)
    await works(running)
    pretend(INCOMPATIBLE)
    with pytest.raises(PerdureError, match=f"cannot go on after {INCOMPATIBLE.number:04}_stern: stop all of them"):
        await open_store(url)
    await works(running)
    await running.close()
    await opens(url)
    assert (await read_schema(url))[0] == Schema(KNOWN + 1, KNOWN + 1)


@on_postgres
async def test_a_server_that_was_cut_off_meanwhile_does_not_come_back_to_what_it_does_not_know(
    url: str, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await open_store(url)
    await works(running)
    pretend(INCOMPATIBLE)
    with pytest.raises(PerdureError, match="stop all of them"):
        await open_store(url)
    monkeypatch.setattr(postgres_connection, "GONE_SECONDS_MAX", 60.0)  # however long the cut takes
    async with asyncio.TaskGroup() as group:
        newer = group.create_task(open_store(url))
        while not newer.done():  # as if the network to it were cut
            await _cut_off(url)
    pretend()
    with pytest.raises(PerdureError, match="install a newer Perdure"):
        await World.make(running)
    await running.close()
    pretend(INCOMPATIBLE)
    await works(newer.result())
    await newer.result().close()


async def _cut_off(url: str) -> None:
    """End the sessions of servers."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name ~ '^perdure (write|sweep|read|scan|listen) '"
        )
    finally:
        await connection.close()


# --- a death in the middle --------------------------------------------------------------------------------------------

STOPS = """
import asyncio, sys
from perdure.store.drivers import migrate, postgres_connection, sqlite
from perdure.store.open import open_store

if sys.argv[2:]:
    known, more = migrate.migrations, migrate.Migration(int(sys.argv[2]), "more", *sys.argv[3:])
    for module in (postgres_connection, sqlite):
        module.migrations = lambda dialect: [*known(dialect), more]

def stopping(sql):
    for n, statement in enumerate(migrate.split_statements(sql)):
        if n == 1:
            print("in the middle", flush=True)
            sys.stdin.read()
        yield statement

for module in (postgres_connection, sqlite):
    module.split_statements = stopping
asyncio.run(open_store(sys.argv[1]))
"""


class Stopped:
    """A process that has done the first statement of a migration, and goes no further."""

    def __init__(self, place: str, more: Migration | None = None) -> None:
        named = [] if more is None else [str(more.number), more.sql, "yes" if more.compatible else ""]
        command = [sys.executable, "-c", STOPS, place, *named]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None and self._process.stdout.readline() == "in the middle\n"

    def __enter__(self) -> "Stopped":
        return self

    def go_on(self) -> None:
        self._process.communicate()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __exit__(self, *_: object) -> None:
        self.kill()


async def test_a_migration_that_is_killed_leaves_nothing(place: str) -> None:
    with Stopped(place) as stopped:
        stopped.kill()
    assert place_is_empty(place) if not is_postgres(place) else (await read_schema(place))[0] == Schema(0, 0)
    store = await open_store(place)
    await works(store)
    await store.close()


def test_a_first_start_that_ends_at_any_statement_leaves_what_the_next_one_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for last in range(1, 20):
        path, left = str(tmp_path / f"{last}.db"), itertools.count(-last, 1)

        def ends(cursor: apsw.Cursor, sql: str, values: object, left: Iterator[int] = left) -> bool:
            return next(left) < 0

        monkeypatch.setattr(apsw, "connection_hooks", [lambda one, ends=ends: setattr(one, "exec_trace", ends)])
        with pytest.raises(sqlite.NotOurFile, match="cannot be opened"):
            sqlite.SQLiteStore(path)
        monkeypatch.undo()
        asyncio.run(opens(path))
        file = apsw.Connection(path)
        assert (file.pragma("auto_vacuum"), sqlite.schema_in(file).number) == (2, KNOWN), last
        file.close()


def place_is_empty(path: str) -> bool:
    """Whether a file has no table."""
    connection = apsw.Connection(path)
    try:
        return bool(connection.execute("SELECT COUNT(*) = 0 FROM sqlite_schema").get)
    finally:
        connection.close()


@on_postgres
async def test_who_comes_while_another_migrates_waits_and_does_it_when_that_one_dies(empty: str) -> None:
    with Stopped(empty) as stopped:
        opening = asyncio.create_task(open_store(empty))
        await until(lambda: _asked(empty), 60, "the lock was asked for")
        assert not opening.done()
        stopped.kill()
        store = await opening
    await works(store)
    await store.close()


@on_postgres
async def test_who_comes_while_a_change_is_made_that_it_could_not_live_with_is_refused(url: str) -> None:
    with Stopped(url, INCOMPATIBLE._replace(sql=ADDS)) as stopped:
        opening = asyncio.create_task(open_store(url))
        await until(lambda: _asked(url), 60, "the lock was asked for")
        assert not opening.done()
        stopped.go_on()
        with pytest.raises(PerdureError, match=f"has schema {KNOWN + 1}, .* install a newer Perdure"):
            await opening


@on_postgres
async def test_who_had_just_started_before_such_a_change_is_seen_at_its_end(url: str) -> None:
    with Stopped(url, INCOMPATIBLE._replace(sql=ADDS)) as stopped:
        session = await asyncpg.connect(url, server_settings={"application_name": "perdure write 1"})
        stopped.go_on()
        await session.close()
    assert (await read_schema(url))[0] == Schema(KNOWN, LEAST)


@on_postgres
async def test_nobody_waits_for_a_change_that_it_can_live_with(url: str) -> None:
    with Stopped(url, COMPATIBLE):
        await opens(url)


async def _asked(url: str) -> bool:
    """Whether a session waits for the lock: its transaction has no other statement."""
    connection = await asyncpg.connect(url)
    try:
        found: bool = await connection.fetchval(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND (query LIKE '%pg_try_advisory_xact_lock%' OR query LIKE 'COMMIT%'))"
        )
    finally:
        await connection.close()
    return found


# --- the way to PostgreSQL --------------------------------------------------------------------------------------------


@on_postgres
async def test_a_store_is_not_moved_by_a_release_that_does_not_know_all_of_it(
    empty: str, tmp_path: Path, pretend: Pretend
) -> None:
    source = str(tmp_path / "perdure.db")
    pretend(COMPATIBLE)
    await opens(source)
    pretend()
    with pytest.raises(Conflict, match=f"differ .{KNOWN + 1}, {KNOWN}.; copy with the newest release"):
        await copy_store(source, empty, now_us=1, tell=lambda table, rows: None)
    pretend(COMPATIBLE)
    await copy_store(source, empty, now_us=1, tell=lambda table, rows: None)


@on_postgres
async def test_large_payloads_are_moved_a_few_at_a_time(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(tmp_path / "perdure.db")
    await opens(source)
    with apsw.Connection(source) as file:
        for n in range(60):
            file.execute("INSERT INTO large_payloads VALUES (?, ?)", (f"e{n}", os.urandom(200_000)))
    file.close()
    monkeypatch.setattr(copying, "BYTES_AT_ONCE", 1 << 20)
    tracemalloc.start()
    try:
        found = await copy_store(source, empty, now_us=1, tell=lambda table, rows: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["large_payloads"].rows == 60
    assert peak < 6_000_000, "half of them"


async def test_a_file_stays_as_it_is_when_its_target_cannot_be_had(tmp_path: Path, pretend: Pretend) -> None:
    source = str(tmp_path / "perdure.db")
    pretend()
    await opens(source)
    pretend(COMPATIBLE)
    with pytest.raises(Unavailable):
        await copy_store(source, "postgresql://nobody@127.0.0.1:1/none", now_us=1, tell=lambda table, rows: None)
    file = apsw.Connection(source)
    assert sqlite.schema_in(file).number == KNOWN
    file.close()
