"""Toolsets of other kinds: MCP servers, toolsets that a function makes for each run, toolsets of capabilities."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp.server.mcpserver import MCPServer
from mcp.types import CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_PARAMS, REQUEST_TIMEOUT
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import AbstractCapability, Toolset, WebFetch, WebSearch
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.toolsets import AbstractToolset, DynamicToolset, FunctionToolset
from tests.agents.scripted import Script, call, crashed
from tests.agents.test_approvals import told
from tests.embedded.house import keys_of

from perdure import Registry
from perdure.agents import Call, CallHook, durable
from perdure.agents.failures import is_out_of_reach
from perdure.sdk.base.errors import ExecutionFailed
from perdure.testing import embedded
from perdure.wire.base.records import Kind

ASKED = httpx2.Request("GET", "http://crm.test/sse")


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
    clerk = durable(
        Agent(script.model, name="clerk", toolsets=[MCPToolset(server, id="crm", init_timeout=60)]), hooks=[Watch()]
    )
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
    toolset = MCPToolset(server, id="crm", init_timeout=60)
    clerk = durable(Agent(script.model, name="clerk", toolsets=[toolset]))
    async with toolset if held else nullcontext(), embedded(Registry(), parks=False) as p:
        assert "customer 8" in str(await clerk.run(p, "Who is 7?"))
    assert len(sessions) == 1 if held else len(sessions) > 2


@pytest.mark.parametrize("broken", [{1, 2, 4}, {5}], ids=["looks", "call"])
async def test_a_look_at_what_a_server_offers_is_tried_again_and_a_call_is_not(broken: set[int]) -> None:
    """Each step opens a session: two at the first request's begin, the fifth for the second call."""
    sessions = 0

    @asynccontextmanager
    async def lifespan(server: MCPServer) -> AsyncIterator[None]:
        nonlocal sessions
        sessions += 1
        if sessions in broken:
            raise ConnectionError("its database is away")
        yield

    server = MCPServer("crm", instructions="Ask for the number first.", lifespan=lifespan)
    server.tool()(customer)
    script = Script(call("customer", "c1", number=7), call("customer", "c2", number=8), told)
    toolset = MCPToolset(server, id="crm", include_instructions=True, init_timeout=60)
    async with embedded(Registry(clerk := durable(Agent(script.model, name="clerk", toolsets=[toolset])))) as p:
        handle = await clerk.start(p, "Who is 7?")
        if 5 in broken:
            with pytest.raises(ExecutionFailed, match="its database is away"):
                await handle.result()
            assert set(script.asked.values()) == {1} and "mcp:customer:c2" in await keys_of(handle, Kind.STEP)
        else:
            assert "customer 8" in str(await handle.result())
            again = await keys_of(handle, Kind.STEP_FAILED)
            assert again == ["tools:crm:1", "tools:crm:1", "instructions:crm:1"]
            assert all("Ask for the number first." in str(one) for one in script.instructions)


async def test_a_mistake_in_the_function_of_a_toolset_fails_at_once() -> None:
    made: list[Exception] = [KeyError("no such tenant"), ConnectionError("its registry is away")]
    left = list(made)

    def tools(ctx: RunContext[object]) -> AbstractToolset[Any]:
        raise left.pop()

    agent = Agent(Script("never").model, name="dynamic", toolsets=[DynamicToolset(tools, id="made")])
    async with embedded(Registry(dynamic := durable(agent))) as p:
        with pytest.raises(ExecutionFailed, match="no such tenant"):
            await dynamic.run(p, "?")
    assert not left


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (MCPError(CONNECTION_CLOSED, "Connection closed"), True),
        (MCPError(REQUEST_TIMEOUT, "timed out"), True),
        (MCPError(INTERNAL_ERROR, "Server returned an error response"), True),
        (MCPError(INVALID_PARAMS, "no such cursor"), False),
        (caused(RuntimeError("Client failed to connect"), httpx2.ConnectError("refused")), True),
        (caused(RuntimeError("Client failed to connect"), FileNotFoundError("no such program")), False),
        (caused(RuntimeError("Failed to initialize server session"), TimeoutError()), True),
        (httpx2.HTTPStatusError("busy", request=ASKED, response=httpx2.Response(503)), True),
        (httpx2.HTTPStatusError("no key", request=ASKED, response=httpx2.Response(401)), False),
        (ExceptionGroup("", [httpx2.ReadTimeout("slow")]), True),
        (ExceptionGroup("", [httpx2.ReadTimeout("slow"), TypeError("a mistake")]), False),
        (anyio.ClosedResourceError(), True),
        (AttributeError("a mistake"), False),
    ],
    ids=repr,
)
def test_which_failures_of_a_look_are_worth_another_try(error: Exception, again: bool) -> None:
    assert is_out_of_reach(error) is again


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


# --- toolsets that capabilities bring ------------------------------------------------------------------------------


class Lookup(AbstractCapability[Any]):
    """Makes a new toolset at each request, and has a toolset without an id for the other tool."""

    def __init__(self, ran: list[str], id: str | None) -> None:
        self.ran = ran
        self.toolset_id = id

    def get_toolset(self) -> FunctionToolset[Any]:
        toolset = FunctionToolset[Any](id=self.toolset_id)

        @toolset.tool_plain
        async def look(query: str) -> str:
            self.ran.append(query)
            return f"found {query}"

        return toolset


def search_by(ran: list[str]) -> list[Any]:
    async def look(query: str) -> str:
        ran.append(query)
        return f"found {query}"

    return [
        WebSearch(local=look),
        WebSearch(native=False, local=look),
        WebFetch(native=False, local=look),
        Lookup(ran, "lookup"),
    ]


@pytest.mark.parametrize("of_agent", [True, False], ids=["agent", "durable"])
@pytest.mark.parametrize("which", range(4), ids=["search", "local search", "fetch", "own"])
async def test_tools_that_a_capability_brings_are_steps(which: int, of_agent: bool) -> None:
    ran: list[str] = []
    capability = search_by(ran)[which]
    script = Script(call("look", "c1", query="it"), call("pause", "c2"), told)
    agent = Agent(script.model, name="clerk", capabilities=[capability] if of_agent else [])

    @agent.tool_plain(metadata={"perdure": False})
    async def pause() -> str:
        await asyncio.sleep(3_600)
        return "an hour later"

    clerk = durable(agent, capabilities=[] if of_agent else [capability])
    async with embedded(Registry(clerk), parks=False) as p:
        handle = await clerk.start(p, "?")
        assert "found it" in str(await handle.result())
        assert await keys_of(handle, Kind.STEP) == ["model:1", "tool:look:c1", "model:2", "model:3"]
    assert ran == ["it"], "a replay has what is recorded"


async def test_a_function_toolset_that_comes_with_the_run_needs_no_id() -> None:
    ran: list[str] = []
    script = Script(call("look", "c1", query="it"), told)
    clerk = durable(Agent(script.model, name="clerk"), capabilities=[Lookup(ran, None)])
    async with embedded(Registry(clerk), parks=False) as p:
        assert "found it" in str(await clerk.run(p, "?"))
    assert ran == ["it"]


async def test_two_toolsets_of_a_run_with_the_same_id_are_refused() -> None:
    agent = Agent(Script("never").model, name="clerk", capabilities=[Lookup([], "lookup")])
    clerk = durable(agent, capabilities=[Toolset(FunctionToolset[Any](id="lookup"))])
    async with embedded(Registry(clerk)) as p:
        with pytest.raises(ExecutionFailed, match="Two toolsets of a run have the id 'lookup'"):
            await clerk.run(p, "?")


async def test_a_server_that_comes_with_the_run_needs_an_id(server: MCPServer) -> None:
    clerk = durable(Agent(Script("never").model, name="clerk"), capabilities=[Toolset(MCPToolset(server))])
    async with embedded(Registry(clerk)) as p:
        with pytest.raises(ExecutionFailed, match="needs an `id`"):
            await clerk.run(p, "?")
