"""An order that somebody has to allow: the run waits for days if it must, holds nothing, and charges what was allowed.

Here the program answers itself; otherwise `perdure approvals`, the page of the question, or the API does.
"""

import asyncio
from contextlib import aclosing

from pydantic_ai import Agent

from examples.agents.models import call, model, results
from perdure import Registry
from perdure.agents import durable
from perdure.testing import embedded

agent = Agent(
    model(
        call("price", item="desk"),
        call("charge", item="desk", euros=420),
        lambda messages: f"Done: {results(messages)[-1]}.",
    ),
    name="orders",
    instructions="Look the price up, then charge it.",
)


@agent.tool_plain
async def price(item: str) -> int:
    """What an item costs, in euros."""
    return 420


@agent.tool_plain(requires_approval=True)
async def charge(item: str, euros: int) -> str:
    """Charge the customer."""
    return f"{item} for {euros} euros"


orders = durable(agent, answer_timeout=3 * 86_400)


async def main() -> str:
    async with embedded(Registry(orders), skip_time=False) as client:
        handle = await orders.start(client, "One desk, please.")
        async with aclosing(handle.stream()) as items:
            async for item in items:
                if item.kind == "question":
                    # A discount: the arguments that are allowed are the ones that run.
                    arguments = {**item.data["data"]["arguments"], "euros": 400}
                    await handle.resume(item.data["step_key"], {"approved": True, "arguments": arguments})
        return await handle.result()


if __name__ == "__main__":
    print(asyncio.run(main()))
