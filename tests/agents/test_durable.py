"""An agent as a workflow: what is recorded, what is not done again, and what comes back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.capabilities import Hooks
from pydantic_ai.exceptions import ApprovalRequired, ModelHTTPError, ToolFailed, UsageLimitExceeded, UserError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.toolsets import FunctionToolset
from pydantic_ai.usage import UsageLimits
from tests.agents.scripted import Script, call, crashed
from tests.embedded.house import answer_when_asked, reaches, rows_of

from perdure import Context, ExecutionFailed, Registry, RetryPolicy, StepFailed, current_step, step, workflow
from perdure.agents import Call, CallHook, DurableAgent, durable
from perdure.agents.inputs import as_input
from perdure.sdk.base.errors import Misplaced
from perdure.testing import embedded
from perdure.wire.base.errors import BadValue
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase


class Answer(BaseModel):
    text: str
    sure: bool = True


@dataclass
class Shop:
    name: str
    open: bool = True


def weather_agent(script: Script, ran: Counter[str], **options: Any) -> Agent[None, str]:
    agent: Agent[None, str] = Agent(script.model, name="weather", **options)

    @agent.tool_plain
    async def temperature(city: str) -> int:
        ran[city] += 1
        return len(city)

    return agent


async def steps_of(handle: Any) -> list[tuple[str | None, str | None]]:
    return [(row.key, row.name) for row in await rows_of(handle) if row.kind is Kind.STEP]


# --- what is recorded ----------------------------------------------------------------------------------------------


async def test_requests_and_tool_calls_are_steps_named_by_kind_and_call() -> None:
    ran: Counter[str] = Counter()
    script = Script([call("temperature", "c1", city="Rome"), call("temperature", "c2", city="Oslo")], "4 and 4")
    weather = durable(weather_agent(script, ran))
    async with embedded(Registry()) as p:
        handle = await weather.start(p, "How warm is it?")
        assert await handle.result() == "4 and 4"
        names = await steps_of(handle)
    assert names[0] == ("model:1", "model.request")
    assert sorted(names[1:3]) == [
        ("tool:temperature:c1", "tool.temperature"),
        ("tool:temperature:c2", "tool.temperature"),
    ]
    assert names[3:] == [("model:2", "model.request")]
    assert ran == {"Rome": 1, "Oslo": 1} and script.asked == {0: 1, 1: 1}


async def test_nothing_recorded_is_done_again_wherever_it_crashes() -> None:
    ran: Counter[str] = Counter()
    script = Script([call("temperature", "c1", city="Rome"), call("temperature", "c2", city="Oslo")], "4 and 4")
    weather = durable(weather_agent(script, ran))
    report = await crashed(weather, "How warm is it?")
    assert report.result == "4 and 4"
    # `crashed` has seen that no recorded step ran again; what was in flight may have.
    assert set(report.repeated) <= {"model:1", "model:2", "tool:temperature:c1", "tool:temperature:c2"}


async def test_what_a_replay_finds_reaches_the_agent_as_it_was_recorded() -> None:
    """An evicted run reads everything from its journal: the second answer is made from the recorded first answer."""
    ran: Counter[str] = Counter()

    def sum_up(messages: list[ModelMessage], _: Any) -> str:
        returns = [part for m in messages for part in m.parts if isinstance(part, ToolReturnPart)]
        return f"it is {returns[0].content}"

    script = Script(call("temperature", "c1", city="Rome"), call("pause", "c2"), sum_up)
    agent = weather_agent(script, ran)

    @agent.tool_plain(metadata={"perdure": False})
    async def pause() -> str:
        await asyncio.sleep(3_600)
        return "an hour later"

    weather = durable(agent)
    async with embedded(Registry(), parks=False) as p:
        assert await weather.run(p, "How warm is it?") == "it is 4"
    assert script.asked == {0: 1, 1: 1, 2: 1} and ran == {"Rome": 1}


async def test_an_output_type_names_the_result_and_reads_it() -> None:
    agent = Agent(TestModel(custom_output_args={"text": "here", "sure": False}), name="support", output_type=Answer)
    support = durable(agent)
    async with embedded(Registry()) as p:
        handle = await support.start(p, "Where is it?")
        assert await handle.result() == Answer(text="here", sure=False)
        assert (await handle.get()).raw.output_schema_name == "Answer"
    assert support.result_type is Answer


async def test_an_invalid_output_is_asked_for_again_and_both_answers_are_recorded() -> None:
    script = Script(call("final_result", "c1", sure=1), call("final_result", "c2", text="here"))
    support = durable(Agent(script.model, name="support", output_type=Answer))
    async with embedded(Registry()) as p:
        handle = await support.start(p, "Where is it?")
        assert await handle.result() == Answer(text="here")
        assert [key for key, _ in await steps_of(handle)] == ["model:1", "model:2"]


@pytest.mark.slow
async def test_files_that_a_tool_gives_come_back_from_the_journal() -> None:
    seen: list[Any] = []

    def look(messages: list[ModelMessage], _: Any) -> str:
        seen.append(next(part for m in messages for part in m.parts if isinstance(part, ToolReturnPart)).content)
        return "a picture"

    agent = Agent(Script(call("draw", "c1"), look).model, name="painter")

    @agent.tool_plain
    async def draw() -> BinaryContent:
        return BinaryContent(b"\x89PNG", media_type="image/png")

    report = await crashed(durable(agent), "Draw!")
    assert report.result == "a picture"
    assert seen and all(isinstance(one, BinaryContent) and one.data == b"\x89PNG" for one in seen)


# --- what it is given ----------------------------------------------------------------------------------------------


async def test_dependencies_come_with_the_start_or_from_the_worker() -> None:
    agent = Agent(Script(call("shop", "c1"), "done").model, name="shops", deps_type=Shop)
    seen: list[Shop] = []

    @agent.tool
    def shop(ctx: RunContext[Shop]) -> str:
        seen.append(ctx.deps)
        return ctx.deps.name

    shops = durable(agent, deps=lambda ctx: Shop(f"shop of {ctx.user_id}"))
    async with embedded(Registry()) as p:
        await shops.run(p, "Which?", deps=Shop("Rome", open=False))
        await shops.run(p, "Which?", user_id="ann")
        with pytest.raises(ExecutionFailed, match=r"deps\.name: Field required"):
            await (await p.start("shops", {"input": "Which?", "deps": {}})).result()
    assert seen == [Shop("Rome", open=False), Shop("shop of ann")]


async def test_message_history_goes_before_the_prompt() -> None:
    script = Script("no answer", "hello again")
    greeter = durable(Agent(script.model, name="greeter", system_prompt="Be kind."))
    history: list[ModelMessage] = [ModelRequest([UserPromptPart("I am Ann")]), ModelResponse([])]
    async with embedded(Registry()) as p:
        assert await greeter.run(p, "Who am I?", message_history=history) == "hello again"
    prompts = [part.content for m in script.heard[0] for part in m.parts if isinstance(part, UserPromptPart)]
    assert prompts == ["I am Ann", "Who am I?"]


async def test_a_payload_may_be_a_text_an_object_or_nothing() -> None:
    echo = Agent(Script(lambda messages, _: repr(messages[0].parts[-1].content)).model, name="echo")  # type: ignore[union-attr]
    durable_echo = durable(echo)
    async with embedded(Registry(durable_echo)) as p:
        assert await (await p.start("echo", "hi")).result() == "'hi'"
        assert await (await p.start("echo", {"input": "hi", "streaming": True})).result() == "'hi'"
        assert await (await p.start(durable_echo, durable_echo.input("hi"))).result() == "'hi'"
        with pytest.raises(ExecutionFailed, match="input"):
            await (await p.start("echo", {"input": {"no": "prompt"}})).result()


# --- code around the agent -----------------------------------------------------------------------------------------


async def test_sync_functions_of_an_agent_run_as_they_are() -> None:
    script = Script(call("stock", "c1"), call("final_result", "c2", text="x"), call("final_result", "c3", text="xyz"))
    agent = Agent(script.model, name="sync", output_type=Answer, deps_type=str)

    @agent.instructions
    def who(ctx: RunContext[str]) -> str:
        return f"You speak to {ctx.deps}."

    @agent.tool_plain
    def stock() -> int:
        return 7

    @agent.output_validator
    def long_enough(output: Answer) -> Answer:
        if len(output.text) < 3:
            raise ModelRetry("longer, please")
        return output

    async with embedded(Registry()) as p:
        assert await durable(agent, deps="ann").run(p, "?") == Answer(text="xyz")
    assert "You speak to ann." in str(script.heard[0])


async def test_hooks_see_each_call_and_may_run_steps_of_their_own() -> None:
    seen: list[str] = []
    noted: list[str] = []
    hooks = Hooks[None]()

    @step
    async def note(text: str) -> None:
        noted.append(text)

    @hooks.on.before_tool_execute
    async def before(ctx: Any, *, call: Any, tool_def: Any, args: Any) -> Any:
        seen.append(f"before {call.tool_name}")
        await note(call.tool_name)
        return args

    @hooks.on.after_model_request
    def after(ctx: Any, *, request_context: Any, response: Any) -> Any:
        seen.append("answered")
        return response

    script = Script(call("temperature", "c1", city="Rome"), "4")
    weather = durable(weather_agent(script, Counter(), capabilities=[hooks]))
    async with embedded(Registry()) as p:
        assert await weather.run(p, "?") == "4"
    assert seen == ["answered", "before temperature", "answered"] and noted == ["temperature"]


async def test_call_hooks_come_inside_the_steps_and_not_in_a_replay() -> None:
    seen: list[str] = []

    class Watch(CallHook):
        async def before(self, call: Call) -> None:
            seen.append(f"before {call.kind} {call.name} {current_step().key}")

        async def after(self, call: Call, result: Any) -> None:
            seen.append(f"after {call.name}")

        async def failed(self, call: Call, error: Exception) -> None:
            seen.append(f"failed {call.name}: {error}")

    script = Script(call("temperature", "c1", city="Rome"), call("broken", "c2"))
    agent = weather_agent(script, Counter())

    @agent.tool_plain
    async def broken() -> None:
        raise ValueError("out of order")

    async with embedded(Registry(), parks=False) as p:
        with pytest.raises(ExecutionFailed, match="out of order"):
            await durable(agent, hooks=[Watch()]).run(p, "?")
    assert seen == [
        "before model script model:1",
        "after script",
        "before tool temperature tool:temperature:c1",
        "after temperature",
        "before model script model:2",
        "after script",
        "before tool broken tool:broken:c2",
        "failed broken: out of order",
    ]


async def test_hooks_see_what_a_tool_gave_and_what_it_told_the_library() -> None:
    seen: list[Any] = []

    class Watch(CallHook):
        async def after(self, call: Call, result: Any) -> None:
            if call.kind == "tool":
                seen.append((call.tool_call_id, result))

        async def failed(self, call: Call, error: Exception) -> None:
            seen.append((call.tool_call_id, error))

    script = Script(call("look", "c1", at=0), call("look", "c2", at=1), call("look", "c3", at=2), "done")
    agent = Agent(script.model, name="looks")

    @agent.tool_plain
    async def look(at: int) -> Any:
        match at:
            case 0:
                raise ModelRetry("not there")
            case 1:
                raise ToolFailed("never")
            case _:
                return {"kind": "tool-return", "at": at}

    async with embedded(Registry(), parks=False) as p:
        assert await durable(agent, hooks=[Watch()]).run(p, "?") == "done"
    assert seen[0] == ("c1", ModelRetry("not there")) and seen[2] == ("c3", {"kind": "tool-return", "at": 2})
    assert isinstance(seen[1][1], ToolFailed)


class Refuses(CallHook):
    """Refuses the first call of a kind, before or after the call ran."""

    def __init__(self, kind: str, error: Exception, moment: str = "before") -> None:
        self.kind, self.error, self.moment = kind, error, moment
        self.asked = 0

    def _said(self, moment: str, call: Call) -> None:
        if call.kind == self.kind and moment == self.moment:
            self.asked += 1
            if self.asked == 1:
                raise self.error

    async def before(self, call: Call) -> None:
        self._said("before", call)

    async def after(self, call: Call, result: Any) -> None:
        self._said("after", call)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("error", [ModelRetry("another city"), ToolFailed("another city")], ids=["retry", "failed"])
async def test_what_a_hook_tells_the_library_of_a_tools_call_is_the_calls_outcome(
    moment: str, error: Exception
) -> None:
    ran: Counter[str] = Counter()
    hook = Refuses("tool", error, moment)
    script = Script(call("temperature", "c1", city="Rome"), call("temperature", "c2", city="Oslo"), "4")
    async with embedded(Registry(), parks=False) as p:
        handle = await durable(weather_agent(script, ran), hooks=[hook], tool_step={"retry": 3}).start(p, "?")
        assert await handle.result() == "4"
        assert [key for key, _ in await steps_of(handle)] == [
            "model:1",
            "tool:temperature:c1",
            "model:2",
            "tool:temperature:c2",
            "model:3",
        ]
    assert ran == ({"Oslo": 1} if moment == "before" else {"Oslo": 1, "Rome": 1})
    assert "another city" in str(script.heard[1][-1]) and script.asked == {0: 1, 1: 1, 2: 1}


async def test_a_hook_that_wants_a_tool_approved_has_somebody_asked() -> None:
    class Careful(CallHook):
        async def before(self, call: Call) -> None:
            if call.kind == "tool" and not call.run_context.tool_call_approved:
                raise ApprovalRequired({"why": "far away"})

    ran: Counter[str] = Counter()
    weather = durable(weather_agent(Script(call("temperature", "c1", city="Rome"), "4"), ran), hooks=[Careful()])
    async with embedded(Registry(), parks=False) as p:
        handle = await weather.start(p, "?")
        await reaches(handle, Phase.WAITING)
        assert not ran
        await answer_when_asked(handle, "approve_temperature_c1", {"approved": True})
        assert await handle.result() == "4"
    assert ran == {"Rome": 1}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_hook_may_have_the_model_asked_again(moment: str, stream: bool) -> None:
    hook = Refuses("model", ModelRetry("be brief"), moment)
    heard: list[Any] = []

    async def words(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        heard.append(messages[-1])
        yield "4"

    def whole(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        heard.append(messages[-1])
        return ModelResponse([TextPart("4")])

    model = FunctionModel(whole, stream_function=words) if stream else FunctionModel(whole)
    async with embedded(Registry(), parks=False) as p:
        handle = await durable(Agent(model, name="brief"), hooks=[hook]).start(p, "?")
        assert await handle.result() == "4"
        assert [key for key, _ in await steps_of(handle)] == ["model:1", "model:2"]
    assert "be brief" in str(heard[-1]) and len(heard) == (1 if moment == "before" else 2)


# --- failures ------------------------------------------------------------------------------------------------------


async def test_a_busy_model_is_asked_again_and_a_wrong_request_is_not() -> None:
    busy = [ModelHTTPError(529, "m", "overloaded"), ModelHTTPError(503, "m")]
    script = Script(lambda *_: busy.pop() if busy else "at last")
    at_once = RetryPolicy(max_attempts=4, initial_seconds=0)
    patient = durable(Agent(script.model, name="patient"), model_step={"retry": at_once})
    wrong = Script(ModelHTTPError(400, "m", "bad"))
    async with embedded(Registry()) as p:
        assert await patient.run(p, "?") == "at last"
        assert script.asked == {0: 3}
        with pytest.raises(ExecutionFailed, match="400") as caught:
            await durable(Agent(wrong.model, name="wrong")).run(p, "?")
        assert caught.value.type == "ModelHTTPError"
    assert wrong.asked == {0: 1}


async def test_a_tool_is_tried_as_often_as_its_metadata_say() -> None:
    tries: list[int] = []
    toolset = FunctionToolset[None](id="flaky")

    @toolset.tool_plain(metadata={"perdure": {"retry": RetryPolicy(max_attempts=3, initial_seconds=0)}})
    async def flaky() -> str:
        tries.append(current_step().tries)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return "ok"

    agent = Agent(Script(call("flaky", "c1"), "done").model, name="flaky", toolsets=[toolset])
    async with embedded(Registry()) as p:
        assert await durable(agent).run(p, "?") == "done"
    assert tries == [1, 2, 3]


@pytest.mark.slow
async def test_a_tool_that_asks_the_model_to_try_again_is_called_under_the_new_call() -> None:
    script = Script(call("temperature", "c1", city="X"), call("temperature", "c2", city="Rome"), "4")
    agent = Agent(script.model, name="weather")
    ran: list[str] = []

    @agent.tool_plain
    async def temperature(city: str) -> int:
        ran.append(city)
        if city == "X":
            raise ModelRetry("no such city")
        return len(city)

    report = await crashed(durable(agent), "?")
    assert report.result == "4" and ran[:2] == ["X", "Rome"]


async def test_a_failed_tool_fails_the_run_with_its_words() -> None:
    agent = Agent(Script(call("broken", "c1")).model, name="breaks")

    @agent.tool_plain
    async def broken() -> None:
        raise ValueError("out of order")

    async with embedded(Registry()) as p:
        with pytest.raises(ExecutionFailed, match="out of order") as caught:
            await durable(agent).run(p, "?")
    assert caught.value.type == StepFailed.__name__


async def test_usage_limits_end_a_run_and_what_tools_use_counts_in_every_replay() -> None:
    inner = Agent(Script("inner").model, name="inner")
    agent = Agent(Script(call("ask", "c1"), call("ask", "c2"), "done").model, name="outer")
    used: list[int] = []

    @agent.tool
    async def ask(ctx: RunContext[object]) -> str:
        answer = (await inner.run("?", usage=ctx.usage)).output
        return answer

    @agent.instructions
    def count(ctx: RunContext[object]) -> str:
        used.append(ctx.usage.input_tokens)
        return "Count."

    limited = durable(agent, usage_limits=UsageLimits(input_tokens_limit=45))
    async with embedded(Registry(), parks=False) as p:
        with pytest.raises(ExecutionFailed, match="input_tokens_limit") as caught:
            await limited.run(p, "?")
    assert caught.value.type == UsageLimitExceeded.__name__
    assert used[:2] == [0, 20]  # 10 of its own, 10 of the agent in the tool


def test_a_toolset_without_an_id_is_refused_when_the_agent_is_made_durable() -> None:
    agent = Agent(TestModel(), name="nameless", toolsets=[FunctionToolset([len])])
    with pytest.raises(UserError, match="unique `id`"):
        durable(agent)
    with pytest.raises(ValueError, match="needs a name"):
        durable(Agent(TestModel()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tool_step": {"timeout_seconds": 30}}, r"tool_step may have only \['retry', 'timeout'\]"),
        ({"model_step": {"retry": 0}}, "max_attempts must be"),
    ],
)
def test_step_options_that_nobody_knows_are_refused_when_the_agent_is_made_durable(options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        durable(Agent(TestModel(), name="a"), **options)


async def _made_elsewhere(*given: Any) -> Any:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("option", "given"), [("deps", _made_elsewhere), ("price", _made_elsewhere), ("stop", [_made_elsewhere])]
)
def test_an_async_function_is_refused_where_nobody_awaits_it(option: str, given: Any) -> None:
    options: Any = {option: given}
    with pytest.raises(TypeError, match=f"{option} of agent 'a' must be a synchronous function"):
        durable(Agent(TestModel(), name="a"), **options)


async def test_a_cancelled_run_stops_its_tool() -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()
    agent = Agent(Script(call("slow", "c1"), "done").model, name="slow")

    @agent.tool_plain
    async def slow() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()

    async with embedded(Registry()) as p:
        handle = await durable(agent).start(p, "?")
        await begun.wait()
        await handle.cancel()
        await stopped.wait()
        await reaches(handle, Phase.CANCELLED)


# --- several agents ------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_agents_are_children_of_workflows_and_run_inside_them() -> None:
    ran: Counter[str] = Counter()
    script = Script(call("temperature", "c1", city="Rome"), "4")
    weather = durable(weather_agent(script, ran))

    @workflow
    async def report(ctx: Context) -> list[str]:
        child = ctx.run_child(weather, "as a child")
        inside = [weather(ctx, "inside"), weather(ctx, "inside too")]
        return list(await asyncio.gather(child, *inside))

    outcome = await crashed(report, None, weather)
    assert outcome.result == ["4", "4", "4"]
    async with embedded(Registry(report, weather)) as p:
        handle = await p.start(report)
        await handle.result()
        keys = {key for key, _ in await steps_of(handle)}
    assert "2.agent:weather/model:1" in keys or "agent:weather/model:1" in keys
    assert len([key for key in keys if key and key.endswith("tool:temperature:c1")]) == 2


@pytest.mark.slow
async def test_an_agent_hands_over_to_others_by_tools_that_are_children() -> None:
    ran: Counter[str] = Counter()
    weather = durable(weather_agent(Script(call("temperature", "c1", city="Rome"), "4 degrees"), ran))
    script = Script([call("weather", "h1", prompt="Rome?"), call("weather", "h2", prompt="Rome!")], "both said 4")
    router = durable(Agent(script.model, name="router", tools=[weather.as_tool()]))
    outcome = await crashed(router, "?", weather)
    assert outcome.result == "both said 4"
    async with embedded(Registry(router, weather)) as p:
        handle = await router.start(p, "?")
        await handle.result()
        children = {row.key for row in await rows_of(handle) if row.kind is Kind.CHILD}
    assert children == {"child:weather:h1", "child:weather:h2"}


def _told(messages: list[ModelMessage], info: AgentInfo) -> str:
    """What the last tool gave."""
    [given] = messages[-1].parts
    assert isinstance(given, ToolReturnPart)
    return str(given.content)


def _shops(**options: Any) -> tuple[Agent[Shop, str], DurableAgent[Shop, str], DurableAgent[Shop, str]]:
    """An agent that hands over to one that says which shop it is in; both of them, and the former as it is."""
    inner = Script(call("where", "w1"), _told)
    clerk = Agent(inner.model, name="clerk", deps_type=Shop)

    @clerk.tool
    async def where(ctx: RunContext[Shop]) -> str:
        return ctx.deps.name

    durable_clerk = durable(clerk, **options)
    outer = Script(call("clerk", "h1", prompt="Where?"), _told)
    desk = Agent(outer.model, name="desk", deps_type=Shop, tools=[durable_clerk.as_tool()])
    return desk, durable(desk), durable_clerk


async def test_an_agent_hands_its_dependencies_over_to_one_that_has_none_of_its_own() -> None:
    desk, durable_desk, clerk = _shops()
    async with embedded(Registry(durable_desk, clerk), parks=False) as p:
        assert await durable_desk.run(p, "?", deps=Shop("Rome")) == "Rome"
    assert (await desk.run("?", deps=Shop("Rome"))).output == "Rome"
    desk, durable_desk, clerk = _shops(deps=Shop("Oslo"))
    async with embedded(Registry(durable_desk, clerk), parks=False) as p:
        assert await durable_desk.run(p, "?", deps=Shop("Rome")) == "Oslo"
    assert (await desk.run("?", deps=Shop("Rome"))).output == "Oslo"


async def test_dependencies_of_the_context_are_not_asked_for_where_there_is_none() -> None:
    desk, durable_desk, clerk = _shops(deps=lambda ctx: Shop("Oslo"))
    async with embedded(Registry(durable_desk, clerk), parks=False) as p:
        assert await durable_desk.run(p, "?", deps=Shop("Rome")) == "Oslo"
    assert (await desk.run("?", deps=Shop("Rome"))).output == "Rome"
    other: Agent[None, str] = Agent(Script(call("clerk", "h1", prompt="?")).model, tools=[clerk.as_tool()])
    with pytest.raises(Misplaced, match="function of the Context"):
        await other.run("?")


async def test_outside_of_executions_the_agent_is_the_plain_one() -> None:
    ran: Counter[str] = Counter()
    agent = weather_agent(Script(call("temperature", "c1", city="Rome"), "4"), ran)
    durable(agent)
    assert (await agent.run("?")).output == "4" and ran == {"Rome": 1}


async def test_a_model_by_name_is_made_once_in_the_worker() -> None:
    named = durable(Agent("test", name="named"))
    async with embedded(Registry()) as p:
        assert await named.run(p, "?") == "success (no tool calls)"
        assert await named.run(p, "?") == "success (no tool calls)"


# --- what one run is given -----------------------------------------------------------------------------------------


async def test_a_run_may_name_its_model_and_its_limits() -> None:
    usual, other = Script("usual"), Script("other")
    clerk = durable(Agent(usual.model, name="clerk"), models={"other": other.model}, usage_limits=UsageLimits())
    none = UsageLimits(request_limit=0)
    async with embedded(Registry(clerk), parks=False) as p:
        assert await clerk.run(p, "?") == "usual"
        assert await clerk.run(p, "?", model="other") == "other"
        assert await (await p.start("clerk", {"input": "?", "model": "other"})).result() == "other"
        with pytest.raises(ExecutionFailed, match="request_limit of 0"):
            await clerk.run(p, "?", usage_limits=none)
        with pytest.raises(ExecutionFailed, match="request_limit of 0"):
            await (await p.start("clerk", {"input": "?", "usage_limits": {"request_limit": 0}})).result()
    assert usual.asked == {0: 1} and other.asked == {0: 2}


async def test_a_model_or_a_limit_that_nobody_knows_is_refused() -> None:
    clerk = durable(Agent(Script("never").model, name="clerk"), models={"other": TestModel()})
    async with embedded(Registry(clerk)) as p:
        with pytest.raises(TypeError, match=r"model: a run names its model.*got a `TestModel`"):
            clerk.input("x", model=TestModel())  # type: ignore[arg-type]  # as Pydantic AI's run takes it
        with pytest.raises(BadValue, match=r"'third' is not a model of agent 'clerk'.*it has 'other'"):
            await clerk.start(p, "?", model="third")
        with pytest.raises(ExecutionFailed, match="'third' is not a model of agent 'clerk'"):
            await (await p.start("clerk", {"input": "?", "model": "third"})).result()
        with pytest.raises(ExecutionFailed, match="'request_limt' is not a field of UsageLimits"):
            await (await p.start("clerk", {"input": "?", "usage_limits": {"request_limt": 1}})).result()


def test_a_message_with_a_model_or_limits_of_its_own_is_not_for_a_run_without_them() -> None:
    clerk = durable(Agent(TestModel(), name="clerk"), models={"other": TestModel()})
    plain, other = as_input(clerk.input("?")), as_input(clerk.input("?", model="other"))
    limited = as_input(clerk.input("?", usage_limits=UsageLimits(request_limit=1)))
    assert other.differs_from(plain) == "it has a model of its own"
    assert limited.differs_from(plain) == "it has limits of its own"
    assert plain.differs_from(other) is plain.differs_from(limited) is limited.differs_from(limited) is None


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"output_type": int}, r"does not take output_type=\. Its result is read"),
        ({"toolsets": []}, r"does not take toolsets=\. Give them to Agent"),
        ({"usage": None}, r"does not take usage=\. Give it to Agent"),
    ],
)
async def test_other_options_of_a_plain_run_are_refused_with_what_to_do(option: dict[str, Any], words: str) -> None:
    clerk = durable(Agent(Script("never").model, name="clerk"))
    async with embedded(Registry(clerk)) as p:
        for begin in (clerk.start, clerk.run):
            with pytest.raises(TypeError, match=words):
                await begin(p, "?", **option)
