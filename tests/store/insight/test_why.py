"""Why an execution is in its phase: the sentence, the remedy, and the commands."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.store.world import (
    HOLD,
    LEASE_US,
    PROJECT,
    SECOND,
    START_US,
    World,
    answer_wait,
    child,
    event_wait,
    failure,
    raw,
    step,
)

from perdure.engine.base.clock import ManualClock
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope
from perdure.engine.base.settings import EngineSettings
from perdure.engine.insight import journals as service
from perdure.engine.insight.journals import Journals
from perdure.store.verbs.insight import why
from perdure.store.verbs.steering import acts
from perdure.wire.base.errors import NotFound
from perdure.wire.base.status import Phase
from perdure.wire.base.wording import moment
from perdure.wire.insight.explain import explain
from perdure.wire.insight.why import ExplainExecution, Why
from perdure.wire.insight.why_facts import Running
from perdure.wire.runs.requests import WORKER_PROTOCOL, Block, Complete, Fail, OpenWait, StepDone, Suspend
from perdure.wire.steering.acts import Action, ActOnExecution, PendingCall, PendingKind

PUSH_LEASE_US = 60 * SECOND


async def ask(world: World, id: str, *, slow: bool = False) -> Why:
    core = Core(
        world.store,
        clock=ManualClock(world.now_us),
        settings=EngineSettings(lease_seconds=LEASE_US / SECOND),
    )
    return await Journals(core).explain(Scope(PROJECT), ExplainExecution(id, slow))


def texts(found: Why) -> dict[str, str]:
    return {fact.name: fact.text for fact in found.facts}


def failed_step(key: str, tries: int = 1, **values: Any) -> StepDone:
    last = values.pop("last", True)
    error = {"type": "ValueError", "message": f"{key} went wrong", **values}
    return StepDone(key, key, None, False, raw(error), START_US, tries, last)


def ended_by(type: str, **values: Any) -> Any:
    return failure().__class__(f"{type}: it failed", raw({"type": type, "message": "it failed", **values}))


NOW = moment(START_US)


async def test_an_unknown_execution_and_another_projects(world: World) -> None:
    await world.register()
    id = await world.start()
    with pytest.raises(NotFound, match="does not exist"):
        await ask(world, world.new_id())
    with pytest.raises(NotFound, match="does not exist"):
        await world.store.scan(
            why.explained(project_id="other", execution_id=id, times={"now_us": 0, "lease_us": 1, "push_lease_us": 1})
        )
    assert await world.store.scan(why.path_execution(project_id="other", execution_id=id, rows_max=9)) is None


# --- waiting ---------------------------------------------------------------------------------------------------------


async def test_it_waits_for_an_answer(world: World) -> None:
    await world.register()
    id = await world.running()
    until_us = START_US + 60 * SECOND
    await world.wait_for(id, OpenWait("approve it", None, data=raw({"amount": 7}), expires_at_us=until_us))
    found = await ask(world, id)
    assert found.sentence == f"It has waited since {NOW} for an answer to 'approve it' (until {moment(until_us)})."
    assert (found.remedy, found.since_us) == ("an answer to 'approve it'", START_US)
    assert found.commands == [f"perdure resume {id} 'approve it' --data JSON"]
    assert texts(found)["approve it"] == f"an answer to 'approve it' (until {moment(until_us)}), shows {{\"amount\":7}}"


async def test_it_waits_for_a_question_with_a_form(world: World) -> None:
    await world.register()
    for fields, commands in (
        ([{"key": "approved"}], ["--approve", "--reject"]),
        ([{"key": "colour"}], ["--data JSON"]),
    ):
        id = await world.running()
        await world.wait_for(id, OpenWait("ask", None, data=raw({"_form": {"fields": fields}})))
        assert (await ask(world, id)).commands == [f"perdure approve {id} ask {option}" for option in commands]


async def test_a_question_is_named_by_what_it_asks_and_its_key_is_in_the_command(world: World) -> None:
    await world.register()
    call = {"tool": "refund", "arguments": {"order": 48213}, "_form": {"title": "Allow refund?", "fields": []}}
    budget = {"_form": {"title": "The budget is used up"}}
    for key, data, title in (
        ("approve_refund_c1", call, "Allow refund(order=48213)?"),
        ("call_refund_c1", {"tool": "refund", "arguments": {}}, "refund()"),
        ("model_2-over_budget", budget, "The budget is used up"),
        ("ask_user_c1", {"question": "Which order?"}, "Which order?"),
        ("deploy", {"_notify": {"message": "Deploy it"}}, "Deploy it"),
        ("blank", {"_form": {"title": " "}}, "blank"),
    ):
        id = await world.running()
        await world.wait_for(id, OpenWait(key, None, data=raw(data)))
        found = await ask(world, id)
        assert found.sentence == f"It has waited since {NOW} for an answer to {title!r}."
        assert found.remedy == f"an answer to {title!r}"
        assert all(f"{id} {key} --" in command for command in found.commands) and found.commands
        assert key in texts(found)


async def test_it_waits_for_an_event_or_until_a_time(world: World) -> None:
    await world.register()
    id = await world.running()
    due_us = START_US + 3_600 * SECOND
    await world.wait_for(id, event_wait("paid", "payments", match={"order": raw(7)}), due_us=due_us)
    found = await ask(world, id)
    assert found.sentence == (
        f"It has waited since {NOW} for an event of topic 'payments' where {{\"order\":7}}, or until {moment(due_us)}."
    )
    assert found.remedy == "an event of topic 'payments' or the timer"
    assert found.until_us == due_us
    assert found.commands == ["perdure publish payments --data JSON", f"perdure act {id} timer --fire"]


async def test_it_waits_for_more_budget(world: World) -> None:
    await world.register()
    id = await world.running()
    holder = world.new_id()
    await world.wait_for(id, event_wait("raised", f"budget/{holder}"))
    found = await ask(world, id)
    assert found.sentence == f"It has waited since {NOW} for more budget of execution {holder}."
    assert found.commands[-1] == f"perdure budget raise {holder} --usd N"


async def test_it_waits_for_its_timer(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.wait_for(id, due_us=START_US + 9 * SECOND)
    found = await ask(world, id)
    assert found.sentence == f"It has waited since {NOW} for its timer at {moment(START_US + 9 * SECOND)}."
    assert (found.remedy, found.commands) == ("the timer", [f"perdure act {id} timer --fire"])


async def test_it_waits_for_the_next_try_of_a_step(world: World) -> None:
    await world.register()
    id = await world.running()
    retry_us = START_US + 600 * SECOND
    await world.report(id, [failed_step("old", last=False, retry_at_us=START_US + 1)])
    await world.report(id, [step("old")])
    await world.report(id, [failed_step("pay", 2, last=False, retry_at_us=retry_us)])
    await world.report(id, end=Suspend([], (None, retry_us)))
    found = await ask(world, id)
    assert found.sentence == f"It has waited since {NOW} for try 3 of step 'pay' at {moment(retry_us)}."
    assert texts(found)["pay"] == "try 2 failed: ValueError: pay went wrong"
    assert (found.remedy, found.commands) == ("the end of the pause", [f"perdure act {id} pay --try"])


async def test_it_waits_for_children(world: World) -> None:
    await world.register(workflows=["wf", "sub"])
    id = await world.running()
    await world.report(id, [child(f"c{n}", "sub") for n in range(5)])
    children = await world.claim_ids(capacity=2)
    await world.report(id, end=Suspend([]))
    found = await ask(world, id)
    assert f"its child {children[0]} (sub), which is running, its child" in found.sentence
    assert found.sentence.endswith("which is queued and 2 more.")
    assert found.commands[:1] == [f"perdure why {children[0]}"]
    assert texts(found)["c0"] == f"its child {children[0]} (sub), which is running"


# --- held ------------------------------------------------------------------------------------------------------------


async def test_its_step_is_held(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [failed_step("pay", 3, last=False, held=True)], HOLD)
    found = await ask(world, id)
    assert (
        found.sentence
        == f"It has been held since {NOW}, because step 'pay' failed after 3 tries with ValueError: pay went wrong."
    )
    assert found.remedy == "an act that tries it again, gives the step a value, or lets it fail"
    assert found.commands == [
        f"perdure act {id} --try",
        f"perdure act {id} pay --complete JSON",
        f"perdure act {id} pay --fail",
    ]
    op = ActOnExecution(id, action=Action.TRY, key="pay", note="the provider is up")
    await world.store.write(acts.act(world.at(), op, "key 'ops'"))
    found = await ask(world, id)
    assert found.phase is Phase.QUEUED
    assert texts(found)["act"] == "try 'pay' by key 'ops': the provider is up"


async def test_its_code_is_held(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, end=replace(HOLD, steps=[]))
    found = await ask(world, id)
    assert found.sentence == f"It has been held since {NOW}, because its code failed: Down: down."
    assert found.remedy == "an act that tries it again or lets it fail"
    assert found.commands == [f"perdure act {id} --try", f"perdure act {id} --fail"]


async def test_a_step_ended_its_code(world: World) -> None:
    await world.register()
    id = await world.running()
    ended = step("pay", {"type": "Down", "message": "down"}, ok=False)
    await world.report(id, [ended], replace(HOLD, steps=[], take_back=["pay"]))
    found = await ask(world, id)
    assert found.sentence == f"It has been held since {NOW}, because its code failed: Down: down."
    assert found.remedy == "an act that tries it again, gives the step a value, or lets it fail"
    assert found.commands == [
        f"perdure act {id} --try",
        f"perdure act {id} pay --complete JSON",
        f"perdure act {id} --fail",
    ]


async def test_an_open_child_did_not_hold_it(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [child("below"), failed_step("pay", 3, last=False, held=True)])
    await world.report(id, end=HOLD)
    found = await ask(world, id)
    assert found.phase is Phase.HELD and "below" not in found.sentence
    assert next(iter(texts(found))) == "pay" and "below" not in texts(found)


# --- running ---------------------------------------------------------------------------------------------------------


async def test_it_runs(world: World) -> None:
    await world.register()
    id = await world.running()
    assert (await ask(world, id)).sentence == f"Worker w has run it since {NOW}; no outcome is recorded yet."
    await world.report(id, [step("ship")])
    await world.live(20, "w")
    found = await ask(world, id)
    assert found.sentence == f"Worker w has run it since {NOW}; the newest outcome is step 'ship', recorded 20.0 s ago."
    assert texts(found)["worker"] == "w (native, online, Python 3.12), runs 1 of 100"
    assert {fact.name: fact.at_us for fact in found.facts}["last beat"] == world.now_us
    assert found.commands == [f"perdure logs {id} --follow"]


async def test_a_step_of_it_runs_for_long(world: World) -> None:
    await world.register()
    id = await world.running()
    facts, _ = await world.store.scan(
        why.explained(
            project_id=PROJECT,
            execution_id=id,
            times={"now_us": world.now_us, "lease_us": LEASE_US, "push_lease_us": PUSH_LEASE_US},
        )
    )
    assert isinstance(facts, Running)
    call = PendingCall(key="pay", kind=PendingKind.STEP, since_us=START_US, tries=2, actions=[])
    found = explain(replace(facts, steps=[call]), [], world.now_us)
    assert found.sentence == f"Worker w has run it since {NOW}; step 'pay' has run since {NOW}."
    assert texts(found)["step"] == "pay, after 2 failed tries"
    assert found.commands[-1] == f"perdure pending {id}"


async def test_its_worker_is_silent(world: World) -> None:
    await world.register()
    id = await world.running()
    world.advance(LEASE_US / SECOND + 1)
    ended = moment(START_US + LEASE_US)
    assert f"the worker's lease ended at {ended}, so the server takes it back." in (await ask(world, id)).sentence
    await world.reap()
    await world.register()
    await world.claim()
    await world.acknowledge(id)
    found = await ask(world, id)
    assert texts(found)["lost"] == "once, 1 since its last outcome; the last one"


async def test_it_is_being_cancelled(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.cancel(id, by="user")
    found = await ask(world, id)
    assert found.sentence.startswith(
        f"A caller cancelled it at {NOW}, and worker w cleans up until {moment(START_US + 30 * SECOND)} at the latest; "
    )
    assert found.until_us == START_US + 30 * SECOND


# --- blocked ---------------------------------------------------------------------------------------------------------


async def test_its_code_does_not_match(world: World) -> None:
    await world.register()
    id = await world.running()
    details = {
        "seq": 4,
        "recorded": {"kind": "step", "key": "pay", "name": "pay"},
        "asked": {"kind": "step", "key": "ship", "name": "send"},
        "source": "app.py:12",
    }
    detail = raw({"type": "Diverged", "message": "The code does not match the journal.", **details})
    await world.report(id, end=Block("diverged", detail))
    found = await ask(world, id)
    assert found.sentence == (
        f"Its code has not matched its journal since {NOW}: row 4 is step 'pay', but the code asks for step 'ship' of "
        "'send' (app.py:12)."
    )
    assert found.remedy == (
        "a worker that registers for deployment 'd' with code that makes the recorded calls, or as a fork from 'pay' "
        "on the code as it is"
    )
    assert found.commands[1] == f"perdure fork {id} --from pay"
    assert texts(found)["source"] == "app.py:12"
    other = await world.running()
    await world.report(other, end=Block("diverged", raw({"type": "UnknownWorkflow", "message": "no wf here."})))
    found = await ask(world, other)
    assert found.sentence == f"It has been blocked since {NOW}: no wf here."
    assert found.remedy == "a worker that registers for deployment 'd' with workflow 'wf'"
    assert not any("fork" in command for command in found.commands), "the deployment does not have it"


# --- ended -----------------------------------------------------------------------------------------------------------


async def test_a_step_failed(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [failed_step("pay", last=False, retry_at_us=1), failed_step("pay", 2)])
    await world.report(id, end=ended_by("StepFailed"))
    found = await ask(world, id)
    assert found.sentence == "Step 'pay' failed after 2 tries: ValueError: pay went wrong."
    assert texts(found)["try 1"] == texts(found)["try 2"] == "ValueError: pay went wrong"
    assert (found.remedy, found.commands) == ("a retry", [f"perdure retry {id}", f"perdure show {id} --journal"])


async def test_a_compensated_failure_names_what_a_retry_would_keep(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [failed_step("ship"), step("refund", 1), step("release", 2)])
    told = {"type": "StepFailed", "message": "no", "steps": ["ship"], "later": {"refund": None, "release": None}}
    await world.report(id, end=Fail("no", raw(told)))
    found = await ask(world, id)
    assert found.sentence == (
        "Step 'ship' failed: ValueError: ship went wrong. After the failure its code called 'refund' and 'release', "
        "which may have undone earlier steps."
    )
    assert found.remedy == "a retry that says what becomes of these outcomes"
    assert found.commands[:2] == [f"perdure retry {id} --keep-later", f"perdure retry {id} --redo-later"]


async def test_it_was_retried(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [step("load")])
    world.advance(5)
    await world.report(id, [failed_step("pay")])
    await world.report(id, end=ended_by("StepFailed", steps=["pay"]))
    world.advance(2)
    retried = (await world.retry(id)).execution_id
    found = await ask(world, id)
    assert found.sentence == f"Step 'pay' failed: ValueError: pay went wrong. It was retried as {retried}."
    assert (found.remedy, found.commands[0]) == (None, f"perdure why {retried}")
    assert (await ask(world, retried)).sentence == (
        "It needs a worker of a newer release of perdure than the workers of deployment 'd' have."
    )
    world.advance(1)
    await world.register(protocol=WORKER_PROTOCOL)
    assert await world.claim_ids() == [retried]
    began_us = world.now_us
    world.advance(3)
    await world.report(retried, [StepDone("pay", "pay", None, True, raw(1), began_us)])
    await world.finish(retried)
    found = await ask(world, retried, slow=True)
    assert texts(found)["forked from"] == f"{id} at step pay"
    assert found.path is not None
    assert [(part.kind.value, part.name, part.seconds) for part in found.path] == [
        ("queue", "", 1.0),
        ("step", "pay", 3.0),
    ]


async def test_its_code_failed(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [failed_step("optional")])
    await world.report(id, [step("next")])
    trace = (
        'Traceback:\n  File "/app/lib.py", line 3, in f\n    g()\n  File "/app/app.py", line 12, in g\n    1 / 0\nE: x'
    )
    await world.report(id, end=ended_by("ZeroDivisionError", detail=trace))
    found = await ask(world, id)
    assert found.sentence == "Its code failed: ZeroDivisionError: it failed (/app/app.py:12)."


@pytest.mark.parametrize("type", ["OrderFailed", "ExceptionGroup"])
async def test_an_error_in_place_of_the_steps(world: World, type: str) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [failed_step("pay")])
    await world.report(id, end=ended_by(type))
    assert (await ask(world, id)).sentence == "Step 'pay' failed: ValueError: pay went wrong."


async def test_the_journal_says_which_step_ended_it(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [failed_step("pay"), failed_step("beside"), step("log")])
    await world.report(id, end=ended_by("OrderFailed", steps=["pay", "beside"], later={}))
    assert (await ask(world, id)).sentence == "Step 'pay' failed: ValueError: pay went wrong."


async def test_a_step_of_a_grandchild_failed_first(world: World) -> None:
    await world.register(workflows=["wf", "sub"])
    ids = [await world.running()]
    for _ in range(2):
        await world.report(ids[-1], [child("c", "sub")])
        (below,) = await world.claim_ids()
        await world.report(ids[-1], end=Suspend([]))
        await world.acknowledge(below)
        ids.append(below)
    await world.report(ids[2], [failed_step("pay")])
    await world.report(ids[2], end=ended_by("StepFailed"))
    for id in reversed(ids[:2]):
        assert await world.claim_ids() == [id]
        await world.report(id, end=ended_by("ChildFailed"))
    found = await ask(world, ids[0])
    assert found.sentence == f"In its descendant {ids[2]} (sub) step 'pay' failed: ValueError: pay went wrong."
    assert found.commands[:2] == [f"perdure retry {ids[0]}", f"perdure why {ids[2]}"]
    assert (await ask(world, ids[1])).sentence.startswith(f"In its child {ids[2]} (sub) step 'pay' failed")


async def test_its_workers_were_lost(world: World) -> None:
    await world.register()
    id = await world.running()
    for _ in range(5):
        await world.lose()
        await world.register()
        world.advance(60)
        await world.wake_due()
        if await world.claim_ids():
            await world.acknowledge(id)
    await world.reap()
    found = await ask(world, id)
    assert found.sentence.startswith("It failed as POISONED: 5 workers were lost"), found.sentence


async def test_what_was_different_in_the_last_run_that_completed(world: World) -> None:
    await world.register(python="3.11")
    good = await world.running(payload=raw({"n": 1}))
    await world.report(good, [step("load"), step("pay")])
    await world.finish(good)
    await world.register("v", deployment="e", python="3.12")
    id = await world.running("v", payload=raw({"n": "x" * 100}), deployment_id="e", queue_name="q")
    await world.report(id, [step("load")], worker="v")
    await world.report(id, [failed_step("refund")], worker="v")
    await world.report(id, end=ended_by("StepFailed"), worker="v")
    found = await ask(world, id)
    assert [(one.what, one.then, one.now) for one in found.differences] == [
        ("deployment", "d", "e"),
        ("Python", "3.11", "3.12"),
        ("queue", "wf", "q"),
        ("input", "7 bytes", "108 bytes"),
        ("first new step", "none", "'refund'"),
    ]
    assert texts(found)["last completed"] == f"{good} of the same workflow"
    assert (await ask(world, good)).differences == []


async def test_the_same_input_and_another_fingerprint(world: World) -> None:
    await world.register()
    shapes = [StepDone("pay", "pay", shape, True, raw(1), START_US) for shape in ("aa", "bb")]
    first, second = await world.running(payload=raw(7)), await world.running(payload=raw(7))
    await world.report(first, shapes[:1])
    await world.finish(first)
    await world.report(second, shapes[1:])
    await world.report(second, end=ended_by("ValueError"))
    differences = (await ask(world, second)).differences
    assert [(one.what, one.now) for one in differences] == [("first step with another input", "'pay'")]


async def test_it_completed(world: World) -> None:
    await world.register()
    id = await world.start()
    world.advance(2)
    await world.beat()
    await world.claim()
    await world.report(id, [step("a"), step("b")])
    world.advance(3)
    await world.finish(id)
    found = await ask(world, id)
    assert found.sentence == f"It completed at {moment(world.now_us)}, 5.0 s after its creation."
    assert texts(found)["began"] == "2.0 s after its creation"
    assert texts(found)["steps"] == "2"


async def test_it_says_an_early_end_that_is_too_long_for_lists(world: World) -> None:
    await world.register()
    id = await world.running()
    said = {"stopped": "budget", "text": "ended early (budget): " + "x" * 2_000}
    await world.report(id, end=Complete(raw("let me see")), progress=said)
    assert "It ended early (budget): xxx" in (await ask(world, id)).sentence


async def test_it_was_cancelled(world: World) -> None:
    await world.register()
    id = await world.start()
    await world.cancel(id, by="user")
    assert (await ask(world, id)).sentence == f"A caller cancelled it at {NOW}."
    late = await world.running(run_timeout_seconds=9)
    world.advance(10)
    await world.end_overdue()
    assert (await ask(world, late)).sentence.startswith("The run time-out of 9 s cancelled it")
    world.advance(31)
    await world.end_overdue()
    assert (await ask(world, late)).sentence.endswith("; its worker did not clean up in time.")


async def test_it_names_the_caller_who_cancelled_it_and_all_below_it(world: World) -> None:
    await world.register()
    parent = await world.running()
    waiting = await world.start(parent_execution_id=parent, step_key="c0")
    await world.cancel(parent, acted_by="key 'ci' (k1)")
    said = f"Key 'ci' (k1) cancelled it at {NOW}"
    assert (await ask(world, parent)).sentence.startswith(f"{said}, and worker w cleans up")
    found = await ask(world, waiting)
    assert (found.sentence, texts(found)["act"]) == (f"{said}.", "cancel by key 'ci' (k1)")
    await world.cancel(parent, acted_by="user 'bob'")
    world.advance(31)
    await world.end_overdue()
    assert (await ask(world, parent)).sentence == f"{said}; its worker did not clean up in time."


# --- slow ------------------------------------------------------------------------------------------------------------


async def test_the_critical_path_goes_through_children(world: World) -> None:
    await world.register(workflows=["wf", "sub"])
    id = await world.running()
    began_us = world.now_us
    world.advance(2)
    await world.report(id, [StepDone("load", "load", None, True, raw(1), began_us)])
    await world.report(id, [child("c", "sub")])
    (below,) = await world.claim_ids()
    await world.report(id, end=Suspend([]))
    await world.acknowledge(below)
    began_us = world.now_us
    await world.live(5, "w")
    await world.report(below, [StepDone("pay", "pay", None, True, raw(1), began_us)])
    await world.finish(below)
    await world.live(3, "w")
    await world.claim()
    await world.finish(id)
    found = await ask(world, id, slow=True)
    assert found.path is not None
    assert [(part.kind.value, part.name, part.execution_id, part.seconds, part.percent) for part in found.path] == [
        ("step", "load", id, 2.0, 20.0),
        ("step", "pay", below, 5.0, 50.0),
        ("queue", "", id, 3.0, 30.0),
    ]
    assert found.sentence.endswith(
        f"Of its 10.0 s, 50 % went into step 'pay' of execution {below}, 30 % into waiting for a worker and 20 % into "
        "step 'load'."
    )
    msgspec.json.encode(found)


async def test_the_path_of_an_open_execution_ends_now(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.wait_for(id, answer_wait("approve"))
    world.advance(60)
    found = await ask(world, id, slow=True)
    assert found.path is not None
    assert [(part.kind.value, part.name, part.seconds) for part in found.path] == [("wait", "approve", 60.0)]


async def test_a_path_with_too_many_rows_is_read_from_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PATH_ROWS_MAX", 10)
    monkeypatch.setattr(why, "PATH_PAGE", 4)
    await world.register()
    id = await world.running()
    for n in range(20):
        began_us = world.now_us
        world.advance(0.1)
        await world.report(id, [StepDone(f"s{n}", "s", None, True, raw(1), began_us)])
    await world.finish(id)
    found = await ask(world, id, slow=True)
    assert found.path is not None
    assert found.path[0].kind.value == "unread"
    assert [part.name for part in found.path[1:]] == [f"s{n}" for n in range(12, 20)]
