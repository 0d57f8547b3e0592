"""What the workers of the scenario `agents` run: an agent with tools and an approval, and its provider's model."""

from __future__ import annotations

import asyncio
import os

from pydantic_ai import Agent
from tests.agents.asking import signing_model
from tests.faults.app import five_steps, note

from perdure import Budget, Context, workflow
from perdure.agents import durable

AGENT = "clerk"
TOOL_SECONDS = 0.05

SCRIPTS = {
    "order": [
        {"tools": [["look_up", {"order": "{rest}"}], ["weigh", {"order": "{rest}"}]], "wait_seconds": 0.05},
        {"tools": [["refund", {"order": "{rest}"}]], "wait_seconds": 0.05},
        {"text": "order {rest} was refunded", "wait_seconds": 0.05},
    ]
}


clerk_agent = Agent(signing_model(os.environ.get("FAULTS_PROVIDER", "http://127.0.0.1:1/v1")), name=AGENT)


async def tool(what: str, order: str) -> str:
    """Note the beginning and the end of each tool's call in the effect log."""
    note("begin")
    await asyncio.sleep(TOOL_SECONDS)
    note("end")
    return f"{what} {order}"


@clerk_agent.tool_plain
async def look_up(order: str) -> str:
    """Look an order up."""
    return await tool("found", order)


@clerk_agent.tool_plain
async def weigh(order: str) -> str:
    """Weigh an order."""
    return await tool("weighed", order)


@clerk_agent.tool_plain(requires_approval=True)
async def refund(order: str) -> str:
    """Give an order's money back."""
    return await tool("refunded", order)


clerk = durable(clerk_agent, budget=Budget(tokens=1_000_000, on_exceed="fail"))


@workflow
async def order(ctx: Context, n: int) -> str:
    """An agent's run inside a workflow."""
    return await clerk(ctx, f"order {n}")


def expected(n: int) -> str:
    """What it must come to."""
    return f"order {n} was refunded"


APPROVAL = f"agent:{AGENT}/approve_refund_call-1-0"
"""The key of the question."""
__all__ = ["five_steps", "order"]
