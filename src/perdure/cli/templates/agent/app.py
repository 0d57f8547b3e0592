"""Support: an agent that looks orders up, and refunds money after an approval.

The model is `$model`; AGENT_MODEL names another. The model `test` needs no key: it calls each tool once.
"""

import os

from pydantic_ai import Agent

from perdure.agents import durable

ORDERS = {7: ("desk", "is on its way"), 8: ("lamp", "was delivered on Monday")}

agent = Agent(
    os.environ.get("AGENT_MODEL", "$model"),
    name="support",
    instructions="Find the order before you answer. Refund only what the customer asks for.",
    defer_model_check=True,
)


@agent.tool_plain
async def find_order(number: int) -> str:
    """Where an order is."""
    if number not in ORDERS:
        return f"Order {number} does not exist. The customer has the orders {', '.join(map(str, ORDERS))}."
    item, state = ORDERS[number]
    return f"Order {number}, a {item}, {state}."


@agent.tool_plain(requires_approval=True)
async def refund(number: int, cents: int) -> str:
    """Pay money back. A person approves it first; the run waits, however long that takes."""
    return f"Refunded {cents} cents for order {number}."


support = durable(agent)
