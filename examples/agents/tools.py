"""Tools: each call is a step. Kill the process anywhere; what a tool has done it does not do again."""

import asyncio

from pydantic_ai import Agent

from examples.agents.models import call, model, results
from perdure import Registry
from perdure.agents import durable
from perdure.testing import embedded

agent = Agent(
    model(
        [call("temperature", city="Rome"), call("temperature", city="Oslo")],
        lambda messages: f"It is {results(messages)[0]} degrees in Rome and {results(messages)[1]} in Oslo.",
    ),
    name="weather",
    instructions="Answer in one sentence.",
)


@agent.tool_plain
async def temperature(city: str) -> int:
    """The temperature in a city, in degrees."""
    return {"Rome": 21, "Oslo": 9}.get(city, 15)


weather = durable(agent)


async def main() -> str:
    async with embedded(Registry(weather)) as client:
        return await weather.run(client, "How warm is it in Rome and in Oslo?")


if __name__ == "__main__":
    print(asyncio.run(main()))
