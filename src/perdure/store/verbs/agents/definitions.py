"""Definitions of agents and tools."""

from functools import partial
from typing import Any, Final

from msgspec import json
from msgspec.structs import asdict

from perdure.store.base.interface import query, serves
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.runs.deployments import RegistryPlace, active_deployment, registry_place
from perdure.wire.agents.definitions import (
    AgentDefinition,
    GetAgentDefinition,
    GetAgents,
    GetToolDefinition,
    GetTools,
    RegisterAgent,
    RegisteredDefinition,
    RegisterTool,
    ToolDefinition,
)
from perdure.wire.base.cursors import write_cursor
from perdure.wire.base.errors import BadRequest, NotFound
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.operation import Listed, RegistryPage
from perdure.wire.base.records import NULL
from perdure.wire.runs.workflows import WorkflowType

_KINDS: Final[dict[WorkflowType, tuple[Any, Any]]] = {
    WorkflowType.AGENT: (RegisterAgent, AgentDefinition),
    WorkflowType.TOOL: (RegisterTool, partial(ToolDefinition, tool_type="default")),
}
"""The registered record of each kind, and the shown record."""


@serves(RegisterAgent, sweep=True)
async def register_agent(at: At, op: RegisterAgent) -> RegisteredDefinition:
    return await _register(at, WorkflowType.AGENT, op)


@serves(RegisterTool, sweep=True)
async def register_tool(at: At, op: RegisterTool) -> RegisteredDefinition:
    return await _register(at, WorkflowType.TOOL, op)


@serves(GetAgentDefinition, reads=True)
async def get_agent(at: At, op: GetAgentDefinition) -> AgentDefinition:
    agent: AgentDefinition = await _get(at, WorkflowType.AGENT, op.deployment_id, op.agent_id)
    return agent


@serves(GetToolDefinition, reads=True)
async def get_tool(at: At, op: GetToolDefinition) -> ToolDefinition:
    tool: ToolDefinition = await _get(at, WorkflowType.TOOL, op.deployment_id, op.tool_id)
    return tool


@serves(GetAgents, reads=True)
async def list_agents(at: At, op: GetAgents) -> Listed[AgentDefinition]:
    return await _list(at, WorkflowType.AGENT, op)


@serves(GetTools, reads=True)
async def list_tools(at: At, op: GetTools) -> Listed[ToolDefinition]:
    return await _list(at, WorkflowType.TOOL, op)


async def _register(at: At, kind: WorkflowType, op: RegisterAgent | RegisterTool) -> RegisteredDefinition:
    deployment_id = await active_deployment(at.project_id, op.deployment_id)
    await query("put_definition", at, kind=kind, deployment_id=deployment_id, id=op.id, value=json.encode(op))
    return RegisteredDefinition(True)


async def _get(at: At, kind: WorkflowType, deployment_id: str | None, id: str) -> Any:
    deployment_id = await active_deployment(at.project_id, deployment_id)
    for row in await query("read_definition", at, kind=kind, deployment_id=deployment_id, id=id):
        return _shown(kind, row)
    raise NotFound(f"Deployment {deployment_id!r} has no {kind} {id!r}.")


async def _list(at: At, kind: WorkflowType, op: RegistryPage) -> Listed[Any]:
    """A page cannot end early, as in `list_runs`."""
    wanted = {"kind": kind, "offset": op.offset, **registry_place(op.cursor)._asdict()}
    rows = await query("definition_sizes", at, limit=op.limit + 1, **wanted)
    page = [RegistryPlace(*place) for _, *place in rows[: op.limit]]
    total = sum(size for size, *_ in rows[: op.limit])
    if len(page) > 1 and total > REPLY_BYTES_MAX:
        raise BadRequest(
            f"These {len(page)} definitions are {total:,} bytes; an answer has at most {REPLY_BYTES_MAX:,}. Ask for "
            "fewer at once with `limit`."
        )
    found = await query("list_definitions", at, limit=op.limit, **wanted)
    return Listed([_shown(kind, row) for row in found], write_cursor(page[-1]) if len(rows) > op.limit else None)


def _shown(kind: WorkflowType, row: tuple[Any, ...]) -> Any:
    """The registered values except nulls, with the row's columns."""
    deployment_id, value, created_at_us, updated_at_us = row
    registered, shown = _KINDS[kind]
    given = asdict(json.decode(value, type=registered))
    fields = {name: value for name, value in given.items() if value not in (None, NULL)}
    return shown(
        **fields | {"deployment_id": deployment_id, "created_at_us": created_at_us, "updated_at_us": updated_at_us}
    )
