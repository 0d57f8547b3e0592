"""Budgets in user code: steps reserve and settle, the workflow waits for more, whoever is asked says how much."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from msgspec import json
from tests.embedded.house import House, keys_of, pass_time, reaches
from tests.kit.polling import until

from perdure.embedded import Embedded
from perdure.engine.base.clock import ManualClock
from perdure.engine.base.service import Scope
from perdure.sdk.base.errors import BudgetExceeded, ExecutionFailed, Fatal, Misplaced, Postponed
from perdure.sdk.budgets import admitted, reserve
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.start_options import Budget
from perdure.sdk.workflows.workflow import Registry, workflow
from perdure.store.verbs.agents.budgets import unasked
from perdure.wire.agents.approvals import ListApprovals
from perdure.wire.base.errors import BadRequest, BadValue, NotFound
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListFilters

app = Registry()
calls: list[str] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    calls.clear()


async def call(name: str, tokens: int = 10) -> str:
    reservation = await reserve(usd_micros=2_000, tokens=20)
    calls.append(name)
    await reservation.settle(usd_micros=1_000, tokens=tokens)
    return name


@app.workflow
async def talk(ctx: Context, turns: int) -> list[str]:
    return [await admitted(ctx, partial(ctx.step, "call", call, f"call {n}")) for n in range(turns)]


@app.workflow
async def finishes(ctx: Context, turns: int) -> str:
    n = 0
    try:
        while n < turns:
            await admitted(ctx, lambda: ctx.step("call", call, "call"))
            n += 1
    except BudgetExceeded as error:
        assert error.details is not None
        return f"{n} calls: {error.message}"
    return "all calls"


@app.workflow
async def crowd(ctx: Context, children: int) -> int:
    done = await ctx.map_children(talk, [1] * children)
    return len(done.results())


async def questions(p: Embedded) -> list[Any]:
    found = (await p.engine.serve(Scope(await p.engine.projects.default()), ListApprovals())).items
    return found


async def asks(p: Embedded, handle: Handle[Any]) -> Any:
    """The question for more budget, once the execution waits."""
    await reaches(handle, Phase.WAITING)
    [one] = [one for one in await questions(p) if one.execution_id == handle.id]
    return one


async def test_calls_are_counted_as_they_were(house: House) -> None:
    async with house.open(app) as p:
        handle = await p.start(talk, 3, budget=Budget(usd=1, tokens=1_000, calls=5))
        assert await handle.result() == ["call 0", "call 1", "call 2"]
        budget = await p.budget(handle.id)
        assert (budget.usd_micros.spent, budget.usd_micros.reserved, budget.usd_micros.limit) == (3_000, 0, 1_000_000)
        assert (budget.tokens.spent, budget.calls.spent, budget.on_exceed) == (30, 3, "ask")
        plain = await p.start(talk, 1)
        await plain.result()
        with pytest.raises(NotFound):
            await p.budget(plain.id)


async def test_it_pauses_and_goes_on_when_somebody_raises_it(house: House) -> None:
    async with house.open(app) as p:
        handle = await p.start(talk, 3, budget=Budget(calls=2))
        question = await asks(p, handle)
        shown = json.decode(question.data)
        assert shown["_form"]["title"] == "The budget is used up"
        assert "2 of 2 calls" in shown["_form"]["description"]
        assert shown["budget"] == handle.id
        await until(lambda: p.worker.running == 0)
        budget = await p.budget(handle.id)
        assert budget.paused_at is not None and budget.asking_execution_id == handle.id
        with pytest.raises(BadRequest, match="no limit of 'tokens'"):
            await p.raise_budget(handle.id, tokens=5)
        raised = await p.raise_budget(handle.id, calls=1)
        assert (raised.calls.limit, raised.paused_at) == (3, None)
        assert await handle.result() == ["call 0", "call 1", "call 2"]
        assert calls == ["call 0", "call 1", "call 2"], "none was made twice"
        assert await questions(p) == [], "nobody is asked any more"


async def test_the_answer_to_its_question_raises_it(house: House) -> None:
    async with house.open(app) as p:
        handle = await p.start(talk, 4, budget=Budget(calls=1))
        question = await asks(p, handle)
        assert question.step_key == "over_budget"
        with pytest.raises(BadValue, match=r"^data\.approved"):
            await handle.resume("over_budget", "what?")
        await handle.resume("over_budget", {})  # says nothing: it is asked again
        await until(lambda: _asks_under(p, "over_budget-2"))
        await handle.resume("over_budget-2", {"approved": True})  # as much again
        await until(lambda: _asks_under(p, "over_budget-3"))
        await handle.resume("over_budget-3", {"approved": True, "calls": 2.0, "usd": 5})
        assert len(await handle.result()) == 4
        budget = await p.budget(handle.id)
        assert (budget.calls.limit, budget.calls.spent, budget.usd_micros.limit) == (4, 4, None)
        assert await keys_of(handle, Kind.STEP) == [
            *("call", "call#2", "call#3", "raise budget", "call#4", "call#5", "raise budget#2", "call#6", "call#7"),
        ]


async def _asks_under(p: Embedded, key: str) -> bool:
    return any(one.step_key == key for one in await questions(p))


async def test_who_is_refused_ends_with_what_there_is(house: House) -> None:
    async with house.open(app) as p:
        handle = await p.start(finishes, 3, budget=Budget(calls=1))
        question = await asks(p, handle)
        await handle.resume(question.step_key, {"approved": False})
        assert await handle.result() == "1 calls: The budget is used up: 1 of 1 calls."
        handle = await p.start(finishes, 3, budget=Budget(usd=0.001, on_exceed="finish"))
        assert await handle.result() == "1 calls: The budget is used up: $0.0010 of $0.0010."
        handle = await p.start(finishes, 3, budget=Budget(tokens=15, on_exceed="fail"))
        assert await handle.result() == "2 calls: The budget is used up: 20 of 15 tokens."
        failing = await p.start(talk, 3, budget=Budget(calls=1, on_exceed="fail"))
        with pytest.raises(ExecutionFailed) as failed:
            await failing.result()
        assert failed.value.type == "BudgetExceeded"


async def test_of_a_crowd_one_asks_and_all_go_on(house: House) -> None:
    async with house.open(app) as p:
        handle = await p.start(crowd, 8, budget=Budget(calls=3))
        await until(lambda: _waiting(p, handle, 5))
        assert len(await questions(p)) == 1
        assert len(calls) == 3
        await p.raise_budget((await questions(p))[0].execution_id, calls=100)
        assert await handle.result() == 8
        assert len(calls) == 8
        assert (await p.budget(handle.id)).calls.spent == 8


async def _waiting(p: Embedded, handle: Handle[Any], amount: int) -> bool:
    page = await p.list(ListFilters(phases=["waiting"], parent_execution_id=handle.id))
    return len(page.executions) == amount and len(await questions(p)) == 1


@workflow
async def above(ctx: Context) -> list[str]:
    return await ctx.run_child(talk, 1)


@workflow
async def gives_up(ctx: Context) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(1_000):
            await admitted(ctx, lambda: ctx.step("call", call, "call"))
    await ctx.wait_for_event("never")


@pytest.mark.parametrize(
    ("asking", "ends"), [("talk", "cancel"), ("talk", "time_out"), ("above", "cancel"), ("gives_up", "give up")]
)
async def test_another_run_of_the_tree_asks_once_the_one_that_asked_does_not_wait_any_more(
    house: House, asking: str, ends: str
) -> None:
    app, clock = Registry(talk, above, gives_up), ManualClock()

    @app.workflow
    async def tree(ctx: Context) -> list[object]:
        await ctx.start_child(asking, 1 if asking == "talk" else None)
        await ctx.wait_for_event("more")
        return await asyncio.gather(*(ctx.run_child(talk, 1) for _ in range(2)))

    async def one_asks() -> bool:
        return len(await questions(p)) == 1

    async with house.open(app, clock=clock) as p:
        handle = await p.start(tree, budget=Budget(calls=0))
        await until(one_asks)
        [first] = await questions(p)
        await p.publish("more", None)
        await until(lambda: _waiting(p, handle, 3))
        if ends == "cancel":
            [child] = (await p.list(ListFilters(parent_execution_id=handle.id, workflow_id=asking))).executions[-1:]
            await p.handle(child.id).cancel()
        elif ends == "time_out":
            await p.act(first.execution_id, "time_out", key=first.step_key)
        else:
            await pass_time(p, clock, 1_001)

        async def another_asks() -> bool:
            return [first.execution_id] != [one.execution_id for one in await questions(p)] != []

        async def none_asks() -> bool:  # its question may be closed before it hears of that, and gives up
            return bool(await p.engine.store.scan(unasked())) or await another_asks()

        await until(none_asks)
        p.engine.notifier.notify(("loop", "budgets"))
        await until(another_asks)
        [second] = await questions(p)
        await p.handle(second.execution_id).resume(second.step_key, {"approved": True, "calls": 2})
        assert await handle.result() == [["call 0"], ["call 0"]]


async def test_a_fork_of_a_raised_budget_goes_on_when_its_own_is_raised(house: House) -> None:
    async with house.open(app) as p:
        handle = await p.start(talk, 3, budget=Budget(calls=1))
        await asks(p, handle)
        await p.raise_budget(handle.id, calls=1)
        await until(lambda: _asks_under(p, "over_budget-2"))
        fork = await handle.fork()
        await asks(p, fork)
        await p.raise_budget(fork.id, calls=9)
        assert await fork.result() == ["call 0", "call 1", "call 2"]


@pytest.mark.parametrize(
    ("ends", "raised"), [("cancelled", "source"), ("cancelled", "own"), ("failed", "answer"), ("open", "own")]
)
async def test_a_run_that_goes_on_from_one_that_asked_asks_for_its_own_budget(
    house: House, ends: str, raised: str
) -> None:
    app = Registry()

    @app.workflow
    async def two(ctx: Context) -> list[str]:
        asking = asyncio.ensure_future(admitted(ctx, lambda: ctx.step("call", call, "call")))
        await ctx.wait_for_event("more")
        beside = await ctx.step("beside", beside_it)
        if ends == "failed":
            await ctx.wait_for_event("fail")
            await ctx.step("breaks", breaks)
        return [beside, await asking]

    async def beside_it() -> str:
        return "there"

    async def breaks() -> None:
        broken.append(1)
        if len(broken) == 1:
            raise Fatal("no")

    broken: list[int] = []
    async with house.open(app) as p:
        handle = await p.start(two, budget=Budget(calls=0))
        await asks(p, handle)
        await p.publish("more", None)
        await until(lambda: _has_step(handle, "beside"))
        await reaches(handle, Phase.WAITING)
        if ends == "cancelled":
            await handle.cancel()
        elif ends == "failed":
            await p.publish("fail", None)
            with pytest.raises(ExecutionFailed):
                await handle.result()
        if raised == "source":
            await p.raise_budget(handle.id, calls=1)
        again = await (handle.fork(steps={"beside": "there"}) if ends == "open" else handle.retry())
        if raised != "source":
            question = await asks(p, again)
            assert json.decode(question.data)["budget"] == again.id
            if raised == "own":
                await p.raise_budget(again.id, calls=1)
            else:
                await again.resume(question.step_key, {"approved": True, "calls": 1})
        assert await again.result() == ["there", "call"]
        assert calls == ["call"]


async def _has_step(handle: Handle[Any], key: str) -> bool:
    return key in await keys_of(handle, Kind.STEP)


async def test_a_fork_raises_its_own_budget_by_an_answer_that_it_keeps(house: House) -> None:
    async with house.open(app) as p:
        handle = await p.start(talk, 1, budget=Budget(calls=0))
        question = await asks(p, handle)
        await handle.resume(question.step_key, {"approved": True, "calls": 3})
        assert await handle.result() == ["call 0"]
        fork = await handle.fork(from_step="raise budget")
        assert await fork.result() == ["call 0"]
        limits = [(await p.budget(one.id)).calls.limit for one in (handle, fork)]
        assert limits == [3, 6]


async def test_branches_of_one_execution_ask_once(house: House) -> None:
    app = Registry()

    @app.workflow
    async def both(ctx: Context) -> int:
        await asyncio.gather(*(admitted(ctx, lambda: ctx.step("call", call, "call")) for _ in range(3)))
        return len(calls)

    async with house.open(app) as p:
        handle = await p.start(both, budget=Budget(calls=1))
        await asks(p, handle)
        await p.raise_budget(handle.id, calls=9)
        assert await handle.result() == 3


async def test_what_is_postponed_holds_no_worker(house: House) -> None:
    app, clock = Registry(), ManualClock()
    tries: list[int] = []

    async def busy() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise Postponed(600, "the provider is full")
        return "done"

    @app.workflow
    async def patient(ctx: Context) -> str:
        return await admitted(ctx, lambda: ctx.step("busy", busy))

    async with house.open(app, clock=clock) as p:
        handle = await p.start(patient)
        for n in (1, 2):
            await until(lambda n=n: len(tries) == n)  # type: ignore[misc]  # bound now
            await reaches(handle, Phase.WAITING)
            await pass_time(p, clock, 601)
        assert await handle.result() == "done"
        assert await keys_of(handle, Kind.STEP, Kind.TIMER) == ["busy", "timer", "busy#2", "timer#2", "busy#3"]


async def test_other_failures_are_the_workflows_business(house: House) -> None:
    app = Registry()

    async def fails() -> None:
        raise ValueError("no")

    @app.workflow
    async def careless(ctx: Context) -> None:
        await admitted(ctx, lambda: ctx.step("fails", fails))

    async with house.open(app) as p:
        handle = await p.start(careless)
        with pytest.raises(ExecutionFailed, match="no"):
            await handle.result()


def test_a_budget_that_cannot_be_is_refused() -> None:
    with pytest.raises(BadValue, match="has no limit"):
        Budget()
    with pytest.raises(BadValue, match=r"budget\.tokens: must be 0 to"):
        Budget(tokens=-1)
    for tokens in (1.5, True, "7"):
        with pytest.raises(BadValue, match=r"budget\.tokens: must be 0 to .* and whole"):
            Budget(tokens=tokens)  # type: ignore[arg-type]
    for usd in (float("inf"), float("nan")):
        with pytest.raises(BadValue, match="usd: must be an amount of money"):
            Budget(usd=usd)
    with pytest.raises(ValueError, match="ask, finish, fail"):
        Budget(tokens=1, on_exceed="stop")  # type: ignore[arg-type]
    assert repr(Budget(usd=0.5, on_exceed="fail")) == "Budget(usd=0.5, on_exceed='fail')"


async def test_reserving_belongs_to_a_step() -> None:
    with pytest.raises(Misplaced):
        await reserve(tokens=1)
