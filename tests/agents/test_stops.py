"""What ends a run, or keeps it from going on: stop conditions, guards, the watchdog."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import BinaryContent, UserPromptPart
from tests.agents.scripted import Script, call, crashed
from tests.embedded.house import answer_when_asked, keys_of, reaches, rows_of

from perdure import ExecutionFailed, Registry
from perdure.agents import Tripped, called_tool, durable, has_text, max_steps, max_tokens, stop_reason
from perdure.agents.stops import StopCondition
from perdure.engine.base.service import Scope
from perdure.testing import embedded
from perdure.wire.agents.approvals import ListApprovals
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase


class Answer(BaseModel):
    text: str


def searching(*sayings: Any) -> tuple[Script, Agent[None, str]]:
    script = Script(*sayings)
    agent = Agent(script.model, name="searching")

    @agent.tool_plain
    async def search(query: str) -> str:
        return f"nothing on {query}"

    @agent.tool_plain
    async def publish() -> str:
        return "published"

    return script, agent


def rounds(count: int) -> list[Any]:
    return [["thinking…", call("search", f"c{n}", query=str(n))] for n in range(count)]


@pytest.mark.parametrize(
    ("condition", "steps"),
    # Two requests take 30 tokens in and 10 out.
    [
        (max_steps(3), 3),
        (max_tokens(40), 3),
        (max_tokens(41), 4),
        (called_tool("publish"), 2),
        (has_text("thinking", "…"), 2),
    ],
    ids=["steps", "tokens", "more tokens", "tool", "text"],
)
async def test_an_agent_that_has_done_enough_answers_with_what_it_has(condition: StopCondition, steps: int) -> None:
    script, agent = searching(*rounds(steps - 1), "that is all", "never asked")
    if steps == 2:
        script.sayings = (["thinking…", call("publish", "p1")], "that is all")
    researcher = durable(agent, stop=[condition])
    async with embedded(Registry(), parks=False) as p:
        handle = await researcher.start(p, "Find it!")
        assert await handle.result() == "that is all"
        assert stop_reason(await handle.get()) == "stop"
    assert sum(script.asked.values()) == steps
    assert script.tools[-1] == [] and script.tools[0] == ["search", "publish"]
    assert "answer now" in str(script.instructions[-1]) and script.instructions[0] is None


@pytest.mark.parametrize("make", [lambda: max_steps(0), lambda: max_tokens(0), called_tool, has_text])
def test_a_condition_that_would_stop_an_agent_at_once_is_refused(make: Callable[[], StopCondition]) -> None:
    with pytest.raises(ValueError, match="at least"):
        make()


@pytest.mark.parametrize(
    ("last", "answer"),
    [
        (call("search", "c9", query="more"), "thinking…"),
        (["that is all", call("search", "c9", query="more")], "that is all"),
    ],
    ids=["only a call", "words and a call"],
)
async def test_a_model_that_calls_tools_all_the_same_ends_with_its_last_words(last: Any, answer: str) -> None:
    script, agent = searching(*rounds(2), last, "never asked")
    report = await crashed(durable(agent, stop=[max_steps(3)]), "Find it!")
    assert report.result == answer
    assert set(script.asked) == {0, 1, 2}


async def test_one_that_has_said_nothing_says_why_it_ends() -> None:
    script, agent = searching(call("search", "c1", query="it"), call("search", "c2", query="it"), "never asked")
    async with embedded(Registry()) as p:
        assert await durable(agent, stop=[max_steps(2)]).run(p, "Find it!") == "It has taken 2 steps."
    assert set(script.asked) == {0, 1}


@pytest.mark.slow
async def test_a_structured_output_is_given_when_it_is_to_stop() -> None:
    script = Script(call("look", "c1"), call("final_result", "c2", text="enough"))
    agent = Agent(script.model, name="structured", output_type=Answer)

    @agent.tool_plain
    async def look() -> str:
        return "something"

    report = await crashed(durable(agent, stop=[max_steps(2)]), "?")
    assert report.result == Answer(text="enough")


# --- guards --------------------------------------------------------------------------------------------------------


async def test_guards_are_steps_that_run_once() -> None:
    ran: list[str] = []

    async def on_topic(prompt: Any) -> None:
        ran.append("on_topic")

    def polite(prompt: Any) -> str:
        ran.append("polite")
        return f"Please: {prompt}"

    async def shorten(ctx: Any, output: str) -> str:
        ran.append("shorten")
        return output[:5]

    script = Script("a long answer")
    guarded = durable(Agent(script.model, name="guarded"), input_guards=[on_topic, polite], output_guards=[shorten])
    async with embedded(Registry(), parks=False) as p:
        handle = await guarded.start(p, "Help!")
        assert await handle.result() == "a lon"
        assert await keys_of(handle, Kind.STEP) == ["guard:on_topic", "guard:polite", "model:1", "guard:shorten"]
    assert ran == ["on_topic", "polite", "shorten"]
    assert "Please: Help!" in str(script.heard[0])


async def test_a_guard_may_give_another_prompt_of_any_kind() -> None:
    image = BinaryContent(b"x", media_type="image/png")

    async def redacted(prompt: Any) -> Any:
        return ("redacted", image) if prompt == "tuple" else ["redacted", image]

    for prompt in ("list", "tuple"):
        script = Script("ok")
        async with embedded(Registry(), parks=False) as p:
            guarded = durable(Agent(script.model, name="guarded"), input_guards=[redacted])
            assert await guarded.run(p, prompt) == "ok"
        [said] = script.heard[0][0].parts
        assert isinstance(said, UserPromptPart) and isinstance(said.content, list)
        text, shown = said.content
        assert text == "redacted" and isinstance(shown, BinaryContent) and shown.data == b"x"


async def test_a_guard_ends_the_run() -> None:
    async def on_topic(prompt: Any) -> None:
        raise Tripped("only about parcels, please")

    script = Script("never asked")
    async with embedded(Registry()) as p:
        with pytest.raises(ExecutionFailed, match="only about parcels") as caught:
            await durable(Agent(script.model, name="guarded"), input_guards=[on_topic]).run(p, "Help!")
    assert caught.value.type == "Tripped" and not script.asked


@pytest.mark.slow
async def test_a_guard_has_the_model_answer_again() -> None:
    async def no_keys(ctx: Any, output: Answer) -> None:
        if "sk_" in output.text:
            raise ModelRetry("Leave keys out.")

    script = Script(call("final_result", "c1", text="it is sk_1"), call("final_result", "c2", text="it is a secret"))
    guarded = durable(Agent(script.model, name="guarded", output_type=Answer), output_guards=[no_keys])
    report = await crashed(guarded, "What is the key?")
    assert report.result == Answer(text="it is a secret")
    assert "Leave keys out." in str(script.heard[-1])


# --- the watchdog --------------------------------------------------------------------------------------------------


def looping() -> tuple[Script, Agent[None, str]]:
    def again(messages: Any, info: Any) -> Any:
        if not info.function_tools:
            return "I give up"
        return call("search", f"c{len(messages)}", query="it")

    return searching(*[again] * 20)


async def test_the_same_call_with_the_same_result_again_and_again_pauses_the_run_and_says_what_it_cost() -> None:
    _, agent = looping()
    async with embedded(Registry()) as p:
        handle = await durable(agent, watchdog=3).start(p, "Find it!")
        await reaches(handle, Phase.WAITING)
        project_id = await p.engine.projects.default()
        [question] = (await p.engine.serve(Scope(project_id), ListApprovals())).items
        asked = bytes(question.data)
        assert b'"times":3' in asked and b'"input_tokens":60' in asked
        await answer_when_asked(handle, "watchdog_search", {"approved": True})
        await answer_when_asked(handle, "watchdog_search:2", {"approved": False})
        assert await handle.result() == "I give up"
        keys = [row.key for row in await rows_of(handle) if row.kind is Kind.RESUME]
    assert keys == ["watchdog_search", "watchdog_search:2"]


@pytest.mark.parametrize("differ", ["arguments", "results"])
async def test_calls_that_differ_are_no_loop(differ: str) -> None:
    same = differ == "results"
    script = Script(*[call("look", f"c{n}", place=0 if same else n) for n in range(6)], "done")
    agent = Agent(script.model, name="looking")

    @agent.tool_plain
    async def look(place: int) -> int:
        return sum(script.asked.values()) if same else 0

    async with embedded(Registry()) as p:
        handle = await durable(agent, watchdog=2).start(p, "Find it!")
        await p.settle()
        assert (await handle.get()).phase is Phase.COMPLETED


@pytest.mark.parametrize("outcome", ["retried", "failed", "denied"])
@pytest.mark.parametrize("parks", [True, False], ids=["parked", "replayed"])
async def test_a_call_that_gives_nothing_again_and_again_is_a_loop_as_well(outcome: str, parks: bool) -> None:
    script, _ = looping()
    agent = Agent(script.model, name="searching", retries=20)

    @agent.tool_plain(requires_approval=outcome == "denied")
    async def search(query: str) -> str:
        raise ModelRetry("not now") if outcome == "retried" else ToolFailed("not now")

    async with embedded(Registry(), parks=parks) as p:
        handle = await durable(agent, watchdog=3).start(p, "Find it!")
        if outcome == "denied":
            for n in (1, 3, 5):
                await answer_when_asked(handle, f"approve_search_c{n}", {"approved": False})
        await reaches(handle, Phase.WAITING)
        await answer_when_asked(handle, "watchdog_search", {"approved": False})
        assert await handle.result() == "I give up"
        assert stop_reason(await handle.get()) == "watchdog"
        asked = [row.key for row in await rows_of(handle) if row.kind is Kind.RESUME]
    assert asked[-1] == "watchdog_search" and script.tools[-1] == [] and len(script.asked) == 4
