"""Starts and registrations of the same moment, where many write at once: neither has seen the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import asyncpg
import pytest
from tests.kit.polling import until
from tests.store.locks import held, set_limits
from tests.store.world import PROJECT, World, answer_wait

from perdure.store.base.interface import Ready, query, verb
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.open import open_store
from perdure.store.verbs.runs import deployments
from perdure.wire.runs.requests import QueueSpec, StartItem, WorkflowSpec

T = TypeVar("T")


@contextlib.asynccontextmanager
async def a_start_under_way(database: str, *items: StartItem) -> AsyncIterator[asyncio.Task[list[str]]]:
    """Another server has written starts, but commits only after the block has ended.

    No statement gives up meanwhile, as after some seconds otherwise.
    """
    patch = pytest.MonkeyPatch()
    set_limits(patch, lock_timeout=60_000, statement_timeout=60_000)
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
        patch.undo()


@verb(locks="")
async def unmark() -> None:
    """Leave executions unmarked, as the race does."""
    await query("mark_limited", project_id=PROJECT, name="wf", gate=0)


@contextlib.asynccontextmanager
async def once_it_waits(database: str, work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Yields while the task waits for all writers that know of no limit."""
    looking = await asyncpg.connect(database)
    task = asyncio.create_task(work)

    async def waits() -> bool:
        waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND NOT granted"
        return task.done() or bool(await looking.fetchval(waiting))

    try:
        await until(waits, 30, "it waits for what is under way")
        yield task
    finally:
        await looking.close()


async def test_a_queue_s_first_limit_waits_for_starts_under_way(
    world: World, database: str, on_postgresql: None
) -> None:
    """A limit of one holds from the first moment (I8)."""
    await world.register()
    limiting = world.register("v", queues=[QueueSpec("wf", concurrency_limit=1)])
    async with (
        a_start_under_way(database, *[StartItem("wf", tags={"a": "b"}) for _ in range(4)]),
        once_it_waits(database, limiting) as registering,
    ):
        assert not registering.done()
    await registering
    assert len(await world.claim_ids(capacity=10)) == 1
    assert await world.store.write(deployments.catch_up()) == 0


async def test_a_start_that_makes_its_queue_waits_for_those_that_know_none(
    world: World, database: str, on_postgresql: None
) -> None:
    await world.register()
    limiting = world.start(queue_name="wf", queue_concurrency_limit=1)
    async with (
        a_start_under_way(database, *[StartItem("wf", tags={"a": "b"}) for _ in range(4)]),
        once_it_waits(database, limiting) as starting,
    ):
        assert not starting.done()
    await starting
    assert len(await world.claim_ids(capacity=10)) == 1


async def test_servers_that_limit_a_queue_at_once_do_not_wait_for_each_other(
    world: World, database: str, on_postgresql: None
) -> None:
    stores = [await open_store(database) for _ in range(3)]
    queues = [QueueSpec(f"q{n}", concurrency_limit=1) for n in range(3)]
    async with asyncio.timeout(60):
        await asyncio.gather(*[World(store).register(f"w{n}", queues=queues) for n, store in enumerate(stores)])
    for store in stores:
        await store.close()


async def test_only_a_first_limit_stops_the_others(world: World, on_postgresql: None) -> None:
    assert isinstance(world.store, PostgresStore)
    lock_queue = world.store._lock_queue
    await world.register(queues=[QueueSpec("wf")])
    await world.start(queue_name="wf")
    assert lock_queue._task is None, "no verb is in the lock queue"
    await world.register("a", queues=[QueueSpec("wf", concurrency_limit=2)])
    assert lock_queue._task is not None
    taken = lock_queue._token
    await world.register("b", queues=[QueueSpec("wf", concurrency_limit=2)])
    await world.register("c", queues=[QueueSpec("wf", concurrency_limit=5)])
    await world.start(queue_name="wf", queue_concurrency_limit=3)
    await world.register("d", queues=[QueueSpec("wf")])
    assert lock_queue._token == taken
    await world.register("e", queues=[QueueSpec("wf", concurrency_limit=1)])
    assert lock_queue._token == taken + 1


async def test_a_first_limit_that_has_waited_for_a_row_waits_for_the_others_too(
    world: World, database: str, on_postgresql: None
) -> None:
    await world.register()
    async with held(database, "workers", "w"):
        registering = asyncio.create_task(world.register("w", queues=[QueueSpec("wf", concurrency_limit=1)]))
        looking = await asyncpg.connect(database)

        async def waits() -> bool:
            return bool(await looking.fetchval("SELECT 1 FROM pg_locks WHERE locktype <> 'advisory' AND NOT granted"))

        await until(waits, 30, "the registration waits for its worker's row")
        await looking.close()
    await registering
    for _ in range(3):
        await world.start()
    assert len(await world.claim_ids(capacity=10)) == 1


async def test_what_a_server_of_the_release_before_has_missed_is_marked(world: World) -> None:
    await world.register(queues=[QueueSpec("wf", concurrency_limit=1)])
    for _ in range(2):
        await world.start()
    await world.store.write(unmark())
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
