"""An agent's work reaches its followers live, and work that was cut off is taken back."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import ProcessEventStream
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    ThinkingPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ExternalToolset
from pydantic_ai.ui.vercel_ai import VercelAIEventStream
from tests.agents.scripted import Script, call, crashed

from perdure import Context, Registry, current_step, workflow
from perdure.agents import AgentItem, AgentStream, StepOptions, durable, events
from perdure.agents.streaming import Unstreamed
from perdure.sdk.base.errors import ExecutionCancelled, ExecutionFailed
from perdure.testing import embedded
from perdure.wire.base.records import Kind

Pieces = AsyncIterator[str | DeltaToolCalls]


def answers(messages: list[ModelMessage]) -> int:
    return sum(isinstance(message, ModelResponse) for message in messages)


async def weather_words(messages: list[ModelMessage], info: AgentInfo) -> Pieces:
    if not answers(messages):
        yield {0: DeltaToolCall("temperature", '{"city": ', tool_call_id="c1")}
        yield {0: DeltaToolCall(json_args='"Rome"}')}
        return
    for word in ("It ", "is ", "warm."):
        yield word


def weather_agent() -> Agent[None, str]:
    agent: Agent[None, str] = Agent(FunctionModel(stream_function=weather_words), name="weather")

    @agent.tool_plain
    async def temperature(city: str) -> int:
        return len(city)

    return agent


def text_of(items: list[AgentItem]) -> str:
    return "".join(one.text for one in items)


async def test_words_and_tools_come_as_events_of_the_library() -> None:
    weather = durable(weather_agent())
    async with embedded(Registry()) as p:
        handle = await weather.start(p, "How warm is it?")
        items = [one async for one in events(handle)]
        assert await handle.result() == "It is warm."
        assert text_of([one async for one in weather.stream(p, "Again?")]) == "It is warm."
    assert text_of(items) == "It is warm."
    [asked] = [one.event for one in items if isinstance(one.event, FunctionToolCallEvent)]
    assert (asked.part.tool_name, asked.part.args_as_dict()) == ("temperature", {"city": "Rome"})
    [gave] = [one.event for one in items if isinstance(one.event, FunctionToolResultEvent)]
    assert gave.part.content == 4
    assert {one.item.key for one in items if one.text} == {"model:2"}
    kinds = [one.item.kind for one in items]
    assert kinds.index("function_tool_call") < kinds.index("function_tool_result") < kinds.index("final_result")
    assert kinds[-1] == "part_end"


async def test_the_first_word_is_there_while_the_model_still_speaks() -> None:
    heard = asyncio.Event()

    async def words(messages: list[ModelMessage], info: AgentInfo) -> Pieces:
        yield "first"
        await heard.wait()
        yield " last"

    slow = durable(Agent(FunctionModel(stream_function=words), name="slow"))
    async with embedded(Registry()) as p:
        text = ""
        async for one in slow.stream(p, "Speak."):
            text += one.text
            if text == "first":
                heard.set()
    assert text == "first last"


async def test_a_stream_gives_its_run_and_raises_the_runs_failure() -> None:
    async def words(messages: list[ModelMessage], info: AgentInfo) -> Pieces:
        if "in speech" in str(messages[-1]):
            yield "Hel"
        raise ValueError("no model here")

    failing = durable(Agent(FunctionModel(stream_function=words), name="failing"))
    fine = durable(weather_agent())
    async with embedded(Registry()) as p:
        for prompt, said in (("Fail.", ""), ("Fail in speech.", "Hel")):
            stream = failing.stream(p, prompt)
            heard = ""
            with pytest.raises(ExecutionFailed, match="no model here") as failed:
                async for one in stream:
                    heard += one.text
            handle = await stream.start()
            assert (heard, failed.value.execution_id) == (said, handle.id)
            with pytest.raises(ExecutionFailed, match="no model here") as awaited:
                await stream.result()
            assert vars(awaited.value) == vars(failed.value)
        stream_of_fine = fine.stream(p, "How warm is it?")
        first, again = await asyncio.gather(stream_of_fine.start(), stream_of_fine.start())
        assert first is again
        assert text_of([one async for one in stream_of_fine]) == await stream_of_fine.result() == "It is warm."
        assert len((await p.list(workflow="weather")).executions) == 1
    async with embedded(Registry(), skip_time=False) as p:
        cancelled = fine.stream(p, "Never.", delay=3_600)
        await (await cancelled.start()).cancel()
        with pytest.raises(ExecutionCancelled):
            await anext(cancelled)


async def test_an_answer_that_was_cut_off_is_taken_back() -> None:
    asked = 0

    async def words(messages: list[ModelMessage], info: AgentInfo) -> Pieces:
        nonlocal asked
        asked += 1
        yield "Hel"
        if asked == 1:
            raise ConnectionError("the line went dead")
        yield "lo"

    cut = durable(
        Agent(FunctionModel(stream_function=words), name="cut"),
        model_step=StepOptions(retry=2),
        retry=2,
    )
    async with embedded(Registry()) as p:
        text = ""
        async for one in cut.stream(p, "Hello?"):
            if one.item.restarted and one.item.key == "model:1":
                text = ""
            text += one.text
    assert (text, asked) == ("Hello", 2)


@pytest.mark.slow
async def test_a_replay_says_nothing_again_wherever_it_crashes() -> None:
    report = await crashed(durable(weather_agent()), "How warm is it?")
    assert report.result == "It is warm." and report.crashes


async def test_agents_below_a_workflow_speak_with_their_path() -> None:
    weather = durable(weather_agent())

    @workflow
    async def two(ctx: Context) -> list[Any]:
        return list((await ctx.map_children(weather, ["Rome?", "Oslo?"])).results())

    async with embedded(Registry(two, weather)) as p:
        handle = await p.start(two)
        said: dict[tuple[str, ...], str] = {}
        async for one in events(handle):
            said[one.item.path] = said.get(one.item.path, "") + one.text
    assert {path: text for path, text in said.items() if path} == {
        ("weather",): "It is warm.",
        ("weather#2",): "It is warm.",
    }


async def test_what_does_not_stream_is_live_with_whole_answers() -> None:
    """A model that cannot stream is not asked to stream, and a model that can stream need not."""
    script = Script(call("temperature", "c1", city="Rome"), "4 degrees")
    plain: Agent[None, str] = Agent(script.model, name="plain")

    @plain.tool_plain
    async def temperature(city: str) -> int:
        return len(city)

    quiet = durable(Agent(TestModel(custom_output_text="quiet"), name="quiet"), stream=False)
    spoken = durable(plain)
    async with embedded(Registry()) as p:
        said = [one async for one in quiet.stream(p, "How warm?")]
        assert [(one.item.kind, one.item.key, one.text) for one in said] == [
            ("part_start", "model:1", "quiet"),
            ("part_end", "model:1", ""),
        ]
        handle = await spoken.start(p, "How warm?")
        items = [one async for one in events(handle)]
        assert await handle.result() == text_of(items) == "4 degrees"
        assert [one.item.kind for one in items] == [
            *("part_start", "part_end"),
            *("function_tool_call", "function_tool_result"),
            *("part_start", "part_end"),
        ]
        assert [one.event.part.content for one in items if isinstance(one.event, FunctionToolResultEvent)] == [4]
        rows = await p.journal(handle.id)
    assert [row.key for row in rows if row.kind is Kind.STEP] == ["model:1", "tool:temperature:c1", "model:2"]


CALLED = ["refund", "transfer", "deny", "outside"]
"""Tools: the first waits for approval, the second asks for approval, the third is denied, the last runs outside."""


def calls_all(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("hi")] if answers(messages) else [call(tool, f"c_{tool}") for tool in CALLED])


async def streams_all(messages: list[ModelMessage], info: AgentInfo) -> Pieces:
    if answers(messages):
        yield "hi"
    else:
        yield {n: DeltaToolCall(tool, "{}", tool_call_id=f"c_{tool}") for n, tool in enumerate(CALLED)}


@pytest.mark.parametrize("model", [FunctionModel(calls_all), FunctionModel(stream_function=streams_all)])
@pytest.mark.parametrize("parks", [True, False], ids=["parked", "replayed"])
async def test_a_call_that_people_answer_is_told_once_whether_the_model_streams_or_not(
    model: Model, parks: bool
) -> None:
    outside = ToolDefinition(name="outside", parameters_json_schema={"type": "object", "properties": {}})
    agent = Agent(model, name="asks", toolsets=[ExternalToolset[object]([outside], id="ext")])

    @agent.tool
    async def transfer(ctx: RunContext[object]) -> str:
        if not ctx.tool_call_approved:
            raise ApprovalRequired
        return "sent"

    @agent.tool_plain(requires_approval=True)
    def refund() -> str:
        return "paid"

    @agent.tool_plain(requires_approval=True)
    def deny() -> str:
        raise AssertionError("nobody allowed it")

    async with embedded(Registry(), parks=parks) as p:
        handle = await durable(agent).start(p, "?")
        told: list[tuple[str, str, str | None]] = []
        async for one in events(handle):
            if one.item.kind == "question":
                key = one.item.key
                await handle.resume(key, {"approved": "deny" not in key} if key.startswith("approve") else "there")
            elif one.item.kind in ("function_tool_call", "function_tool_result"):
                part = one.item.data["part"]
                told.append((part["tool_name"], one.item.kind, part.get("outcome")))
    assert sorted(told, key=str) == sorted(
        [
            *((tool, "function_tool_call", None) for tool in CALLED),
            *((tool, "function_tool_result", "denied" if tool == "deny" else "success") for tool in CALLED),
        ],
        key=str,
    )


class Mute(Model):
    """A user's own model, which answers requests and no more."""

    model_name = "mute"
    system = "tests"

    async def request(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> ModelResponse:
        return ModelResponse([TextPart("hi")])


def says_hi(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("hi")])


@pytest.mark.parametrize(
    "model",
    [
        Mute(),
        WrapperModel(Mute()),
        FallbackModel(FunctionModel(says_hi), TestModel()),
        FallbackModel(TestModel(custom_output_text="hi"), FallbackModel(Mute())),
    ],
    ids=["own", "wrapped", "fallback", "fallbacks"],
)
async def test_models_that_cannot_stream_run_as_they_do_elsewhere(model: Model) -> None:
    plain = Agent(model, name="plain")
    agent = durable(plain)
    async with embedded(Registry()) as p:
        assert await agent.run(p, "Hello?") == (await plain.run("Hello?")).output == "hi"


async def test_who_asks_for_a_stream_hears_that_there_is_none() -> None:
    mute = durable(Agent(Mute(), name="mute"), stream=True)
    async with embedded(Registry()) as p:
        with pytest.raises(ExecutionFailed, match="NotImplementedError: Streamed requests not supported by this Mute"):
            await mute.run(p, "Hello?")


async def test_a_tool_that_gives_much_is_told_of_without_it() -> None:
    async def words(messages: list[ModelMessage], info: AgentInfo) -> Pieces:
        if answers(messages):
            yield "Much."
        else:
            yield {0: DeltaToolCall("read", "{}", tool_call_id="c1")}

    agent: Agent[None, str] = Agent(FunctionModel(stream_function=words), name="reader")

    @agent.tool_plain
    async def read() -> str:
        return "x" * 100_000

    reader = durable(agent)
    async with embedded(Registry()) as p:
        items = [one async for one in reader.stream(p, "Read.")]
    [gave] = [one.item.data for one in items if one.item.kind == "function_tool_result"]
    assert gave["cut"] and gave["part"]["tool_name"] == "read" and "content" not in gave["part"]
    assert text_of(items) == "Much."


async def test_a_handler_in_the_worker_hears_each_word_live_and_not_in_a_replay() -> None:
    heard: list[str] = []

    async def hears(ctx: RunContext[None], said: AsyncIterable[AgentStreamEvent]) -> None:
        deltas = [event.delta async for event in said if isinstance(event, PartDeltaEvent)]
        heard.extend(f"{current_step().key} {getattr(one, 'content_delta', '')}" for one in deltas)

    agent = weather_agent()

    async def once_more(messages: list[ModelMessage], info: AgentInfo) -> Pieces:
        if answers(messages) == 1:
            yield {0: DeltaToolCall("pause", "{}", tool_call_id="c2")}
            return
        async for word in weather_words(messages, info):
            yield word

    @agent.tool_plain(metadata={"perdure": False})
    async def pause() -> str:
        await asyncio.sleep(3_600)
        return "an hour later"

    with agent.override(model=FunctionModel(stream_function=once_more)):
        weather = durable(agent, event_stream_handler=hears)
        async with embedded(Registry(weather), parks=False) as p:
            handle = await weather.start(p, "How warm is it?")
            assert await handle.result() == "It is warm."
            assert text_of([one async for one in events(handle)]) == "It is warm."
    assert [one for one in heard if one.startswith("model:3")] == ["model:3 is ", "model:3 warm."]
    assert not any(one.startswith("model:2 ") and one != "model:2 " for one in heard)


async def test_a_handler_may_leave_words_and_its_failure_is_the_steps() -> None:
    async def leaves(ctx: RunContext[None], said: AsyncIterable[AgentStreamEvent]) -> None:
        async for _ in said:
            return

    async def fails(ctx: RunContext[None], said: AsyncIterable[AgentStreamEvent]) -> None:
        raise ValueError("deaf")

    left = durable(weather_agent(), name="left", event_stream_handler=leaves)
    failed = durable(weather_agent(), name="failed", event_stream_handler=fails)
    async with embedded(Registry(left, failed)) as p:
        handle = await left.start(p, "How warm is it?")
        assert await handle.result() == "It is warm."
        assert text_of([one async for one in events(handle)]) == "It is warm."
        with pytest.raises(ExecutionFailed, match="deaf"):
            await failed.run(p, "How warm is it?")


def test_a_capability_that_listens_is_warned_of() -> None:
    async def hears(ctx: RunContext[None], said: AsyncIterable[AgentStreamEvent]) -> None:
        return

    agent = Agent(TestModel(), name="heard", capabilities=[ProcessEventStream[None](hears)])
    with pytest.warns(UserWarning, match="in one piece") as warned:
        durable(agent)
    assert warned[0].filename == __file__
    durable(agent, event_stream_handler=hears)


def says(text: str) -> ModelResponse:
    return ModelResponse([ThinkingPart("hm"), TextPart(text), TextPart("!"), call("temperature", "c1", city="Rome")])


@pytest.mark.parametrize("streams", [True, False])
async def test_each_part_ends_as_in_the_library(streams: bool) -> None:
    expected: list[AgentStreamEvent] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart("It is warm.")]) if answers(messages) else says("Let me look")

    async def keep(ctx: RunContext[None], events: AsyncIterable[AgentStreamEvent]) -> None:
        expected.extend([event async for event in events if event.event_kind in ("part_start", "part_end")])

    model = FunctionModel(stream_function=weather_words) if streams else FunctionModel(answer)
    agent = weather_agent()
    await agent.run("How warm is it?", model=model if streams else Unstreamed(model), event_stream_handler=keep)
    with agent.override(model=model):
        weather = durable(agent)
        async with embedded(Registry(weather)) as p:
            items = [one async for one in weather.stream(p, "How warm is it?")]
    assert [one.event for one in items if one.item.kind in ("part_start", "part_end")] == expected
    assert len(expected) == (4 if streams else 10)
    assert text_of(items).endswith("It is warm.")


async def test_a_text_in_a_web_page_closes_also_after_a_lost_run() -> None:
    """The encoder of Pydantic AI for the AI SDK."""
    asked = 0

    async def words(messages: list[ModelMessage], info: AgentInfo) -> Pieces:
        nonlocal asked
        asked += 1
        yield "Hel"
        if asked == 1:
            raise ConnectionError("the line went dead")
        yield "lo"

    cut = durable(Agent(FunctionModel(stream_function=words), name="cut"), model_step=StepOptions(retry=2))

    async def native(stream: AgentStream[str]) -> AsyncIterator[AgentStreamEvent]:
        async for one in stream:
            if one.event is not None:
                yield one.event

    async with embedded(Registry()) as p:
        stream = cut.stream(p, "Hello?")
        encoder: VercelAIEventStream[None, str] = VercelAIEventStream()
        chunks = [chunk async for chunk in encoder.transform_stream(native(stream))]
        items = [one async for one in events(await stream.start())]
    sent = [chunk.model_dump() for chunk in chunks]
    told = [one.get("delta", one["type"]) for one in sent if one["type"].startswith("text-")]
    assert told == ["text-start", "Hel", "text-end", "text-start", "Hel", "lo", "text-end"]
    [place] = [n for n, one in enumerate(items) if one.item.restarted]
    *_, spoke, closing, again = items[: place + 1]
    assert isinstance(closing.event, PartEndEvent) and (closing.item.tries, again.item.tries) == (1, 2)
    assert closing.item.cursor == spoke.item.cursor  # a reader that left here misses nothing


@pytest.mark.parametrize("streams", [True, False])
async def test_a_part_above_the_limit_begins_and_ends(streams: bool) -> None:
    pieces = ["x" * 40_000, "y" * 40_000]

    async def words(messages: list[ModelMessage], info: AgentInfo) -> Pieces:
        for piece in pieces:
            yield piece

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart("".join(pieces))])

    model = FunctionModel(stream_function=words) if streams else FunctionModel(answer)
    async with embedded(Registry()) as p:
        items = [one async for one in durable(Agent(model, name="long")).stream(p, "Speak.")]
    parts = [one.event for one in items if one.item.kind != "final_result"]
    assert isinstance(parts[0], PartStartEvent) and isinstance(parts[-1], PartEndEvent)
    assert text_of(items) == ("".join(pieces) if streams else "")
    assert items[-1].item.data["cut"] and parts[-1].part == TextPart("")
