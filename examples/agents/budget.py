"""A budget: two requests to the model are allowed. Then the run pauses, holds nothing, and asks for more.

Here the program raises it; otherwise `perdure budget raise ID --calls 1` does, or whoever answers the question.
"""

import asyncio

from pydantic_ai import Agent

from examples.agents.models import call, model
from perdure import Budget, Registry
from perdure.agents import durable
from perdure.testing import embedded

agent = Agent(model(call("search", words="rain"), call("search", words="wind"), "It will rain."), name="forecaster")


@agent.tool_plain
async def search(words: str) -> str:
    """Search the forecasts."""
    return f"something about {words}"


# Money as well, with a model that has a price: Budget(usd=0.10, calls=2). "finish" would end it with what it has.
forecaster = durable(agent, budget=Budget(calls=2, on_exceed="ask"))


async def main() -> tuple[str, int]:
    async with embedded(Registry(forecaster)) as client:
        handle = await forecaster.start(client, "Will it rain?")
        await client.settle()  # until it waits
        await client.raise_budget(handle.id, calls=1)
        answer = await handle.result()
        return answer, (await client.budget(handle.id)).calls.spent


if __name__ == "__main__":
    print(asyncio.run(main()))
