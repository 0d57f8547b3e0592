"""Cancel goes down and never up, is told to whoever runs, and comes to an end whatever the worker does."""

import asyncpg
import pytest
from msgspec import json
from tests.store.world import (
    BLOCK,
    CANCELLED,
    GRACE_US,
    PROJECT,
    SECOND,
    World,
    answer_wait,
    child,
    event_wait,
    failure,
    raw,
    step,
)

from perdure.store.base.interface import Changed, EndNotice, Ready
from perdure.store.verbs.runs import transitions
from perdure.wire.base.errors import NotCancellable, NotFound
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Complete, Release, Suspend, WorkflowSpec


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register(workflows=["wf", WorkflowSpec("cleans", wake_on_cancel=True)])


async def started(world: World, parent: str, key: str, workflow_id: str = "wf") -> str:
    [row] = (await world.report(parent, [child(key, workflow_id)])).rows
    id = json.decode(row.value)
    assert isinstance(id, str)
    return id


async def test_cancel_goes_down_the_tree_and_never_up(world: World) -> None:
    grandparent = await world.running()
    parent = await started(world, grandparent, "p")
    sibling = await started(world, grandparent, "s")
    await world.claim(capacity=10)
    waiting = await started(world, parent, "w")
    running = await started(world, parent, "r")
    await world.claim(capacity=10)
    below = await started(world, running, "b")
    await world.wait_for(waiting, answer_wait("k"))
    queued = await started(world, parent, "q")
    done = await started(world, parent, "d")
    await world.cancel(done)
    orphan_of_done = done  # final ones are walked through, and stay as they are
    before = await world.everything(orphan_of_done)

    assert await world.cancel(parent) is Phase.CANCELLING

    phases = {
        parent: Phase.CANCELLING,
        running: Phase.CANCELLING,
        waiting: Phase.CANCELLED,
        queued: Phase.CANCELLED,
        below: Phase.CANCELLED,
        done: Phase.CANCELLED,
        sibling: Phase.RUNNING,
        grandparent: Phase.RUNNING,
    }
    assert {id: await world.phase(id) for id in phases} == phases
    assert await world.everything(done) == before
    assert {(hint.execution_id, hint.phase) for hint in world.hints if type(hint) is EndNotice} >= {
        (waiting, "cancelled"),
        (queued, "cancelled"),
    }
    assert (await world.report(parent, end=CANCELLED)).ended
    assert await world.outcomes(grandparent, Kind.CHILD) == [None]
    assert await world.phase(grandparent) is Phase.RUNNING


async def test_open_work_below_a_finished_child_is_cancelled_too(world: World) -> None:
    top = await world.running()
    middle = await started(world, top, "m")
    await world.claim()
    leaf = await started(world, middle, "l")
    await world.finish(middle)
    await world.cancel(top)
    assert await world.phase(leaf) is Phase.CANCELLED
    assert await world.phase(middle) is Phase.COMPLETED


async def test_a_running_execution_hears_of_it_and_may_clean_up(world: World) -> None:
    id = await world.running()
    await world.cancel(id)
    assert Changed("w", id) in world.hints
    assert await world.cancel(id) is Phase.CANCELLING  # asked twice, written once
    reply = await world.acknowledge(id, seen=1)
    assert [(row.kind, row.name) for row in reply.rows] == [(Kind.CANCEL, "user")]
    await world.report(id, [step("clean", 1)])
    assert (await world.report(id, end=CANCELLED)).ended
    execution = await world.get(id)
    assert (execution.phase, execution.cancelled_by) == (Phase.CANCELLED, "user")
    assert execution.cancelled_at_us == execution.completed_at_us == world.now_us


async def test_an_unseen_cancel_keeps_an_execution_from_suspending(world: World) -> None:
    id = await world.running()
    await world.report(id, [answer_wait("k")])
    await world.cancel(id)
    reply = await world.report(id, end=Suspend(["k"]), seen=1)
    assert not reply.ended
    assert [row.kind for row in reply.rows] == [Kind.CANCEL]


@pytest.mark.parametrize("end", [Complete(raw(1)), failure(), CANCELLED], ids=["complete", "fail", "confirm"])
async def test_the_first_final_report_wins(world: World, end: Complete) -> None:
    id = await world.running()
    await world.cancel(id)
    assert (await world.report(id, end=end)).ended
    before = await world.everything(id)
    world.advance(GRACE_US / SECOND)
    await world.wake_due()
    with pytest.raises(NotCancellable):
        await world.cancel(id)
    assert await world.everything(id) == before


async def test_whoever_does_not_confirm_is_overruled_after_the_grace(world: World) -> None:
    id = await world.running()
    await world.cancel(id)
    world.advance(GRACE_US / SECOND - 1)
    await world.report(id, [step("still cleaning", 1)])
    assert await world.wake_due() == 0
    world.advance(1)
    assert await world.wake_due() == 1
    assert await world.phase(id) is Phase.CANCELLED
    assert (await world.report(id, [step("late", 1)], CANCELLED)).lost


async def test_a_run_timeout_cancels_by_system_and_is_overruled(world: World) -> None:
    id = await world.running(run_timeout_seconds=5)
    below = await started(world, id, "c")
    world.advance(4)
    assert await world.wake_due() == 0
    world.advance(1)
    assert await world.wake_due() == 1
    assert await world.phase(id) is Phase.CANCELLING
    assert await world.phase(below) is Phase.CANCELLED
    assert (await world.get(id)).cancelled_by == "system"
    world.advance(GRACE_US / SECOND)
    await world.wake_due()
    assert await world.phase(id) is Phase.CANCELLED


async def test_waiting_does_not_count_against_the_run_timeout(world: World) -> None:
    id = await world.running(run_timeout_seconds=5)
    world.advance(4)
    await world.wait_for(id, answer_wait("k"))
    await world.live(100, "w")
    assert await world.wake_due() == 0
    await world.resume(id, "k")
    await world.live(100, "w")
    assert await world.wake_due() == 0  # nor does the queue
    await world.claim()
    assert (await world.get(id)).due_at_us == world.now_us + 5 * SECOND


async def test_a_waiting_execution_is_woken_once_to_clean_up(world: World) -> None:
    id = await world.running(workflow_id="cleans")
    await world.wait_for(id, event_wait("k", "topic"))
    assert await world.cancel(id) is Phase.CANCELLING
    assert Ready(PROJECT, "d") in world.hints
    assert await world.cancel(id) is Phase.CANCELLING
    assert await world.phase(id) is Phase.QUEUED
    await world.publish("topic", 1)  # what comes meanwhile is kept, in order
    [claimed] = await world.claim()
    assert claimed.cancelling
    assert [row.kind.value for row in claimed.rows[2:]] == ["cancel_asked", "event", "claimed"]
    assert await world.cancel(id) is Phase.CANCELLING
    assert (await world.get(id)).due_at_us == world.now_us + GRACE_US
    assert (await world.report(id, end=CANCELLED)).ended
    assert (await world.kinds(id)).count("cancel_asked") == 1


@pytest.mark.parametrize("how", ["woken", "released", "lost", "to be tried again"])
async def test_one_that_is_back_in_its_queue_is_let_clean_up_as_well(world: World, how: str) -> None:
    id = await world.running(workflow_id="cleans")
    await world.report(id, [step("reserve", 1)])
    if how == "woken":
        await world.wait_for(id, answer_wait("k"))
        await world.resume(id, "k")
    elif how == "lost":
        await world.lose()
        await world.register(workflows=["wf", WorkflowSpec("cleans", wake_on_cancel=True)])
    else:
        await world.report(id, end=Release() if how == "released" else failure(retry_delay_us=60 * SECOND))
    assert await world.phase(id) is Phase.QUEUED
    assert await world.cancel(id) is Phase.CANCELLING
    [claimed] = await world.claim()
    assert claimed.cancelling
    assert (await world.report(id, [step("give back", 1)], CANCELLED)).ended
    assert await world.phase(id) is Phase.CANCELLED
    await world.check()


async def test_one_whose_code_has_not_begun_has_nothing_to_clean_up(world: World) -> None:
    id = await world.start("cleans")
    assert await world.cancel(id) is Phase.CANCELLED


async def test_one_that_nobody_lets_clean_up_ends_with_a_cancel_after_the_grace(world: World) -> None:
    """The workers are gone for good, so only the grace can end the execution."""
    id = await world.running(workflow_id="cleans")
    await world.wait_for(id, answer_wait("k"))
    await world.cancel(id)
    world.advance(GRACE_US / SECOND - 1)
    assert await world.cancel(id) is Phase.CANCELLING
    world.advance(1)
    assert await world.cancel(id, by="ann") is Phase.CANCELLED
    execution = await world.get(id)
    assert (execution.phase, execution.cancelled_by) == (Phase.CANCELLED, "user")
    await world.check()


async def test_one_that_was_woken_to_clean_up_and_whose_worker_is_lost_is_cancelled(world: World) -> None:
    id = await world.running(workflow_id="cleans")
    await world.wait_for(id, answer_wait("k"))
    await world.cancel(id)
    await world.claim()
    await world.lose()
    assert await world.phase(id) is Phase.CANCELLED


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.BLOCKED])
async def test_only_a_waiting_one_is_woken_to_clean_up(world: World, phase: Phase) -> None:
    id = await world.start("cleans")
    if phase is Phase.BLOCKED:
        await world.claim()
        await world.report(id, end=BLOCK)
    assert await world.cancel(id) is Phase.CANCELLED
    assert (await world.get(id)).error is None


async def test_no_child_is_started_by_what_is_being_cancelled(world: World) -> None:
    id = await world.running()
    await world.cancel(id)
    [_, row] = (await world.report(id, [child("c")], seen=1)).rows[-2:]
    assert row.kind is Kind.CHILD_STARTED and not row.ok
    assert json.decode(row.value)["type"] == "CANCELLING"
    assert await world.claim_ids() == []


async def test_another_project_s_execution_cannot_be_told_from_a_missing_one(world: World) -> None:
    id = await world.running()
    for wanted in (id, world.new_id()):
        with pytest.raises(NotFound, match=f"^Execution '{wanted}' does not exist"):
            await world.store.write(
                transitions.cancel(project_id="other", execution_id=wanted, cancelled_by="user", now_us=1, grace_us=1)
            )


async def test_a_wide_tree_is_cancelled_in_one_go(world: World) -> None:
    id = await world.running()
    await world.report(id, [child(f"c{n}") for n in range(300)])
    await world.cancel(id)
    assert await world.claim_ids() == []
    assert len(await world.outcomes(id, Kind.CHILD)) == 300


async def test_graces_that_end_at_the_same_moment_end_parents_first(world: World, database: str) -> None:
    """The first end matters to nobody, but is the same on every database, wherever rows lie."""
    parent = await world.running()
    await started(world, parent, "c")
    [below] = await world.claim_ids()
    await world.cancel(parent)
    if database.startswith("postgresql"):  # its row moves behind the child's
        connection = await asyncpg.connect(database)
        await connection.execute("UPDATE executions SET user_id = 'moved' WHERE id = $1", parent)
        await connection.close()
    world.advance(60)
    assert await world.wake_due() == 2
    assert await world.phase(below) is Phase.CANCELLED
    assert await world.kinds(parent) == ["claimed", "child_started", "cancel_asked", "cancelled"]
