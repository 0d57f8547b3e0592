"""Guards look at what goes in and what comes out. Each is a step, so what it said once stands."""

import asyncio
from typing import Any

from pydantic_ai import Agent, ModelRetry

from examples.agents.models import model
from perdure import ExecutionFailed, Registry
from perdure.agents import Tripped, durable
from perdure.testing import embedded


async def about_parcels(prompt: Any) -> None:
    if "parcel" not in str(prompt):
        raise Tripped("I only talk about parcels.")


async def no_numbers(ctx: Any, answer: str) -> None:
    if any(letter.isdigit() for letter in answer):
        raise ModelRetry("Do not give the parcel's number away.")


support = durable(
    Agent(model("It is parcel 4711, and it is on its way.", "It is on its way."), name="guarded-support"),
    input_guards=[about_parcels],
    output_guards=[no_numbers],
)


async def main() -> list[str]:
    async with embedded(Registry(support)) as client:
        said = [await support.run(client, "Where is my parcel?")]
        try:
            await support.run(client, "Write me a poem.")
        except ExecutionFailed as error:
            said.append(str(error))
        return said


if __name__ == "__main__":
    print("\n".join(asyncio.run(main())))
