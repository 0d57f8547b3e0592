"""The SQLite driver: groups, refusals, failures, the disk, the file."""

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import apsw
import pytest
from tests.store.disk import Disk, watched_disk
from tests.store.world import World, raw, step

from perdure.store.base.executions import JournalRow
from perdure.store.base.interface import Metric, Notify, Trouble, query, query_many, verb
from perdure.store.drivers import disk as disks
from perdure.store.drivers import sqlite
from perdure.store.drivers.file_lock import StoreInUse
from perdure.store.drivers.sqlite import NotOurFile, SQLiteStore
from perdure.store.open import open_store
from perdure.store.verbs.base import access
from perdure.store.verbs.runs import queries, reports
from perdure.wire.base.errors import BadRequest, NotFound, Unavailable, UnknownOutcome
from perdure.wire.base.records import Kind
from perdure.wire.runs.requests import ReportItem, StartItem

ROOT = Path(__file__).resolve().parents[3]


@verb(locks="")
async def note(*, name: str, value: str) -> str:
    await query("write_meta", name=name, value=value)
    return value


@verb(reads=True)
async def read_note(*, name: str) -> str | None:
    rows = await query("read_meta", name=name)
    return rows[0][0] if rows else None


@verb(locks="")
async def refuse(*, name: str) -> None:
    raise BadRequest(f"{name} is refused")


@verb(locks="")
async def fail_after_writing(*, how: str, name: str) -> None:
    if how == "refusal after a silent write":
        await query("write_meta", name=name, value="1")
        raise NotFound("too late")
    await query("insert_project", id=name, name=name, now_us=1)
    await Notify(Metric("never"))
    if how == "refusal":
        raise NotFound("too late")
    if how == "constraint":
        await query_many("insert_tag", [("p", "n", "v", "e"), ("p", "n", "v", "e")])
    elif how == "bug":
        raise AttributeError("a bug")
    elif how == "unknown query":
        await query("no such query")
    elif how == "missing value":
        await query("insert_project", id="x")
    elif how == "foreign await":
        await asyncio.sleep(0)
    elif how == "too big a number":
        await query("insert_project", id="x", name="x", now_us=2**70)
    elif how == "half a character":
        await query("insert_project", id="x", name="\ud800", now_us=1)


HOWS = [
    "refusal",
    "refusal after a silent write",
    "constraint",
    "bug",
    "unknown query",
    "missing value",
    "foreign await",
    "too big a number",
    "half a character",
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    opened = SQLiteStore(str(tmp_path / "store.db"))
    yield opened
    await opened.close()


# --- groups ----------------------------------------------------------------------------------------------------------


async def test_verbs_that_wait_together_are_committed_together(store: SQLiteStore) -> None:
    before = store.groups
    values = await asyncio.gather(*[store.write(note(name=f"n{n}", value=str(n))) for n in range(500)])
    assert list(values) == [str(n) for n in range(500)]
    assert store.groups - before <= 3
    assert store.group_verbs == 500


async def test_a_group_is_bounded(store: SQLiteStore) -> None:
    answers = await store.write_all([note(name="n", value=str(n)) for n in range(2_500)])
    assert len(answers) == 2_500
    assert store.groups == 3
    assert await store.read(read_note(name="n")) == "2499"


@pytest.mark.parametrize(("steps", "value", "groups"), [(300, "", 2), (50, "x" * 15_000, 3)])
async def test_a_group_is_bounded_by_what_its_verbs_write_too(
    store: SQLiteStore, steps: int, value: str, groups: int
) -> None:
    """A worker's report is one verb, however many or large its steps are."""
    items = [ReportItem("nothing", 1, 1, 1, [step("s", value)])] * steps
    many = [reports.record_steps(project_id="p", worker_id="w", items=items, now_us=1) for _ in range(7)]
    for replies in await store.write_all(many):
        assert not isinstance(replies, Exception)
        assert all(reply.lost for reply in replies)
    assert (store.group_verbs, store.groups) == (7, groups)


async def test_a_refusal_in_a_group_disturbs_nobody(store: SQLiteStore) -> None:
    answers = await store.write_all([note(name="a", value="1"), refuse(name="x"), note(name="b", value="2")])
    assert [answers[0], answers[2]] == ["1", "2"]
    assert isinstance(answers[1], BadRequest)
    assert store.groups == 1
    assert await store.read(read_note(name="b")) == "2"


@pytest.mark.parametrize("how", HOWS)
async def test_a_verb_that_fails_after_writing_fails_alone(
    store: SQLiteStore, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []
    store.listen(heard.extend)
    answers = await store.write_all(
        [note(name="a", value="1"), fail_after_writing(how=how, name="half"), note(name="b", value="2")]
    )
    assert [answers[0], answers[2]] == ["1", "2"]
    assert isinstance(answers[1], Exception) and not isinstance(answers[1], Unavailable)
    assert await store.write(access.default_project(id="mine", now_us=1)) == "mine"  # "half" was never made
    assert await store.read(read_note(name="half")) is None
    assert heard == []
    assert bool(caplog.records) is (not how.startswith("refusal"))
    assert (await store.write(note(name="c", value="3"))) == "3"


@verb(locks="")
async def write_row(*, execution_id: str, seq: int) -> int:
    """Insert a row that may be written late."""
    await query_many("insert_journal", [JournalRow(execution_id, seq, 1, Kind.CLAIMED, 1)])
    return seq


@verb(reads=True)
async def rows_of(*, execution_id: str) -> list[int]:
    return [row[0] for row in await query("read_journal", execution_id=execution_id, after=0, limit=9)]


async def test_rows_of_many_verbs_are_written_together_and_seen_by_whoever_looks(store: SQLiteStore) -> None:
    insert = store._queries["insert_journal"].sql
    ran: list[str] = []
    store._writer.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: ran.append(event["sql"]))
    answers = await store.write_all(
        [
            *[write_row(execution_id="a", seq=seq) for seq in (1, 2)],
            write_row(execution_id="b", seq=1),
            rows_of(execution_id="a"),
            write_row(execution_id="a", seq=3),
        ]
    )
    assert answers == [1, 2, 1, [1, 2], 3]
    writes = [sql == insert for sql in ran if sql == insert or "FROM journal" in sql]
    assert writes == [True, True, True, False, True]  # the first three at the look, the last at the end
    assert await store.read(rows_of(execution_id="a")) == [1, 2, 3]


async def test_a_row_that_cannot_be_written_late_fails_its_own_verb_alone(store: SQLiteStore) -> None:
    answers = await store.write_all(
        [
            write_row(execution_id="a", seq=1),
            write_row(execution_id="a", seq=1),
            note(name="n", value="1"),
            write_row(execution_id="a", seq=2),
        ]
    )
    assert [answers[0], *answers[2:]] == [1, "1", 2]
    assert isinstance(answers[1], apsw.ConstraintError)
    assert await store.read(rows_of(execution_id="a")) == [1, 2]


async def test_a_lone_failing_verb_raises_what_it_met(store: SQLiteStore, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AttributeError, match="a bug"):
        await store.write(fail_after_writing(how="bug", name="half"))
    with pytest.raises(NotFound):
        await store.write(fail_after_writing(how="refusal", name="half"))


async def test_a_cancelled_caller_s_verb_still_runs(store: SQLiteStore) -> None:
    task = asyncio.ensure_future(store.write(note(name="a", value="1")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.write(note(name="b", value="2"))
    assert await store.read(read_note(name="a")) == "1"


async def test_a_listener_that_fails_does_not_stop_the_store(store: SQLiteStore) -> None:
    def broken(hints: object) -> None:
        raise RuntimeError("a broken listener")

    @verb(locks="")
    async def hint() -> None:
        await Notify(Metric("something"))

    loop = asyncio.get_running_loop()
    told: list[dict[str, object]] = []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    store.listen(broken)
    await store.write(hint())
    assert await store.write(note(name="a", value="1")) == "1"
    assert len(told) == 1


async def test_hints_come_after_the_commit_and_only_of_what_was_kept(store: SQLiteStore) -> None:
    seen: list[str | None] = []

    @verb(locks="")
    async def hint() -> None:
        await query("write_meta", name="a", value="1")
        await Notify(Metric("x"))

    reader = apsw.Connection(store.path, flags=apsw.SQLITE_OPEN_READONLY)
    store.listen(lambda hints: seen.append(reader.execute("SELECT value FROM meta WHERE name = 'a'").get))
    await store.write(hint())
    assert seen == ["1"]
    reader.close()


async def test_readers_see_what_is_committed_and_cannot_write(store: SQLiteStore) -> None:
    await store.write(note(name="a", value="1"))
    assert await store.read(read_note(name="a")) == "1"
    assert await store.scan(read_note(name="a")) == "1"
    for look in (store.read, store.scan):
        with pytest.raises(TypeError, match="must not run 'write_meta', which writes"):
            await look(note(name="a", value="2"))
    assert await store.read(read_note(name="a")) == "1"


async def test_a_plan_does_not_depend_on_the_values_of_one_call(tmp_path: Path) -> None:
    """Otherwise SQLite prepares the statement again whenever a value is bound."""
    store = SQLiteStore(str(tmp_path / "plans.db"))
    connections = (store._writer, store._reader)
    assert all(one.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) for one in connections)
    await store.close()


async def test_in_memory_it_is_the_same_store() -> None:
    store = SQLiteStore(":memory:")
    answers = await store.write_all(
        [note(name="a", value="1"), fail_after_writing(how="refusal", name="x"), note(name="b", value="2")]
    )
    assert [answers[0], answers[2]] == ["1", "2"]
    assert await store.read(read_note(name="b")) == await store.scan(read_note(name="b")) == "2"
    await store.close()


# --- closing ---------------------------------------------------------------------------------------------------------


async def test_closing_finishes_what_was_accepted(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "s.db"))
    writes = [asyncio.ensure_future(store.write(note(name=f"n{n}", value="x"))) for n in range(3_000)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*writes) == ["x"] * 3_000
    with pytest.raises(Unavailable):
        await store.write(note(name="late", value="x"))
    await store.close()
    assert not (tmp_path / "s.db-wal").exists()
    again = SQLiteStore(str(tmp_path / "s.db"))
    assert await again.read(read_note(name="n2999")) == "x"
    assert again.epoch == store.epoch
    await again.close()


# --- the disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[tuple[SQLiteStore, Disk]]:
    with watched_disk() as disk:
        store = SQLiteStore(str(tmp_path / "s.db"))
        yield store, disk
        disk.full_from, disk.sync_fails = None, False
        await store.close()


async def test_every_acknowledged_write_was_synced_before(on_disk: tuple[SQLiteStore, Disk]) -> None:
    """Only a power cut would show a missing sync, so the test counts syncs and checks their place."""
    store, disk = on_disk
    for n in range(20):
        before = disk.syncs("-wal")
        await store.write(note(name="a", value=str(n)))
        assert disk.syncs("-wal") == before + 1
        assert disk.log[-1] == ("sync", "s.db-wal")  # nothing of it was written after the sync
    before = disk.syncs("-wal")
    await asyncio.gather(*[store.write(note(name="a", value=str(n))) for n in range(100)])
    assert 1 <= disk.syncs("-wal") - before <= 3


async def test_no_sync_leaves_to_the_disk_what_it_holds_back(on_disk: tuple[SQLiteStore, Disk]) -> None:
    """A plain sync of macOS leaves data in the disk's buffer."""
    store, disk = on_disk
    for n in range(20):
        await store.write(note(name=f"n{n}", value="x" * 1_000_000))
    assert disk.syncs("-wal") and disk.syncs("s.db")
    assert disk.half_syncs == 0


@pytest.mark.parametrize("amount", [1, 50])
async def test_a_full_disk_refuses_and_goes_on_when_there_is_space(
    on_disk: tuple[SQLiteStore, Disk], amount: int, caplog: pytest.LogCaptureFixture
) -> None:
    store, disk = on_disk
    heard: list[object] = []
    store.listen(heard.extend)
    await store.write(note(name="kept", value="1"))
    for _ in range(3):
        disk.full_from = "-wal"
        answers = await asyncio.gather(
            *[store.write(note(name=f"n{n}", value="x" * 10_000)) for n in range(amount)], return_exceptions=True
        )
        assert all(isinstance(answer, Unavailable) and "nothing happened" in str(answer) for answer in answers)
        assert await store.read(read_note(name="kept")) == "1"
        assert await store.read(read_note(name="n0")) is None
        disk.full_from = None
        await store.write(note(name="kept", value="1"))
    assert await store.write(note(name="n0", value="later")) == "later"
    assert Metric("failed_groups") in heard
    assert await store.scan(queries.doctor(checks=["integrity"])) == {"integrity": ["ok"]}


async def test_a_file_that_became_read_only_refuses_and_goes_on(
    store: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []
    store.listen(heard.extend)
    await store.write(note(name="a", value="1"))
    store._writer.execute("PRAGMA query_only=ON")
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"readonly.*nothing happened"):
            await store.write(note(name="a", value="2"))
        assert await store.read(read_note(name="a")) == "1"
    assert any(isinstance(hint, Trouble) and "readonly" in hint.why for hint in heard)
    store._writer.execute("PRAGMA query_only=OFF")
    assert await store.write(note(name="a", value="3")) == "3"


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open stays where it is")
@pytest.mark.parametrize("ending", ["", "-wal"])
@pytest.mark.parametrize("instead", [None, b"another"])
async def test_a_file_that_is_not_in_its_place_any_more_takes_nothing(
    tmp_path: Path, ending: str, instead: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Writes into a deleted or replaced file are gone with the process."""
    store = SQLiteStore(str(tmp_path / "s.db"))
    await store.write(note(name="a", value="1"))
    place = tmp_path / f"s.db{ending}"
    place.rename(tmp_path / "elsewhere")
    if instead is not None:
        place.write_bytes(instead)
    with pytest.raises(Unavailable, match=r"moved, deleted or replaced.*nothing happened"):
        await store.write(note(name="a", value="2"))
    assert await store.read(read_note(name="a")) == "1"
    (tmp_path / "elsewhere").rename(place)
    await store.write(note(name="a", value="3"))
    await store.close()
    again = SQLiteStore(str(tmp_path / "s.db"))
    assert await again.read(read_note(name="a")) == "3"
    await again.close()


async def test_a_full_disk_under_the_checkpoint_loses_nothing(
    on_disk: tuple[SQLiteStore, Disk], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, disk = on_disk
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 4)
    store._checkpoint_at = 4
    disk.full_from = ".db"
    for n in range(50):
        await store.write(note(name=f"n{n}", value="x" * 5_000))
    assert "postponed" in caplog.text
    assert await store.read(read_note(name="n0")) == "x" * 5_000
    disk.full_from = None
    await store.write(note(name="last", value="x"))


async def test_a_checkpoint_that_failed_is_tried_again_when_there_is_room(
    on_disk: tuple[SQLiteStore, Disk], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, disk = on_disk
    now = manual_time(monkeypatch, sqlite)
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 4)
    store._checkpoint_at = 4
    disk.full_from = ".db"
    for _ in range(10):
        now[0] += sqlite.RETRY_SECONDS_MAX
        for name in ("soon", "later"):  # the second waits for a checkpoint after the first
            await store.write(note(name=name, value="x" * 5_000))
    assert caplog.text.count("postponed") == 1
    disk.full_from = None
    before = disk.syncs("s.db")
    for pause in (sqlite.RETRY_SECONDS_MAX - 1, 2):
        assert disk.syncs("s.db") == before
        now[0] += pause
        for name in ("soon", "later"):
            await store.write(note(name=name, value="x"))
    assert disk.syncs("s.db") > before
    assert caplog.text.count("the log is in the file now") == 1


async def test_a_full_disk_takes_writes_into_the_log_that_is_there(
    on_disk: tuple[SQLiteStore, Disk], caplog: pytest.LogCaptureFixture
) -> None:
    """The log may not grow, and the file has room."""
    store, disk = on_disk
    for n in range(20):
        await store.write(note(name="n", value=f"{n}" * 5_000))
    disk.full_from, disk.full_after = "-wal", os.path.getsize(store.path + "-wal")
    with pytest.raises(Unavailable):
        await store.write(note(name="n", value="x" * 500_000))
    assert await store.write(note(name="n", value="small")) == "small"
    assert [one.levelname for one in caplog.records] == ["ERROR", "WARNING"]
    assert "writes again" in caplog.text


def manual_time(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0]))
    return now


def test_refused_writes_are_logged_at_growing_intervals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = manual_time(monkeypatch, disks)
    refusals = disks.Refusals(logging.getLogger("perdure.store"), "The store")
    for _ in range(20 * 60):
        refusals.add("the disk is full")
        now[0] += 0.05
    assert len(caplog.records) <= 6
    assert "cannot write: the disk is full (" in caplog.text
    refusals.end()
    refusals.end()
    assert caplog.records[-1].getMessage() == "The store writes again after 60 s; it refused 1200 times."
    amount = len(caplog.records)
    refusals.add("the disk is full")  # again within the pause
    refusals.end()
    assert len(caplog.records) == amount


async def test_a_file_shrinks_although_the_store_is_busy(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "s.db"))
    await store.write(note(name="large", value="x" * 20_000_000))
    await store.write(note(name="large", value=""))
    for _ in range(4):
        store._checkpoint_at = 0
        busy = asyncio.create_task(store.write(note(name="busy", value="x")))
        await asyncio.sleep(0)
        await store.vacuum()
        await busy
    assert store._reader.pragma("freelist_count") == 0
    groups = store.groups
    await store.vacuum()
    assert store.groups == groups, "there is nothing to do"
    await store.close()
    assert os.path.getsize(store.path) < 5_000_000


async def test_a_read_only_file_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "s.db")
    await SQLiteStore(path).close()
    monkeypatch.setattr(sqlite, "is_read_only", lambda path: True)
    with pytest.raises(NotOurFile, match="its file system is read-only"):
        SQLiteStore(path)
    monkeypatch.undo()
    assert not disks.is_read_only(path) and not disks.is_read_only(path + "/missing")


async def test_a_sync_that_fails_is_an_unknown_outcome(
    on_disk: tuple[SQLiteStore, Disk], caplog: pytest.LogCaptureFixture
) -> None:
    """The commit is in the file, but perhaps not for ever: neither done nor undone can be promised."""
    store, disk = on_disk
    disk.sync_fails = True
    with pytest.raises(UnknownOutcome):
        await store.write(note(name="a", value="1"))
    disk.sync_fails = False
    assert await store.write(note(name="a", value="2")) == "2"
    assert await store.read(read_note(name="a")) == "2"


LIMITED = """
import asyncio, resource, sys
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.wire.base.errors import Unavailable
from tests.store.drivers.test_driver import note, read_note

async def main(path):
    store = SQLiteStore(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
    done = 0
    try:
        for n in range(1_000):
            await store.write(note(name=f"n{n}", value="x" * 20_000))
            done += 1
    except Unavailable as error:
        print("refused", done, flush=True)
    assert 0 < done < 1_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.write(note(name="after", value="space"))
    for n in range(done):
        assert await store.read(read_note(name=f"n{n}")) is not None
    assert await store.read(read_note(name=f"n{done}")) is None
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such limit there")
def test_a_limit_on_the_file_s_size_is_like_a_full_disk(tmp_path: Path) -> None:
    import resource

    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    run = _run(LIMITED, str(tmp_path / "s.db"))
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("refused")


def _run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


async def test_the_log_stays_bounded_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 50)
    store = SQLiteStore(str(tmp_path / "s.db"))
    world = await World.make(store)
    await world.register()
    biggest = 0
    for _ in range(60):
        await world.start_all([StartItem("wf", payload=raw("x" * 1_000)) for _ in range(50)])
        biggest = max(biggest, os.path.getsize(store.path + "-wal"))
    assert os.path.getsize(store.path) > 3_000_000  # not everything is in the log
    assert biggest < 2_000_000
    await store.close()


async def test_a_long_read_does_not_hold_up_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log cannot begin anew during the read, yet commits do not wait."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 20)
    monkeypatch.setattr(sqlite, "WAL_PAGES_TRUNCATE", 40)
    store = SQLiteStore(str(tmp_path / "s.db"))
    reader = apsw.Connection(store.path, flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN").execute("SELECT COUNT(*) FROM meta").fetchall()
    checkpoints: list[int] = []
    real = store._checkpoint

    def checkpoint() -> None:
        checkpoints.append(store._wal_pages)
        real()

    monkeypatch.setattr(store, "_checkpoint", checkpoint)
    for n in range(100):
        await store.write(note(name=f"n{n % 7}", value=f"{n:04000}"))
    assert 2 <= len(checkpoints) <= 100 * 5 // 20  # not one for each commit
    reader.execute("COMMIT")
    for n in range(30):
        await store.write(note(name=f"n{n % 7}", value=f"{n:04000}"))
    size = os.path.getsize(store.path + "-wal")
    assert size < 60 * 4_200
    reader.close()
    await store.close()


async def test_a_log_that_a_reader_keeps_growing_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 20)
    monkeypatch.setattr(sqlite, "WAL_PAGES_ALARM", 60)
    store = SQLiteStore(str(tmp_path / "s.db"))
    reader = apsw.Connection(store.path, flags=apsw.SQLITE_OPEN_READONLY)
    for told in (1, 2):
        reader.execute("BEGIN").execute("SELECT COUNT(*) FROM meta").fetchall()
        for n in range(100):
            await store.write(note(name=f"n{n % 7}", value=f"{n:04000}"))
        assert caplog.text.count("another program reads the store") == told
        reader.execute("COMMIT")
        for n in range(60):
            await store.write(note(name=f"n{n % 7}", value=f"{n:04000}"))
    assert caplog.text.count("another program reads the store") == 2
    reader.close()
    await store.close()


async def test_a_backup_while_writing_is_of_one_moment(world: World, tmp_path: Path) -> None:
    """I1, restored: a consistent store, with everything acknowledged before the backup began."""
    await world.register()
    before = await world.start_all([StartItem("wf") for _ in range(100)])
    stop = False

    async def write() -> int:
        count = 0
        while not stop:
            id = await world.start(tags={"n": str(count)})
            await world.claim()
            await world.finish(id) if (await world.get(id)).attempt else None
            count += 1
        return count

    writing = asyncio.ensure_future(write())
    target = tmp_path / "backup.db"
    assert isinstance(world.store, SQLiteStore)
    await world.store.backup(str(target))
    stop = True
    assert await writing > 0
    with pytest.raises(Exception, match=r"already exists|not an empty"):
        await world.store.backup(str(target))
    restored = SQLiteStore(str(target))
    other = World(restored)
    await other.check()
    for id in before:
        await other.get(id)
    assert restored.epoch == world.store.epoch
    await restored.write(access.new_epoch(epoch="another"))
    await restored.close()
    again = SQLiteStore(str(target))
    assert again.epoch == "another"
    await again.close()


# --- the file ----------------------------------------------------------------------------------------------------


def test_one_server_per_file(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = SQLiteStore(str(path))
    (tmp_path / "link.db").symlink_to(path)
    for name in ("s.db", "link.db", "../" + tmp_path.name + "/s.db"):
        with pytest.raises(StoreInUse, match="is open in this process"):
            SQLiteStore(str(tmp_path / name))
    run = _run("import sys; from perdure.store.drivers.sqlite import *; SQLiteStore(sys.argv[1])", str(path))
    assert "StoreInUse" in run.stderr
    asyncio.run(store.close())
    asyncio.run(SQLiteStore(str(path)).close())


async def _with_rows(path: Path) -> None:
    store = SQLiteStore(str(path))
    world = await World.make(store)
    await world.register()
    await world.start_all([StartItem("wf", payload=raw("x" * 3_000)) for _ in range(200)])
    await store.close()


def _refused(path: Path, match: str) -> None:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(NotOurFile, match=match):
        SQLiteStore(str(path))
    assert (path.read_bytes() if path.is_file() else None) == before  # and left as it was
    with pytest.raises(NotOurFile, match=match):  # the lock was given back
        SQLiteStore(str(path))


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await _with_rows(path)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version=999; UPDATE meta SET value = '999' WHERE name = 'schema_least'")
    connection.close()
    _refused(path, "has schema 999, this release knows up to")


def test_somebody_else_s_file_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    connection = apsw.Connection(str(foreign))
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    _refused(foreign, "not a Perdure store")
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, not a database\n" * 100)
    _refused(text, "cannot be opened as a Perdure store")
    (tmp_path / "folder").mkdir()
    _refused(tmp_path / "folder", "is a folder; name a file in it")
    below = text / "s.db"
    with pytest.raises(NotOurFile, match="cannot be opened"):
        SQLiteStore(str(below))


def test_a_folder_that_is_not_there_is_a_mistake_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "some" / "app.db"
    with pytest.raises(NotOurFile, match=r"The folder '.*some' of the store '.*app.db' does not exist; create it"):
        SQLiteStore(str(path))
    assert list(tmp_path.iterdir()) == []


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await _with_rows(path)
    content = bytearray(path.read_bytes())
    for page in range(8, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    _refused(path, "is damaged|cannot be opened")


async def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await _with_rows(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 4096 * 4096])
    _refused(path, "is damaged|cannot be opened")


def test_an_empty_file_with_a_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.touch()
    (tmp_path / "s.db-wal").write_bytes(b"x" * 100)
    _refused(path, "is empty but has a write-ahead log")


async def test_an_empty_file_without_one_is_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.db"
    path.parent.mkdir()
    path.touch()
    await _with_rows(path)


@pytest.mark.parametrize(
    ("url", "error"), [("oracle://x", BadRequest), ("mysql:x", BadRequest), ("sqlite:", BadRequest), ("", BadRequest)]
)
async def test_addresses_that_name_no_store_are_refused(
    url: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        await open_store(url)


# --- killed ----------------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from perdure.store.open import open_store
from perdure.wire.runs.requests import Complete, StartItem, Suspend
from tests.store.world import World, answer_wait, child, raw, step

async def life(world, n):
    while True:
        id = await world.start(payload=raw("x" * 500))
        print(id, 0, flush=True)
        done = 0
        for claimed in await world.claim(capacity=3):
            reply = await world.report(claimed.id, [step("s", n), child("c")])
            if reply.accepted:
                print(claimed.id, reply.accepted[-1], flush=True)
            if (await world.report(claimed.id, end=Complete(raw(n)))).ended:
                print(claimed.id, (await world.journal(claimed.id))[-1].seq, flush=True)

async def main(path):
    store = await open_store(path)
    world = await World.make(store)
    world._ids = int(sys.argv[2]) << 32
    await world.register()
    await asyncio.gather(*[life(world, n) for n in range(8)])

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, seed: int) -> None:
    """The process is killed at random moments, again and again, on one file. (In a power cut, syncs count.)"""
    dice = random.Random(seed)
    path = tmp_path / "s.db"
    ledger: dict[str, int] = {}
    for life in range(4):
        command = [sys.executable, "-c", WRITER, str(path), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            for _ in range(dice.randint(1, 400)):
                _take(ledger, process.stdout.readline())
            process.kill()
            for line in process.stdout.read().splitlines(keepends=True):
                _take(ledger, line)
            assert process.wait() == (1 if sys.platform == "win32" else -signal.SIGKILL)  # by our hand, no failure
        store = SQLiteStore(str(path))
        world = World(store)
        for id, seq in ledger.items():
            assert len(await world.journal(id)) >= seq
        await world.check()
        await store.close()
    assert len(ledger) > 4
    assert max(ledger.values()) > 0


def _take(ledger: dict[str, int], line: str) -> None:
    if line.endswith("\n"):  # the last one may be cut
        id, seq = line.split()
        ledger[id] = max(ledger.get(id, 0), int(seq))


async def test_a_closed_store_says_so_to_whoever_comes_late(tmp_path: Path) -> None:
    """A request in hand at the end of a server may be tried again elsewhere."""
    store = SQLiteStore(str(tmp_path / "p.db"))
    await store.close()
    for late in (store.write(note(name="a", value="1")), store.read(read_note(name="a")), store.scan(queries.doctor())):
        with pytest.raises(Unavailable, match="closed"):
            await late
