"""Conversations: history per session, turns in order, messages delivered while the agent works, summaries."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from msgspec import Raw
from pydantic import BaseModel
from pydantic_ai import Agent, RunContext
from pydantic_ai.exceptions import ModelHTTPError, ModelRetry
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.toolsets import FunctionToolset
from pydantic_ai.usage import RequestUsage
from tests.embedded.house import answer_when_asked, reaches, rows_of

from perdure import BadValue, Budget, Context
from perdure.agents import Compaction, Tripped, durable
from perdure.agents.conversation import ASK, SUMMARY, summary_text
from perdure.agents.inputs import Prompt
from perdure.cli.runs.conversation import conversation, is_agent_run
from perdure.embedded import embedded
from perdure.engine.base.service import Scope
from perdure.sdk.base.errors import ExecutionFailed
from perdure.sdk.workflows.workflow import Registry
from perdure.store.verbs.runs import start_targets
from perdure.testing import embedded as bench
from perdure.wire.agents.sessions import GetSessionDetail
from perdure.wire.base.errors import SessionBusy
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase


def said(messages: list[ModelMessage]) -> list[str]:
    """Everything that users said, in order."""
    return [
        str(part.content)
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, UserPromptPart)
    ]


def echo(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Answers with all that users have said."""
    return ModelResponse(parts=[TextPart(" | ".join(said(messages)))])


async def test_a_turn_knows_what_was_said_before(database: str) -> None:
    chat = durable(Agent(FunctionModel(echo), name="chat", system_prompt="be brief"))
    async with embedded(database, Registry(chat)) as p:
        assert await chat.run(p, "one", session_id="s") == "one"
        assert await chat.run(p, "other", session_id="t") == "other"
        assert await chat.run(p, "two", session_id="s") == "one | two"
        assert await chat.run(p, "alone") == "alone"
        transcript = await p.transcript("s")
        assert len(transcript.entries) == 4
        assert bytes(transcript.entries[0].message).count(b"be brief") == 1


async def test_turns_at_once_are_had_one_after_the_other(database: str) -> None:
    chat = durable(Agent(FunctionModel(echo), name="chat"))
    async with embedded(database, Registry(chat)) as p:
        answers = await asyncio.gather(*(chat.run(p, f"{n}", session_id="s") for n in range(6)))
        assert sorted(map(len, (answer.split(" | ") for answer in answers))) == [1, 2, 3, 4, 5, 6]
        longest = max(answers, key=len)
        assert sorted(longest.split(" | ")) == [f"{n}" for n in range(6)]
        assert all(longest.startswith(answer) for answer in answers)


async def test_what_comes_while_it_works_is_rejected_or_delivered(database: str) -> None:
    def works(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("hold", {}, "call")])
        return echo(messages, info)

    agent = Agent(FunctionModel(works), name="chat")

    @agent.tool_plain(requires_approval=True)
    def hold() -> str:
        return "held"

    chat = durable(agent)
    async with embedded(database, Registry(chat)) as p:
        first = await chat.start(p, "first", session_id="s")
        await reaches(first, Phase.WAITING)
        with pytest.raises(SessionBusy):
            await chat.start(p, "rejected", session_id="s", on_conflict="reject")
        with pytest.raises(SessionBusy):
            await anext(chat.stream(p, "rejected", session_id="s", on_conflict="reject"))
        second = await chat.start(p, "second", session_id="s", on_conflict="deliver")
        queued = await chat.start(p, "queued", session_id="s")
        await answer_when_asked(first, "approve_hold_call", True)
        assert await first.result() == "first | second"
        assert await second.result() == "first | second"
        assert await queued.result() == "first | second | queued"
        took = [row.name for row in await rows_of(first) if row.kind is Kind.TRANSCRIPT]
        assert took == ["read", "take", "append"]
        shown = [(line.who, line.text) for line in conversation((await first.get()).raw, await rows_of(first))]
        assert [text for who, text in shown if who == "user"] == ["first", "second"]


@pytest.mark.parametrize("what", ["model", "server"])
async def test_a_run_that_fails_before_its_model_has_said_anything_is_shown_as_one(what: str) -> None:
    def refuses(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        raise ModelHTTPError(401, "m", "no such key")

    agent = Agent(FunctionModel(refuses if what == "model" else echo), name="chat")
    if what == "server":

        @agent.toolset(id="crm")
        def away(ctx: RunContext[object]) -> FunctionToolset[object]:
            raise ConnectionError("nobody is there")

    async with bench(Registry(chat := durable(agent))) as p:
        handle = await chat.start(p, "hello?")
        with pytest.raises(ExecutionFailed):
            await handle.result()
        rows = await rows_of(handle)
        assert is_agent_run(rows)
        shown = [line.who for line in conversation((await handle.get()).raw, rows)]
        assert shown == ["user", *(["model:1"] if what == "model" else ["tools:crm:1"] * 4), "error"]


UNREADABLE: list[Any] = [42, ["a", "b"], {"input": 5}, {"input": [{"kind": "nonsense"}]}]
SAYS_NOTHING: list[Any] = [{"order": 7}, {"input": []}, {"deps": 1}]


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "replayed"])
async def test_what_the_open_turn_cannot_read_is_a_turn_of_its_own(
    database: str, parks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = durable(_holding("chat"))
    registry = Registry(chat)
    turn: dict[str, Any] = {"session_id": "s", "on_conflict": "deliver"}

    @registry.workflow
    async def send(ctx: Context, payload: Any) -> str:
        return (await ctx.start_child("chat", payload, **turn)).id

    async with embedded(database, registry, parks=parks) as p:
        first = await chat.start(p, "first", session_id="s")
        await reaches(first, Phase.WAITING)
        with pytest.raises(BadValue):
            await p.start("chat", 42, **turn)
        # As a release did that checked no inputs.
        monkeypatch.setattr(start_targets, "check_input", lambda *_: None)
        bad = [p.handle(await (await p.start(send, payload)).result()) for payload in UNREADABLE]
        good = await p.start("chat", {"input": "good"}, **turn)
        empty: list[Any] = [await p.start("chat", payload, **turn) for payload in SAYS_NOTHING]
        await answer_when_asked(first, "approve_hold_call", True)
        await reaches(first, Phase.WAITING)
        took = [row.name for row in await rows_of(first) if row.kind is Kind.TRANSCRIPT]
        assert took == ["read", "take", "leave"]
        late = p.handle(await (await p.start(send, 42)).result())
        await answer_when_asked(first, "approve_hold_again", True)
        assert await first.result() == "first | good"
        assert await good.result() == "first | good"
        for handle in (*bad, late):
            with pytest.raises(ExecutionFailed) as failure:
                await handle.result()
            assert failure.value.type == "BadValue"
        for handle in empty:
            assert (await handle.result()).startswith("first | good")
            assert [row.name for row in await rows_of(handle) if row.kind is Kind.TRANSCRIPT] == ["read", "append"]
        shown = [(line.who, line.text) for line in conversation((await first.get()).raw, await rows_of(first))]
        assert [text for who, text in shown if who == "user"] == ["first", "good"]
        logged = [line.text for _, line in await p.logs(first.id) if bad[0].id in line.text]
        assert len(logged) == 1 and "cannot be read" in logged[0]


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "replayed"])
async def test_what_a_guard_does_not_let_into_the_open_turn_fails_as_a_turn_of_its_own(
    database: str, parks: bool
) -> None:
    async def on_topic(prompt: Prompt) -> str | None:
        if prompt == "poem":
            raise Tripped("only parcels")
        if prompt == "again":
            raise ModelRetry("say it in other words")
        return str(1 // 0) if prompt == "breaks" else None

    chat = durable(_holding("chat"), input_guards=[on_topic])
    async with embedded(database, Registry(chat), parks=parks) as p:
        turn: dict[str, Any] = {"session_id": "s", "on_conflict": "deliver"}
        first = await chat.start(p, "first", session_id="s")
        await reaches(first, Phase.WAITING)
        bad = [await chat.start(p, one, **turn) for one in ("poem", "again", "breaks")]
        good = await chat.start(p, "good", **turn)
        await answer_when_asked(first, "approve_hold_call", True)
        await reaches(first, Phase.WAITING)
        await answer_when_asked(first, "approve_hold_again", True)
        assert await first.result() == "first | good"
        assert await good.result() == "first | good"
        for handle, type_ in zip(bad, ("Tripped", "ModelRetry", "StepFailed"), strict=True):
            with pytest.raises(ExecutionFailed) as failure:
                await handle.result()
            assert failure.value.type == type_
        logged = [line.text for _, line in await p.logs(first.id) if bad[0].id in line.text]
        assert len(logged) == 1 and "only parcels" in logged[0]
        shown = [(line.who, line.text) for line in conversation((await first.get()).raw, await rows_of(first))]
        assert [text for who, text in shown if who == "user"] == ["first", "good"]


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "replayed"])
async def test_a_message_with_surroundings_of_its_own_is_a_turn_of_its_own(database: str, parks: bool) -> None:
    def works(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        parts = [part for message in messages for part in message.parts]
        answered = max((n for n, part in enumerate(parts) if isinstance(part, TextPart)), default=0)
        given = [str(part.content) for part in parts[answered:] if isinstance(part, ToolReturnPart)]
        if given and given[-1] != "held":
            return ModelResponse(parts=[TextPart(f"{given[-1]}: {' | '.join(said(messages))}")])
        return ModelResponse(parts=[ToolCallPart("order" if given or answered else "hold", {}, f"call_{len(parts)}")])

    agent = Agent(FunctionModel(works), name="chat", deps_type=dict[str, int])

    @agent.tool_plain(requires_approval=True)
    def hold() -> str:
        return "held"

    @agent.tool
    def order(ctx: RunContext[dict[str, int]]) -> str:
        return f"order {ctx.deps['order']}"

    chat = durable(agent, deps={"order": 1})
    async with embedded(database, Registry(chat), parks=parks) as p:
        turn: dict[str, Any] = {"session_id": "s", "on_conflict": "deliver"}
        first = await chat.start(p, "first", deps={"order": 7, "of": 2}, session_id="s")
        await reaches(first, Phase.WAITING)
        other = await chat.start(p, "other", deps={"order": 8}, **turn)
        apart = await chat.start(p, "apart", message_history=[], **turn)
        same = await chat.start(p, "same", deps={"of": 2, "order": 7}, **turn)
        plain = await chat.start(p, "plain", **turn)
        await answer_when_asked(first, "approve_hold_call_1", True)
        assert await first.result() == "order 7: first | same | plain"
        assert await same.result() == await plain.result() == await first.result()
        assert await other.result() == "order 8: first | same | plain | other"
        await reaches(apart, Phase.WAITING)
        await answer_when_asked(apart, "approve_hold_call_1", True)
        assert await apart.result() == "order 1: apart"
        logged = "\n".join([line.text for _, line in await p.logs(first.id)])
        assert "has dependencies of its own" in logged and "has a message history of its own" in logged


async def test_agents_of_one_session_answer_what_they_were_asked(database: str) -> None:
    class Count(BaseModel):
        heard: int

    def counts(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[ToolCallPart(info.output_tools[0].name, {"heard": len(said(messages))}, "out")])

    chat = durable(_holding("chat"))
    counter = durable(Agent(FunctionModel(counts), name="counter", output_type=Count))
    async with embedded(database, Registry(chat, counter)) as p:
        first = await chat.start(p, "first", session_id="s")
        await reaches(first, Phase.WAITING)
        other = await counter.start(p, "how many?", session_id="s", on_conflict="deliver")
        second = await chat.start(p, "second", session_id="s", on_conflict="deliver")
        await answer_when_asked(first, "approve_hold_call", True)
        await reaches(first, Phase.WAITING)
        await answer_when_asked(first, "approve_hold_again", True)
        assert await first.result() == "first | second"
        assert await second.result() == "first | second"
        assert await other.result() == Count(heard=3)


def _holding(name: str) -> Agent[None, str]:
    """An agent that asks people twice before its answer."""

    def works(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        calls = [part for message in messages for part in message.parts if isinstance(part, ToolCallPart)]
        if len(calls) < 2:
            return ModelResponse(parts=[ToolCallPart("hold", {}, ("call", "again")[len(calls)])])
        return echo(messages, info)

    agent = Agent(FunctionModel(works), name=name)

    @agent.tool_plain(requires_approval=True)
    def hold() -> str:
        return "held"

    return agent


async def test_a_long_conversation_is_summarized_once(database: str) -> None:
    asked: list[int] = []

    def summarizes(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(len(messages))
        return ModelResponse(parts=[TextPart("they counted")])

    compaction = Compaction(above=6, keep=2, by=FunctionModel(summarizes))
    chat = durable(Agent(FunctionModel(echo), name="chat", system_prompt="be brief"), compaction=compaction)
    async with embedded(database, Registry(chat)) as p:
        for n in range(4):
            await chat.run(p, f"{n}", session_id="s")
        handle = await chat.start(p, "4", session_id="s")
        answer = await handle.result()
        assert answer.endswith("they counted | 3 | 4") and "1" not in answer
        assert asked == [7]
        names = [row.name for row in await rows_of(handle) if row.kind in (Kind.TRANSCRIPT, Kind.STEP)]
        shown = [
            line.text for line in conversation((await handle.get()).raw, await rows_of(handle)) if line.who == "summary"
        ]
        assert shown == ["they counted"]
        assert names == ["read", "conversation.summarize", "summarize", "model.request", "append"]
        transcript = await p.transcript("s")
        assert len(transcript.entries) == 5 and b"be brief" in bytes(transcript.entries[0].message)
        assert (await chat.run(p, "5", session_id="s")).endswith("they counted | 3 | 4 | 5")
        assert asked == [7]


async def test_a_summary_may_stand_for_all_that_was_said() -> None:
    def summarizes(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[TextPart(f"they said {said(messages)[:-1]}")])

    compaction = Compaction(above=2, keep=0, by=FunctionModel(summarizes))
    async with bench(Registry(chat := durable(Agent(FunctionModel(echo), name="chat"), compaction=compaction))) as p:
        for n in range(2):
            await chat.run(p, f"{n}", session_id="s")
        assert await chat.run(p, "2", session_id="s") == f"{SUMMARY}they said ['0', '1'] | 2"


@pytest.mark.parametrize("by_name", [False, True])
async def test_an_agent_summarizes_by_its_own_model(by_name: bool) -> None:
    """The model may also be known to its worker only, under the name that the agent uses."""

    def speaks(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        heard = said(messages)
        if heard[-1] == ASK:
            assert info.instructions is None and not info.function_tools, "it is asked for a text, and not as the agent"
            return ModelResponse(parts=[TextPart(f"they said {heard[:-1]}")])
        return echo(messages, info)

    model = FunctionModel(speaks)
    agent: Agent[None, str] = Agent(
        "house:own" if by_name else model, name="chat", instructions="be brief", defer_model_check=True
    )
    agent.tool_plain(never)
    chat = durable(agent, models={"house:own": model}, compaction=Compaction(above=4, keep=1))
    async with embedded(":memory:", Registry(chat)) as p:
        for n in range(3):
            await chat.run(p, f"{n}", session_id="s")
        assert (await chat.run(p, "3", session_id="s")).endswith("they said ['0', '1'] | 2 | 3")


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "replayed"])
async def test_runs_side_by_side_that_both_summarize_go_on(database: str, parks: bool) -> None:
    asked: list[str] = []
    both = asyncio.Event()

    async def summarizes(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(f"summary {len(asked)}")
        own = asked[-1]
        if len(asked) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 60)
        return ModelResponse(parts=[TextPart(own)])

    chat = durable(_holding("chat"), compaction=Compaction(above=4, keep=1, by=FunctionModel(summarizes)))
    async with embedded(database, Registry(chat), parks=parks) as p:
        for n in range(3):
            turn: list[ModelMessage] = [
                ModelRequest(parts=[UserPromptPart(f"{n}")]),
                ModelResponse(parts=[TextPart(f"{n}")]),
            ]
            await p.append_messages("s", ModelMessagesTypeAdapter.dump_python(turn, mode="json"))
        runs = {text: await p.start(chat, text, session_id="s") for text in ("a", "b")}
        kept: list[bool] = []
        for text, run in runs.items():
            for question in ("approve_hold_call", "approve_hold_again"):
                await reaches(run, Phase.WAITING)
                await answer_when_asked(run, question, True)
            answer = await run.result()
            rows = {row.name: row for row in await rows_of(run)}
            assert answer == f"{SUMMARY}{summary_text(rows['conversation.summarize'].value)} | 2 | {text}"
            kept.append(rows["summarize"].ok)
        assert sorted(kept) == [False, True] and len(asked) == 2
        entries = [bytes(entry.message) for entry in (await p.transcript("s")).entries]
        assert len(entries) == 3 + 2 * 6 and SUMMARY.encode()[:9] in entries[0]


async def test_a_summary_is_charged_and_waits_for_its_provider() -> None:
    asked: list[str] = []

    def summarizes(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        assert info.model_settings == {"max_retries": 0}
        asked.append(said(messages)[-1])
        if len(asked) == 1:
            raise ModelHTTPError(
                429, "sums", headers={"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m"}
            )
        return ModelResponse(parts=[TextPart("they counted")], usage=RequestUsage(input_tokens=7_000, output_tokens=7))

    compaction = Compaction(above=4, keep=1, by=FunctionModel(summarizes, model_name="sums"))
    chat = durable(Agent(FunctionModel(echo), name="chat"), compaction=compaction, price=lambda model, usage: 0.0003)
    async with bench(Registry(chat)) as p:
        for n in range(3):
            await chat.run(p, f"{n}", session_id="s")
        before = p.clock.now_us()
        handle = await chat.start(p, "3", session_id="s", budget=Budget(tokens=50_000))
        assert (await handle.result()).endswith("they counted | 2 | 3")
        assert asked == [ASK, ASK] and p.clock.now_us() - before >= 60_000_000
        budget = await p.budget(handle.id)
        assert (budget.calls.spent, budget.calls.reserved) == (2, 0) and budget.tokens.spent > 7_000
        notes = [
            line.note for line in conversation((await handle.get()).raw, await rows_of(handle)) if line.who == "summary"
        ]
        assert [note.rpartition(",")[0] for note in notes] == ["sums, 7000 + 7 tokens, $0.0003"]
        session = await p.engine.serve(Scope(await p.engine.projects.default()), GetSessionDetail(handle.id))
        assert session.total_input_tokens > 7_000
        broke = await chat.start(p, "4", session_id="s", budget=Budget(calls=0, on_exceed="finish"))
        with pytest.raises(ExecutionFailed, match="used up: 0 of 0 calls"):
            await broke.result()
        assert len(asked) == 2, "who cannot pay for a summary goes on without"


def test_a_summary_that_an_older_release_recorded_is_read() -> None:
    assert summary_text(Raw(b'"they \\"counted\\""')) == 'they "counted"'


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "replayed"])
async def test_a_run_goes_on_without_a_summary_that_fails(database: str, parks: bool) -> None:
    """Every later run asks once more for a summary, since the summarizing model may have been put right."""
    asked: list[str] = []

    def summarizes(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(said(messages)[-2])
        if len(asked) < 3:
            raise ModelHTTPError(400, "sums", "the context is too long")
        return ModelResponse(parts=[TextPart("they held")])

    def works(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if isinstance(messages[-1].parts[-1], UserPromptPart):
            return ModelResponse(parts=[ToolCallPart("hold", {}, "call")])
        return echo(messages, info)

    agent = Agent(FunctionModel(works), name="chat")

    @agent.tool_plain(requires_approval=True)
    def hold() -> str:
        return "held"

    chat = durable(agent, compaction=Compaction(above=6, keep=1, by=FunctionModel(summarizes)))
    answers: list[str] = []
    async with embedded(database, Registry(chat), parks=parks) as p:
        for n in range(5):
            run = await chat.start(p, f"{n}", session_id="s")
            await reaches(run, Phase.WAITING)
            await answer_when_asked(run, "approve_hold_call", True)
            answers.append(await run.result())
            logged = [line.text for _, line in await p.logs(run.id) if "without a summary" in line.text]
            assert len(logged) == (n in (2, 3)) and all("the context is too long" in line for line in logged)
    assert answers[:4] == ["0", "0 | 1", "0 | 1 | 2", "0 | 1 | 2 | 3"] and answers[4].endswith("they held | 3 | 4")
    assert asked == ["0", "1", "2"]


async def test_a_busy_model_is_asked_for_a_summary_twice_and_not_for_longer() -> None:
    asked: list[int] = []

    def summarizes(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(len(messages))
        raise ModelHTTPError(503, "sums")

    compaction = Compaction(above=2, keep=1, by=FunctionModel(summarizes))
    chat = durable(Agent(FunctionModel(echo), name="chat"), compaction=compaction)
    async with embedded(":memory:", Registry(chat)) as p:
        for n in range(3):
            answer = await chat.run(p, f"{n}", session_id="s")
    assert answer == "0 | 1 | 2" and len(asked) == 2


def never() -> None:
    """A tool that nobody calls."""
    raise AssertionError


def turns(*tokens: int) -> list[ModelMessage]:
    """A conversation whose answers took so many tokens, earlier messages included."""
    return [
        message
        for took in tokens
        for message in (
            ModelRequest(parts=[UserPromptPart("?")]),
            ModelResponse(parts=[TextPart("!")], usage=RequestUsage(input_tokens=took - 5, output_tokens=5)),
        )
    ]


@pytest.mark.parametrize(
    ("compaction", "history", "cut"),
    [
        (Compaction(tokens=100), turns(40, 80, 100), 0),
        (Compaction(tokens=100), turns(40, 80, 101), 4),  # 21 are left
        (Compaction(tokens=100), turns(40, 60, 80, 101), 4),  # 41 are left
        (Compaction(tokens=100), turns(20, 500), 4),  # even the last turn has more than half
        (Compaction(above=4, keep=2, tokens=1_000), turns(10, 20, 30), 4),
        (Compaction(above=4, keep=2, tokens=100), turns(10, 20, 200), 6),
        (Compaction(), turns(10**9), 0),
        (Compaction(tokens=1), [ModelRequest(parts=[UserPromptPart("?")]), ModelResponse(parts=[])], 0),
    ],
)
def test_a_cut_leaves_at_most_half_of_the_tokens(compaction: Compaction, history: list[ModelMessage], cut: int) -> None:
    assert compaction.cut(history) == cut


async def test_a_conversation_of_many_tokens_is_summarized_once(database: str) -> None:
    asked: list[int] = []

    def speaks(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        answer = echo(messages, info)
        return replace(answer, usage=RequestUsage(input_tokens=1_000 * len(said(messages)), output_tokens=1))

    def summarizes(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(len(messages))
        return ModelResponse(parts=[TextPart("they counted")])

    compaction = Compaction(tokens=3_500, by=FunctionModel(summarizes))
    chat = durable(Agent(FunctionModel(speaks), name="chat"), compaction=compaction)
    async with embedded(database, Registry(chat)) as p:
        for n in range(4):
            await chat.run(p, f"{n}", session_id="s")
        assert not asked
        assert (await chat.run(p, "4", session_id="s")).endswith("they counted | 3 | 4")
        assert (await chat.run(p, "5", session_id="s")).endswith("they counted | 3 | 4 | 5")
    assert len(asked) == 1


def test_a_compaction_that_would_keep_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 0 <= keep < above"):
        Compaction(above=5, keep=5)
    with pytest.raises(ValueError, match="needs tokens >= 1"):
        Compaction(tokens=0)
