"""Reasoning: thoughts of a model are recorded with its answers. A fork of the run continues with the same thoughts.

With a real model: AGENT_MODEL=anthropic:claude-sonnet-5-5, and a key of the provider.
"""

import asyncio
import os

import msgspec
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ThinkingPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from perdure import Registry
from perdure.agents import durable
from perdure.testing import embedded


def think(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    return ModelResponse([ThinkingPart("17 × 3 is 51, and 51 + 4 is 55."), TextPart("55")])


agent = Agent(
    os.environ.get("AGENT_MODEL") or FunctionModel(think, model_name="offline"),
    name="sums",
    model_settings={"thinking": "medium"},
)
sums = durable(agent)


async def main() -> tuple[list[str], str]:
    """The recorded thoughts, and the answer."""
    async with embedded(Registry(sums)) as p:
        handle = await sums.start(p, "What is 17 × 3 + 4?")
        answer = await handle.result()
        thoughts = [
            part["content"]
            for row in await p.journal(handle.id)
            if row.name == "model.request" and row.value is not None
            for part in msgspec.json.decode(row.value)["parts"]
            if part["part_kind"] == "thinking"
        ]
    return thoughts, answer


if __name__ == "__main__":
    print(asyncio.run(main()))
