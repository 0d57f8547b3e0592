"""A hand-off: triage chooses a specialist, which runs in the same execution and answers the customer."""

import asyncio
from typing import Literal

from msgspec import Struct
from pydantic_ai import Agent, ToolOutput

from examples.agents.models import call, model
from perdure import Context, Registry
from perdure.agents import durable
from perdure.testing import embedded

Desk = Literal["billing", "shipping"]
registry = Registry()


class Question(Struct):
    text: str


def hand_over(desk: Desk) -> Desk:
    """Give the question to a desk."""
    return desk


triage = durable(
    Agent(model(call("hand_over", desk="shipping")), name="triage", output_type=ToolOutput(hand_over, name="hand_over"))
)
desks = {
    "billing": durable(Agent(model("The invoice is cancelled."), name="billing")),
    "shipping": durable(Agent(model("The parcel arrives tomorrow."), name="shipping")),
}


@registry.workflow
async def support(ctx: Context, question: Question) -> str:
    desk = await triage(ctx, question.text)
    return await desks[desk](ctx, question.text)


async def main() -> str:
    async with embedded(registry) as p:
        return await (await p.start(support, Question("Where is my parcel?"))).result()


if __name__ == "__main__":
    print(asyncio.run(main()))
