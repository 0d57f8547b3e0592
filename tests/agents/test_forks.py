"""Forks of conversations: what was said and done before the fork is kept, and nothing of it is asked for again."""

from __future__ import annotations

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.agents.test_conversation import said
from tests.embedded.house import rows_of

from perdure import Registry
from perdure.agents import durable
from perdure.embedded import embedded
from perdure.wire.base.records import Kind


def _contents(messages: list[ModelMessage]) -> list[object]:
    """All but the times of the run and its id."""
    return [getattr(part, "content", None) or part for message in messages for part in message.parts]


@pytest.mark.parametrize(("n", "looks_again"), [(1, [1, 2]), (2, [2]), (3, [])])
async def test_a_conversation_is_forked_at_a_request_to_its_model(
    database: str, n: int, looks_again: list[int]
) -> None:
    """The turn looks twice and answers. A later turn makes the session longer than what the kept part had read."""
    asked: list[list[ModelMessage]] = []
    looked: list[int] = []

    def works(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(list(messages))
        returned = [part.content for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
        if said(messages)[-1] == "look twice" and returned != [2]:
            at = 1 + len(returned)
            return ModelResponse([ToolCallPart("look", {"at": at}, f"call-{at}")])
        return ModelResponse([TextPart(" | ".join(said(messages)))])

    agent = Agent(FunctionModel(works), name="chat")

    @agent.tool_plain
    def look(at: int) -> int:
        looked.append(at)
        return at

    chat = durable(agent)
    async with embedded(database, Registry(chat)) as p:
        await chat.run(p, "before", session_id="s")
        source = await chat.start(p, "look twice", session_id="s")
        assert await source.result() == "before | look twice"
        first = list(map(_contents, asked[1:]))
        assert (len(first), looked) == (3, [1, 2])
        await chat.run(p, "after", session_id="s")
        asked.clear()
        looked.clear()

        fork = await source.fork(from_step=f"model:{n}")
        assert await fork.result() == "before | look twice"
        assert list(map(_contents, asked)) == first[n - 1 :]
        assert looked == looks_again
        steps = [[row.key for row in await rows_of(one) if row.kind is Kind.STEP] for one in (source, fork)]
        assert steps[0] == steps[1]
        assert await chat.run(p, "last", session_id="s") == "before | look twice | after | look twice | last"
