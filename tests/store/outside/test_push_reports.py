"""The reports of push workers about their executions, in verbs."""

from __future__ import annotations

import uuid

import pytest
from tests.store.pushing import PushWorld
from tests.store.world import GRACE_US, PROJECT, SECOND, START_US, raw
from uuid_utils import uuid7

from perdure.store.base.executions import EndedExecution
from perdure.store.base.interface import Metric, Query
from perdure.store.verbs import retention
from perdure.store.verbs.outside import push_reports, push_steps
from perdure.store.verbs.runs.rows import ended
from perdure.store.verbs.runs.transitions import LOSSES_MAX, UNDELIVERED_MAX
from perdure.wire.base.errors import Conflict, NotFound
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.base.times import rfc3339
from perdure.wire.outside.push_workers import CompleteExecution, PutOtelSpanId
from perdure.wire.runs.requests import StartItem


async def again(pushes: PushWorld, worker: str, id: str) -> None:
    """Bring the execution to its worker once more."""
    assert [one.claimed.id for one in await pushes.claim(worker)] == [id]


# --- steps ---------------------------------------------------------------------------------------------------------


async def test_a_step_is_kept_as_it_was_saved(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    assert await pushes.step(id, "a/b c") is None
    await pushes.save(id, "a/b c", {"n": 1}, output_schema_name="shop.Order")
    step = await pushes.step(id, "a/b c")
    assert step is not None and (step.success, step.output_schema_name) == (True, "shop.Order")
    assert await pushes.outputs(id, "a/b c") == {"n": 1}
    await pushes.save(id, "bad", {"message": "no"}, ok=False)
    assert await pushes.error(id, "bad") == {"message": "no"}


async def test_the_first_outcome_of_a_step_stands(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    await pushes.save(id, "s", 1)
    await pushes.save(id, "s", 2)
    assert await pushes.outputs(id, "s") == 1
    assert (await pushes.world.kinds(id)).count("step") == 1


async def test_steps_count_only_while_a_push_worker_holds_the_execution(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    await pushes.wait(id, "nap", seconds=60)
    with pytest.raises(Conflict, match="no push worker holds it"):
        await pushes.save(id, "s", 1)
    with pytest.raises(NotFound):
        await pushes.save(world.new_id(), "s", 1)
    await world.register("native", deployment="n")
    native = await world.running("native", deployment_id="n")
    with pytest.raises(Conflict):
        await pushes.save(native, "s", 1)


async def test_a_step_acknowledges_the_delivery(pushes: PushWorld, worker: str) -> None:
    id = await pushes.world.start(deployment_id="p")
    await pushes.claim(worker, accept=False)
    await pushes.save(id, "s", 1)
    where = await pushes.store.read(push_steps.standing(project_id=PROJECT, execution_id=id))
    assert where.acked == 1


# --- ends ----------------------------------------------------------------------------------------------------------


async def test_an_execution_ends_with_its_result(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    await pushes.complete(id, worker, {"n": 1}, output_schema_name="shop.Order", final_state=raw({"k": 1}))
    ended = await pushes.world.get(id)
    assert (ended.phase, ended.output_schema_name) == (Phase.COMPLETED, "shop.Order")
    assert ended.result is not None and bytes(ended.result) == b'{"n":1}'
    await pushes.complete(id, worker, {"n": 1})  # its reply was lost
    with pytest.raises(Conflict, match="is completed and not held"):
        await pushes.fail(id, worker)


async def test_only_the_worker_that_holds_an_execution_ends_it(pushes: PushWorld, worker: str) -> None:
    other = await pushes.register("http://other.example")
    id = await pushes.running(worker)
    for end in (pushes.complete, pushes.fail, pushes.confirm):
        with pytest.raises(Conflict, match="not held by worker"):
            await end(id, other)
        with pytest.raises(NotFound):
            await end(pushes.world.new_id(), other)
    assert await pushes.world.phase(id) is Phase.RUNNING


async def test_what_fails_is_tried_again_twice(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    await pushes.save(id, "s", 1)
    for retry in (1, 2):
        await pushes.fail(id, worker)
        assert await pushes.world.phase(id) is Phase.QUEUED
        [one] = await pushes.claim(worker)
        assert one.claimed.retry_count == retry
        assert await pushes.outputs(id, "s") == 1
    await pushes.fail(id, worker, "for the last time")
    ended = await pushes.world.get(id)
    assert (ended.phase, ended.error, ended.retry_count) == (Phase.FAILED, "for the last time", 2)
    await pushes.fail(id, worker)


async def test_what_must_not_be_tried_again_fails_at_once(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    await pushes.fail(id, worker, retryable=False)
    assert await pushes.world.phase(id) is Phase.FAILED


async def test_a_cancel_is_confirmed(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    assert await world.cancel(id) is Phase.CANCELLING
    await pushes.confirm(id, worker)
    assert await world.phase(id) is Phase.CANCELLED
    await pushes.confirm(id, worker)
    other = await pushes.running(worker)
    await world.cancel(other)
    await pushes.fail(other, worker)  # it lets go: not tried again
    assert await world.phase(other) is Phase.CANCELLED
    last = await pushes.running(worker)
    await world.cancel(last)
    await pushes.complete(last, worker)  # it was faster
    assert await world.phase(last) is Phase.COMPLETED


async def test_a_worker_that_goes_away_hands_back_what_nobody_cancelled(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker, run_timeout_seconds=600)
    await pushes.confirm(id, worker)
    assert await pushes.world.phase(id) is Phase.QUEUED
    [one] = await pushes.claim(worker)
    assert (one.claimed.attempt, one.claimed.retry_count) == (2, 0)


async def due_again(pushes: PushWorld, worker: str, id: str) -> float:
    """Bring the execution again when due; returns the seconds until then."""
    world = pushes.world
    due_us = (await world.get(id)).due_at_us
    if due_us is None:
        await again(pushes, worker, id)
        return 0.0
    seconds = (due_us - world.now_us) / SECOND
    world.now_us = due_us - 1
    await world.wake_due()
    assert await pushes.claim(worker) == []
    world.now_us = due_us
    await world.wake_due()
    await pushes.beat(worker)
    await again(pushes, worker, id)
    return seconds


async def test_what_is_handed_back_again_and_again_comes_back_later_each_time(pushes: PushWorld, worker: str) -> None:
    """The execution's code may raise a cancel's error on any worker."""
    id = await pushes.running(worker)

    async def waits(times: int) -> list[float]:
        found: list[float] = []
        for _ in range(times):
            await pushes.confirm(id, worker)
            found.append(await due_again(pushes, worker, id))
        return found

    first, *later = await waits(12)
    assert first == 0.0
    for wait, most in zip(later, (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300), strict=True):
        assert most / 2 <= wait <= most
    await pushes.save(id, "s", 1)
    assert (await waits(2))[0] == 0.0, "a recorded step starts the count anew"
    await pushes.save(id, "s", 2)
    assert (await waits(1))[0] >= 1, "one that is there already does not"
    assert (await pushes.world.kinds(id)).count("released") == 15
    assert Metric("executions_lost") not in pushes.world.hints
    assert Metric("deliveries_lost") not in pushes.world.hints


async def test_even_hand_backs_have_a_bound(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    for _ in range(UNDELIVERED_MAX - 1):
        await pushes.confirm(id, worker)
        await due_again(pushes, worker, id)
    await pushes.confirm(id, worker)
    ended = await pushes.world.get(id)
    assert ended.phase is Phase.FAILED
    assert (ended.error or "").startswith("POISONED: 100 deliveries in a row were never acknowledged, or were handed")
    assert Metric("poisoned") in pushes.world.hints


async def test_a_rolling_restart_is_no_poison_and_no_loss(pushes: PushWorld) -> None:
    worker = await pushes.register("http://worker-0.example")
    id = await pushes.running(worker)
    for number in range(1, 31):
        await pushes.confirm(id, worker)
        worker = await pushes.register(f"http://worker-{number}.example")
        await due_again(pushes, worker, id)
    for _ in range(LOSSES_MAX - 1):
        await pushes.lapse(worker)
        await due_again(pushes, worker, id)
    assert await pushes.world.phase(id) is Phase.RUNNING, "the losses that a crash may cost it are all there"


async def test_what_asks_for_what_it_has_again_and_again_comes_back_later_each_time(
    pushes: PushWorld, worker: str
) -> None:
    id = await pushes.running(worker)
    await pushes.save(id, "nap", None)
    waits: list[float] = []
    for _ in range(3):
        await pushes.wait(id, "nap", seconds=60)
        waits.append(await due_again(pushes, worker, id))
    assert waits[0] == 0.0 and all(wait >= 0.5 for wait in waits[1:])


async def test_a_confirmation_about_the_time_out_is_the_time_out(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker, run_timeout_seconds=10)
    pushes.world.advance(8.5)  # by the worker's clock it is up
    await pushes.confirm(id, worker)
    ended = await pushes.world.get(id)
    assert (ended.phase, ended.cancelled_by) == (Phase.CANCELLED, "system")


# --- waits ---------------------------------------------------------------------------------------------------------


async def test_a_wait_for_a_time(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    await pushes.wait(id, "nap", seconds=60)
    await pushes.wait(id, "nap", seconds=60)  # its reply was lost
    assert await world.phase(id) is Phase.WAITING
    assert await pushes.step(id, "nap") is None
    world.advance(60)
    await world.wake_due()
    assert await pushes.outputs(id, "nap") == {"success": True, "wait_until": rfc3339(START_US + 60 * SECOND)}
    await again(pushes, worker, id)


async def test_a_wait_for_an_event(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    await pushes.wait(id, "order", "event", topic="orders")
    assert await world.phase(id) is Phase.WAITING
    await pushes.publish("orders", "made", {"n": 1})
    found = await pushes.outputs(id, "order")
    assert (found["sequence_id"], found["topic"], found["event_type"], found["data"]) == (1, "orders", "made", {"n": 1})
    assert found["created_at"] == rfc3339(world.now_us)
    await again(pushes, worker, id)
    await pushes.wait(id, "order", "event", topic="orders")  # asked anew although it is answered
    assert await world.phase(id) is Phase.QUEUED


async def test_an_event_that_came_before_the_wait_is_not_lost(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    await pushes.publish("orders", "made", 1)
    await pushes.publish("orders", "made", 2)
    await pushes.wait(id, "first", "event", topic="orders")
    assert (await pushes.outputs(id, "first"))["data"] == 1
    await again(pushes, worker, id)
    await pushes.wait(id, "second", "event", topic="orders")
    assert (await pushes.outputs(id, "second"))["data"] == 2


async def test_an_event_that_comes_too_late_is_not_it(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    await pushes.wait(id, "order", "event", topic="orders", seconds=30)
    until = rfc3339(world.now_us + 30 * SECOND)
    world.advance(30)
    await world.wake_due()
    await pushes.publish("orders", "made", 1)
    assert await pushes.error(id, "order") == {"message": f"Event wait expired at {until}"}
    await again(pushes, worker, id)
    assert "event" not in await world.kinds(id)


TOPIC = "workflow/wf/{}"


async def test_a_suspended_step_is_answered_by_the_event_of_its_key(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    topic = TOPIC.format(id)
    await pushes.publish(topic, "suspend_ask", {"question": "?"})
    await pushes.wait(id, "ask", "suspend", topic=topic)
    await pushes.publish(topic, "resume_other", "no")
    assert await pushes.world.phase(id) is Phase.WAITING
    await pushes.publish(topic, "resume_ask", {"approved": True})
    await pushes.publish(topic, "resume_ask", {"approved": False})
    found = await pushes.outputs(id, "ask")
    assert (found["data"], found["event_type"], found["sequence_id"]) == ({"approved": True}, "resume_ask", 3)
    await again(pushes, worker, id)


async def test_an_answer_that_overtakes_the_wait_is_not_lost(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    topic = TOPIC.format(id)
    await pushes.publish(topic, "resume_ask", "an answer to an earlier question")
    await pushes.publish(topic, "suspend_ask", {"question": "?"})
    await pushes.publish(topic, "resume_ask", "yes")
    await pushes.wait(id, "ask", "suspend", topic=topic)
    assert (await pushes.outputs(id, "ask"))["data"] == "yes"
    await again(pushes, worker, id)


async def test_a_suspended_step_is_answered_by_the_api(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    topic = TOPIC.format(id)
    await pushes.publish(topic, "suspend_ask", {})
    await pushes.wait(id, "ask", "suspend", topic=topic)
    await world.resume(id, "ask", "yes")
    await world.resume(id, "ask", "yes")
    with pytest.raises(Conflict, match="the first answer stands"):
        await world.resume(id, "ask", "no")
    assert (await pushes.outputs(id, "ask"))["data"] == "yes"
    assert [event.event_type for event in await world.read_topic(topic)] == ["suspend_ask", "resume_ask"]
    early = await pushes.running(worker)
    await world.resume(early, "ask", "before it was asked")
    await pushes.wait(early, "ask", "suspend", topic=TOPIC.format(early))
    assert (await pushes.outputs(early, "ask"))["data"] == "before it was asked"


async def test_a_question_that_nobody_answers_expires(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    await pushes.wait(id, "ask", "suspend", topic=TOPIC.format(id), seconds=5)
    world.advance(5)
    await world.wake_due()
    assert "expired" in (await pushes.error(id, "ask"))["message"]
    await pushes.publish(TOPIC.format(id), "resume_ask", "yes")
    assert "resume" not in await world.kinds(id)


async def test_whoever_is_cancelled_does_not_wait(pushes: PushWorld, worker: str) -> None:
    id = await pushes.running(worker)
    await pushes.world.cancel(id)
    await pushes.wait(id, "nap", seconds=60)
    assert await pushes.world.phase(id) is Phase.CANCELLED


async def test_a_waiting_execution_holds_no_room_and_no_slot(pushes: PushWorld) -> None:
    narrow = await pushes.register(capacity=1)
    first = await pushes.running(narrow)
    second = await pushes.world.start(deployment_id="p")
    assert await pushes.claim(narrow) == []
    await pushes.wait(first, "nap", seconds=60)
    await again(pushes, narrow, second)


# --- children ------------------------------------------------------------------------------------------------------


async def test_a_child_is_waited_for(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    parent = await pushes.running(worker, user_id="u", session_id="s")
    [child] = await pushes.children(parent, "c", [StartItem("kid")])
    assert await world.phase(parent) is Phase.WAITING
    [one] = await pushes.claim(worker)
    assert (one.claimed.id, one.claimed.parent_execution_id) == (child.execution_id, parent)
    assert (one.claimed.session_id, one.claimed.user_id, one.details.step_key) == ("s", "u", "c")
    assert (one.claimed.root_execution_id, one.details.root_workflow_id) == (parent, "wf")
    await pushes.complete(child.execution_id, worker, 7, output_schema_name="shop.Seven")
    step = await pushes.step(parent, "c")
    assert step is not None and step.output_schema_name == "shop.Seven"
    assert await pushes.outputs(parent, "c") == 7
    await again(pushes, worker, parent)


async def test_a_child_is_started_once(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    parent = await pushes.running(worker)
    [child] = await pushes.children(parent, "c", [StartItem("kid")])
    [same] = await pushes.children(parent, "c", [StartItem("kid")])  # its reply was lost
    assert (same.execution_id, same.existing) == (child.execution_id, True)
    await pushes.claim(worker)
    await world.cancel(child.execution_id)
    await pushes.confirm(child.execution_id, worker)
    assert await pushes.error(parent, "c") == {"message": "The execution was cancelled."}
    await again(pushes, worker, parent)
    [same] = await pushes.children(parent, "c", [StartItem("kid")])  # it asks although it is answered
    assert same.execution_id == child.execution_id
    assert await world.phase(parent) is Phase.QUEUED


async def test_a_failed_child_says_why(pushes: PushWorld, worker: str) -> None:
    parent = await pushes.running(worker)
    [child] = await pushes.children(parent, "c", [StartItem("kid")])
    await pushes.claim(worker)
    await pushes.fail(child.execution_id, worker, "no luck", retryable=False)
    assert await pushes.error(parent, "c") == {"message": "no luck"}


async def test_a_parent_goes_on_when_none_of_its_batch_is_open(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    parent = await pushes.running(worker)
    items = [StartItem("a"), StartItem("b"), StartItem("c")]
    started = [one.execution_id for one in await pushes.children(parent, "all", items, batch=True)]
    assert [one.execution_id for one in await pushes.children(parent, "all", items, batch=True)] == started
    assert sorted(one.claimed.id for one in await pushes.claim(worker)) == sorted(started)
    await pushes.fail(started[1], worker, "no luck", retryable=False)
    await pushes.complete(started[2], worker, 3, output_schema_name="shop.Three")
    assert await world.phase(parent) is Phase.WAITING
    assert await pushes.step(parent, "all") is None
    await world.cancel(started[0])
    await pushes.confirm(started[0], worker)
    assert await pushes.outputs(parent, "all") == [
        {"workflow_id": "a", "success": False, "error": "The execution was cancelled."},
        {"workflow_id": "b", "success": False, "error": "no luck"},
        {"workflow_id": "c", "success": True, "result": 3, "result_schema_name": "shop.Three"},
    ]
    assert (await world.kinds(parent)).count("child") == 1
    await again(pushes, worker, parent)


async def test_what_is_deleted_keeps_its_place_in_its_batch(pushes: PushWorld, worker: str) -> None:
    parent = await pushes.running(worker)
    started = await pushes.children(parent, "all", [StartItem("a"), StartItem("b"), StartItem("c")], batch=True)
    first, second, third = (one.execution_id for one in started)
    await pushes.claim(worker)
    await pushes.complete(second, worker, 2)
    await pushes.store.write(retention.delete(project_id=PROJECT, execution_id=second))
    await pushes.complete(first, worker, 1)
    await pushes.complete(third, worker, 3)
    deleted = "The execution was deleted before the batch had ended."
    assert await pushes.outputs(parent, "all") == [
        {"workflow_id": "a", "success": True, "result": 1, "result_schema_name": None},
        {"workflow_id": "", "success": False, "error": deleted},
        {"workflow_id": "c", "success": True, "result": 3, "result_schema_name": None},
    ]


async def prune(pushes: PushWorld) -> int:
    """Retention of thirty days; answers how much is gone."""
    before_us = pushes.world.now_us - 30 * 86_400 * SECOND
    deleted, _, _ = await pushes.store.write(
        retention.prune(
            after=("", ""),
            finished_before_us=before_us,
            idempotency_before_us=before_us,
            now_us=pushes.world.now_us,
            limit=500,
        )
    )
    return deleted


async def test_retention_leaves_what_a_batch_still_waits_for(pushes: PushWorld, worker: str) -> None:
    """A child's result stays nowhere else until the whole batch has ended."""
    world = pushes.world
    parent = await pushes.running(worker)
    started = await pushes.children(parent, "all", [StartItem("a"), StartItem("b")], batch=True)
    first, second = (one.execution_id for one in started)
    await pushes.claim(worker)
    await pushes.complete(first, worker, 1)
    world.advance(40 * 86_400)
    assert await prune(pushes) == 0
    await pushes.complete(second, worker, 2)
    assert await pushes.outputs(parent, "all") == [
        {"workflow_id": "a", "success": True, "result": 1, "result_schema_name": None},
        {"workflow_id": "b", "success": True, "result": 2, "result_schema_name": None},
    ]
    assert await prune(pushes) == 1


@pytest.mark.parametrize(
    ("batch_id", "first"),
    [
        (str(uuid.uuid5(uuid.NAMESPACE_OID, "map_children")), "deliver_outcome"),
        (str(uuid7()), "lock_state"),
    ],
    ids=["by its parent", "by the server"],
)
def test_only_a_batch_that_the_server_numbered_is_looked_at_for_a_wait_of_its_parent(batch_id: str, first: str) -> None:
    """Ends of siblings go to the parent one after another, so each further look delays every sibling."""
    end = ended(
        PROJECT,
        "child",
        Phase.COMPLETED,
        EndedExecution(
            seq=1,
            at_us=START_US,
            attempt=1,
            workflow_id="w",
            parent_execution_id="parent",
            step_key="k",
            batch_id=batch_id,
            gate=0,
            waits=False,
        ),
        START_US,
    ).__await__()
    while not isinstance(asked := next(end), Query):
        pass
    assert asked.name == first


async def test_a_batch_that_ends_at_once_wakes_its_parent_once(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    parent = await pushes.running(worker)
    started = await pushes.children(parent, "all", [StartItem("a")] * 20, batch=True)
    await pushes.register("http://second.example", capacity=50)
    await pushes.claim(worker)
    for id in await pushes.online_ids():
        await pushes.claim(id)
    verbs = [
        push_reports.end_pushed(
            project_id=PROJECT,
            op=CompleteExecution(
                one.execution_id, raw(1), (await world.get(one.execution_id)).assigned_to_worker or ""
            ),
            now_us=world.now_us,
            grace_us=GRACE_US,
        )
        for one in started
    ]
    assert not [answer for answer in await world.store.write_all(verbs) if isinstance(answer, Exception)]
    assert len(await pushes.outputs(parent, "all")) == 20
    assert await world.phase(parent) is Phase.QUEUED


async def test_children_without_a_step_tell_their_parent_nothing(pushes: PushWorld, worker: str) -> None:
    parent = await pushes.running(worker)
    child = await pushes.world.start("kid", parent_execution_id=parent)
    await pushes.claim(worker)
    await pushes.complete(child, worker)
    assert await pushes.world.outcomes(parent, Kind.CHILD) == []
    assert await pushes.world.phase(parent) is Phase.RUNNING


async def test_a_parent_that_is_cancelled_starts_no_children(pushes: PushWorld, worker: str) -> None:
    parent = await pushes.running(worker)
    await pushes.world.cancel(parent)
    with pytest.raises(Conflict, match="starts no more children"):
        await pushes.children(parent, "c", [StartItem("kid")])


async def test_what_travels_with_an_execution_reaches_its_worker_and_children(pushes: PushWorld, worker: str) -> None:
    context = raw({"channel_id": "slack"})
    id = await pushes.world.start(
        deployment_id="p", otel_traceparent="00-1-2-01", initial_state=raw({"n": 1}), channel_context=context
    )
    [one] = await pushes.claim(worker)
    details = one.details
    assert (details.otel_traceparent, details.initial_state, details.root_workflow_id) == (
        "00-1-2-01",
        raw({"n": 1}),
        "wf",
    )
    await pushes.store.write(push_reports.put_span_id(project_id=PROJECT, op=PutOtelSpanId(id, "span")))
    await pushes.children(id, "c", [StartItem("kid")])
    [child] = await pushes.claim(worker)
    assert child.details.channel_context == context and child.details.initial_state is None
    await pushes.complete(child.claimed.id, worker)
    [one] = await pushes.claim(worker)
    assert one.details.otel_span_id == "span"
