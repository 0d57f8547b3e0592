"""The list of workers: what each one is, holds and has said last."""

from __future__ import annotations

from typing import Any

from tests.store.pushing import LEASE_US as PUSH_LEASE_US
from tests.store.pushing import URL, PushWorld
from tests.store.world import LEASE_US, PROJECT, World

from perdure.store.verbs.runs import workers
from perdure.wire.runs.workers import ListedWorker, WorkerKind, WorkerState


async def listed(world: World, after: str = "", limit: int = 10) -> list[ListedWorker]:
    return await world.store.scan(
        workers.list_workers(
            project_id=PROJECT,
            after=after,
            limit=limit,
            now_us=world.now_us,
            lease_us=LEASE_US,
            push_lease_us=PUSH_LEASE_US,
        )
    )


def shown(worker: ListedWorker) -> tuple[str, int]:
    return worker.state.value, worker.running


async def test_a_native_worker_is_listed_with_what_it_holds(world: World) -> None:
    began_us = world.now_us
    await world.register("b")
    for _ in range(3):
        await world.start()
    first, second, _ = await world.claim_ids("b")
    await world.finish(first, "b")
    await world.wait_for(second, worker="b", due_us=world.now_us + 99_000_000)
    world.advance(1)
    await world.beat("b")
    (found,) = await listed(world)
    assert found == ListedWorker(
        "b",
        "d",
        WorkerKind.NATIVE,
        WorkerState.ONLINE,
        capacity=found.capacity,
        running=1,
        registered_at_us=began_us,
        last_beat_at_us=world.now_us,
        lease_until_us=world.now_us + LEASE_US,
        python="3.12",
    )
    world.advance(LEASE_US / 1e6)
    assert [shown(one) for one in await listed(world)] == [("lapsed", 1)]
    await world.reap()
    assert await listed(world) == [], "a lease that has run out ends the registration"


async def test_an_embedded_worker_has_no_lease(world: World) -> None:
    await world.register("a", embedded=True)
    world.advance(1_000)
    (found,) = await listed(world)
    assert (found.kind, found.state) == (WorkerKind.EMBEDDED, WorkerState.ONLINE)
    assert (found.last_beat_at_us, found.lease_until_us, found.url) == (None, None, None)


async def test_a_push_worker_is_listed_with_its_url(pushes: PushWorld) -> None:
    world = pushes.world
    id = await pushes.register(online=False, capacity=7)
    assert [shown(one) for one in await listed(world)] == [("registered", 0)]
    world.advance(3)
    await pushes.online(id)
    await world.start("anything", deployment_id="p")
    await pushes.claim(id)
    (found,) = await listed(world)
    assert (found.kind, found.deployment_id, found.url, found.python) == (WorkerKind.PUSH, "p", URL, None)
    assert (found.capacity, *shown(found), found.last_beat_at_us) == (7, "online", 1, world.now_us)
    world.advance(PUSH_LEASE_US / 1e6)
    await pushes.lapse_expired()
    assert [shown(one) for one in await listed(world)] == [("lapsed", 0)], "it is remembered"


async def test_pages_go_on_after_an_id_and_show_no_other_project(world: World) -> None:
    for id in "dbca":
        await world.register(id)
    await world.register("e", project="other")
    found: list[Any] = [[one.id for one in await listed(world, after, 2)] for after in ("", "b", "d")]
    assert found == [["a", "b"], ["c", "d"], []]
