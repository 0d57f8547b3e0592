"""The loops for due work, while another session holds a row: other work goes on, and retries pause."""

import sys
from collections.abc import AsyncIterator

import pytest
from tests.store.locks import held
from tests.store.world import GRACE_US, SECOND, World, child

from perdure.engine import loops
from perdure.engine.base.clock import ManualClock
from perdure.engine.engine import Engine
from perdure.store.open import open_store
from perdure.wire.base.status import Phase

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    store = await open_store(url)
    world = await World.make(store)
    await world.register()
    yield world
    await world.check()
    await store.close()


def _engine(world: World) -> Engine:
    """A server whose time is the world's of this moment."""
    return Engine(world.store, clock=ManualClock(world.now_us))


async def _timer(world: World, seconds: float) -> str:
    id = await world.running()
    await world.wait_for(id, due_us=world.now_us + int(seconds * SECOND))
    return id


async def test_a_held_timer_is_tried_again_after_a_pause_and_delays_no_other(world: World, url: str) -> None:
    locked, other = await _timer(world, 1), await _timer(world, 1)
    await _timer(world, 1.25)
    world.advance(1)
    engine = _engine(world)
    async with held(url, "executions", locked):
        assert await engine.timers.wake() == 0.0
        assert await world.phase(other) is Phase.QUEUED
        assert await engine.timers.wake() == 0.25
        assert await engine.timers.wake() == 0.25
    assert engine.stats.timer_lag_seconds == 0.0
    assert await engine.timers.wake() == 0.0
    assert await world.phase(locked) is Phase.QUEUED
    assert await engine.timers.wake() == 0.25


async def test_held_ones_that_are_overdue_are_passed_by_and_tried_again_after_a_pause(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many executions wait for the same row."""
    monkeypatch.setattr(loops, "BATCH", 2)
    parent = await world.running()
    await world.report(parent, [child(f"c{n}") for n in range(5)])
    kids = await world.claim_ids()
    for kid in kids:
        await world.cancel(kid)
    world.advance(1)
    other = await world.running()
    await world.cancel(other)
    world.advance(GRACE_US / SECOND)
    engine = _engine(world)

    async def rounds() -> int:
        done = 1
        while await engine.timers.end_overdue() == 0.0:
            done += 1
        return done

    async with held(url, "executions", parent):
        assert await rounds() == 4
        assert await world.phase(other) is Phase.CANCELLED
        assert {await world.phase(kid) for kid in kids} == {Phase.CANCELLING}
        assert await rounds() == 3
    assert engine.stats.timer_lag_seconds == 1.0
    await rounds()
    assert {await world.phase(kid) for kid in kids} == {Phase.CANCELLED}
    assert await engine.timers.end_overdue() > 0.6
