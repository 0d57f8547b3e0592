"""Registrations of push workers: which workers get work, how long a registration lasts, and its capacity."""

from __future__ import annotations

import asyncio

import pytest
from tests.store.locks import held, without_waiting
from tests.store.pushing import LEASE_US, URL, PushWorld
from tests.store.world import PROJECT, SECOND

from perdure.store.verbs.outside import push_workers
from perdure.store.verbs.runs import claims, queries
from perdure.store.verbs.runs.transitions import LOSSES_MAX
from perdure.wire.base.errors import BadRequest, Conflict, LeaseLost, NotFound
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import QueueSpec


async def test_work_comes_to_whoever_is_online(pushes: PushWorld) -> None:
    id = await pushes.register(online=False)
    assert await pushes.online_ids() == []
    execution = await pushes.world.start(deployment_id="p")
    assert await pushes.claim(id) == []
    await pushes.online(id)
    assert await pushes.online_ids() == [id]
    assert [one.claimed.id for one in await pushes.claim(id)] == [execution]
    with pytest.raises(NotFound):
        await pushes.online(pushes.world.new_id())


async def test_a_heartbeat_says_that_a_worker_is_online(pushes: PushWorld) -> None:
    """The worker's online call may have failed; its client then sends heartbeats only."""
    id = await pushes.register(online=False)
    execution = await pushes.world.start(deployment_id="p")
    assert await pushes.beat(id, own=False)
    assert await pushes.online_ids() == [], "it was heard of, no more"
    assert await pushes.beat(id)
    assert await pushes.online_ids() == [id]
    assert [one.claimed.id for one in await pushes.claim(id)] == [execution]


async def test_a_heartbeat_counts_for_the_registration_that_it_names(pushes: PushWorld) -> None:
    old = await pushes.register(online=False)
    new = await pushes.register(online=False)
    assert not await pushes.beat(old)
    assert await pushes.online_ids() == [], "who took its place has not said that it is online"
    drained = await pushes.register("http://second.example")
    await pushes.store.write(claims.drain(project_id=PROJECT, worker_id=drained, now_us=pushes.world.now_us))
    assert not await pushes.beat(drained)
    beats, _ = await asyncio.gather(pushes.beat(new), pushes.register())
    assert new not in await pushes.online_ids(), f"it was heard of in time: {beats}"


async def test_a_heartbeat_does_not_put_off_the_next_look_at_a_worker(pushes: PushWorld) -> None:
    id = await pushes.register()
    pushes.world.advance(3)
    await pushes.beat(id)
    pushes.world.advance(2)
    taken = await pushes.store.write(
        push_workers.take_push_checks(now_us=pushes.world.now_us, every_us=5 * SECOND, limit=10)
    )
    assert [worker for worker, _, _ in taken] == [id]


async def test_a_new_deployment_is_the_current_one(pushes: PushWorld) -> None:
    with pytest.raises(BadRequest, match="no deployment"):
        await pushes.register(deployment=None)
    await pushes.register()
    execution = await pushes.world.start("anything")
    assert (await pushes.world.get(execution)).deployment_id == "p"
    second = await pushes.register("http://second.example", deployment=None)
    assert [one.claimed.id for one in await pushes.claim(second)] == [execution]


async def test_the_same_url_is_the_same_worker(pushes: PushWorld) -> None:
    old = await pushes.register()
    id = await pushes.running(old)
    new = await pushes.register(URL)
    assert await pushes.online_ids() == [new]
    assert not await pushes.beat(old)
    assert [one.claimed.id for one in await pushes.claim(new)] == [id]
    with pytest.raises(Conflict):
        await pushes.complete(id, old)
    await pushes.complete(id, new)


async def test_a_lease_that_runs_out_hands_the_work_on_and_a_beat_brings_the_worker_back(pushes: PushWorld) -> None:
    world = pushes.world
    id = await pushes.register()
    execution = await pushes.running(id)
    world.advance(LEASE_US / SECOND - 1)
    assert await pushes.lapse_expired() == 0
    await pushes.beat(id)
    world.advance(LEASE_US / SECOND - 1)
    assert await pushes.lapse_expired() == 0
    world.advance(1)
    assert await pushes.lapse_expired() == 1
    assert await pushes.lapse_expired() == 0
    assert await world.phase(execution) is Phase.QUEUED
    assert await pushes.online_ids() == [] and await pushes.claim(id) == []
    assert await pushes.beat(id), "it is known: it must not take another id"
    assert [one.claimed.id for one in await pushes.claim(id)] == [execution]


@pytest.mark.parametrize("alive", [True, False])
async def test_a_loss_does_not_count_once_its_worker_is_heard_of_again(pushes: PushWorld, alive: bool) -> None:
    """A starved machine sends heartbeats late. A worker without further heartbeats was really lost."""
    world = pushes.world
    id = await pushes.register()
    execution = await pushes.running(id)
    for _ in range(LOSSES_MAX - 1):
        world.advance(LEASE_US / SECOND)
        assert await pushes.lapse_expired() == 1
        if alive:
            await pushes.beat(id)
        else:
            await pushes.beat(id, own=False)  # something answers at its URL
        due_us = (await world.get(execution)).due_at_us
        if due_us is not None:
            world.now_us = due_us
            await world.wake_due()
        assert [one.claimed.id for one in await pushes.claim(id)] == [execution]
    world.advance(LEASE_US / SECOND)
    assert await pushes.lapse_expired(patience_us=10 * SECOND) == int(alive), "the last loss waits"
    world.advance(10)
    await pushes.lapse_expired(patience_us=10 * SECOND)
    assert await world.phase(execution) is (Phase.QUEUED if alive else Phase.FAILED)


async def test_one_locked_execution_keeps_no_other_from_being_taken_back(
    pushes: PushWorld, database: str, on_postgresql: None
) -> None:
    id = await pushes.register()
    locked, free = await pushes.running(id), await pushes.running(id)
    pushes.world.advance(LEASE_US / SECOND)
    async with held(database, "executions", locked):
        async with without_waiting():
            assert await pushes.lapse_expired() == 0
        assert await pushes.world.phase(free) is Phase.QUEUED
        assert await pushes.claim(id) == []
    assert await pushes.lapse_expired() == 1
    assert await pushes.world.phase(locked) is Phase.QUEUED


async def test_one_locked_worker_keeps_no_other_from_being_forgotten(
    pushes: PushWorld, database: str, on_postgresql: None
) -> None:
    locked, free = await pushes.register(), await pushes.register(url="https://other.example")
    pushes.world.advance(LEASE_US / SECOND)
    await pushes.lapse_expired()
    pushes.world.advance(86_401)
    async with held(database, "workers", locked):
        async with without_waiting():
            await pushes.lapse_expired()
        assert not await pushes.beat(free)
    await pushes.lapse_expired()
    assert not await pushes.beat(locked)


async def test_whoever_lapsed_long_ago_is_forgotten(pushes: PushWorld) -> None:
    id = await pushes.register()
    pushes.world.advance(LEASE_US / SECOND)
    await pushes.lapse_expired()
    pushes.world.advance(86_400)
    await pushes.lapse_expired()
    assert await pushes.beat(id)
    pushes.world.advance(LEASE_US / SECOND)
    await pushes.lapse_expired()
    pushes.world.advance(86_401)
    await pushes.lapse_expired()
    assert not await pushes.beat(id)


async def test_leases_are_granted_anew_after_the_server_was_away(pushes: PushWorld) -> None:
    id = await pushes.register()
    execution = await pushes.running(id)
    pushes.world.advance(600)
    await pushes.store.write(claims.grant_leases(until_us=pushes.world.now_us + 12 * SECOND))
    assert await pushes.lapse_expired() == 0
    assert await pushes.online_ids() == [id]
    assert await pushes.world.phase(execution) is Phase.RUNNING
    await pushes.world.reap()
    assert await pushes.online_ids() == [id], "the reaper of native workers leaves it alone"


async def test_two_refused_calls_and_it_is_gone(pushes: PushWorld) -> None:
    id = await pushes.register()
    execution = await pushes.running(id)
    assert not await pushes.refuse(id) and not await pushes.refuse(id) and not await pushes.refuse(id), "just online"
    pushes.world.advance(11)
    assert not await pushes.refuse(id)
    await pushes.beat(id)
    assert not await pushes.refuse(id)
    assert await pushes.refuse(id)
    assert await pushes.world.phase(execution) is Phase.QUEUED
    assert await pushes.online_ids() == []


async def test_a_worker_is_asked_after_by_one_server(pushes: PushWorld) -> None:
    id = await pushes.register()

    async def take() -> list[tuple[str, str, str]]:
        return await pushes.store.write(
            push_workers.take_push_checks(now_us=pushes.world.now_us, every_us=5 * SECOND, limit=10)
        )

    assert await take() == []
    pushes.world.advance(5)
    taken = await asyncio.gather(take(), take(), take())
    assert sorted(map(len, taken)) == [0, 0, 1]
    assert max(taken) == [(id, PROJECT, URL)]


async def test_claims_count_what_is_held(pushes: PushWorld) -> None:
    id = await pushes.register(capacity=3)
    ids = [await pushes.world.start(deployment_id="p") for _ in range(10)]
    handed = await asyncio.gather(*[pushes.handed(id) for _ in range(4)])
    assert sorted(one.claimed.id for each in handed for one in each.picked) == ids[:3]
    assert {each.room for each in handed} <= {0, 3}
    await pushes.complete(ids[0], id)
    assert [one.claimed.id for one in await pushes.claim(id)] == [ids[3]]


async def test_limits_hold_for_push_workers(pushes: PushWorld) -> None:
    world = pushes.world
    await world.register("n", deployment="n", queues=[QueueSpec("narrow", concurrency_limit=1)])
    first, second = await pushes.register(), await pushes.register("http://second.example")
    for _ in range(4):
        await world.start(deployment_id="p", queue_name="narrow")
    handed = await asyncio.gather(pushes.handed(first), pushes.handed(second))
    assert sum(len(each.picked) for each in handed) == 1


async def test_a_push_worker_does_not_claim_like_a_native_one(pushes: PushWorld) -> None:
    id = await pushes.register()
    await pushes.world.start(deployment_id="p")
    with pytest.raises(LeaseLost):
        await pushes.world.claim(id)


async def test_work_that_only_a_worker_serves_that_is_gone_is_unserved(pushes: PushWorld) -> None:
    await pushes.register()
    await pushes.world.start(deployment_id="p")

    async def unserved() -> int:
        return len(await pushes.store.scan(queries.unserved(before_us=pushes.world.now_us - 60 * SECOND)))

    pushes.world.advance(61)
    assert await unserved() == 0
    pushes.world.advance(LEASE_US / SECOND)
    await pushes.lapse_expired()
    pushes.world.advance(61)
    assert await unserved() == 1


async def test_what_was_not_taken_goes_back_as_if_nothing_had_been(pushes: PushWorld) -> None:
    id = await pushes.register()
    execution = await pushes.world.start(deployment_id="p")
    for _ in range(10):
        [one] = await pushes.claim(id, accept=False)
        pushes.world.advance(1)
        await pushes.store.write(push_workers.hand_back(delivery=pushes.delivery(one), now_us=pushes.world.now_us))
        assert (await pushes.world.get(execution)).started_at_us is None
    [one] = await pushes.claim(id)
    assert (one.claimed.id, one.claimed.retry_count) == (execution, 0)
    began_us = pushes.world.now_us
    assert (await pushes.world.get(execution)).started_at_us == began_us
    await pushes.wait(execution, "t", "time", seconds=1)
    pushes.world.advance(2)
    await pushes.world.wake_due()
    [one] = await pushes.claim(id, accept=False)
    await pushes.store.write(push_workers.hand_back(delivery=pushes.delivery(one), now_us=pushes.world.now_us))
    assert (await pushes.world.get(execution)).started_at_us == began_us, "it ran before"


async def test_a_lost_delivery_counts_apart(pushes: PushWorld) -> None:
    id = await pushes.register()
    execution = await pushes.world.start(deployment_id="p")
    [one] = await pushes.claim(id, accept=False)

    async def lose() -> bool:
        return await pushes.store.write(
            push_workers.lost_delivery(delivery=pushes.delivery(one), now_us=pushes.world.now_us)
        )

    assert await lose()
    assert not await lose(), "it is not this one any more"
    [one] = await pushes.claim(id)
    assert not await lose(), "the worker has it after all"
    assert await pushes.world.phase(execution) is Phase.RUNNING


async def test_what_has_not_reached_a_worker_is_found(pushes: PushWorld) -> None:
    world = pushes.world
    id = await pushes.register()
    execution = await world.start(deployment_id="p")
    [one] = await pushes.claim(id, accept=False)
    other = await pushes.running(id)

    async def untold() -> list[tuple[str, bool]]:
        found = await pushes.store.read(push_workers.untold(before_us=world.now_us - 20 * SECOND, limit=10))
        return [(one.execution_id, one.cancelling) for one in found]

    assert await untold() == []
    world.advance(21)
    assert await untold() == [(execution, False)]
    await world.cancel(other)
    assert await untold() == [(execution, False), (other, True)]
    delivery = push_workers.PushDelivery(PROJECT, other, 1, id)
    assert await pushes.store.write(push_workers.tell_cancel(delivery=delivery))
    assert not await pushes.store.write(push_workers.tell_cancel(delivery=delivery)), "one server tells it"
    assert await untold() == [(execution, False)]
    await pushes.store.write(push_workers.untell_cancel(delivery=delivery))
    assert await untold() == [(execution, False), (other, True)]
    await pushes.store.write(push_workers.cancel_absent(delivery=delivery, now_us=world.now_us))
    assert await world.phase(other) is Phase.CANCELLED
    assert one.claimed.id == execution


async def test_native_and_push_workers_leave_each_others_work_alone(pushes: PushWorld) -> None:
    world = pushes.world
    await world.register("native", deployment="n")
    pusher = await pushes.register()
    with pytest.raises(Conflict, match="served by push workers"):
        await world.register("other", deployment="p")
    with pytest.raises(Conflict, match="served by native workers"):
        await pushes.register("http://other.example", deployment="n")
    ours, theirs = await world.start(deployment_id="n"), await world.start(deployment_id="p")
    assert await world.claim_ids("native") == [ours]
    assert [one.claimed.id for one in await pushes.claim(pusher)] == [theirs]


async def test_a_push_worker_that_was_away_does_not_come_back_beside_native_ones(pushes: PushWorld) -> None:
    """Native workers own the deployment now: the server tells the push worker to register, then refuses."""
    world = pushes.world
    away = await pushes.register()
    elsewhere = await pushes.register("http://elsewhere.example", deployment="q")
    world.now_us += LEASE_US
    assert await pushes.lapse_expired() == 2
    await world.register("native", deployment="p")
    ours = await world.start(deployment_id="p")
    assert not await pushes.beat(away)
    assert await pushes.beat(elsewhere)
    assert await pushes.claim(away) == []
    assert await world.claim_ids("native") == [ours]
    with pytest.raises(Conflict, match="served by native workers"):
        await pushes.register()
