"""Held executions, and acts: the moves, and their traces."""

import msgspec
import pytest
from tests.store.world import (
    HOLD,
    PROJECT,
    SECOND,
    World,
    answer_wait,
    child,
    event_wait,
    raw,
    step,
    try_of,
)

from perdure.store.verbs.base.idempotency import Idempotency
from perdure.store.verbs.runs import queries
from perdure.store.verbs.steering import acts
from perdure.wire.base.errors import BadValue, Conflict, KeyReused, NotFound
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Complete, Entry, Hold, OpenCall, QueueSpec, ReportItem, Suspend, TimerFired
from perdure.wire.steering.acts import Acted, Action, ActOnExecution

CODE = Hold("ValueError: no", raw({"type": "ValueError", "message": "no", "steps": ["pay"]}), take_back=["pay"])


async def held(world: World, end: Hold = HOLD) -> str:
    id = await world.running()
    failed = try_of("pay") if end.steps else step("pay", {"type": "Down", "message": "down"}, ok=False)
    assert (await world.report(id, [failed], end)).ended
    return id


async def test_a_held_execution_holds_no_worker_and_no_slot(world: World) -> None:
    await world.register(queues=[QueueSpec("narrow", total_limit=1)])
    first, second = await world.start(queue_name="narrow"), await world.start(queue_name="narrow")
    assert await world.claim_ids() == [first]
    assert await world.claim_ids() == []
    assert (await world.report(first, [try_of("pay")], HOLD)).ended
    assert await world.claim_ids() == [second]
    await world.act(first, Action.TRY)
    assert await world.claim_ids() == []
    await world.finish(second)
    assert await world.claim_ids() == []  # the worker is too old
    await world.register("new", protocol=2)
    assert await world.claim_ids("new") == [first]


async def test_only_workers_that_know_acts_get_what_was_held(world: World) -> None:
    await world.register("old")
    await world.register("new", protocol=2)
    id = await world.running("old")
    await world.report(id, [try_of("pay")], HOLD, worker="old")
    await world.act(id, Action.TRY, "pay")
    assert await world.claim_ids("old") == []
    assert await world.claim_ids("new") == [id]


async def test_an_act_on_what_an_older_worker_runs_is_refused(world: World) -> None:
    await world.register()
    id = await world.running()
    item = ReportItem(id, 1, 0, 1, open_calls=[OpenCall("k", "step", "k")])
    await world.send(item)
    assert await world.pending(id) == [("k", "step")]
    with pytest.raises(Conflict, match="runs on a worker of an older release"):
        await world.act(id, Action.COMPLETE, "k", value=raw(1))


async def test_an_unseen_outcome_refuses_the_hold_of_a_step_and_not_that_of_the_code(world: World) -> None:
    await world.register()
    for end, stops in ((HOLD, False), (CODE, True)):
        id = await world.running()
        await world.report(id, [answer_wait("k")])
        seen = await world.last_seq(id)
        await world.resume(id, "k")
        reply = await world.report(id, [try_of("pay")], end, seen=seen)
        assert reply.ended is stops
        assert await world.phase(id) is (Phase.HELD if stops else Phase.RUNNING)


async def test_the_code_is_tried_again_in_another_deployment(world: World) -> None:
    await world.register(protocol=2)
    id = await held(world, CODE)
    await world.register("v2", deployment="v2", python="3.13", protocol=2)
    acted = await world.act(id, Action.TRY, deployment_id="v2", note="mended")
    execution = await world.get(id)
    assert (execution.phase, execution.deployment_id, execution.error) == (Phase.QUEUED, "v2", None)
    assert await world.claim_ids() == []
    assert await world.claim_ids("v2") == [id]
    rows = await world.journal(id)
    assert [row.kind for row in rows if row.key == "pay"] == [Kind.STEP_FAILED]
    [retried] = [row for row in rows if row.kind is Kind.RETRIED]
    assert (retried.seq, bytes(retried.value)) == (acted.seq, b"2")
    [act] = await world.acts(id)
    assert (act.seq, act.action, act.key, act.acted_by, act.note) == (acted.seq, "try", None, "ann", "mended")


async def test_a_step_that_ended_the_code_gets_a_value(world: World) -> None:
    await world.register(protocol=2)
    id = await held(world, CODE)
    acted = await world.act(id, Action.COMPLETE, "pay", value=raw("by hand"))
    *_, retried, given = await world.journal(id)
    assert (retried.kind, given.kind, given.seq, given.ok) == (Kind.RETRIED, Kind.STEP, acted.seq, True)
    assert [act.seq for act in await world.acts(id)] == [retried.seq, given.seq]


async def test_a_held_child_that_is_given_up_tells_its_parent(world: World) -> None:
    await world.register(protocol=2)
    parent = await world.running()
    await world.report(parent, [child("a")], Suspend([], None))
    [claimed] = await world.claim()
    await world.report(claimed.id, [try_of("pay")], HOLD)
    assert await world.phase(parent) is Phase.WAITING
    await world.act(claimed.id, Action.FAIL)
    assert await world.phase(parent) is Phase.QUEUED
    [end] = [row for row in await world.journal(parent) if row.kind is Kind.CHILD]
    assert (end.ok, end.name) == (False, "failed")


async def test_a_repeat_gets_the_first_answer(world: World) -> None:
    await world.register(protocol=2)
    id = await held(world)

    async def act(note: str) -> Acted:
        request = ActOnExecution(id, action=Action.TRY, key="pay", note=note)
        same = Idempotency("act_on_execution", "once", note)
        return await world.store.write(acts.act(world.at(same), request, "ann"))

    first = await act("a")
    assert await act("a") == first
    with pytest.raises(KeyReused):
        await act("b")
    assert await world.phase(id) is Phase.QUEUED


async def test_held_executions_are_counted(world: World) -> None:
    await world.register()
    await held(world)
    counts = await world.store.scan(queries.counts())
    assert [tuple(row) for row in counts["phases"]] == [(PROJECT, "wf", "held", 1)]


async def test_a_pause_is_ended_and_its_timer_does_not_wake_it_again(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running()
    due_us = world.now_us + 60 * SECOND
    await world.report(id, [try_of("pay", retry_at_us=due_us)], Suspend([], (None, due_us)))
    assert await world.pending(id) == [("pay", "pause")]
    acted = await world.act(id, Action.TRY, "pay")
    row = (await world.journal(id))[acted.seq - 1]
    assert (row.kind, row.key) == (Kind.WOKEN, "pay")
    assert await world.pending(id) == []
    world.advance(100)
    assert await world.wake_due() == 0
    with pytest.raises(NotFound, match="Nothing is pending under 'pay'"):
        await world.act(id, Action.TRY, "pay")


async def test_a_suspension_that_has_not_seen_an_act_is_refused(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running()
    due_us = world.now_us + 60 * SECOND
    await world.report(id, [try_of("pay", retry_at_us=due_us)])
    seen = await world.last_seq(id)
    await world.act(id, Action.TRY, "pay")
    reply = await world.report(id, [], Suspend([], (None, due_us)), seen=seen)
    assert not reply.ended
    assert [row.kind for row in reply.rows] == [Kind.WOKEN]


@pytest.mark.parametrize("last", [False, True], ids=["try", "outcome"])
@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
async def test_a_late_report_is_ignored_at_its_place(world: World, last: bool, ends: bool) -> None:
    await world.register(protocol=2)
    id = await world.running()
    await world.send(ReportItem(id, 1, 0, 1, open_calls=[OpenCall("pay", "step", "pay")]))
    seen = await world.last_seq(id)
    acted = await world.act(id, Action.COMPLETE, "pay", value=raw("given"))
    late = step("pay", "real") if last else try_of("pay", retry_at_us=world.now_us)
    end = Complete(raw("done")) if ends else None
    for _ in range(2):  # the second is a repeat after a lost reply
        reply = await world.report(id, [late, step("other")], end, seen=seen, number=5)
        if ends:
            assert reply.ended
        else:
            assert reply.accepted == [0, acted.seq + 2]
            assert [(row.seq, row.kind) for row in reply.rows] == [
                (acted.seq, Kind.STEP),
                (acted.seq + 1, Kind.IGNORED),
            ]
    kinds = [row.kind for row in await world.journal(id)][acted.seq - 1 :]
    assert kinds == [Kind.STEP, Kind.IGNORED, Kind.STEP, *([Kind.COMPLETED] if ends else [])]


async def test_a_late_timer_is_ignored_too(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running()
    await world.send(ReportItem(id, 1, 0, 1, open_calls=[OpenCall("t", "timer", due_us=world.now_us)]))
    seen = await world.last_seq(id)
    acted = await world.act(id, Action.FIRE, "t")
    reply = await world.report(id, [TimerFired("t", world.now_us)], seen=seen)
    assert reply.accepted == [0]
    assert [(row.seq, row.kind) for row in reply.rows] == [(acted.seq, Kind.TIMER), (acted.seq + 1, Kind.IGNORED)]


async def test_the_list_of_running_steps_is_replaced_and_belongs_to_one_attempt(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running()
    for keys in (["a", "b"], ["b"]):
        await world.send(ReportItem(id, 1, 0, 1, open_calls=[OpenCall(key, "step", key) for key in keys]))
        assert await world.pending(id) == [(key, "step") for key in keys]
    await world.report(id, [step("b")])
    assert await world.pending(id) == []
    await world.send(ReportItem(id, 1, 0, 1, open_calls=[OpenCall("c", "step", "c")]))
    await world.lose()
    await world.register(protocol=2)
    assert await world.claim_ids() == [id]
    assert await world.pending(id) == []


async def test_waits_and_children_are_decided(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running()
    entries: list[Entry] = [event_wait("event", "orders"), answer_wait("answer"), child("child")]
    assert (await world.report(id, entries, Suspend(["event", "answer"], None))).ended
    assert sorted(await world.pending(id), key=str) == [("answer", "answer"), ("child", "child"), ("event", "event")]
    await world.act(id, Action.COMPLETE, "event", value=raw({"n": 1}))
    await world.act(id, Action.TIME_OUT, "answer")
    await world.act(id, Action.FAIL, "child")
    *_, event, answer, end = await world.journal(id)
    assert msgspec.json.decode(event.value)["data"] == {"n": 1}
    assert (answer.kind, answer.ok) == (Kind.RESUME, False)
    assert msgspec.json.decode(end.value) == {"type": "Failed", "message": "It was failed by ann."}
    assert await world.pending(id) == []
    await world.publish("orders", 2)
    with pytest.raises(Conflict, match="no longer waits for an answer"):
        await world.resume(id, "answer")
    assert (await world.journal(id))[-1].seq == end.seq


async def test_a_wrong_action_and_a_wrong_deployment_change_nothing(world: World) -> None:
    await world.register(protocol=2)
    id = await held(world)
    before = await world.everything(id)
    for action, key, fields, error in (
        (Action.FIRE, "pay", {}, BadValue),
        (Action.TIME_OUT, "pay", {}, BadValue),
        (Action.TRY, "pay", {"deployment_id": "v9"}, NotFound),
        (Action.TRY, "other", {}, NotFound),
    ):
        with pytest.raises(error):
            await world.act(id, action, key, **fields)
    assert await world.everything(id) == before


async def test_a_step_that_an_act_decided_first_has_not_ended_the_code(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running()
    await world.send(ReportItem(id, 1, 0, 1, open_calls=[OpenCall("pay", "step", "pay")]))
    seen = await world.last_seq(id)
    await world.act(id, Action.COMPLETE, "pay", value=raw("given"))
    late = step("pay", {"type": "Down", "message": "down"}, ok=False)
    assert (await world.report(id, [late], CODE, seen=seen, number=2)).ended
    assert await world.pending(id) == [(None, "held")]
    with pytest.raises(Conflict, match="has its outcome since"):
        await world.act(id, Action.COMPLETE, "pay")
    await world.act(id, Action.TRY)
    assert await world.phase(id) is Phase.QUEUED


@pytest.mark.parametrize("action", [Action.COMPLETE, Action.TIME_OUT])
@pytest.mark.parametrize("key", ["event", "answer"])
async def test_a_decided_wait_is_not_opened_again(world: World, key: str, action: Action) -> None:
    """The worker opens the wait again after its first report was lost, unaware of the act."""
    await world.register(protocol=2)
    id = await world.running()
    wait = event_wait("event", "orders") if key == "event" else answer_wait("answer")
    await world.report(id, [wait])
    seen = await world.last_seq(id)
    acted = await world.act(id, action, key)
    reply = await world.report(id, [wait], Suspend([key], None), seen=seen)
    assert not reply.ended
    assert [row.seq for row in reply.rows] == [acted.seq]
    assert await world.pending(id) == []
    await world.publish("orders", 1)
    assert await world.last_seq(id) == acted.seq


async def test_tries_of_another_client_may_have_any_error(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running()
    await world.report(id, [step("odd", "boom", ok=False, last=False), try_of("pay")], HOLD)
    assert await world.pending(id) == [("pay", "held")]
    await world.act(id, Action.FAIL)
    assert await world.phase(id) is Phase.FAILED


async def test_the_recorded_error_of_a_failed_pause_is_the_error_alone(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running()
    due_us = world.now_us + 60 * SECOND
    await world.report(id, [try_of("pay", retry_at_us=due_us)], Suspend([], (None, due_us)))
    acted = await world.act(id, Action.FAIL, "pay")
    row = (await world.journal(id))[acted.seq - 1]
    assert msgspec.json.decode(row.value) == {"type": "Down", "message": "down"}
