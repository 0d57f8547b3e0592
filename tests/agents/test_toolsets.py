"""Toolsets of other kinds: MCP servers and toolsets that a function makes for each run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from pydantic_ai import Agent, RunContext
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.toolsets import AbstractToolset, DynamicToolset, FunctionToolset
from tests.agents.scripted import Script, call, crashed
from tests.agents.test_approvals import told
from tests.embedded.house import keys_of

from perdure import Registry
from perdure.agents import Call, CallHook, durable
from perdure.testing import embedded
from perdure.wire.records import Kind


def customer(number: int) -> str:
    """The name of a customer."""
    return f"customer {number}"


@pytest.fixture
def server() -> MCPServer:
    server = MCPServer("crm", instructions="Ask for the number first.")
    server.tool()(customer)
    return server


async def test_an_mcp_servers_tools_and_calls_are_steps(server: MCPServer) -> None:
    seen: list[str] = []

    class Watch(CallHook):
        async def before(self, call: Call) -> None:
            seen.append(f"{call.kind} {call.name}")

    script = Script(call("customer", "c1", number=7), told)
    clerk = durable(Agent(script.model, name="clerk", toolsets=[MCPToolset(server, id="crm")]), hooks=[Watch()])
    async with embedded(Registry(), parks=False) as p:
        handle = await clerk.start(p, "Who is 7?")
        assert "customer 7" in str(await handle.result())
        keys = await keys_of(handle, Kind.STEP)
    assert "tools:crm:1" in keys and "mcp:customer:c1" in keys
    assert seen == ["model script", "mcp customer", "model script"]


@pytest.mark.parametrize("held", [False, True])
async def test_a_session_that_the_workers_program_holds_serves_all_steps(held: bool) -> None:
    sessions: list[str] = []

    @asynccontextmanager
    async def lifespan(server: MCPServer) -> AsyncIterator[None]:
        sessions.append(server.name)
        yield

    server = MCPServer("crm", lifespan=lifespan)
    server.tool()(customer)
    script = Script(call("customer", "c1", number=7), call("customer", "c2", number=8), told)
    toolset = MCPToolset(server, id="crm")
    clerk = durable(Agent(script.model, name="clerk", toolsets=[toolset]))
    async with toolset if held else nullcontext(), embedded(Registry(), parks=False) as p:
        assert "customer 8" in str(await clerk.run(p, "Who is 7?"))
    assert len(sessions) == 1 if held else len(sessions) > 2


@pytest.mark.slow
async def test_a_toolset_that_is_made_for_each_run_is_listed_and_called_in_steps() -> None:
    calls: list[str] = []

    def tools(ctx: RunContext[str]) -> AbstractToolset[Any]:
        made = FunctionToolset[Any](id="inner")

        @made.tool_plain
        async def greet(name: str) -> str:
            calls.append(name)
            return f"{ctx.deps}, {name}"

        return made

    script = Script(call("greet", "c1", name="Ann"), told)
    agent = Agent(script.model, name="dynamic", deps_type=str, toolsets=[DynamicToolset(tools, id="made")])
    report = await crashed(durable(agent, deps="Hello"), "?")
    assert report.result == "Hello, Ann"
    assert set(calls) == {"Ann"}
