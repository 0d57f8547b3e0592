"""A router hands over to other agents. Each of them is a child execution with a journal of its own."""

import asyncio

from pydantic_ai import Agent

from examples.agents.models import call, model, results
from perdure import Registry
from perdure.agents import durable
from perdure.testing import embedded

billing = durable(Agent(model("The invoice was sent twice; one is cancelled."), name="billing"))
shipping = durable(Agent(model("The parcel arrives tomorrow."), name="shipping"))
router = durable(
    Agent(
        model(
            [call("billing", prompt="Why two invoices?"), call("shipping", prompt="Where is the parcel?")],
            lambda messages: " ".join(map(str, results(messages))),
        ),
        name="router",
        tools=[
            billing.as_tool(description="Questions about invoices."),
            shipping.as_tool(description="Questions about parcels."),
        ],
    )
)


async def main() -> str:
    async with embedded(Registry(router, billing, shipping)) as client:
        return await router.run(client, "Why two invoices, and where is my parcel?")


if __name__ == "__main__":
    print(asyncio.run(main()))
