"""A paused queue hands out nothing, with or without limits. Running executions end, and new ones wait."""

import pytest
from tests.store.world import PROJECT, World

from perdure.store.interface import Ready
from perdure.store.verbs import queries
from perdure.store.verbs.queues import list_queues, put_pause
from perdure.store.verbs.waits import list_waits
from perdure.wire.queues import QueueState
from perdure.wire.requests import OpenWait, QueueSpec, StartItem
from perdure.wire.waits import QueuedBehind


async def queue(world: World, name: str = "q") -> QueueState:
    found = await world.store.scan(list_queues(project_id=PROJECT, name=name))
    return found[0] if found else QueueState(name)


async def pause(world: World, name: str = "q") -> None:
    await world.store.write(put_pause(project_id=PROJECT, name=name, paused_at_us=world.now_us))


async def resume(world: World, name: str = "q") -> None:
    await world.store.write(put_pause(project_id=PROJECT, name=name, paused_at_us=None))


@pytest.mark.parametrize("limits", [{}, {"total_limit": 5}, {"concurrency_limit": 1}])
async def test_nothing_of_a_paused_queue_is_claimed_until_it_is_resumed(world: World, limits: dict[str, int]) -> None:
    await world.register(queues=[QueueSpec("q", **limits)] if limits else ())
    running = await world.start(queue_name="q")
    assert await world.claim_ids() == [running]
    waiting = await world.start(queue_name="q", concurrency_key="k")
    await pause(world)
    assert await queue(world) == QueueState("q", **limits, paused_at_us=world.now_us, queued=1, running=1)
    later, other = await world.start(queue_name="q", concurrency_key="l"), await world.start(queue_name="other")
    assert await world.claim_ids() == [other]
    await world.finish(running)
    assert await world.claim_ids() == []
    found = await world.store.read(list_waits(project_id=PROJECT, execution_id=waiting))
    assert found.queued_behind == QueuedBehind("queue", "q", [], 0)
    await resume(world)
    assert await queue(world) == QueueState("q", **limits, queued=2)
    assert sorted(await world.claim_ids()) == sorted([waiting, later])
    assert not any((await world.store.read(queries.doctor())).values())


async def test_a_woken_execution_of_a_paused_queue_waits(world: World) -> None:
    await world.register()
    id = await world.running(queue_name="q")
    await world.wait_for(id, OpenWait("approve", None))
    await pause(world)
    await world.resume(id, "approve")
    assert await world.claim_ids() == []
    await resume(world)
    assert await world.claim_ids() == [id]


async def test_a_pause_stays_when_a_registration_changes_limits(world: World) -> None:
    await world.register()
    await pause(world)
    paused_at_us = world.now_us
    world.advance(60)
    await pause(world)
    await world.register("second", queues=[QueueSpec("q", total_limit=3)])
    id = await world.start(queue_name="q")
    assert await world.claim_ids("second") == []
    assert (await queue(world)).paused_at_us == paused_at_us, "the first pause counts"
    await resume(world)
    assert (await queue(world)).total_limit == 3
    assert await world.claim_ids("second") == [id]


async def test_the_end_of_a_pause_notifies_waiting_claims(world: World) -> None:
    await world.register()
    await pause(world)
    world.hints.clear()
    await resume(world)
    assert Ready(PROJECT, None) in world.hints
    await resume(world)
    assert world.hints.count(Ready(PROJECT, None)) == 1, "it was not paused any more"


async def test_the_list_has_limits_and_numbers_of_its_project(world: World) -> None:
    await world.register(queues=[QueueSpec("b", 1, 2)])
    await world.start_all([StartItem("wf", queue_name="a"), StartItem("wf", queue_name="a")])
    await world.claim()
    found = await world.store.scan(list_queues(project_id=PROJECT))
    assert found == [QueueState("a", queued=1, running=1), QueueState("b", 1, 2)]
    assert await world.store.scan(list_queues(project_id="another")) == []
