"""The PostgreSQL driver: groups, refusals, failures, connections that are lost at every moment."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests import postgres
from tests.databases import migrated
from tests.faults.proxy import Proxy
from tests.kit.polling import until
from tests.store.drivers.test_driver import HOWS, fail_after_writing, note, read_note, refuse
from tests.store.locks import are_aside, end_waits, held, set_limits
from tests.store.world import World, raw, step

from perdure.store.base.interface import Metric, Notify, Verb, query, verb
from perdure.store.base.statements import load, parse
from perdure.store.drivers import postgres_connection, postgres_lock_queue, postgres_writer
from perdure.store.drivers.migrate import Migration, migrations
from perdure.store.drivers.postgres import READERS, PostgresStore
from perdure.store.drivers.postgres_connection import NotOurDatabase, end, parse_url, schema_at
from perdure.store.drivers.postgres_writer import LOCKS
from perdure.store.open import open_store
from perdure.store.verbs.base import access
from perdure.store.verbs.runs import queries
from perdure.wire.base.errors import BadRequest, NotFound, Unavailable, UnknownOutcome
from perdure.wire.runs.requests import Complete, EventItem, Publish

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


@pytest.fixture
async def store() -> AsyncIterator[PostgresStore]:
    async with postgres.fresh(migrated) as url:
        opened = await PostgresStore.open(url)
        yield opened
        await opened.close()


# --- groups ----------------------------------------------------------------------------------------------------------


async def test_verbs_that_wait_together_are_committed_together(store: PostgresStore) -> None:
    values = await asyncio.gather(*[store.write(note(name=f"n{n}", value=str(n))) for n in range(500)])
    assert list(values) == [str(n) for n in range(500)]
    assert store.groups <= 3
    assert store.group_verbs == 500


async def test_verbs_for_one_row_keep_their_order(store: PostgresStore) -> None:
    await store.write_all([note(name="n", value=str(n)) for n in range(600)])
    assert await store.read(read_note(name="n")) == "599"


async def test_topics_are_locked_before_all_else_and_once(store: PostgresStore) -> None:
    world = await World.make(store)
    await world.register()
    connection, said = await store._write._postgres.get(), list[str]()
    connection.add_query_logger(lambda one: said.append(one.query))

    async def first_two(publishing: Awaitable[object]) -> list[str]:
        said.clear()
        await publishing
        return said[2:4]  # after BEGIN and the marks

    statements = load("postgres")
    numbered = [statements["take_numbers"].sql, statements["insert_event"].sql]
    assert await first_two(world.publish("t", 1)) == numbered
    id = await world.running()
    publishing = world.report(id, [Publish("p", None, "t", [EventItem(raw(2))])])
    assert (await first_two(publishing))[0] == LOCKS["topic"]


async def test_a_refusal_in_a_group_disturbs_nobody(store: PostgresStore) -> None:
    answers = await store.write_all([note(name="a", value="1"), refuse(name="x"), note(name="b", value="2")])
    assert [answers[0], answers[2]] == ["1", "2"]
    assert isinstance(answers[1], BadRequest)
    assert store.groups == 1


@pytest.mark.parametrize("how", HOWS)
async def test_a_verb_that_fails_after_writing_fails_alone(
    store: PostgresStore, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []
    store.listen(heard.extend)
    verbs: list[Verb[str | None]] = [note(name=f"n{n}", value=str(n)) for n in range(6)]
    verbs.insert(3, fail_after_writing(how=how, name="half"))
    answers = list(await store.write_all(verbs))
    failed = answers.pop(3)
    assert answers == ["0", "1", "2", "3", "4", "5"]
    assert isinstance(failed, Exception) and not isinstance(failed, Unavailable)
    assert await store.write(access.default_project(id="mine", now_us=1)) == "mine"  # "half" was never made
    assert await store.read(read_note(name="half")) is None
    assert heard == []
    assert bool(caplog.records) is (not how.startswith("refusal"))


async def test_a_lone_failing_verb_raises_what_it_met(store: PostgresStore, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AttributeError, match="a bug"):
        await store.write(fail_after_writing(how="bug", name="half"))
    with pytest.raises(NotFound):
        await store.write(fail_after_writing(how="refusal", name="half"))


async def test_hints_come_before_the_answer_and_only_of_what_was_kept(store: PostgresStore) -> None:
    heard: list[object] = []
    store.listen(heard.extend)

    @verb(locks="")
    async def hint() -> None:
        await query("write_meta", name="a", value="1")
        await Notify(Metric("x"))

    await store.write(hint())
    assert heard == [Metric("x")]


async def test_a_listener_that_fails_does_not_stop_the_store(store: PostgresStore) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))

    @verb(locks="")
    async def hint() -> None:
        await Notify(Metric("x"))

    def broken(hints: object) -> None:
        raise RuntimeError("a broken listener")

    store.listen(broken)
    await store.write(hint())
    assert await store.write(note(name="a", value="1")) == "1"
    assert len(told) == 1


async def test_readers_cannot_write(store: PostgresStore) -> None:
    await store.write(note(name="a", value="1"))
    for look in (store.read, store.scan):
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await look(note(name="a", value="2"))
        assert await look(read_note(name="a")) == "1"


async def test_closing_finishes_what_was_accepted(store: PostgresStore) -> None:
    writes = [asyncio.ensure_future(store.write(note(name=f"n{n}", value="x"))) for n in range(1_000)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*writes) == ["x"] * 1_000
    with pytest.raises(Unavailable):
        await store.write(note(name="late", value="x"))


# --- callers and connections that go away ----------------------------------------------------------------------------


async def _backends(url: str, what: str, condition: str = "TRUE") -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(
            await connection.fetchval(
                f"SELECT COUNT({what}) FROM pg_stat_activity "
                f"WHERE application_name LIKE 'perdure %' AND datname = current_database() AND {condition}"
            )
        )
    finally:
        await connection.close()


@verb(locks="")
async def _noted(*, name: str) -> str | None:
    await query("write_meta", name=name, value="x")
    return name


async def test_cancelled_callers_leave_no_transaction_open(store: PostgresStore) -> None:
    """The verbs of cancelled callers run all the same, and the connections go on."""
    dice = random.Random(1)
    tasks: list[asyncio.Future[str | None]] = []
    for n in range(300):
        tasks.append(asyncio.ensure_future(store.write(_noted(name=f"n{n}"))))
        tasks.append(asyncio.ensure_future(store.read(read_note(name="n0"))))
        if dice.random() < 0.2:
            await asyncio.sleep(dice.random() * 0.003)
        dice.choice(tasks[-8:]).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(task.cancelled() for task in tasks) > 50
    await store.write(note(name="last", value="x"))
    for _ in range(READERS):  # each by another one, after all that it was asked before
        await store.read(read_note(name="last"))
    assert await _backends(store.url, "*", "state LIKE 'idle in transaction%'") == 0
    started = [n for n in range(300) if not (tasks[2 * n].cancelled())]
    for n in started:
        assert await store.read(read_note(name=f"n{n}")) == "x"


async def test_killed_connections_under_load_lose_and_repeat_nothing(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every start is there once, whenever its connection was killed."""
    monkeypatch.setattr(postgres_writer, "RECONNECT_SECONDS_MAX", 60.0)  # a reader may lose several in a row
    world = await World.make(store)
    await world.register()
    stop = False
    kills = 0

    async def kill() -> None:
        nonlocal kills
        seen = -1
        while not stop:
            await asyncio.sleep(random.uniform(0.005, 0.05))
            if store.groups > seen:  # a machine that is too busy to connect and commit in between would get nowhere
                kills += await _backends(store.url, "pg_terminate_backend(pid)")
                seen = store.groups

    async def life() -> list[str]:
        ids = []
        for _ in range(25):
            id = await world.start()
            ids.append(id)
            await world.get(id)
        return ids

    async def go_on() -> None:
        while kills <= 5:
            await store.write(note(name="n", value="x"))

    killing = asyncio.ensure_future(kill())
    going_on = asyncio.ensure_future(go_on())
    ids = [id for several in await asyncio.gather(*[life() for _ in range(20)]) for id in several]
    await going_on
    stop = True
    await killing
    assert len(set(ids)) == 500
    connection = await asyncpg.connect(store.url)
    assert await connection.fetchval("SELECT COUNT(*) FROM executions") == 500
    await connection.close()
    claimed = await world.claim(capacity=500)
    assert sorted(one.id for one in claimed) == sorted(ids)
    for one in claimed[:50]:
        await world.report(one.id, [step("s", 1)])
        assert (await world.report(one.id, end=Complete(step("x", 1).value))).ended
    await world.check()


@pytest.mark.parametrize("arrives", [True, False], ids=["the commit arrived", "the commit was lost"])
async def test_a_commit_without_an_answer_is_asked_after(
    store: PostgresStore, arrives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World.make(store)
    await world.register()
    real = asyncpg.Connection.execute
    lost = 0

    async def execute(self: "asyncpg.Connection[asyncpg.Record]", text: str, *values: object, **rest: object) -> str:
        nonlocal lost
        if text == "COMMIT" and not lost:
            lost += 1
            if arrives:
                await real(self, text)
            self.terminate()
            raise ConnectionResetError("the answer never came")
        return await real(self, text, *values, **rest)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    id = await world.start()  # not repeatable by itself: its id would be taken
    assert lost == 1
    assert await world.claim_ids() == [id]
    await world.check()


async def test_what_a_crash_took_back_is_done_again_though_others_got_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A crash forgets uncommitted transactions and their numbers. A later commit under a number says nothing about the
    lost transaction."""
    with postgres.running({**postgres.FAST, "wal_writer_delay": "10s"}) as server:
        url = server.database_url(await postgres.make(server=server))
        store = await PostgresStore.open(url)
        await store.write(note(name="before", value="1"))
        real = asyncpg.Connection.execute
        numbers: list[int] = []

        async def execute(
            self: "asyncpg.Connection[asyncpg.Record]", text: str, *values: object, **rest: object
        ) -> str:
            if text != "COMMIT" or numbers:
                return await real(self, text, *values, **rest)  # type: ignore[arg-type]  # handed through
            ours = await self.fetchval("SELECT pg_current_xact_id()::TEXT::BIGINT")
            server.kill()
            server.start()
            other = await asyncpg.connect(url)
            while not numbers or numbers[-1] < ours:
                numbers.append(await other.fetchval("SELECT pg_current_xact_id()::TEXT::BIGINT"))
            await other.close()
            assert numbers[-1] == ours
            raise ConnectionResetError("the answer never came")

        monkeypatch.setattr(asyncpg.Connection, "execute", execute)
        await store.write(note(name="a", value="2"))
        assert numbers
        assert await store.read(read_note(name="a")) == "2"
        await store.close()


async def test_when_nobody_can_tell_the_outcome_is_unknown(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await store.write(note(name="a", value="1"))
    monkeypatch.setattr(postgres_writer, "RECONNECT_SECONDS_MAX", 0.3)
    real = asyncpg.Connection.execute
    down = True

    async def execute(self: "asyncpg.Connection[asyncpg.Record]", text: str, *values: object, **rest: object) -> str:
        if text == "COMMIT" and down:
            self.terminate()
            raise ConnectionResetError("the answer never came")
        return await real(self, text, *values, **rest)  # type: ignore[arg-type]  # handed through

    async def connect(*values: object, **rest: object) -> object:
        raise ConnectionRefusedError("nobody there")

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.Connection, "execute", execute)
        patch.setattr(asyncpg, "connect", connect)
        with pytest.raises(UnknownOutcome, match="same key"):
            await store.write(note(name="a", value="2"))
        for _ in range(2):
            with pytest.raises(Unavailable, match="nothing happened"):
                await store.write(note(name="a", value="3"))
    assert caplog.text.count("The database cannot be used") == 1  # an outage is said once
    assert await store.write(note(name="b", value="1")) == "1"  # back by itself
    assert await store.read(read_note(name="a")) == "1"


async def test_a_server_that_stops_and_starts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_writer, "RECONNECT_SECONDS_MAX", postgres.START_SECONDS_MAX)
    with postgres.running() as server:
        url = server.database_url(await postgres.make(server=server))
        store = await PostgresStore.open(url)
        await store.write(note(name="a", value="1"))
        server.kill()
        waiting = [asyncio.ensure_future(store.write(note(name=f"n{n}", value="x"))) for n in range(50)]
        looking = asyncio.ensure_future(store.read(read_note(name="a")))
        async with asyncio.timeout(60):
            while store._write._postgres._connection is not None:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.01)
        server.start()
        assert await asyncio.gather(*waiting) == ["x"] * 50
        assert await looking == "1"
        await store.close()


# --- the database ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_server_that_ends_does_not_wait_for_a_database_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_writer, "CLOSE_SECONDS_MAX", 0.2)
    with postgres.running() as server:
        name = await postgres.make(server=server)
        async with Proxy(socket=f"{server.url.partition('host=')[2]}/.s.PGSQL.5432") as line:
            store = await PostgresStore.open(f"postgresql://perdure@127.0.0.1:{line.port}/{name}")
            await store.write(note(name="before", value="x"))
            line.set(down=True)
            writing = asyncio.ensure_future(store.write(note(name="meanwhile", value="x")))
            reading = asyncio.ensure_future(store.read(read_note(name="before")))
            await asyncio.sleep(0)
            async with asyncio.timeout(60):
                await store.close()
            for asked in (writing, reading):
                with pytest.raises(UnknownOutcome, match="The server stopped before"):
                    await asked


async def test_a_task_is_ended_even_if_its_connection_is_lost_while_it_is_cancelled() -> None:
    turns = 0

    async def works() -> None:
        nonlocal turns
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                turns += 1
                if turns == 3:
                    raise
                # As a driver does that finds its connection closed.

    task = asyncio.ensure_future(works())
    await asyncio.sleep(0)
    await end(task)
    assert task.done() and turns == 3


async def test_stores_that_open_at_once_make_one_schema_and_one_epoch() -> None:
    async with postgres.fresh() as url:
        stores = await asyncio.gather(*[PostgresStore.open(url) for _ in range(4)])
        assert len({store.epoch for store in stores}) == 1
        ids = await asyncio.gather(
            *[store.write(access.default_project(id=f"p{n}", now_us=1)) for n, store in enumerate(stores)]
        )
        assert len(set(ids)) == 1
        for store in stores:
            await store.close()


async def test_what_is_not_ours_is_refused() -> None:
    async with postgres.fresh(migrated) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("UPDATE meta SET value = '999' WHERE name IN ('schema', 'schema_least')")
        with pytest.raises(NotOurDatabase, match="schema 999"):
            await open_store(url)
        await connection.execute("DROP TABLE meta; CREATE TABLE meta (x INTEGER)")
        with pytest.raises(NotOurDatabase, match="another program"):
            await open_store(url)
        await connection.close()


async def test_a_server_that_may_lose_what_it_acknowledged_is_refused() -> None:
    async with postgres.fresh(migrated) as url:
        name = urlsplit(url).path.removeprefix("/")
        await postgres.admin(f"ALTER DATABASE {name} SET synchronous_commit = off")
        with pytest.raises(NotOurDatabase, match="synchronous_commit=off"):
            await open_store(url)
        await (await open_store(postgres.with_option(url, "allow_data_loss", "on"))).close()
        await postgres.admin(f"ALTER DATABASE {name} RESET synchronous_commit")
        await postgres.admin(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with pytest.raises(Unavailable, match="read-only"):
            await open_store(url)


async def test_without_prepared_statements_everything_works_too() -> None:
    async with postgres.fresh(migrated) as url:
        store = await PostgresStore.open(postgres.with_option(url, "prepared_statements", "off"))
        world = await World.make(store)
        await world.register()
        ids = await asyncio.gather(*[world.start() for _ in range(20)])
        assert sorted(await world.claim_ids()) == sorted(ids)
        await asyncio.gather(*[world.finish(id) for id in ids])
        await world.check()
        assert await store.scan(queries.counts()) == {"phases": [], "queued": [], "paused": []}
        await store.close()


def test_our_own_settings_are_taken_out_of_the_address() -> None:
    address = parse_url("postgresql://u@/db?host=/run/pg&prepared_statements=off&listen_dsn=postgresql://direct/db")
    assert address.dsns == ("postgresql://u@/db?host=/run/pg",)
    assert (address.prepared_statements, address.allow_data_loss) == (False, False)
    assert address.listen_dsn == "postgresql://direct/db"
    with pytest.raises(BadRequest, match="on or off"):
        parse_url("postgresql://u@/db?allow_data_loss=perhaps")


# --- locks that others hold ------------------------------------------------------------------------------------------


@pytest.fixture(params=["lock_timeout", "statement_timeout"])
def impatient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One limit is 150 ms, the other is out of reach. A verb ended by either is tried for a minute."""
    set_limits(monkeypatch, **{"lock_timeout": 60_000, "statement_timeout": 60_000, request.param: 150})
    monkeypatch.setattr(postgres_lock_queue, "WAIT_SECONDS_MAX", 60.0)
    return str(request.param)


async def test_whoever_waits_too_long_for_a_lock_waits_again(store: PostgresStore, impatient: str) -> None:
    await store.write(note(name="a", value="1"))
    async with held(store.url, "meta", "a"):
        writing = asyncio.ensure_future(store.write(note(name="a", value="2")))
        await are_aside(store, 1)
        assert not writing.done()
    assert await writing == "2"
    assert await store.read(read_note(name="a")) == "2"


async def test_a_lock_that_stays_is_told_and_keeps_nobody_else(
    store: PostgresStore, impatient: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another transaction holds one row of 64: only the row's verb must try again, and nothing of the verb happened."""
    await store.write_all([note(name=f"n{n}", value="1") for n in range(64)])
    async with held(store.url, "meta", "n40"):
        writing = [asyncio.ensure_future(store.write(note(name=f"n{n}", value="2"))) for n in range(64)]
        late = writing.pop(40)
        assert await asyncio.gather(*writing) == ["2"] * 63
        await are_aside(store, 1)
        end_waits(store)
        with pytest.raises(Unavailable, match="nothing happened"):
            await late
    assert await store.read(read_note(name="n40")) == "1"
    assert await store.write(note(name="n40", value="3")) == "3"
    assert await _backends(store.url, "*", "state LIKE 'idle in transaction%'") == 0


async def test_a_scan_that_takes_too_long_is_not_tried_again(
    store: PostgresStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry = "SELECT NULL, NULL, set_config('statement_timeout', '100ms', true)"
    nap_query = parse("-- name: nap\nSELECT pg_sleep(30);\n", "test", "postgres")
    for lane in store._scans.lanes:
        lane._queries = lane._queries | nap_query

    @verb(reads=True)
    async def nap() -> None:
        await query("nap")

    said: list[str] = []
    for lane in store._scans.lanes:
        (await lane._postgres.get()).add_query_logger(lambda one: said.append(one.query))
    with monkeypatch.context() as patch, pytest.raises(Unavailable, match="statement timeout"):
        patch.setitem(postgres_writer.PREPARE, "scan", hurry)
        await store.scan(nap())
    assert sum("pg_sleep" in text for text in said) == 1
    assert store.epoch.startswith(str(await store.scan(read_note(name="epoch"))))


async def test_the_isolation_that_a_database_prefers_is_not_ours() -> None:
    """Each look must see every commit before the look's transaction got locks."""

    @verb(reads=True)
    async def level() -> str:
        ((found,),) = await query("level")
        return str(found)

    asked = parse("-- name: level\nSELECT current_setting('transaction_isolation');\n", "test", "postgres")
    async with postgres.fresh(migrated) as url:
        name = urlsplit(url).path.lstrip("/")
        await postgres.admin(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
        store = await PostgresStore.open(url)
        for writer in (store._write, store._sweep, *store._reads):
            writer._queries = writer._queries | asked
            assert await store._one(writer, level()) == "read committed"
        await store.close()


# --- what the database asks to do again ------------------------------------------------------------------------------

# A sequence is not rolled back: it is the first two tries that meet this.
REFUSES_TWICE = """
CREATE SEQUENCE tries;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.name = 'n3' AND nextval('tries') <= 2 THEN RAISE EXCEPTION 'once more' USING ERRCODE = '{state}'; END IF;
  RETURN NEW; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON meta DEFERRABLE INITIALLY {when} FOR EACH ROW EXECUTE FUNCTION refuse()
"""


@pytest.mark.parametrize("when", ["IMMEDIATE", "DEFERRED"], ids=["in a statement", "at the commit"])
@pytest.mark.parametrize("state", ["40P01", "40001"], ids=["deadlock", "serialisation"])
async def test_nobody_hears_of_a_deadlock_or_a_serialisation_failure(
    own: str, when: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    await postgres.admin(REFUSES_TWICE.format(state=state, when=when), url=own)
    store = await PostgresStore.open(own)
    answers = await store.write_all([note(name=f"n{n}", value=str(n)) for n in range(6)])
    assert answers == ["0", "1", "2", "3", "4", "5"]
    assert store.groups == 1 and caplog.records == []
    looking = await asyncpg.connect(own)
    assert await looking.fetchval("SELECT last_value FROM tries") == 3
    await looking.close()
    await store.close()


# --- migrations of a database that has grown -------------------------------------------------------------------------


@pytest.fixture
async def own() -> AsyncIterator[str]:
    """A database of the test's own."""
    name = await postgres.make()
    url = postgres.shared().database_url(name)
    await migrated(url)
    yield url
    await postgres.drop(name)


def _one_more(monkeypatch: pytest.MonkeyPatch, sql: str) -> int:
    """Add a migration; returns its number."""
    known = migrations("postgres")
    more = Migration(known[-1].number + 1, "more", sql, compatible=True)
    monkeypatch.setattr(postgres_connection, "migrations", lambda dialect: [*known, more])
    return more.number


async def test_a_migration_may_take_longer_than_any_other_statement(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = urlsplit(own).path[1:]
    for seconds, last in ((0.5, False), (5.0, True)):  # on a slow machine 0.5 s may end another statement
        number = _one_more(monkeypatch, f"SELECT pg_sleep({2 * seconds})")
        monkeypatch.setattr(postgres_connection, "COMMAND_SECONDS_MAX", seconds)
        await postgres.admin(f"ALTER DATABASE {name} SET statement_timeout = '{seconds}s'")
        try:
            await (await PostgresStore.open(own)).close()
            break
        except (Unavailable, TimeoutError, asyncpg.PostgresError):
            if last:
                raise
    await postgres.admin(f"ALTER DATABASE {name} RESET statement_timeout")
    assert (await schema_at(own)).number == number


async def test_a_migration_does_not_queue_behind_a_long_look(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions queue behind a waiting migration, so the migration gives up and asks again."""
    number = _one_more(monkeypatch, "ALTER TABLE executions ADD COLUMN more INTEGER")
    monkeypatch.setattr(postgres_connection, "MIGRATE_LOCK_SECONDS", 0.2)
    monkeypatch.setattr(postgres_connection, "MIGRATE_SECONDS_MAX", 1.0)
    looking = await asyncpg.connect(own)
    reader = await asyncpg.connect(own)
    reading = reader.transaction()
    await reading.start()
    await reader.execute("SELECT 1 FROM executions")
    with pytest.raises(Unavailable, match="another session holds a lock"):
        await PostgresStore.open(own)
    monkeypatch.setattr(postgres_connection, "MIGRATE_SECONDS_MAX", 60.0)
    opening = asyncio.create_task(PostgresStore.open(own))

    async def waits() -> bool:
        return bool(
            await looking.fetchval(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER%'"
            )
        )

    await until(waits, 30, "the migration waits for the table")
    await reading.rollback()
    await (await opening).close()
    await reader.close()
    await looking.close()
    assert (await schema_at(own)).number == number
