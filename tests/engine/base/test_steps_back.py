"""Sleeps keep their length when the clock goes back, both running and later sleeps."""

from collections.abc import AsyncIterator

import pytest
from tests.store.world import SECOND, World

from perdure.engine import loops
from perdure.engine.base.clock import ManualClock
from perdure.engine.engine import Engine
from perdure.store.open import open_store
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Suspend

HOUR = 3_600.0


class Server:
    """An engine whose clocks a test moves."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.boot_us = 1_000 * SECOND
        monkeypatch.setattr(loops, "boottime_us", lambda: self.boot_us)
        self.clock = ManualClock(world.now_us)
        self.engine = Engine(world.store, clock=self.clock)
        self.engine.timers.stepped_back_at_us = self.boot_us

    def pass_(self, seconds: float) -> None:
        self.boot_us += int(seconds * SECOND)
        self.move(seconds)

    def move(self, seconds: float) -> None:
        """Put the clock forward or back."""
        self.world.advance(seconds)
        self.clock.advance(seconds)

    async def look(self) -> float:
        """A round of the loop, and of the loop that wakes."""
        pause = await self.engine.timers.bring_forward()
        await self.engine.timers.wake()
        return pause


@pytest.fixture
async def server(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    world = await World.make(await open_store(database))
    await world.register()
    yield Server(world, monkeypatch)
    await world.check()
    await world.store.close()


async def _sleep(world: World, id: str, key: str, until_us: int) -> None:
    reply = await world.report(id, [], Suspend([], (key, until_us)), seen=(await world.journal(id))[-1].seq)
    assert reply.ended


async def test_sleeps_last_as_long_as_they_were_to_though_the_clock_goes_back(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    world = server.world
    id = await world.running()
    until_us = world.now_us + 5 * SECOND
    await _sleep(world, id, "first", until_us)
    server.move(-2 * HOUR)
    assert await server.look() == 5.0
    server.pass_(4)
    assert await server.look() == 1.0
    assert await world.phase(id) is Phase.WAITING
    server.pass_(1)
    await server.look()
    assert await world.phase(id) is Phase.QUEUED
    assert await server.look() == HOUR, "nothing is left"
    assert [record.getMessage().partition(" went")[0] for record in caplog.records] == [
        "The clock was put back: 1 executions"
    ]
    for key in ("second", "third"):  # its code counts from the time that it has seen
        assert await world.claim_ids() == [id]
        last = (await world.journal(id))[-2]
        assert (last.kind, last.at_us) == (Kind.TIMER, until_us)
        await world.acknowledge(id, seen=last.seq + 1)
        until_us += 3 * SECOND
        await _sleep(world, id, key, until_us)
        server.pass_(2)
        assert await server.look() == HOUR
        assert await world.phase(id) is Phase.WAITING
        server.pass_(1)
        await server.look()
        assert await world.phase(id) is Phase.QUEUED


async def test_a_clock_that_was_back_for_a_moment_leaves_long_sleeps_as_they_were(server: Server) -> None:
    world = server.world
    id = await world.running()
    await _sleep(world, id, "month", world.now_us + 30 * 24 * 3_600 * SECOND)
    due = await world.get(id)
    server.move(-50 * 365 * 24 * HOUR)
    assert await server.look() == 60.0
    server.pass_(600)
    assert await server.look() == 60.0
    server.move(50 * 365 * 24 * HOUR)
    assert await server.look() == HOUR
    assert await world.get(id) == due and due.phase is Phase.WAITING
