"""The API's shapes of agents and tools, with the contract's names (see `wire/public.py`)."""

from msgspec import Struct

from perdure.wire.public import Double, Int32, Time
from perdure.wire.records import MaybeRaw


class RegisterAgentRequest(Struct, frozen=True):
    """An agent to make or to replace, by default in the current deployment."""

    id: str
    provider: str
    model: str
    deployment_id: str | None = None
    system_prompt: str | None = None
    tools: MaybeRaw = None
    temperature: Double | None = None
    max_output_tokens: Int32 | None = None
    config: MaybeRaw = None
    metadata: MaybeRaw = None


class RegisterAgentResponse(Struct, frozen=True):
    """The agent is stored."""

    success: bool


class AgentDefinition(Struct, frozen=True):
    """An agent of one deployment."""

    id: str
    deployment_id: str
    provider: str
    model: str
    created_at: Time
    updated_at: Time
    system_prompt: str | None = None
    tools: MaybeRaw = None
    temperature: Double | None = None
    max_output_tokens: Int32 | None = None
    config: MaybeRaw = None
    metadata: MaybeRaw = None


class RegisterToolRequest(Struct, frozen=True):
    """A tool to make or to replace, by default in the current deployment."""

    id: str
    deployment_id: str | None = None
    tool_type: str | None = None
    """`default`, unless it says otherwise."""
    description: str | None = None
    parameters: MaybeRaw = None
    """JSON schema of the arguments."""
    metadata: MaybeRaw = None


class RegisterToolResponse(Struct, frozen=True):
    """The tool is stored."""

    success: bool


class ToolDefinition(Struct, frozen=True):
    """A tool of one deployment."""

    id: str
    deployment_id: str
    tool_type: str
    created_at: Time
    updated_at: Time
    description: str | None = None
    parameters: MaybeRaw = None
    metadata: MaybeRaw = None
