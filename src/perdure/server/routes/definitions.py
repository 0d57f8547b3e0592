"""Definitions of agents and tools, as their workers register them."""

import msgspec
from msgspec import Struct

from perdure.server.routes.workflows import PageQuery
from perdure.server.routing import Call, Routes
from perdure.store.verbs.definitions import Definition
from perdure.wire.public import rfc3339
from perdure.wire.public_definitions import (
    AgentDefinition,
    RegisterAgentRequest,
    RegisterAgentResponse,
    RegisterToolRequest,
    RegisterToolResponse,
    ToolDefinition,
)

routes = Routes("Agents and tools")

_agent = msgspec.json.Decoder(RegisterAgentRequest).decode
_tool = msgspec.json.Decoder(RegisterToolRequest).decode


class DefinitionQuery(Struct, frozen=True):
    deployment_id: str | None = None
    """Default: the current one."""


@routes.post("/api/v1/agents/register", contract=True)
async def register_agent(call: Call, body: RegisterAgentRequest) -> RegisterAgentResponse:
    """Make or replace an agent's definition, at most 256 KiB."""
    value = msgspec.json.encode(body)
    await call.engine.definitions.register(call.project_id, "agent", body.deployment_id, body.id, value)
    return RegisterAgentResponse(True)


@routes.get("/api/v1/agents", contract=True, paged=True)
async def get_agents(call: Call, query: PageQuery) -> list[AgentDefinition]:
    """Agents of every deployment that is not retired: by name, then the newest first."""
    found, cursor = await call.engine.definitions.list(
        call.project_id, "agent", query.cursor, query.limit, query.offset
    )
    call.goes_on(cursor)
    return [_shown_agent(one) for one in found]


@routes.get("/api/v1/agents/{agent_id}", contract=True)
async def get_agent_definition(call: Call, agent_id: str, query: DefinitionQuery) -> AgentDefinition:
    """One agent's definition."""
    return _shown_agent(await call.engine.definitions.get(call.project_id, "agent", agent_id, query.deployment_id))


@routes.post("/api/v1/tools/register", contract=True)
async def register_tool(call: Call, body: RegisterToolRequest) -> RegisterToolResponse:
    """Make or replace a tool's definition, at most 256 KiB."""
    value = msgspec.json.encode(body)
    await call.engine.definitions.register(call.project_id, "tool", body.deployment_id, body.id, value)
    return RegisterToolResponse(True)


@routes.get("/api/v1/tools", contract=True, paged=True)
async def get_tools(call: Call, query: PageQuery) -> list[ToolDefinition]:
    """Tools of every deployment that is not retired: by name, then the newest first."""
    found, cursor = await call.engine.definitions.list(call.project_id, "tool", query.cursor, query.limit, query.offset)
    call.goes_on(cursor)
    return [_shown_tool(one) for one in found]


@routes.get("/api/v1/tools/{tool_id}", contract=True)
async def get_tool_definition(call: Call, tool_id: str, query: DefinitionQuery) -> ToolDefinition:
    """One tool's definition."""
    return _shown_tool(await call.engine.definitions.get(call.project_id, "tool", tool_id, query.deployment_id))


def _shown_agent(stored: Definition) -> AgentDefinition:
    agent = _agent(stored.value)
    return AgentDefinition(
        agent.id,
        stored.deployment_id,
        agent.provider,
        agent.model,
        rfc3339(stored.created_at_us),
        rfc3339(stored.updated_at_us),
        agent.system_prompt,
        agent.tools,
        agent.temperature,
        agent.max_output_tokens,
        agent.config,
        agent.metadata,
    )


def _shown_tool(stored: Definition) -> ToolDefinition:
    tool = _tool(stored.value)
    return ToolDefinition(
        tool.id,
        stored.deployment_id,
        tool.tool_type or "default",
        rfc3339(stored.created_at_us),
        rfc3339(stored.updated_at_us),
        tool.description,
        tool.parameters,
        tool.metadata,
    )
