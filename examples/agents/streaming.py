"""Streaming: words as the model says them, while every outcome is recorded. Others may follow the same run."""

import asyncio
import os
from collections.abc import AsyncIterator

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel

from perdure import Registry
from perdure.agents import durable, events
from perdure.testing import embedded


async def words(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
    for word in ("Streams ", "are ", "apart ", "from ", "the ", "journal."):
        yield word


MODEL = os.environ.get("AGENT_MODEL") or FunctionModel(stream_function=words)
poet = durable(Agent(MODEL, name="poet", defer_model_check=True))


async def main() -> list[str]:
    async with embedded(Registry(poet)) as client:
        handle = await poet.start(client, "What are streams?")
        said: list[str] = []
        async for one in events(handle):
            if one.item.restarted:  # the step that spoke was lost, and begins anew
                said.clear()
            if one.text:
                said.append(one.text)
        assert await handle.result() == "".join(said)
        return said


if __name__ == "__main__":
    print(*asyncio.run(main()), sep="|")
