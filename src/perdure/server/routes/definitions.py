"""Definitions of agents and tools, as their workers register them."""

import msgspec
from msgspec import Struct

from perdure.engine.deployments import LIST_MAX
from perdure.server.routing import Call, Routes
from perdure.store.verbs.definitions import Definition
from perdure.wire.public import Int64, rfc3339
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


class DefinitionsQuery(Struct, frozen=True):
    limit: Int64 = LIST_MAX
    """1 to 1,000."""
    offset: Int64 = 0
    """How many to leave out; 0 to 100,000."""


class DefinitionQuery(Struct, frozen=True):
    deployment_id: str | None = None
    """Default: the current one."""


@routes.post("/api/v1/agents/register", contract=True)
async def register_agent(call: Call, body: RegisterAgentRequest) -> RegisterAgentResponse:
    """Make or replace an agent's definition, at most 256 KiB."""
    value = msgspec.json.encode(body)
    await call.engine.definitions.register(call.project_id, "agent", body.deployment_id, body.id, value)
    return RegisterAgentResponse(True)


@routes.get("/api/v1/agents", contract=True)
async def get_agents(call: Call, query: DefinitionsQuery) -> list[AgentDefinition]:
    """Agents of every deployment that is not retired: by name, then the newest first."""
    found = await call.engine.definitions.list(call.project_id, "agent", query.limit, query.offset)
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


@routes.get("/api/v1/tools", contract=True)
async def get_tools(call: Call, query: DefinitionsQuery) -> list[ToolDefinition]:
    """Tools of every deployment that is not retired: by name, then the newest first."""
    found = await call.engine.definitions.list(call.project_id, "tool", query.limit, query.offset)
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
