"""A pause holds back covered executions, on every way to a worker."""

from collections.abc import Awaitable, Callable

import pytest
from tests.store.pausing import ALL, COVERED, QUEUE, end_due, listed, pause, to_work, unpause, work_all
from tests.store.pushing import PushWorld
from tests.store.world import PROJECT, SECOND, World

from perdure.store.base.interface import Ready
from perdure.store.verbs.runs import starts
from perdure.store.verbs.runs.direct_dispatch import WaitingClaim
from perdure.store.verbs.runs.queues import list_queues
from perdure.store.verbs.runs.starts import New
from perdure.store.verbs.steering import pauses
from perdure.store.verbs.steering.pauses import PauseTarget
from perdure.wire.base.errors import BadValue, DeploymentNotFound, WorkflowNotFound
from perdure.wire.base.status import Phase
from perdure.wire.runs.queues import ListQueues, Pause, PauseKind, QueueState
from perdure.wire.runs.requests import OpenWait, QueueSpec, Release, StartItem, WorkflowSpec
from perdure.wire.runs.waits import QueuedBehind
from perdure.wire.steering.pauses import EndedPause

LIMITS: list[dict[str, int]] = [{}, {"total_limit": 5}, {"concurrency_limit": 1}]
each_kind = pytest.mark.parametrize("what", ALL, ids=[one.kind.value for one in ALL])


@each_kind
@pytest.mark.parametrize("limits", LIMITS, ids=["free", "limited", "by key"])
async def test_nothing_is_claimed_until_the_pause_ends(world: World, what: PauseTarget, limits: dict[str, int]) -> None:
    await world.register("other", workflows=["other"], deployment="v2")
    await world.register(queues=[QueueSpec("q", **limits)] if limits else ())
    before = await world.start(**COVERED)
    await pause(world, what)
    after = await world.start(**COVERED)
    other = await world.start("other", queue_name="else", deployment_id="v2")
    assert await world.claim_ids() == []
    assert await world.claim_ids("other") == [other]
    assert [one.held for one in await listed(world)] == [2]
    await world.check()
    assert await unpause(world, what) == EndedPause(was_paused=True, held=2)
    claimed = [*await world.claim_ids()]
    for id in [*claimed]:
        await world.finish(id)
    assert sorted(claimed + await world.claim_ids()) == sorted([before, after])
    assert await to_work(world) == []
    await world.check()


@each_kind
async def test_a_pause_counts_before_the_loop_has_marked_anything(world: World, what: PauseTarget) -> None:
    await world.register()
    id = await world.start(**COVERED)
    await pause(world, what, work=False)
    assert await world.claim_ids() == []
    await unpause(world, what, work=False)
    assert await world.claim_ids() == [id]


@each_kind
async def test_an_execution_that_runs_ends_and_one_that_wakes_waits(world: World, what: PauseTarget) -> None:
    await world.register()
    running, waits = await world.running(**COVERED), await world.running(**COVERED)
    await world.wait_for(waits, OpenWait("approve", None))
    await pause(world, what)
    await world.finish(running)
    await world.resume(waits, "approve")
    assert await world.claim_ids() == []
    await unpause(world, what)
    assert await world.claim_ids() == [waits]


async def _timer(world: World) -> str:
    id = await world.running(**COVERED)
    await world.wait_for(id, due_us=world.now_us + SECOND)
    return id


async def _delayed(world: World) -> str:
    return await world.start(delay_seconds=1, **COVERED)


async def _lost(world: World) -> str:
    return await world.running(**COVERED)


async def _released(world: World) -> str:
    id = await world.running(**COVERED)
    await world.report(id, end=Release())
    return id


async def _cancelled(world: World) -> str:
    id = await world.running(workflow_id="tidy", **COVERED)
    await world.wait_for(id, OpenWait("approve", None))
    return id


@pytest.mark.parametrize("begin", [_timer, _delayed, _lost, _released, _cancelled])
async def test_every_way_back_into_the_queue_meets_the_pause(
    world: World, begin: Callable[[World], Awaitable[str]]
) -> None:
    await world.register(workflows=["wf", WorkflowSpec("tidy", wake_on_cancel=True)])
    id = await begin(world)
    await pause(world, QUEUE)
    world.advance(2)
    await world.wake_due()
    if begin is _lost:
        await world.lose()
        await world.register("second", workflows=["wf", "tidy"])
    elif begin is _cancelled:
        await world.cancel(id)
    worker = "second" if begin is _lost else "w"
    world.advance(60)
    await world.wake_due()
    assert await world.claim_ids(worker) == []
    await work_all(world)
    await world.check()
    await unpause(world, QUEUE)
    assert await world.claim_ids(worker) == ([] if await world.phase(id) is Phase.CANCELLED else [id])


async def test_a_waiting_claim_gets_nothing_of_a_paused_queue(world: World) -> None:
    await world.register()
    await pause(world, QUEUE)
    offer = WaitingClaim("w", "d", "3.12", world.new_id(), 5)
    news = [New(world.new_id(), StartItem("wf", **COVERED)), New(world.new_id(), StartItem("wf", queue_name="free"))]
    _, given = await world.store.write(
        starts.start(project_id=PROJECT, news=news, now_us=world.now_us, waiting_claim=offer)
    )
    assert [one.queue_name for one in given] == ["free"]


async def test_a_pause_of_a_key_leaves_the_other_keys_of_its_queue(world: World) -> None:
    await world.register()
    await world.start(**COVERED)
    await pause(world, ALL[3])
    await world.start(**COVERED)
    free = [await world.start(queue_name="q", concurrency_key="l"), await world.start(queue_name="q")]
    await world.start(queue_name="q2", concurrency_key="k")
    assert set(free) < set(await world.claim_ids())
    assert [one.held for one in await listed(world)] == [2]


async def test_of_two_pauses_over_an_execution_the_last_end_counts(world: World) -> None:
    await world.register()
    await pause(world, QUEUE)
    id = await world.start(**COVERED)
    await pause(world, ALL[1])
    await unpause(world, QUEUE)
    assert await world.claim_ids() == []
    assert [(one.kind, one.held) for one in await listed(world)] == [(PauseKind.WORKFLOW, 1)]
    await unpause(world, ALL[1])
    assert await world.claim_ids() == [id]
    await world.check()


async def test_marking_and_releasing_go_on_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "MARKED_AT_ONCE", 3)
    monkeypatch.setattr(pauses, "RELEASED_AT_ONCE", 2)
    await world.register()
    ids = [await world.start("wf", queue_name="q" if n % 2 else "free") for n in range(8)]
    held = ids[1::2]
    await pause(world, QUEUE, work=False)
    [work] = await to_work(world)
    assert await world.store.write(pauses.mark(number=work.number))
    assert [one.held for one in await listed(world)] == [1]
    assert sorted(await world.claim_ids()) == ids[0::2]
    await work_all(world)
    assert [one.held for one in await listed(world)] == [4]
    await unpause(world, QUEUE, work=False)
    assert await world.claim_ids() == []
    assert await world.store.write(pauses.release(number=work.number))
    assert await world.claim_ids() == held[:2]
    late = await world.start("wf", queue_name="q")
    assert await world.claim_ids() == [late], "the pause has ended for what starts"
    await work_all(world)
    assert await world.claim_ids() == held[2:]
    assert await to_work(world) == []


async def test_a_pause_that_ends_while_it_marks_holds_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "MARKED_AT_ONCE", 2)
    await world.register()
    ids = [await world.start(queue_name="q") for _ in range(5)]
    await pause(world, QUEUE, work=False)
    [work] = await to_work(world)
    await world.store.write(pauses.mark(number=work.number))
    await unpause(world, QUEUE, work=False)
    assert not await world.store.write(pauses.mark(number=work.number))
    await work_all(world)
    assert sorted(await world.claim_ids()) == ids


async def test_a_pause_begins_anew_while_it_releases(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "RELEASED_AT_ONCE", 2)
    await world.register()
    ids = [await world.start(queue_name="q") for _ in range(5)]
    first = await pause(world, QUEUE)
    await unpause(world, QUEUE, work=False)
    [work] = await to_work(world)
    await world.store.write(pauses.release(number=work.number))
    world.advance(5)
    again = await pause(world, QUEUE, note="again")
    assert again.paused_at_us == first.paused_at_us + 5 * SECOND
    assert await world.claim_ids() == []
    assert [one.held for one in await listed(world)] == [5]
    await unpause(world, QUEUE)
    assert sorted(await world.claim_ids()) == ids


async def test_a_repeat_keeps_the_time_and_changes_the_rest(world: World) -> None:
    await world.register()
    first = await pause(world, QUEUE, note="down")
    world.advance(60)
    until_us = world.now_us + SECOND
    assert await pause(world, QUEUE, paused_by="bob", until_us=until_us) == Pause(
        PauseKind.QUEUE, "q", first.paused_at_us, "bob", until_us=until_us
    )
    assert len(await listed(world)) == 1


async def test_a_pause_ends_by_itself(world: World) -> None:
    await world.register()
    id = await world.start(**COVERED)
    await pause(world, QUEUE, until_us=world.now_us + 10 * SECOND)
    await pause(world, ALL[3], until_us=world.now_us + 20 * SECOND)
    world.advance(10)
    assert await end_due(world) == [QUEUE]
    assert await world.claim_ids() == []
    world.advance(10)
    world.hints.clear()
    assert await end_due(world) == [ALL[3]]
    assert Ready(PROJECT, None) in world.hints
    assert await world.claim_ids() == [id]
    assert await end_due(world) == []


async def test_the_end_notifies_waiting_claims_once(world: World) -> None:
    await world.register()
    await pause(world, QUEUE)
    world.hints.clear()
    await unpause(world, QUEUE)
    assert Ready(PROJECT, None) in world.hints
    assert await unpause(world, QUEUE) == EndedPause(was_paused=False)
    assert world.hints.count(Ready(PROJECT, None)) == 1


async def test_a_pause_stays_when_a_registration_changes_limits(world: World) -> None:
    await world.register()
    paused = await pause(world, QUEUE)
    id = await world.start(queue_name="q")
    await world.register("second", queues=[QueueSpec("q", total_limit=3)])
    assert await world.claim_ids("second") == []
    [state] = (await world.store.scan(list_queues(world.at(), ListQueues()))).items
    assert (state.total_limit, state.queued) == (3, 1)
    assert state.pause is not None
    assert state.pause.paused_at_us == paused.paused_at_us
    assert state.pause.held == 1
    await unpause(world, QUEUE)
    assert (await world.store.scan(list_queues(world.at(), ListQueues()))).items == [
        QueueState("q", total_limit=3, queued=1)
    ]
    assert await world.claim_ids("second") == [id]
    await world.check()


async def test_an_early_start_gets_the_pause_of_the_queue_that_it_is_given(world: World) -> None:
    id = await world.start(queue_name="q", accept_early=True)
    await pause(world, QUEUE)
    later = await world.start(queue_name="q", accept_early=True)
    await world.register()
    assert await world.claim_ids() == []
    await work_all(world)
    assert [one.held for one in await listed(world)] == [2]
    await unpause(world, QUEUE)
    assert sorted(await world.claim_ids()) == sorted([id, later])
    await world.check()


async def test_a_waiting_execution_names_its_pause(world: World) -> None:
    await world.register(queues=[QueueSpec("q", 1, 1)])
    id = await world.start(**COVERED)
    await pause(world, QUEUE, work=False, note="down")
    [held] = await listed(world)
    found = await world.waits(id)
    assert found.queued_behind == QueuedBehind("pause", "q", [], pause=held)
    await unpause(world, QUEUE)
    assert (await world.waits(id)).queued_behind is None


async def test_a_pause_is_of_its_project(world: World) -> None:
    await world.register()
    await pause(world, PauseTarget("another", PauseKind.QUEUE, "q", ""))
    id = await world.start(queue_name="q")
    assert await listed(world) == []
    assert await world.claim_ids() == [id]


async def test_what_cannot_be_paused_is_refused(world: World) -> None:
    await world.register()
    with pytest.raises(BadValue, match=r"until: .* is past; name a later time"):
        await pause(world, QUEUE, until_us=world.now_us)
    with pytest.raises(WorkflowNotFound, match="Workflow 'none' is in no active deployment; `perdure workflows`"):
        await pause(world, PauseTarget(PROJECT, PauseKind.WORKFLOW, "none", ""))
    with pytest.raises(DeploymentNotFound):
        await pause(world, PauseTarget(PROJECT, PauseKind.DEPLOYMENT, "none", ""))
    assert await listed(world) == []


async def test_a_workflow_of_push_workers_is_paused_without_a_registration(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await world.start("any", accept_early=True)
    what = PauseTarget(PROJECT, PauseKind.WORKFLOW, "any", "")
    await pause(world, what)
    assert await pushes.claim(worker) == []
    await unpause(world, what)
    assert [one.claimed.id for one in await pushes.claim(worker)] == [id]
