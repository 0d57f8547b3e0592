"""The agent whose recorded journal every later release must replay. Never change it: add another beside it.

What it does once: a guard looks at the prompt, the conversation before it is summarized, a toolset is listed, a tool is
called, somebody allows a call and edits it, a message of a later turn is taken, the budget is over and is raised.
"""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.toolsets import FunctionToolset
from tests.embedded.house import reaches
from tests.kit.polling import until

from perdure import Budget, Client, Handle
from perdure.agents import Compaction, durable
from perdure.agents.conversation import ASK
from perdure.agents.history import message_json
from perdure.agents.inputs import Prompt
from perdure.wire.agents.transcripts import Transcript
from perdure.wire.base.status import Phase

SESSION = "ann"


def answers(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    users = [part.content for one in messages for part in one.parts if isinstance(part, UserPromptPart)]
    called = [part.tool_name for one in messages for part in one.parts if isinstance(part, ToolCallPart)]
    said: ModelResponsePart
    if users[-1] == ASK:
        said = TextPart("Ann has order 7.")
    elif not called:
        said = ToolCallPart("find_order", {"number": 7}, "c1")
    elif called == ["find_order"]:
        said = ToolCallPart("refund", {"number": 7, "cents": 100}, "c2")
    else:
        said = TextPart(f"done: {users[-1]}")
    return ModelResponse([said])


agent = Agent(FunctionModel(answers, model_name="script"), name="helpdesk")


@agent.toolset(id="orders")
def orders(ctx: RunContext[object]) -> FunctionToolset[object]:
    found = FunctionToolset[object](id="found")

    @found.tool_plain
    def find_order(number: int) -> str:
        return f"order {number}"

    return found


@agent.tool_plain(requires_approval=True)
def refund(number: int, cents: int) -> str:
    return f"{cents} for {number}"


async def polite(prompt: Prompt) -> None:
    return


async def short(ctx: RunContext[object], output: str) -> None:
    return


helpdesk = durable(
    agent,
    budget=Budget(calls=3),
    compaction=Compaction(above=3, keep=2),
    input_guards=[polite],
    output_guards=[short],
)


async def said_before(client: Client) -> Transcript:
    """What the conversation has in it when the run begins."""
    for turn in ("I am Ann.", "I have ordered something."):
        messages: list[ModelMessage] = [ModelRequest([UserPromptPart(turn)]), ModelResponse([TextPart("Yes?")])]
        await client.append_messages(SESSION, list(map(message_json, messages)))
    return await client.transcript(SESSION)


async def around_helpdesk(client: Client, handle: Handle[Any]) -> None:
    """Another message comes while it waits for somebody's word; its budget is raised when it asks."""
    await reaches(handle, Phase.WAITING)
    await helpdesk.start(client, "And the other one?", session_id=SESSION, on_conflict="deliver")
    await handle.resume("approve_refund_c2", {"approved": True, "arguments": {"number": 7, "cents": 50}})

    async def is_paused() -> bool:
        return (await client.budget(handle.id)).paused_at is not None

    await until(is_paused)
    await client.raise_budget(handle.id, calls=5)
