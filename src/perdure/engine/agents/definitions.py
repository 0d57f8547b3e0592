from __future__ import annotations

from typing import Any

from msgspec import Struct, json
from msgspec.structs import asdict

from perdure.engine.base.cursors import registry_place, write_cursor
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.agents import definitions
from perdure.store.verbs.agents.definitions import StoredDefinition
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
from perdure.wire.base.operation import Listed, RegistryPage
from perdure.wire.base.records import NULL
from perdure.wire.runs.workflows import WorkflowType


class Definitions(Service):
    @serves(RegisterAgent)
    async def register_agent(self, scope: Scope, op: RegisterAgent) -> RegisteredDefinition:
        await self._register(scope, WorkflowType.AGENT, op)
        return RegisteredDefinition(True)

    @serves(GetAgents)
    async def agents(self, scope: Scope, op: GetAgents) -> Listed[AgentDefinition]:
        found, cursor = await self._list(scope, WorkflowType.AGENT, op)
        return Listed([_agent(one) for one in found], cursor)

    @serves(GetAgentDefinition)
    async def agent(self, scope: Scope, op: GetAgentDefinition) -> AgentDefinition:
        return _agent(await self._get(scope, WorkflowType.AGENT, op.deployment_id, op.agent_id))

    @serves(RegisterTool)
    async def register_tool(self, scope: Scope, op: RegisterTool) -> RegisteredDefinition:
        await self._register(scope, WorkflowType.TOOL, op)
        return RegisteredDefinition(True)

    @serves(GetTools)
    async def tools(self, scope: Scope, op: GetTools) -> Listed[ToolDefinition]:
        found, cursor = await self._list(scope, WorkflowType.TOOL, op)
        return Listed([_tool(one) for one in found], cursor)

    @serves(GetToolDefinition)
    async def tool(self, scope: Scope, op: GetToolDefinition) -> ToolDefinition:
        return _tool(await self._get(scope, WorkflowType.TOOL, op.deployment_id, op.tool_id))

    async def _register(self, scope: Scope, kind: WorkflowType, op: RegisterAgent | RegisterTool) -> None:
        await self.write(
            definitions.register_definition(
                project_id=scope.project_id,
                kind=kind,
                deployment_id=op.deployment_id,
                id=op.id,
                value=json.encode(op),
                now_us=self.now_us(),
            )
        )

    async def _get(self, scope: Scope, kind: WorkflowType, deployment_id: str | None, id: str) -> StoredDefinition:
        return await self.read(
            definitions.get_definition(project_id=scope.project_id, kind=kind, deployment_id=deployment_id, id=id)
        )

    async def _list(
        self, scope: Scope, kind: WorkflowType, page: RegistryPage
    ) -> tuple[list[StoredDefinition], str | None]:
        found, following = await self.read(
            definitions.list_definitions(
                project_id=scope.project_id,
                kind=kind,
                after=registry_place(page.cursor),
                limit=page.limit,
                offset=page.offset,
            )
        )
        return found, None if following is None else write_cursor(following)


def _agent(stored: StoredDefinition) -> AgentDefinition:
    return AgentDefinition(**_fields(stored, RegisterAgent))


def _tool(stored: StoredDefinition) -> ToolDefinition:
    return ToolDefinition(**{"tool_type": "default", **_fields(stored, RegisterTool)})


def _fields(stored: StoredDefinition, registered: type[Struct]) -> dict[str, Any]:
    """Return the registered values except nulls, with the row's columns."""
    given = asdict(json.decode(stored.value, type=registered))
    return {
        **{name: value for name, value in given.items() if value not in (None, NULL)},
        "deployment_id": stored.deployment_id,
        "created_at_us": stored.created_at_us,
        "updated_at_us": stored.updated_at_us,
    }
