"""Starts and registrations of the same moment, where many write at once: neither has seen the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
from tests.faults.cluster import until
from tests.store.world import PROJECT, World, answer_wait

from perdure.store.interface import Ready, query, verb
from perdure.store.open import open_store
from perdure.store.verbs import deployments
from perdure.wire.requests import QueueSpec, StartItem, WorkflowSpec


@contextlib.asynccontextmanager
async def a_start_under_way(database: str, *items: StartItem) -> AsyncIterator[asyncio.Task[list[str]]]:
    """Executions are being started at another server: written, but not committed before the block has ended."""
    elsewhere = World(await open_store(database))
    elsewhere._ids = 1_000
    looking = await asyncpg.connect(database)
    holding = await asyncpg.connect(database)
    lock = holding.transaction()
    await lock.start()
    await holding.execute("LOCK TABLE execution_tags IN SHARE MODE")
    starting = asyncio.create_task(elsewhere.start_all(items))

    async def waits() -> bool:
        return bool(await looking.fetchval("SELECT 1 FROM pg_locks WHERE NOT granted"))

    try:
        await until(waits, 30, "the start waits for the table of tags")
        yield starting
    finally:
        await lock.rollback()
        await starting
        await elsewhere.store.close()
        await holding.close()
        await looking.close()


@verb
async def unmark() -> None:
    """As that race leaves them."""
    await query("mark_limited", project_id=PROJECT, name="wf", limited=0)


async def test_a_start_that_missed_its_queue_s_first_limit(world: World, database: str, on_postgresql: None) -> None:
    await world.register()
    async with a_start_under_way(database, *[StartItem("wf", tags={"a": "b"}) for _ in range(2)]):
        await world.register("v", queues=[QueueSpec("wf", concurrency_limit=1)])
    assert await world.store.write(deployments.catch_up()) == 2
    assert len(await world.claim_ids(capacity=5)) == 1


async def test_an_early_start_that_missed_the_first_deployment(
    world: World, database: str, on_postgresql: None
) -> None:
    async with a_start_under_way(database, StartItem("wf", tags={"a": "b"}, accept_early=True)) as starting:
        await world.register()
    assert await world.claim_ids() == []
    world.hints.clear()
    assert await world.store.write(deployments.catch_up()) == 1
    assert Ready(PROJECT, "d") in world.hints
    assert await world.claim_ids() == starting.result()


async def test_what_a_limit_does_not_know_of_is_found_in_every_phase(world: World) -> None:
    await world.register(queues=[QueueSpec("wf", concurrency_limit=2)])
    running = await world.running()
    await world.start(delay_seconds=60)
    ready = [await world.start() for _ in range(2)]
    await world.store.write(unmark())
    assert await world.store.write(deployments.catch_up()) == 4
    assert await world.store.write(deployments.catch_up()) == 0
    assert await world.claim_ids(capacity=5) == ready[:1]
    await world.finish(running)
    assert await world.claim_ids(capacity=5) == ready[1:]


async def test_what_wakes_only_to_clean_up_is_not_held_back(world: World) -> None:
    """A cancelled execution is admitted whatever the limit, and takes nobody's place."""
    await world.register(
        workflows=[WorkflowSpec("wf", wake_on_cancel=True)], queues=[QueueSpec("wf", concurrency_limit=1)]
    )
    first = await world.running()
    await world.wait_for(first, answer_wait("k"))
    second = await world.running()
    await world.cancel(first)
    missed = await world.start()
    await world.store.write(unmark())
    assert await world.store.write(deployments.catch_up()) == 2  # the second, and the one that was missed
    assert await world.claim_ids(capacity=5) == [first]
    assert await world.store.write(deployments.catch_up()) == 0
    await world.finish(second)
    assert await world.claim_ids(capacity=5) == [missed]


async def test_a_queue_that_has_no_limit_any_more_is_left_alone(world: World) -> None:
    await world.register(queues=[QueueSpec("wf", concurrency_limit=1)])
    await world.register("v", queues=[QueueSpec("wf")])
    await world.start()
    assert await world.store.write(deployments.catch_up()) == 0


async def test_early_ones_that_nobody_serves_stay_where_they_are(world: World) -> None:
    await world.start("other", accept_early=True)
    await world.register()
    assert await world.store.write(deployments.catch_up()) == 0
