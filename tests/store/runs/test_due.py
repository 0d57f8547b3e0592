"""A locked row stops only the due execution that needs the row."""

import pytest
from tests.store.agents.test_turns import QUEUE, take, turn
from tests.store.locks import held, without_waiting
from tests.store.pushing import PushWorld
from tests.store.world import GRACE_US, LEASE_US, SECOND, World, child, event_wait

from perdure.store.verbs.runs import transitions
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import StartItem


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register()


async def _cancelling(world: World) -> str:
    """An execution whose grace is over."""
    id = await world.running()
    await world.cancel(id)
    world.advance(GRACE_US / SECOND)
    return id


async def _timer(world: World) -> str:
    id = await world.running()
    await world.wait_for(id, due_us=world.now_us)
    return id


async def _kid(world: World, parent: str, key: str = "c") -> str:
    await world.report(parent, [child(key)])
    [kid] = await world.claim_ids()
    await world.acknowledge(kid)
    return kid


async def test_timers_and_delayed_starts_take_what_is_free(world: World, database: str, on_postgresql: None) -> None:
    locked, free = await _timer(world), await _timer(world)
    starts = [await world.start(delay_seconds=1) for _ in range(2)]
    world.advance(1)
    async with held(database, "executions", locked), held(database, "executions", starts[0]):
        async with without_waiting():
            assert await world.wake_due() == 2
        assert sorted(await world.claim_ids()) == sorted([free, starts[1]])
        async with without_waiting():
            assert await world.wake_due() == 0
    assert await world.wake_due() == 2
    assert sorted(await world.claim_ids()) == sorted([locked, starts[0]])


async def test_a_held_execution_that_is_overdue_keeps_nobody_else_waiting(
    world: World, database: str, on_postgresql: None
) -> None:
    cancelling, free = await _cancelling(world), await _cancelling(world)
    slow = [await world.running(run_timeout_seconds=1) for _ in range(2)]
    timer = await _timer(world)
    world.advance(1)
    async with held(database, "executions", cancelling), held(database, "executions", slow[0]):
        async with without_waiting():
            assert await world.wake_due() == 3
        assert await world.phase(timer) is Phase.QUEUED
        assert await world.phase(free) is Phase.CANCELLED
        assert [await world.phase(id) for id in slow] == [Phase.RUNNING, Phase.CANCELLING]
        assert await world.phase(cancelling) is Phase.CANCELLING
    assert await world.wake_due() == 2
    assert await world.phase(cancelling) is Phase.CANCELLED
    assert await world.phase(slow[0]) is Phase.CANCELLING


async def test_a_grace_whose_end_a_held_parent_would_hear_of_is_for_another_round(
    world: World, database: str, on_postgresql: None
) -> None:
    parent = await world.running()
    kid = await _kid(world, parent)
    await world.cancel(kid)
    free = await _cancelling(world)
    async with held(database, "executions", parent):
        async with without_waiting():
            assert await world.wake_due() == 1
        assert [await world.phase(id) for id in (kid, free)] == [Phase.CANCELLING, Phase.CANCELLED]
    assert await world.wake_due() == 1
    assert await world.phase(kid) is Phase.CANCELLED


async def test_a_run_timeout_waits_for_nobody_who_holds_what_it_would_cancel(
    world: World, database: str, on_postgresql: None
) -> None:
    root = await world.running(run_timeout_seconds=1)
    kid = await _kid(world, root)
    below = await _kid(world, kid)
    free = await world.running(run_timeout_seconds=1)
    world.advance(1)
    async with held(database, "executions", below):
        async with without_waiting():
            assert await world.wake_due() == 1
        assert [await world.phase(id) for id in (root, kid)] == [Phase.RUNNING, Phase.RUNNING]
        assert await world.phase(free) is Phase.CANCELLING
    assert await world.wake_due() == 1
    assert [await world.phase(id) for id in (root, kid, below)] == [Phase.CANCELLING] * 3


@pytest.mark.parametrize("what", ["transcript", "next turn", "taken turn"])
@pytest.mark.parametrize("how", ["overdue", "lost"])
async def test_the_end_of_a_turn_waits_for_nobody_who_holds_its_session(
    world: World, database: str, on_postgresql: None, what: str, how: str
) -> None:
    """The reaper does not wait either, for a cancelled turn."""
    items = [turn(), turn(OnConflict.DELIVER if what == "taken turn" else QUEUE, {"say": "more"})]
    first, second = await world.start_all([*items])
    assert await world.claim_ids() == [first]
    if what == "taken turn":
        assert len(await take(world, first)) == 1
    await world.register("w2")
    free = await world.running("w2")
    for id in (first, free):
        await world.cancel(id)
    world.advance(max(GRACE_US, LEASE_US) / SECOND)
    row = ("transcripts", "s") if what == "transcript" else ("executions", second)
    done = world.wake_due if how == "overdue" else world.reap
    async with held(database, *row):
        async with without_waiting():
            assert await done() == 1
        assert [await world.phase(id) for id in (first, free)] == [Phase.CANCELLING, Phase.CANCELLED]
    assert await done() == 1
    assert await world.phase(first) is Phase.CANCELLED
    await world.register()
    assert await world.claim_ids() == [second]


@pytest.mark.parametrize("how", ["overdue", "lost"])
async def test_an_end_waits_for_nobody_who_holds_a_wait_that_it_closes(
    world: World, database: str, on_postgresql: None, how: str
) -> None:
    await world.register("w2")
    first, free = await world.running(), await world.running("w2")
    await world.report(first, [event_wait("k", "t")])
    for id in (first, free):
        await world.cancel(id)
    world.advance(max(GRACE_US, LEASE_US) / SECOND)
    done = world.wake_due if how == "overdue" else world.reap
    async with held(database, "waits", first):
        async with without_waiting():
            assert await done() == 1
        assert [await world.phase(id) for id in (first, free)] == [Phase.CANCELLING, Phase.CANCELLED]
    assert await done() == 1
    assert await world.phase(first) is Phase.CANCELLED


async def test_nor_for_who_holds_the_wait_of_a_parent(
    pushes: PushWorld, worker: str, database: str, on_postgresql: None
) -> None:
    """A batch is one wait of its parent; the batch's last end is written there."""
    world = pushes.world
    parent = await pushes.running(worker)
    [kid] = [one.execution_id for one in await pushes.children(parent, "all", [StartItem("wf")], batch=True)]
    assert kid in [one.claimed.id for one in await pushes.claim(worker)]
    free = await pushes.running(worker)
    for id in (kid, free):
        await world.cancel(id)
    world.advance(GRACE_US / SECOND)
    async with held(database, "waits", parent):
        async with without_waiting():
            assert await world.wake_due() == 1
        assert [await world.phase(id) for id in (kid, free)] == [Phase.CANCELLING, Phase.CANCELLED]
    assert await world.wake_due() == 1
    assert [await world.phase(id) for id in (kid, parent)] == [Phase.CANCELLED, Phase.QUEUED]


async def test_a_time_out_waits_for_nobody_who_holds_the_wait_that_it_closes(
    pushes: PushWorld, worker: str, database: str, on_postgresql: None
) -> None:
    world = pushes.world
    locked, free = await pushes.running(worker), await pushes.running(worker)
    for id in (locked, free):
        await pushes.wait(id, "ask", "suspend", topic=f"workflow/wf/{id}", seconds=1)
    world.advance(1)
    async with held(database, "waits", locked):
        async with without_waiting():
            assert await world.wake_due() == 1
        assert [await world.phase(id) for id in (locked, free)] == [Phase.WAITING, Phase.QUEUED]
    assert await world.wake_due() == 1
    assert await world.phase(locked) is Phase.QUEUED


async def test_a_look_for_what_is_overdue_goes_on_where_the_last_one_ended(world: World) -> None:
    """A page may end between executions of either phase that were due at the same moment."""
    ids = await world.start_all([StartItem("wf", run_timeout_seconds=30) for _ in range(4)])
    assert await world.claim_ids() == ids
    for id in ids[::2]:
        await world.cancel(id)
    late = await world.running(run_timeout_seconds=31)
    world.advance(31)

    async def look(after: transitions.Overdue) -> list[transitions.Overdue]:
        return await world.store.read(transitions.overdue(now_us=world.now_us, limit=2, after=after))

    found = await look(transitions.FIRST)
    while len(more := await look(found[-1])) == 2:
        found += more
    assert [one.id for one in [*found, *more]] == [*sorted(ids), late]


async def test_what_is_not_overdue_any_more_is_left_alone(world: World) -> None:
    id = await world.running(run_timeout_seconds=1)

    async def end() -> bool:
        verb = transitions.end_overdue(project_id="project", execution_id=id, now_us=world.now_us, grace_us=GRACE_US)
        return await world.store.write(verb)

    assert not await end()
    world.advance(1)
    assert await end()
    assert not await end()
    world.advance(GRACE_US / SECOND)
    assert await end()
    assert not await end()
    assert await world.phase(id) is Phase.CANCELLED


async def test_the_next_due_time_may_be_asked_for_behind_one_that_is_held(world: World) -> None:
    async def next_due(**asked: object) -> int | None:
        return await world.store.read(transitions.next_due(**asked))  # type: ignore[arg-type]  # named below

    assert await next_due() is None
    await world.start(delay_seconds=5)
    await world.running(run_timeout_seconds=2)
    await _timer(world)
    begun = world.now_us
    assert await next_due() == begun
    assert await next_due(after_us=begun) == begun + 2 * SECOND
    assert await next_due(phases=transitions.RESTING, after_us=begun) == begun + 5 * SECOND
    assert await next_due(after_us=begun + 5 * SECOND) is None
