"""Why a queued execution has not been claimed: the order of turns, and the queue's load."""

from tests.store.world import World

from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.runs.requests import QueueSpec, StartItem
from perdure.wire.runs.waits import QueuedBehind


async def behind(world: World, id: str) -> QueuedBehind | None:
    return (await world.waits(id)).queued_behind


async def test_a_turn_waits_for_the_open_one(world: World) -> None:
    await world.register()
    first, second, third = await world.start_all(
        [StartItem("wf", session_id="s", on_conflict=OnConflict.QUEUE) for _ in range(3)]
    )
    assert await behind(world, first) is None, "it waits for a worker and nothing else"
    assert await behind(world, second) == await behind(world, third) == QueuedBehind("session", "s", [first])
    await world.claim()
    await world.finish(first)
    assert await behind(world, second) is None
    assert await behind(world, third) == QueuedBehind("session", "s", [second])


async def test_room_in_a_queue_is_anothers(world: World) -> None:
    await world.register(queues=[QueueSpec("q", concurrency_limit=1, total_limit=2)])
    a, b, c = await world.start_all([StartItem("wf", queue_name="q", concurrency_key=key) for key in ("a", "a", "c")])
    free = await world.start()
    assert await behind(world, b) is None, "nobody runs yet"
    await world.claim(capacity=1)
    claimed = await world.claim_ids()
    assert b not in claimed and {a, c} <= {a, *claimed}
    assert await behind(world, b) == QueuedBehind("queue", "q", sorted([a, c]), 2)
    await world.finish(c)
    assert await behind(world, b) == QueuedBehind("concurrency_key", "q", [a], 1)
    assert await behind(world, free) is None
    await world.finish(a)
    assert await behind(world, b) is None
