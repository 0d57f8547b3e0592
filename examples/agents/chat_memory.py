"""A chat with memory: turns of one session know what was said before, and what was said is stored once."""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, UserPromptPart

from examples.agents.models import model
from perdure import Registry
from perdure.agents import Compaction, durable
from perdure.testing import embedded


def who(messages: list[ModelMessage]) -> str:
    """What the offline model says: it knows a name that was said in this session."""
    said = [str(part.content) for message in messages for part in message.parts if isinstance(part, UserPromptPart)]
    names = [text.removeprefix("I am ").rstrip(".") for text in said if text.startswith("I am ")]
    return f"You are {names[-1]}." if names else "We have not met."


companion = durable(Agent(model(who), name="companion"), compaction=Compaction(above=200, keep=20))


async def main() -> list[str]:
    async with embedded(Registry(companion)) as client:
        return [
            await companion.run(client, "I am Ann.", session_id="ann"),
            await companion.run(client, "Who am I?", session_id="ann"),  # tomorrow, or at another worker: the same
            await companion.run(client, "Who am I?", session_id="bob"),
        ]


if __name__ == "__main__":
    print(*asyncio.run(main()), sep="\n")
