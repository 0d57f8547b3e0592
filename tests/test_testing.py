"""The helpers for users' tests find what the helpers promise to find, and let correct code pass."""

import asyncio
import doctest
import re
import threading
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from perdure import Client, Context, ExecutionCancelled, ExecutionFailed, Fatal, Handle, Registry, step
from perdure import testing as testing_module
from perdure.engine.base.service import Scope
from perdure.sdk.workflows.steps import current_step
from perdure.testing import ManualClock, OrderDecides, StepRanAgain, crash_everywhere, embedded
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import ClaimRequest, RegisterRequest, WorkflowSpec

app = Registry()


@dataclass
class Order:
    id: int
    items: int = 2


@step(retry=3)
async def charge(order: Order) -> str:
    return f"receipt-{order.id}"


@app.workflow
async def order(ctx: Context, order: Order) -> str:
    receipt = await charge(order)
    await asyncio.sleep(3 * 86_400)
    parcels = [await ctx.step("ship", str, number) for number in range(order.items)]
    return f"{receipt}: {','.join(parcels)}"


@app.workflow
async def family(ctx: Context, size: int) -> list[str]:
    receipts = [await ctx.start_child(order, Order(number)) for number in range(size)]
    return [await child.result() for child in receipts]


@app.workflow
async def approval(ctx: Context) -> str:
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(ctx.suspend("approve", answer_type=str))
        event = group.create_task(ctx.wait_for_event("news", str))
    return f"{answer.result()} {event.result().data}"


@app.workflow
async def fails(ctx: Context, number: int) -> None:
    await charge(Order(number))
    raise Fatal("no such luck")


@app.workflow
async def waits(ctx: Context) -> str:
    try:
        return (await ctx.wait_for_event("news", str, timeout=60)).data
    except TimeoutError:
        return "nothing came"


async def test_three_days_pass_as_soon_as_nothing_else_is_left_to_do() -> None:
    async with embedded(app) as p:
        before = p.clock.now_us()
        assert await (await p.start(order, Order(7))).result() == "receipt-7: 0,1"
        assert p.clock.now_us() - before >= 3 * 86_400 * 1_000_000


async def test_without_skipping_time_is_in_the_tests_hands() -> None:
    async with embedded(app, skip_time=False, clock=ManualClock()) as p:
        quiet = await p.start(waits)
        await p.settle()
        assert (await quiet.get()).phase is Phase.WAITING
        await p.advance(59)
        await p.settle()
        assert (await quiet.get()).phase is Phase.WAITING
        await p.advance(1)
        assert await quiet.result() == "nothing came"
        answered = await p.start(waits)
        await p.settle()
        await p.publish("news", "good")
        assert await answered.result() == "good"
        assert await p.skip_to_due() is False


@app.workflow
async def asked(ctx: Context, turn: int) -> object:
    return await ctx.suspend("answer", {"turn": turn})


@app.workflow
async def endless(ctx: Context) -> None:
    await asyncio.sleep(float("inf"))


async def test_time_does_not_go_on_to_what_waits_for_something_else() -> None:
    async with embedded(app, skip_time=False) as p:
        began_us = p.clock.now_us()
        await p.start(endless)
        first = await p.start(asked, 1, session_id="s", on_conflict="queue")
        second = await p.start(asked, 2, session_id="s", on_conflict="queue")
        await p.settle()
        assert await p.skip_to_due() is False and p.clock.now_us() == began_us
        await p.settle()
        assert [(await turn.get()).phase for turn in (first, second)] == [Phase.WAITING, Phase.QUEUED]


async def test_a_workflow_ends_alike_whatever_commit_it_crashes_at() -> None:
    report = await crash_everywhere(order, Order(7), registry=app)
    assert report.result == "receipt-7: 0,1"
    changes = {what for _, _, what in report.crashes}
    assert {"start", "report", "wake_due"} <= changes
    assert {moment for moment, _, _ in report.crashes} == {"before", "after"}
    assert len(report.crashes) >= 10
    assert set(report.repeated) <= {"charge", "ship", "ship#2"}
    assert report.repeated  # a crash before the report of a step makes it run again
    assert "always the result 'receipt-7: 0,1'" in repr(report)


@pytest.mark.slow
async def test_children_are_started_once_whatever_commit_the_parent_crashes_at() -> None:
    report = await crash_everywhere(family, 2, registry=app)
    assert report.result == ["receipt-0: 0,1", "receipt-1: 0,1"]
    assert len(report.crashes) > 20


async def test_the_outside_world_may_take_part() -> None:
    async def during(client: Client, handle: Handle[Any]) -> None:
        await client.publish("news", "good", dedup_key="once")
        await handle.resume("approve", "yes")

    report = await crash_everywhere(approval, registry=app, during=during)
    assert report.result == "yes good"


async def test_a_failure_is_an_outcome_too() -> None:
    report = await crash_everywhere(fails, 1, registry=app)
    with pytest.raises(ExecutionFailed, match="no such luck"):
        _ = report.result


async def test_a_failure_that_names_an_execution_is_an_outcome_too() -> None:
    """Each run's executions have ids of their own."""
    app = Registry()

    @app.workflow
    async def fails(ctx: Context) -> None:
        raise ValueError("no route")

    @app.workflow
    async def parent(ctx: Context) -> None:
        await ctx.run_child(fails)

    report = await crash_everywhere(parent, registry=app)
    with pytest.raises(ExecutionFailed, match=r"child fails \([0-9a-f-]{36}\) failed: ValueError: no route"):
        _ = report.result


async def test_a_cancel_is_an_outcome_too() -> None:
    app = Registry()

    @app.workflow
    async def waits(ctx: Context) -> None:
        await ctx.suspend("question")

    async def during(client: Client, handle: Handle[Any]) -> None:
        await handle.cancel()

    report = await crash_everywhere(waits, during=during, registry=app)
    with pytest.raises(ExecutionCancelled):
        _ = report.result


async def test_an_outcome_that_depends_on_the_attempt_is_found() -> None:
    @app.workflow(name="unsteady")
    async def unsteady(ctx: Context) -> int:
        await charge(Order(1))
        return ctx.attempt

    with pytest.raises(AssertionError, match=r"ended with the result 2; without one it ends with the result 1"):
        await crash_everywhere(unsteady, registry=Registry(unsteady))


async def test_code_that_does_not_replay_is_found_with_its_line() -> None:
    runs: list[int] = []

    @app.workflow(name="forgetful")
    async def forgetful(ctx: Context) -> None:
        runs.append(1)
        await ctx.step("first" if len(runs) % 2 else "second", str, 1)
        await ctx.step("third", str, 1)

    with pytest.raises(AssertionError, match=r"The execution is blocked: .*test_testing\.py:\d+"):
        await crash_everywhere(forgetful, registry=Registry(forgetful))


async def test_calls_that_only_their_order_tells_apart_are_told() -> None:
    @app.workflow(name="locks")
    async def locks(ctx: Context) -> None:
        await asyncio.gather(*(ctx.step("lock", lambda lock: None, threading.Lock()) for _ in range(2)))

    with pytest.warns(OrderDecides, match=r"'locks': Nothing tells .* step 'lock' apart .*test_testing\.py:\d+"):
        await crash_everywhere(locks, registry=Registry(locks))


async def test_a_recorded_step_that_runs_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper is told that everything is recorded, so the step in flight looks like a recorded step."""
    real = testing_module._recorded

    async def forged(file: str) -> set[tuple[str, str]]:
        found = await real(file)
        return found | {(id, "charge") for id in ran}

    ran: set[str] = set()

    @app.workflow(name="watched")
    async def watched(ctx: Context) -> None:
        ran.add(ctx.execution_id)
        await charge(Order(1))

    monkeypatch.setattr(testing_module, "_recorded", forged)
    with pytest.raises(StepRanAgain, match=r"Step 'charge' of execution \S+ was recorded, and ran again after a crash"):
        await crash_everywhere(watched, registry=Registry(watched))


async def test_a_workflow_that_never_ends_is_told() -> None:
    with pytest.raises(AssertionError, match=r"did not end within 0.2 s without a crash"):
        await crash_everywhere(approval, registry=app, timeout=0.2)


async def test_an_error_of_the_outside_world_is_the_tests() -> None:
    async def during(client: Client, handle: Handle[Any]) -> None:
        raise LookupError("a mistake in the test")

    with pytest.raises(LookupError, match="a mistake in the test"):
        await crash_everywhere(approval, registry=app, during=during)


async def test_the_example_of_the_documentation_runs() -> None:
    (example,) = (one for one in doctest.DocTestFinder().find(crash_everywhere, globs={}) if one.examples)
    scope: dict[str, Any] = {"crash_everywhere": crash_everywhere, "order": Registry().workflow(_documented)}
    exec(compile(example.examples[0].source, "example", "exec"), scope)
    await scope["test_order"]()


async def _documented(ctx: Context, id: int) -> str:
    return await charge(Order(id))


async def test_a_step_has_the_same_idempotency_key_after_a_crash() -> None:
    keys: set[str] = set()

    @step
    async def pay() -> None:
        keys.add(current_step().idempotency_key)

    @app.workflow(name="pays")
    async def pays(ctx: Context) -> None:
        await pay()

    report = await crash_everywhere(pays, registry=Registry(pays))
    assert len({key.partition(":")[0] for key in keys}) == len(keys)  # one key per execution
    assert report.repeated["pay"] > 0


async def test_the_pages_examples_run() -> None:
    page = (Path(__file__).parent.parent / "docs" / "testing.md").read_text(encoding="utf-8")
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    module = types.ModuleType("documented")
    exec(compile(source, "docs/testing.md", "exec"), vars(module))
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 5
    for test in tests:
        await test()


async def test_time_stands_still_while_an_execution_is_on_its_way_to_its_worker() -> None:
    """The way may take a while on a busy machine, and the next due moment is the end of the execution's time limit."""
    async with embedded(Registry(), skip_time=False) as p:
        scope, epoch = Scope(await p.engine.projects.default()), p.engine.store.epoch
        specs = [WorkflowSpec("slow", run_timeout_seconds=600)]
        await p.engine.serve(scope, RegisterRequest("w", "other", "3.11", specs, []))
        await p.start("slow", deployment_id="other")
        reply = await p.engine.serve(scope, ClaimRequest("w", epoch, "1", 1, 0.0))
        assert len(reply.items) == 1 and not p.worker.running
        assert not await p._is_quiet()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_process_that_dies_while_it_drains_ends_all_the_same(
    moment: Literal["before", "after"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing_module, "CHANGES", frozenset({"drain"}))
    store = testing_module._Doomed(str(tmp_path / "perdure.db"), testing_module._Crash(moment, 1))
    async with testing_module._bench(store, app):
        assert not store.is_dead
    assert store.is_dead
