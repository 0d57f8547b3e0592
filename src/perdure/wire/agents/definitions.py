"""Definitions of agents and tools, registered by workers."""

from typing import Final

from msgspec import field
from msgspec.json import encode

from perdure.wire.base.access import Role
from perdure.wire.base.codec import check_json
from perdure.wire.base.fields import Double, Int32, KeyName, Name, Time, Value
from perdure.wire.base.operation import Listed, Noun, Operation, RegistryPage
from perdure.wire.base.record import Record
from perdure.wire.base.records import MaybeRaw

DEFINITION_BYTES_MAX: Final = 256 << 10
BODY_BYTES_MAX: Final = 4 * DEFINITION_BYTES_MAX


class AgentDefinition(Record, frozen=True):
    id: str
    deployment_id: str
    provider: str
    model: str
    created_at_us: Time = field(name="created_at")
    updated_at_us: Time = field(name="updated_at")
    system_prompt: str | None = None
    tools: Value = None
    temperature: Double | None = None
    max_output_tokens: Int32 | None = None
    config: Value = None
    metadata: Value = None


class ToolDefinition(Record, frozen=True):
    id: str
    deployment_id: str
    tool_type: str
    created_at_us: Time = field(name="created_at")
    updated_at_us: Time = field(name="updated_at")
    description: str | None = None
    parameters: Value = None
    metadata: Value = None


class RegisteredDefinition(Record, frozen=True):
    success: bool


definitions: Final = Noun("Agents and tools")


@definitions.post(
    "/api/v1/agents/register",
    role=Role.WORK,
    repeated="no effect",
    contract=True,
    reply="RegisterAgentResponse",
    body_bytes_max=BODY_BYTES_MAX,
)
class RegisterAgent(Operation[RegisteredDefinition], frozen=True, forbid_unknown_fields=False, omit_defaults=False):
    """Make or replace an agent's definition, at most 256 KiB."""

    id: Name
    provider: str
    model: str
    deployment_id: KeyName | None = None
    """Default: the current deployment."""
    system_prompt: str | None = None
    tools: MaybeRaw = None
    temperature: Double | None = None
    max_output_tokens: Int32 | None = None
    config: MaybeRaw = None
    metadata: MaybeRaw = None

    def check(self) -> None:
        check_json(encode(self), where="body", max_bytes=DEFINITION_BYTES_MAX)


@definitions.get("/api/v1/agents", contract=True)
class GetAgents(RegistryPage, Operation[Listed[AgentDefinition]], frozen=True):
    """Agents of every deployment except retired ones: by name, then newest first."""


@definitions.get("/api/v1/agents/{agent_id}", contract=True)
class GetAgentDefinition(Operation[AgentDefinition], frozen=True):
    """The definition of an agent."""

    agent_id: str
    deployment_id: str | None = None
    """Default: the current deployment."""


@definitions.post(
    "/api/v1/tools/register",
    role=Role.WORK,
    repeated="no effect",
    contract=True,
    reply="RegisterToolResponse",
    body_bytes_max=BODY_BYTES_MAX,
)
class RegisterTool(Operation[RegisteredDefinition], frozen=True, forbid_unknown_fields=False, omit_defaults=False):
    """Make or replace a tool's definition, at most 256 KiB."""

    id: Name
    deployment_id: KeyName | None = None
    """Default: the current deployment."""
    tool_type: str | None = None
    """Default: `default`."""
    description: str | None = None
    parameters: MaybeRaw = None
    """JSON schema of the arguments."""
    metadata: MaybeRaw = None

    def check(self) -> None:
        check_json(encode(self), where="body", max_bytes=DEFINITION_BYTES_MAX)


@definitions.get("/api/v1/tools", contract=True)
class GetTools(RegistryPage, Operation[Listed[ToolDefinition]], frozen=True):
    """Tools of every deployment except retired ones: by name, then newest first."""


@definitions.get("/api/v1/tools/{tool_id}", contract=True)
class GetToolDefinition(Operation[ToolDefinition], frozen=True):
    """The definition of a tool."""

    tool_id: str
    deployment_id: str | None = None
    """Default: the current deployment."""
