"""When the reaper grants every registration a full lease, and when dead workers would keep work by a grant."""

import asyncio
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.kit.polling import until
from tests.store.locks import held

from perdure.engine import loops
from perdure.engine.base.clock import boottime_us
from perdure.engine.base.service import Scope
from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.store.drivers import postgres_lock_queue
from perdure.store.open import open_store
from perdure.store.verbs.runs import claims
from perdure.wire.runs.requests import RegisterRequest, WorkflowSpec

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")

LEASE_SECONDS = 2.0
LONG_SECONDS = 30.0
"""A lease of which half a lease is long for a busy machine, too."""


@pytest.fixture
async def url(url: str) -> AsyncIterator[str]:
    """A database that counts the leases which are renewed, but not by beats: nobody beats here."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE SCHEMA test; CREATE TABLE test.renewed (id TEXT);"
        "CREATE FUNCTION test.note() RETURNS TRIGGER LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO test.renewed VALUES (NEW.id); RETURN NEW; END';"
        "CREATE TRIGGER note AFTER UPDATE OF lease_until_us ON workers FOR EACH ROW EXECUTE FUNCTION test.note()"
    )
    await connection.close()
    yield url
    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA test CASCADE")
    await connection.close()


async def _engine(url: str, lease_seconds: float = LONG_SECONDS) -> Engine:
    """A server whose reaper has gone round."""
    engine = Engine(await open_store(url), settings=EngineSettings(lease_seconds=lease_seconds))
    began = boottime_us()
    await engine.start()

    async def has_reaped() -> bool:
        return engine.absence.reaped_at_us > began

    await until(has_reaped, 60, "the reaper has gone round")
    return engine


async def _register(engine: Engine, worker_id: str = "w") -> None:
    """A worker that never says a word again."""
    request = RegisterRequest(worker_id, "d", "3.12", [WorkflowSpec("wf")])
    await engine.serve(Scope(await engine.projects.default()), request)


async def test_a_round_that_waits_for_the_database_is_no_absence(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look of the waiting reaper at its clock moves the clock. Pauses of the machine do not."""
    monkeypatch.setattr(postgres_lock_queue, "WAIT_SECONDS_MAX", 60.0)
    look_us, now_us = 0, boottime_us()

    def look() -> int:
        nonlocal now_us
        now_us += look_us
        return now_us

    monkeypatch.setattr(loops, "boottime_us", look)
    looking, holding = await asyncpg.connect(url), await asyncpg.connect(url)
    engine = Engine(await open_store(url), settings=EngineSettings(lease_seconds=LEASE_SECONDS))
    await engine.reaper.reap()
    await _register(engine)

    async def go_round() -> None:
        while True:
            pause = await engine.reaper.reap()
            await asyncio.sleep(pause)

    rounds = asyncio.create_task(go_round())
    lock = holding.transaction()
    await lock.start()
    await holding.execute("LOCK TABLE ended_workers IN ACCESS EXCLUSIVE MODE")

    async def waits() -> bool:
        return bool(await looking.fetchval("SELECT 1 FROM pg_locks WHERE NOT granted"))

    await until(waits, 60, "a round has begun that cannot end")
    began_us = now_us
    look_us = int(LEASE_SECONDS * 1e6 / 8)
    await until(lambda: now_us - began_us > LEASE_SECONDS * 1.5e6, 60, "the round lasts longer than a lease")
    look_us = 0
    await lock.rollback()

    async def is_gone() -> bool:
        return not await looking.fetchval("SELECT 1 FROM workers")

    await until(is_gone, 60, "the dead worker's registration has ended")
    assert await looking.fetchval("SELECT COUNT(*) FROM test.renewed") == 0
    rounds.cancel()
    await asyncio.gather(rounds, return_exceptions=True)
    await engine.stop()
    await looking.close()
    await holding.close()


async def test_a_database_that_was_slow_to_write_takes_nothing_from_workers(url: str) -> None:
    """Beats that came to other servers were slow, too, and may be written only after what would be reaped."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE FUNCTION test.stall() RETURNS TRIGGER LANGUAGE plpgsql AS "
        f"'BEGIN PERFORM pg_sleep({LEASE_SECONDS}); RETURN NEW; END';"
        "CREATE TRIGGER stall BEFORE INSERT OR UPDATE ON meta FOR EACH ROW EXECUTE FUNCTION test.stall()"
    )
    engine = await _engine(url, LEASE_SECONDS)
    await _register(engine)

    for _ in range(3):  # each mark takes a lease
        before = engine.absence.reaped_at_us

        async def has_been_round(before: int = before) -> bool:
            return engine.absence.reaped_at_us > before

        await until(has_been_round, 60, "the reaper has gone round once more")
    assert await connection.fetchval("SELECT COUNT(*) FROM workers") == 1
    assert len(await _renewed(url)) >= 2
    await connection.execute("DROP TRIGGER stall ON meta")

    async def is_gone() -> bool:
        return not await connection.fetchval("SELECT 1 FROM workers")

    await until(is_gone, 60, "the worker, which was silent all the time, is gone")
    await engine.stop()
    await connection.close()


async def test_the_reaper_looks_when_the_rest_of_a_cut_lease_is_over(url: str) -> None:
    engine = Engine(await open_store(url), settings=EngineSettings(lease_seconds=LONG_SECONDS))  # nobody reaps
    await _register(engine)
    cursor = engine.notifier.cursor(("loop", "reap"))
    await engine.beats.disconnected("w")
    assert await engine.notifier.wait(("loop", "reap"), cursor, 60)
    assert await engine.store.write(claims.reap(now_us=engine.clock.now_us(), limit=1)) == 1
    await engine.stop()


async def test_a_server_that_stood_still_in_the_middle_of_a_round_was_away(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(await open_store(url), settings=EngineSettings(lease_seconds=LEASE_SECONDS))  # one round at a time
    await engine.reaper.reap()
    slept_us = 0
    with monkeypatch.context() as patch:
        patch.setattr(loops, "boottime_us", lambda: boottime_us() + slept_us)
        before = engine.absence.reaped_at_us
        round = asyncio.ensure_future(engine.reaper.reap())
        await asyncio.sleep(0)  # it has begun
        slept_us = int(LEASE_SECONDS * 1e6)
        await round
        assert boottime_us() + slept_us - engine.absence.reaped_at_us > LEASE_SECONDS / 2 * 1e6
        assert engine.absence.reaped_at_us >= before
    await engine.stop()


# --- somebody has locked a row --------------------------------------------------------------------------------------


async def test_a_locked_registration_is_granted_its_lease_when_it_is_free(url: str) -> None:
    engine = Engine(await open_store(url), settings=EngineSettings(lease_seconds=LONG_SECONDS))
    for worker_id in ("w", "free"):
        await _register(engine, worker_id)
    await engine.timers.follow_clock()
    async with held(url, "workers", "w"):
        await engine.reaper._round(away=True)
        assert await _renewed(url) == ["free"]
    await engine.reaper._round(away=False)
    assert "w" in await _renewed(url)
    await engine.store.close()


async def test_a_locked_registration_keeps_no_dead_worker_s_work_for_longer_than_a_lease(url: str) -> None:
    looking = await asyncpg.connect(url)
    first = await _engine(url)
    for worker_id in ("w", "free"):
        await _register(first, worker_id)
    await first.stop()
    await looking.execute("UPDATE workers SET lease_until_us = 0")
    await looking.execute("DELETE FROM meta WHERE name = 'reaped_at_us'")
    async with held(url, "workers", "w"):
        second = await _engine(url, LEASE_SECONDS)

        async def is_left() -> bool:
            return [row[0] for row in await looking.fetch("SELECT id FROM workers")] == ["w"]

        await until(is_left, 60, "the dead worker's registration has ended, and the locked one's has not")
    await second.stop()
    await looking.close()


# --- several servers -------------------------------------------------------------------------------------------------


async def _mark(url: str, shift_us: int = 0) -> int | None:
    """When a server last marked a reaper's round, shifted by `shift_us`."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "UPDATE meta SET value = (value::BIGINT + $1)::TEXT WHERE name = 'reaped_at_us' RETURNING value::BIGINT",
            shift_us,
        )
        return int(rows[0][0]) if rows else None
    finally:
        await connection.close()


async def _renewed(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch("SELECT id FROM test.renewed")]
    finally:
        await connection.close()


async def _with_a_mark(url: str) -> Engine:
    """A server with a worker, after the server's first mark of reaping."""
    engine = await _engine(url)
    await _register(engine)
    await until(lambda: _is_marked(url), 60, "the reaper has left its mark")
    return engine


async def _is_marked(url: str) -> bool:
    return await _mark(url) is not None


async def test_a_server_that_starts_beside_another_one_renews_no_lease(url: str) -> None:
    first = await _with_a_mark(url)
    second = await _engine(url)
    third = await _engine(url)
    assert await _renewed(url) == []
    for engine in (first, second, third):
        await engine.stop()


@pytest.mark.parametrize("shift_us", [-int(LONG_SECONDS * 1e6), 3_600_000_000], ids=["long ago", "of another clock"])
async def test_a_server_that_starts_when_none_was_there_grants_everybody_a_lease(url: str, shift_us: int) -> None:
    first = await _with_a_mark(url)
    await first.stop()
    await _mark(url, shift_us)
    second = await _engine(url)
    assert await _renewed(url)
    await second.stop()


async def test_while_there_is_nobody_to_reap_nothing_is_written(url: str) -> None:
    engine = await _engine(url)
    rounds = engine.absence.reaped_at_us

    async def again() -> bool:
        return engine.absence.reaped_at_us > rounds

    await until(again, 60, "another round")
    assert await _mark(url) is None
    await engine.stop()
