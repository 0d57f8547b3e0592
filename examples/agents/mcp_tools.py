"""Tools of an MCP server: what it offers, and each call of it, are steps.

The server of this example lives in the same process; yours is a URL: `MCPToolset("https://…/mcp", id="crm")`. Needs
`pip install "pydantic-ai-slim[mcp]"`.
"""

import asyncio

from mcp.server.mcpserver import MCPServer
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset

from examples.agents.models import call, model, results
from perdure import Registry
from perdure.agents import durable
from perdure.testing import embedded

crm = MCPServer("crm")


@crm.tool()
def customer(number: int) -> str:
    """The name of a customer."""
    return {7: "Ann"}.get(number, "unknown")


clerk = durable(
    Agent(
        model(call("customer", number=7), lambda messages: f"It is {results(messages)[0]}."),
        name="clerk",
        toolsets=[MCPToolset(crm, id="crm")],
    )
)


async def main() -> str:
    async with embedded(Registry(clerk)) as client:
        return await clerk.run(client, "Who is customer 7?")


if __name__ == "__main__":
    print(asyncio.run(main()))
