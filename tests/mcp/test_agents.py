"""An agent as a tool: the official client runs the agent, and a person answers the agent by elicitation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import mcp_types as types
import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from tests.agents.scripted import Script, call
from tests.mcp.client import http_session

from perdure import Registry
from perdure.agents import durable
from perdure.embedded import Embedded, embedded
from perdure.wire.runs.executions import ListExecutions

QUESTION = "To which address?"
ANSWER = "Sent to 7 Hill Road."


@pytest.fixture
def script() -> Script:
    question = call("ask_user", "c1", question=QUESTION)
    return Script(question, call("send", "c2", address="7 Hill Road"), ANSWER)


@pytest.fixture
async def app(database: str, script: Script) -> AsyncIterator[Embedded]:
    agent = Agent(script.model, name="clerk")

    @agent.tool_plain(requires_approval=True)
    def send(address: str) -> str:
        """Send a parcel."""
        return f"sent to {address}"

    async with embedded(database, Registry(durable(agent, ask_user=True)), serve=0) as made:
        yield made


def session_of(app: Embedded, **options: Any) -> Any:
    assert app.url is not None and app.api_key is not None
    return http_session(app.url, app.api_key, **options)


def told(messages: list[ModelMessage]) -> list[object]:
    """The model's view of the person: the prompt, and what its calls returned."""
    parts = [part for one in messages if isinstance(one, ModelRequest) for part in one.parts]
    return [part.content for part in parts if isinstance(part, UserPromptPart | ToolReturnPart)]


async def test_an_agent_is_a_task_whose_questions_are_elicitations(app: Embedded, script: Script) -> None:
    async with session_of(app, elicitation_callback=refuses) as session:
        (tool,) = [one for one in (await session.client.list_tools()).tools if one.name.startswith("run_")]
        assert (tool.name, tool.input_schema["required"]) == ("run_clerk", ["input"])
        created = await session.begin("run_clerk", input="Send the parcel.")
        contents: list[dict[str, object]] = [{"answer": "7 Hill Road"}, {"approved": True}]
        for content, shown in zip(contents, (QUESTION, '"address":"7 Hill Road"'), strict=True):
            task = await session.until(created.task_id, lambda one, shown=shown: shown in str(one.input_requests))
            ((key, request),) = (task.input_requests or {}).items()
            assert set(content) <= set(request["params"]["requestedSchema"]["properties"])
            await session.update_all(created.task_id, {key: {"action": "accept", "content": content}})
        task = await session.until_status(created.task_id, "completed")
        assert task.result is not None and ANSWER in task.result["content"][0]["text"]
    assert told(script.heard[-1]) == ["Send the parcel.", "7 Hill Road", "sent to 7 Hill Road"]
    assert [script.asked[n] for n in range(3)] == [1, 1, 1], "no model call is repeated"


async def test_a_client_without_tasks_answers_an_agent_within_the_call(app: Embedded, script: Script) -> None:
    asked: list[str] = []

    async def person(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params.message)
        first = len(asked) == 1
        return types.ElicitResult(action="accept", content={"answer": "7 Hill Road"} if first else {"approved": True})

    async with session_of(app, tasks=False, elicitation_callback=person) as session:
        assert ANSWER in await session.text("run_clerk", input="Send the parcel.")
        assert len(asked) == 2 and QUESTION in asked[0] and "7 Hill Road" in asked[1]
        assert told(script.heard[-1])[1:] == ["7 Hill Road", "sent to 7 Hill Road"]
        (only,) = (await app._transport.call(ListExecutions())).executions
        assert only.workflow_id == "clerk"


async def refuses(context: Any, params: Any) -> types.ElicitResult:
    raise AssertionError("a client with tasks answers by tasks/update")
