"""What agents spend: reserved and settled around each request, at real prices, against the provider of the tests."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from msgspec.json import decode
from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from pydantic_ai import Agent, ModelRetry, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolReturnPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from tests.agents.provider import Provider, serving
from tests.agents.scripted import Script, call, crashed
from tests.embedded.house import answer_when_asked, rows_of

from perdure import Budget, BudgetExceeded, Context, Registry, current_step, workflow
from perdure.agents import Call, CallHook, DurableAgent, durable, max_steps, stop_reason
from perdure.cli.runs.conversation import conversation, spent
from perdure.embedded import embedded as stored
from perdure.engine.base.clock import ManualClock
from perdure.engine.base.service import Scope
from perdure.sdk.base.errors import ExecutionFailed
from perdure.testing import Bench, embedded
from perdure.wire.agents.agent_steps import genai_attributes, model_answer
from perdure.wire.agents.approvals import ListApprovals
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListFilters

SCRIPTS: dict[str, Any] = {
    "greet": [{"text": "hello"}],
    "order": [{"text": "let me see", "tools": [["find", {}]]}, {"tools": [["find", {}]]}, {"text": "it is there"}],
    "silent": [{"tools": [["find", {}]]}, {"text": "it is there"}],
    "full": [{"text": "hello", "faults": [{"status": 429, "headers": {"retry-after": "90"}}, {"status": 429}]}],
    "broken": [{"text": "one two three", "faults": [{"break_after": 0}]}],
    "both-full": [
        {
            "text": "hello",
            "faults": [
                {"status": 429, "headers": {"retry-after": "900"}},
                {"status": 429, "headers": {"retry-after": "90"}},
            ],
        }
    ],
    "one-full": [{"text": "hello", "faults": [{"status": 429, "headers": {"retry-after": "900"}}, {"status": 503}]}],
    "both-busy": [{"text": "hello", "faults": [{"status": 503}, {"status": 503}]}],
    "both-refuse": [{"text": "hello", "faults": [{"status": 400}, {"status": 404}]}],
    "other": [{"text": "hello", "model": "no-such-model"}],
    "one-breaks": [{"text": "hello", "faults": [{"status": 503}, {"break_after": 0}]}],
}
OFTEN = "gpt-4o-mini"


class House:
    """An agent, its provider, and the bench that runs the agent."""

    def __init__(self, provider: Provider, bench: Bench, agent: DurableAgent[object, str]) -> None:
        self.provider = provider
        self.bench = bench
        self.agent = agent

    async def run(self, prompt: str, **options: Any) -> str:
        handle = await self.agent.start(self.bench, prompt, **options)
        self.id = handle.id
        return await handle.result()

    async def run_out(self, prompt: str, why: str) -> None:
        """The budget's end is the run's outcome, not an answer."""
        with pytest.raises(ExecutionFailed) as failed:
            await self.run(prompt)
        assert (failed.value.type, why in str(failed.value)) == (BudgetExceeded.__name__, True)

    async def keys(self) -> list[str | None]:
        kinds = (Kind.STEP, Kind.TIMER)
        return [row.key for row in await self.bench.journal(self.id) if row.kind in kinds]


@asynccontextmanager
async def house(model: str = OFTEN, *, spare: str | None = None, **options: Any) -> AsyncIterator[House]:
    """`spare`: a second model, which stands in for the first."""
    provider = Provider(SCRIPTS)
    async with serving(provider) as url, AsyncOpenAI(base_url=url, api_key="none") as client:
        provided = OpenAIProvider(openai_client=client)
        asked, *spares = [OpenAIChatModel(one, provider=provided) for one in (model, spare) if one is not None]
        agent: Agent[None, str] = Agent(FallbackModel(asked, *spares) if spares else asked, name="clerk")

        @agent.tool_plain
        def find() -> str:
            return "on the shelf"

        made = durable(agent, **options)
        async with embedded(Registry(made)) as bench:
            yield House(provider, bench, made)


async def test_requests_are_charged_at_their_price() -> None:
    async with house() as h:
        assert await h.run("order", budget=Budget(usd=1, tokens=100_000)) == "it is there"
        budget = await h.bench.budget(h.id)
        assert (budget.calls.spent, budget.calls.reserved) == (3, 0)
        asked = sum(row.what == "begin" for row in h.provider.calls)
        assert asked == 3
        assert 100 < budget.tokens.spent < 5_000
        # 15 cents for a million tokens of input, 60 of output
        assert budget.tokens.spent * 0.15 <= budget.usd_micros.spent <= budget.tokens.spent * 0.6


async def test_an_agent_has_its_budget_with_it() -> None:
    async with house(budget=Budget(calls=2, on_exceed="fail")) as h:
        with pytest.raises(ExecutionFailed) as failed:
            await h.run("order")
        assert failed.value.type == BudgetExceeded.__name__
        assert len(h.provider.made()) == 2
        assert await h.run("greet") == "hello", "each run has its own"


async def test_over_it_the_run_pauses_and_goes_on_where_it_was() -> None:
    async with house(budget=Budget(calls=2)) as h:
        handle = await h.agent.start(h.bench, "order")
        h.id = handle.id
        await h.bench.settle()
        assert len(h.provider.made()) == 2
        await h.bench.raise_budget(handle.id, calls=1)
        assert await handle.result() == "it is there"
        assert len(h.provider.made()) == 3, "no request was made twice"
        assert await h.keys() == [
            "model:1",
            "tool:find:call-0-0",
            "model:2",
            "tool:find:call-1-0",
            "model:3",
            "model:4",
        ]


class Found(BaseModel):
    text: str


@pytest.mark.parametrize("output_type", [str, Found])
async def test_the_last_request_of_a_budget_has_no_tools_and_is_asked_for_an_answer(output_type: Any) -> None:
    said = "one shelf" if output_type is str else call("final_result", "f1", text="one shelf")
    script = Script(call("find", "c1"), said, "never asked")
    agent: Agent[None, Any] = Agent(script.model, name="clerk", output_type=output_type)

    @agent.tool_plain
    def find() -> str:
        return "on the shelf"

    clerk = durable(agent, budget=Budget(calls=2, on_exceed="finish"))
    async with embedded(Registry(clerk)) as bench:
        handle = await clerk.start(bench, "Find all of them!")
        output = await handle.result()
        assert stop_reason(await handle.get()) == "budget"
    assert (output if output_type is str else output.text) == "one shelf"
    assert script.tools == [["find"], []]
    assert script.instructions[0] is None and "The budget is used up." in str(script.instructions[1])


async def test_a_model_that_calls_tools_all_the_same_ends_with_its_last_words() -> None:
    async with house(budget=Budget(calls=2, on_exceed="finish")) as h:
        assert await h.run("order") == "let me see"
        assert len(h.provider.made()) == 2
        one = await h.bench.get(h.id)
        assert stop_reason(one) == "budget"
        assert one.progress is not None and "ended early (budget)" in one.progress["text"]
        assert (await h.bench.why(h.id)).sentence.endswith("It ended early (budget): The budget is used up.")
    async with house(budget=Budget(calls=0, on_exceed="finish")) as h:
        await h.run_out("greet", "The budget is used up: 0 of 0 calls.")
    async with house(budget=Budget(calls=2, on_exceed="finish")) as h:
        assert await h.run("greet") == "hello"
        assert stop_reason(await h.bench.get(h.id)) is None, "it was done"


async def test_a_run_that_its_budget_ends_before_it_has_said_anything_fails_instead_of_answering() -> None:
    async with house(budget=Budget(calls=1, on_exceed="finish")) as h:
        await h.run_out("silent", "The budget is used up.")
    async with house(budget=Budget(calls=1)) as h:
        handle = await h.agent.start(h.bench, "silent")
        await h.bench.settle()
        await handle.resume("model_2-over_budget", {"approved": False})
        with pytest.raises(ExecutionFailed, match="The budget is used up: 1 of 1 calls") as failed:
            await handle.result()
        assert failed.value.type == BudgetExceeded.__name__


async def test_a_price_that_nobody_knows_is_asked_for() -> None:
    async with house(model="no-such-model", budget=Budget(usd=1)) as h:
        with pytest.raises(ExecutionFailed, match="no price is known of 'no-such-model'"):
            await h.run("greet")
        assert h.provider.calls == []
    async with house(spare="no-such-model", budget=Budget(usd=1)) as h:
        with pytest.raises(ExecutionFailed, match="no price is known of 'no-such-model'"):
            await h.run("greet")
        assert h.provider.calls == []
    async with house(model="no-such-model", budget=Budget(usd=1), price=lambda model, usage: 0.25) as h:
        assert await h.run("greet") == "hello"
        assert (await h.bench.budget(h.id)).usd_micros.spent == 250_000


@pytest.mark.parametrize("price", [None, lambda model, usage: 0.25], ids=["listed", "own"])
async def test_what_each_request_cost_is_in_the_journal_and_shown(price: Any) -> None:
    """The cost is recorded without a limit and with the program's own price. The watchdog names the cost as well."""
    async with house(price=price, watchdog=2) as h:
        handle = await h.agent.start(h.bench, "order")
        await h.bench.settle()
        rows = [row for row in await h.bench.journal(handle.id) if row.name == "model.request"]
        answers = [model_answer(row.name, bytes(row.value)) for row in rows]
        costs = [Decimal(one.cost) for one in answers if one is not None and one.cost is not None]
        assert len(costs) == 2 and all(0 < one < Decimal("0.3") for one in costs)
        if price is not None:
            assert costs == [Decimal("0.25")] * 2
        spans = [genai_attributes(row.name, row.key, bytes(row.value)) for row in rows]
        assert [one["operation.cost"] for one in spans] == list(map(float, costs))
        shown = [line.note for line in conversation((await handle.get()).raw, rows) if line.note]
        assert [f", ${one:f}," in note for one, note in zip(costs, shown, strict=True)] == [True, True]
        assert spent(rows).endswith(f" tokens, ${sum(costs):f}")
        engine = h.bench.engine
        questions = (await engine.serve(Scope(await engine.projects.default()), ListApprovals())).items
        assert Decimal(decode(questions[0].data)["cost_usd"]) == sum(costs)


async def test_an_answer_is_not_lost_over_its_price() -> None:
    def unknown(model: str, usage: object) -> float:
        raise KeyError(model)

    async with house(price=unknown) as h:
        assert await h.run("greet") == "hello"


async def test_a_full_provider_is_waited_for_without_a_worker() -> None:
    async with house() as h:
        before = h.bench.clock.now_us()
        assert await h.run("full", budget=Budget(calls=5)) == "hello"
        assert h.bench.clock.now_us() - before >= 90_000_000
        assert [call.what for call in h.provider.calls] == ["begin", "fault", "begin", "fault", "begin", "end"]
        assert all(call.streamed for call in h.provider.calls)
        # The first says when to come back: a timer. The second does not: a try of the same step.
        assert [key and key.rpartition("/")[2] for key in await h.keys()] == ["model:1", "timer", "model:2"]
        budget = await h.bench.budget(h.id)
        assert (budget.calls.spent, budget.calls.reserved) == (1, 0), "what is refused costs nothing"


async def test_what_a_broken_answer_took_stays_reserved() -> None:
    async with house() as h:
        assert await h.run("broken", budget=Budget(calls=5)) == "one two three"
        budget = await h.bench.budget(h.id)
        assert (budget.calls.spent, budget.calls.reserved) == (1, 1)


@pytest.mark.parametrize(
    ("script", "seconds", "steps"),
    [
        ("both-full", 90, ["model:1", "timer", "model:2"]),  # until the first of them may be asked again
        ("one-full", 60, ["model:1", "timer", "model:2"]),  # the busy one is looked at earlier
        ("both-busy", 0, ["model:1"]),  # another try of the same step
    ],
)
async def test_models_that_all_refuse_are_waited_for_as_one_is(script: str, seconds: int, steps: list[str]) -> None:
    async with house(spare=OFTEN) as h:
        before = h.bench.clock.now_us()
        assert await h.run(script, budget=Budget(calls=5)) == "hello"
        waited = (h.bench.clock.now_us() - before) / 1e6
        assert seconds <= waited < seconds + 20
        assert [call.what for call in h.provider.calls] == ["begin", "fault", "begin", "fault", "begin", "end"]
        assert [key and key.rpartition("/")[2] for key in await h.keys()] == steps
        budget = await h.bench.budget(h.id)
        assert (budget.calls.spent, budget.calls.reserved) == (1, 0), "what all refuse costs nothing"


@pytest.mark.parametrize(("script", "reserved"), [("both-refuse", 0), ("one-breaks", 1)])
async def test_models_that_all_fail_cost_what_one_of_them_may_have_taken(script: str, reserved: int) -> None:
    async with house(spare=OFTEN, model_step={"retry": 1}) as h:
        with pytest.raises(ExecutionFailed, match="All models from FallbackModel failed"):
            await h.run(script, budget=Budget(calls=5))
        budget = await h.bench.budget(h.id)
        assert (budget.calls.spent, budget.calls.reserved) == (0, reserved)


async def test_an_answer_under_a_name_that_nobody_has_a_price_for_costs_what_the_asked_model_takes() -> None:
    async with house() as h:
        assert await h.run("greet", budget=Budget(usd=1)) == "hello"
        expected = (await h.bench.budget(h.id)).usd_micros
        assert await h.run("other", budget=Budget(usd=1)) == "hello"
        assert (await h.bench.budget(h.id)).usd_micros == expected
    assert expected.spent > 0 and expected.reserved == 0


async def test_of_models_that_stand_in_for_one_another_the_dearest_is_reserved() -> None:
    async with house(spare="gpt-4o", model_step={"retry": 1}) as h:
        with pytest.raises(ExecutionFailed, match="All models from FallbackModel failed"):
            await h.run("one-breaks", budget=Budget(usd=5))
        # 4,096 tokens of output at 10 dollars for a million; at the first one's price they are 2,458.
        assert (await h.bench.budget(h.id)).usd_micros.reserved > 40_000


class Long(BaseModel):
    text: str = Field(description="as long as a book, " * 2_000)


@pytest.mark.parametrize("output", [ToolOutput, NativeOutput, PromptedOutput])
async def test_the_form_of_an_answer_is_reserved_however_it_is_asked_for(output: Any) -> None:
    reserved: list[int] = []

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        reserved.append((await bench.budget(current_step().execution_id)).tokens.reserved)
        return ModelResponse([call("final_result", "f1", text="x") if info.output_tools else TextPart('{"text": "x"}')])

    clerk = durable(Agent(FunctionModel(answer), name="clerk", output_type=output(Long)), budget=Budget(tokens=50_000))
    async with embedded(Registry(clerk)) as bench:
        assert (await clerk.run(bench, "?")).text == "x"
    assert reserved and min(reserved) > 12_000 + 4_096


async def test_an_execution_holds_the_budget_of_one_agent_that_runs_inside_of_it() -> None:
    """A second agent would spend from the first agent's budget, so the second agent runs as a child."""
    script = Script(call("find", "c1"), "one shelf")
    agent = Agent(script.model, name="clerk")

    @agent.tool_plain
    def find() -> str:
        return "on the shelf"

    clerk = durable(agent, budget=Budget(calls=4, on_exceed="fail"))
    other = durable(agent, name="other", budget=Budget(calls=2, on_exceed="fail"))

    @workflow
    async def inside(ctx: Context, prompt: str) -> str:
        return await clerk(ctx, prompt)

    @workflow
    async def both(ctx: Context, prompt: str) -> list[str]:
        return [await clerk(ctx, prompt), await other(ctx, prompt)]

    @workflow
    async def below(ctx: Context, prompt: str) -> list[str]:
        return [await clerk(ctx, prompt), await ctx.run_child(other, prompt)]

    async with embedded(Registry(clerk, other, inside, both, below)) as bench:
        handle = await bench.start(inside, "Find it!")
        assert await handle.result() == "one shelf"
        assert (await bench.budget(handle.id)).calls.spent == 2
        with pytest.raises(ExecutionFailed, match="run_child") as failed:
            await (await bench.start(both, "Find it!")).result()
        assert failed.value.type == "Misplaced"
        assert await (await bench.start(below, "Find it!")).result() == ["one shelf", "one shelf"]


LAST_WORDS = "let me see"
ENDED = "Agent 'clerk' ended early (budget): The budget"
CALLS = Budget(calls=2, on_exceed="finish")


def clerk_inside(script: Script, output_type: Any = str, **options: Any) -> tuple[DurableAgent[None, Any], Any, Any]:
    """An agent, a workflow that returns the answer, and a workflow that goes on with the last words after a replay."""
    agent: Agent[None, Any] = Agent(script.model, name="clerk", output_type=output_type)

    @agent.tool_plain
    def find() -> str:
        return "on the shelf"

    clerk = durable(agent, **options)

    @workflow
    async def trusts(ctx: Context, prompt: str) -> Any:
        return await clerk(ctx, prompt)

    @workflow
    async def handles(ctx: Context, prompt: str) -> list[Any]:
        try:
            return ["answer", await clerk(ctx, prompt)]
        except BudgetExceeded as exceeded:
            await ctx.sleep(0.01)
            return [type(exceeded.answer).__name__, exceeded.answer]

    return clerk, trusts, handles


def insisting() -> Script:
    """Calls a tool in each answer, even if the model has none."""
    return Script([LAST_WORDS, call("find", "c1")], call("find", "c2"), "it is there")


async def test_last_words_inside_a_workflow_are_an_error_and_not_an_answer(database: str) -> None:
    clerk, trusts, handles = clerk_inside(insisting(), budget=CALLS)
    async with stored(database, Registry(clerk, trusts, handles), parks=False) as bench:
        handle = await bench.start(trusts, "Find it!")
        with pytest.raises(ExecutionFailed, match=re.escape(f"{ENDED} is used up.")) as failed:
            await handle.result()
        assert failed.value.type == BudgetExceeded.__name__
        assert ENDED in (await bench.why(handle.id)).sentence
        assert (await handle.get()).progress is None
        handle = await bench.start(handles, "Find it!")
        assert await handle.result() == ["str", LAST_WORDS]
        assert (await handle.get()).attempt > 1, "it was replayed after the error"
        ample = await bench.start(handles, "Find it!", budget=Budget(calls=4, on_exceed="finish"))
        assert await ample.result() == ["answer", "it is there"]


class Afternoon(ManualClock):
    """A clock that goes on, and on which no day ends while a test runs."""

    def __init__(self) -> None:
        super().__init__()
        self._began_ns = time.monotonic_ns()

    def now_us(self) -> int:
        return super().now_us() + (time.monotonic_ns() - self._began_ns) // 1_000


@pytest.mark.parametrize(
    ("per", "period", "name"),
    [
        ("session", None, "'shared' of session 's'"),
        ("user", "day", "'shared' of user 'ann'"),
        ("tag:shop", None, "'shared' of tag 'shop' 'berlin'"),
        ("project", "day", "'shared'"),
    ],
)
async def test_a_shared_budget_ends_an_agent_inside_a_workflow_alike(
    database: str, per: str, period: Any, name: str
) -> None:
    script = Script([LAST_WORDS, call("find", "c1")], call("find", "c2"), "it is there")
    clerk, trusts, handles = clerk_inside(script)
    whose: dict[str, Any] = {"session_id": "s", "user_id": "ann", "tags": {"shop": "berlin"}}
    registry = Registry(clerk, trusts, handles)
    async with stored(database, registry, parks=False, clock=Afternoon()) as bench:
        await bench.budgets.put("shared", per=per, period=period, calls=2, on_exceed="finish")
        assert await (await bench.start(handles, "Find it!", **whose)).result() == ["str", LAST_WORDS]
        await bench.budgets.put("shared", per=per, period=period, calls=3, on_exceed="ask")
        handle = await bench.start(trusts, "Find it!", **whose)
        await answer_when_asked(handle, "agent_clerk_model_2-over_budget", {"approved": False})
        with pytest.raises(ExecutionFailed, match=re.escape(f"{ENDED} {name} is used up: 3 of 3 calls.")):
            await handle.result()


def clerk_below(script: Script, output_type: Any = str, **options: Any) -> tuple[DurableAgent[None, Any], Any, Any]:
    """Make the workflows of `clerk_inside` with the agent as a child."""
    clerk, *_ = clerk_inside(script, output_type, **options)

    @workflow
    async def trusts(ctx: Context, prompt: str) -> Any:
        return await ctx.run_child(clerk, prompt)

    @workflow
    async def handles(ctx: Context, prompt: str) -> list[Any]:
        try:
            return ["answer", await ctx.run_child(clerk, prompt)]
        except BudgetExceeded as exceeded:
            await ctx.sleep(0.01)
            return [type(exceeded.answer).__name__, exceeded.answer]

    return clerk, trusts, handles


async def test_last_words_of_a_child_are_an_error_to_its_parent(database: str) -> None:
    clerk, trusts, handles = clerk_below(insisting(), budget=CALLS)

    @workflow
    async def maps(ctx: Context, prompt: str) -> list[Any]:
        [(_, failed)] = (await ctx.map_children(clerk, [prompt])).failures
        assert isinstance(failed.__cause__, BudgetExceeded)
        return [failed.type, failed.message, failed.__cause__.answer]

    async with stored(database, Registry(clerk, trusts, handles, maps), parks=False) as bench:
        handle = await bench.start(trusts, "Find it!")
        with pytest.raises(ExecutionFailed, match=re.escape(f"{ENDED} is used up.")) as failed:
            await handle.result()
        assert failed.value.type == BudgetExceeded.__name__
        assert ENDED in (await bench.why(handle.id)).sentence
        [child] = (await bench.list(ListFilters(parent_execution_id=handle.id))).executions
        assert (child.phase, await bench.handle(child.id).result()) == (Phase.COMPLETED, LAST_WORDS)
        handle = await bench.start(handles, "Find it!")
        assert await handle.result() == ["str", LAST_WORDS]
        assert (await handle.get()).attempt > 1, "it was replayed after the error"
        assert await (await bench.start(maps, "Find it!")).result() == [
            BudgetExceeded.__name__,
            f"{ENDED} is used up.",
            LAST_WORDS,
        ]
        ample = await bench.start(handles, "Find it!", budget=Budget(calls=9, on_exceed="finish"))
        assert await ample.result() == ["str", LAST_WORDS], "its own budget"


async def test_a_budget_above_ends_a_child_alike_and_a_stop_condition_still_answers() -> None:
    clerk, _, handles = clerk_below(insisting())
    async with embedded(Registry(clerk, handles)) as bench:
        assert await (await bench.start(handles, "Find it!", budget=CALLS)).result() == ["str", LAST_WORDS]
        assert await (await bench.start(handles, "Find it!")).result() == ["answer", "it is there"]
    clerk, _, handles = clerk_below(Script([LAST_WORDS, call("find", "c1")], "one"), stop=[max_steps(2)], budget=CALLS)
    async with embedded(Registry(clerk, handles)) as bench:
        assert await (await bench.start(handles, "Find it!")).result() == ["answer", "one"]


async def test_a_crash_changes_nothing_about_last_words_of_a_child() -> None:
    clerk, _, handles = clerk_below(insisting(), budget=CALLS)
    report = await crashed(handles, "Find it!", clerk)
    assert report.result == ["str", LAST_WORDS] and report.crashes


async def test_a_recorded_end_that_says_nothing_of_its_budget_stays_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "perdure.store.verbs.runs.reports.over_budget", lambda progress: None
    )  # as it was recorded before
    clerk, _, handles = clerk_below(insisting(), budget=CALLS)
    router = durable(
        Agent(Script(call("clerk", "h1", prompt="Find it!"), "done").model, tools=[clerk.as_tool()]), name="r"
    )
    async with embedded(Registry(clerk, handles, router)) as bench:
        assert await (await bench.start(handles, "Find it!")).result() == ["answer", LAST_WORDS]
        handle = await router.start(bench, "Find it!")
        assert await handle.result() == "done"
        [told] = [row.value for row in await rows_of(handle) if row.name == "child.early_end"]
        assert b"ended early (budget)" in bytes(told)


async def test_an_answer_that_a_budget_cut_short_keeps_its_type_and_stop_conditions_still_answer() -> None:
    script = Script(call("find", "c1"), call("final_result", "f1", text="one shelf"), "never asked")
    clerk, trusts, handles = clerk_inside(script, Found, budget=CALLS)
    async with embedded(Registry(clerk, trusts, handles)) as bench:
        assert await (await bench.start(handles, "Find it!")).result() == ["Found", {"text": "one shelf"}]
    assert script.tools == [["find"], []]
    script = Script([LAST_WORDS, call("find", "c1")], "one shelf")
    clerk, trusts, handles = clerk_inside(script, stop=[max_steps(2)], budget=CALLS)
    async with embedded(Registry(clerk, trusts, handles)) as bench:
        assert await (await bench.start(trusts, "Find it!")).result() == "one shelf", "it was stopped first"


async def test_an_agent_that_must_fail_or_has_said_nothing_leaves_no_answer() -> None:
    for budget in (Budget(calls=1, on_exceed="fail"), Budget(calls=0, on_exceed="finish")):
        clerk, trusts, handles = clerk_inside(insisting(), budget=budget)
        async with embedded(Registry(clerk, trusts, handles)) as bench:
            assert await (await bench.start(handles, "Find it!")).result() == ["NoneType", None]


async def test_a_calling_agent_is_told_that_a_budget_ended_the_agent_behind_its_tool() -> None:
    clerk, *_ = clerk_inside(insisting(), budget=CALLS)
    script = Script(call("clerk", "h1", prompt="Find it!"), "It is not found yet.")
    router = durable(Agent(script.model, name="router", tools=[clerk.as_tool()]))
    report = await crashed(router, "Find it!", clerk)
    assert report.result == "It is not found yet."
    [told] = script.heard[-1][-1].parts
    assert isinstance(told, ToolReturnPart) and told.outcome == "failed"
    assert re.fullmatch(
        r"Agent 'clerk' ended early \(budget\): .* Until then it had: \"let me see\"", str(told.content)
    )
    clerk, *_ = clerk_inside(Script("on the shelf"), budget=CALLS)
    script = Script(call("clerk", "h1", prompt="Find it!"), "found")
    router = durable(Agent(script.model, name="router", tools=[clerk.as_tool()]))
    async with embedded(Registry(router, clerk)) as bench:
        assert await router.run(bench, "Find it!") == "found"
    [told] = script.heard[-1][-1].parts
    assert isinstance(told, ToolReturnPart) and told.content == "on the shelf"


async def test_a_crash_changes_nothing_about_last_words_inside_a_workflow() -> None:
    clerk, _, handles = clerk_inside(insisting(), budget=CALLS)
    report = await crashed(handles, "Find it!", clerk)
    assert report.result == ["str", LAST_WORDS] and report.crashes


async def test_hooks_come_after_a_call_in_reverse_so_they_see_what_it_cost_and_it_counts_whatever_they_say() -> None:
    seen: list[str] = []

    class Strict(CallHook):
        def __init__(self, name: str) -> None:
            self.name = name

        async def before(self, call: Call) -> None:
            seen.append(f"before {self.name}")

        async def after(self, call: Call, result: Any) -> None:
            seen.append(f"after {self.name}: {result.usage.cost}")
            if self.name == "outer" and seen.count("after outer: 0.5") == 1:
                raise ModelRetry("again")

    agent = Agent(Script("no", "yes").model, name="strict")
    strict = durable(
        agent,
        hooks=[Strict("outer"), Strict("inner")],
        price=lambda model, usage: 0.5,
        budget=Budget(tokens=10_000),
    )
    async with embedded(Registry()) as p:
        handle = await strict.start(p, "?")
        await handle.result()
        spent = await p.budget(handle.id)
    assert seen == ["before outer", "before inner", "after inner: 0.5", "after outer: 0.5"] * 2
    assert (spent.calls.spent, spent.calls.reserved, spent.tokens.reserved) == (2, 0, 0)
