"""Sources of time: a server's own clock, or the database's for all servers."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.kit.polling import until

from perdure.engine.base import clock as clocks
from perdure.engine.base.clock import DATABASE_JUMP_US, SystemClock, TimeBounds
from perdure.engine.base.service import Scope
from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.sdk.workers.lease import boottime
from perdure.store.open import open_store
from perdure.store.verbs.runs import claims, queries
from perdure.wire.base.errors import LeaseLost
from perdure.wire.runs.requests import BeatRequest, RegisterRequest, WorkflowSpec

SECOND = 1_000_000
HOUR = 3_600 * SECOND
on_postgres = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


class Hands:
    """Wall clock and time since boot, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boot_us = 50 * SECOND
        self.wall_us = 1_750_000_000 * SECOND
        monkeypatch.setattr(clocks, "boottime_us", lambda: self.boot_us)
        monkeypatch.setattr(time, "time_ns", lambda: self.wall_us * 1_000)

    def pass_(self, seconds: float) -> None:
        self.boot_us += int(seconds * SECOND)
        self.wall_us += int(seconds * SECOND)


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(monkeypatch)


@pytest.mark.skipif(not hasattr(time, "CLOCK_MONOTONIC_RAW"), reason="it knows no such clock")
def test_on_macos_too_the_machines_sleep_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOCK_MONOTONIC_RAW goes on during sleep; the clock of `time.monotonic` does not."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(time, "clock_gettime_ns", {time.CLOCK_MONOTONIC_RAW: 7_000_000_000}.__getitem__)
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_MONOTONIC_RAW: 7.0}.__getitem__)
    assert clocks.boottime_us() == 7 * SECOND
    assert boottime() == 7.0


def test_a_small_step_of_the_wall_clock_is_followed_slowly(hands: Hands) -> None:
    clock = SystemClock()
    before = clock.now_us()
    hands.wall_us += 20 * SECOND
    assert clock.now_us() == before
    hands.pass_(10)
    assert not clock.adjust()
    assert clock.now_us() - before == 10 * SECOND + SECOND // 10


@pytest.mark.parametrize("step_us", [HOUR, -HOUR])
def test_a_large_step_of_the_wall_clock_is_told(hands: Hands, step_us: int) -> None:
    clock = SystemClock()
    before = clock.now_us()
    hands.wall_us += step_us
    assert clock.adjust()
    assert clock.now_us() - before == step_us
    assert not clock.adjust()


async def test_a_step_back_is_looked_into_and_one_forward_is_not(hands: Hands) -> None:
    engine = Engine(await open_store(":memory:"), clock=SystemClock())
    for step_us, wanted in ((HOUR, False), (-HOUR, True), (-10 * SECOND, False)):
        engine.timers.stepped_back_at_us = 0
        hands.wall_us += step_us
        await engine.timers.follow_clock()
        assert (engine.timers.stepped_back_at_us > 0) == wanted
    await engine.store.close()


def test_the_database_s_time_is_taken_at_once_and_the_machine_s_no_longer_counts(hands: Hands) -> None:
    clock = SystemClock()
    database_us = hands.wall_us - HOUR
    assert not clock.of_database
    assert not clock.adjust(_answer(hands, database_us, 1_000))
    assert clock.of_database
    assert abs(clock.now_us() - database_us) <= 1_000
    before = clock.now_us()
    hands.wall_us += HOUR
    assert not clock.adjust(_answer(hands, database_us, 1_000))
    assert clock.now_us() == before


def test_a_slow_answer_moves_nothing(hands: Hands) -> None:
    clock = SystemClock()
    clock.adjust(_answer(hands, hands.wall_us, 0))
    for seconds in (0.1, 3, 30):
        before = clock.now_us()
        assert not clock.adjust(_answer(hands, hands.wall_us, int(seconds * SECOND)))
        assert clock.now_us() == before


@pytest.mark.parametrize("step_us", [DATABASE_JUMP_US + 1, -HOUR])
def test_a_step_of_the_database_s_clock_is_told(hands: Hands, step_us: int) -> None:
    clock = SystemClock()
    clock.adjust(_answer(hands, hands.wall_us, 0))
    before = clock.now_us()
    assert clock.adjust(_answer(hands, hands.wall_us + step_us, 0))
    assert clock.now_us() - before == step_us


def _answer(hands: Hands, database_us: int, took_us: int) -> TimeBounds:
    """The conclusion of a server that just asked and hears the database's time."""
    return TimeBounds(database_us - hands.boot_us - took_us, database_us - hands.boot_us)


# --- several servers -------------------------------------------------------------------------------------------------


@pytest.fixture
async def url(url: str) -> AsyncIterator[str]:
    """A database whose clock can be put forward and back: `clock_timestamp` is found in a schema of the test's."""
    connection = await asyncpg.connect(url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(
        "CREATE SCHEMA test; CREATE TABLE test.shift (seconds INTEGER); INSERT INTO test.shift VALUES (0);"
        "CREATE FUNCTION test.clock_timestamp() RETURNS TIMESTAMPTZ LANGUAGE SQL VOLATILE AS "
        "'SELECT pg_catalog.clock_timestamp() + make_interval(secs => seconds) FROM test.shift';"
        f"ALTER DATABASE {name} SET search_path = public, test, pg_catalog"
    )
    await connection.close()
    yield url


async def _shift(url: str, seconds: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE test.shift SET seconds = $1", seconds)
    await connection.close()


async def _engine(url: str, wrong_us: int = 0) -> Engine:
    clock = SystemClock()
    clock._offset_us += wrong_us
    engine = Engine(await open_store(url), clock=clock, settings=EngineSettings(lease_seconds=5.0))
    await engine.start()
    return engine


async def _workers(engine: Engine, amount: int) -> list[str]:
    project_id = await engine.projects.default()
    for n in range(amount):
        await engine.serve(Scope(project_id), RegisterRequest(f"w{n}", "d", "3.12", [WorkflowSpec("wf")]))
    return [f"w{n}" for n in range(amount)]


@on_postgres
async def test_servers_with_different_clocks_have_one_time(url: str) -> None:
    engines = [await _engine(url, wrong_us) for wrong_us in (0, HOUR, -HOUR)]
    times: list[int] = []
    for engine in engines:
        assert isinstance(engine.clock, SystemClock)
        times.append(engine.clock._offset_us)  # at one moment, though they are asked one after the other
    assert max(times) - min(times) < SECOND
    for engine in engines:
        await engine.stop()


@on_postgres
@pytest.mark.slow
@pytest.mark.parametrize("hours", [1, -1])
async def test_no_live_lease_ends_when_the_database_s_clock_steps(url: str, hours: int) -> None:
    """Two servers notice the step at different moments. Workers beat and change servers all the time, then die."""
    engines = [await _engine(url), await _engine(url)]
    project_id = await engines[0].projects.default()
    workers = await _workers(engines[0], 6)
    lost: list[str] = []
    stop = asyncio.Event()

    async def beat(n: int) -> None:
        server = n
        while not stop.is_set():
            reply = await engines[server % 2].serve(Scope(project_id), BeatRequest(workers[n], engines[0].store.epoch))
            if reply.lost:
                lost.append(workers[n])
                return
            server += n % 3 == 0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.1)

    beats = [asyncio.create_task(beat(n)) for n in range(len(workers))]
    before = [engine.clock.now_us() for engine in engines]
    await _shift(url, hours * 3_600)

    def since_the_step() -> list[int]:
        return [engine.clock.now_us() - was - hours * HOUR for engine, was in zip(engines, before, strict=True)]

    # Both have noticed it, and more than a lease and a half has passed.
    await until(lambda: bool(lost) or all(8 * SECOND <= us < 60 * SECOND for us in since_the_step()))
    assert lost == []
    stop.set()
    await asyncio.gather(*beats)

    async def is_left() -> bool:
        return bool(await engines[0].store.read(queries.list_workers(project_id=project_id)))

    async with asyncio.timeout(60):
        while await is_left():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.02)
    for engine in engines:
        await engine.stop()


@on_postgres
async def test_a_server_that_has_not_seen_the_step_yet_ends_nobody_s_lease(url: str) -> None:
    store = await open_store(url)
    engine = Engine(await open_store(url), clock=SystemClock())  # its own reaper would lock the worker now and then
    await engine.timers.follow_clock()
    await _workers(engine, 1)
    project_id = await engine.projects.default()
    ahead_us = engine.clock.now_us() + HOUR
    assert await store.write(claims.reap(now_us=ahead_us, limit=10, by_database=True)) == 0
    reply = await engine.serve(Scope(project_id), BeatRequest("w0", store.epoch))
    assert not reply.lost
    assert await store.write(claims.reap(now_us=ahead_us, limit=10)) == 1
    with pytest.raises(LeaseLost):
        await _workers(engine, 1)
    await engine.stop()
    await store.close()
