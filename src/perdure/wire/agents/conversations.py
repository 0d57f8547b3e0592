"""Conversations: histories that older workers keep."""

from typing import Annotated, Final

from msgspec import Raw, field

from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import ExecutionId, Int64, KeyName, Name, RequiredJson, Time
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Done, Record


class ConversationMessage(Record, frozen=True):
    """A message. Each message of a conversation has a larger `id` than the message before."""

    id: Int64
    conversation_id: str
    agent_id: str
    role: str
    content: Raw
    created_at_us: Time = field(name="created_at")
    agent_run_id: str | None = None


def _one_or_more(value: int, where: str) -> int:
    if value < 1:
        raise BadRequest(f"`{where}` must be 1 or more, got {value}.")
    return value


Newest = Annotated[Int64, _one_or_more]

conversations: Final = Noun("Conversations")


@conversations.get(
    "/api/v1/conversation/{conversation_id}/get",
    contract=True,
    under="messages",
    reply="ConversationResponse",
    order="Oldest first.",
)
class GetConversationHistory(Operation[Listed[ConversationMessage]], frozen=True):
    """The newest messages of an agent in a conversation, oldest first, up to 8 MiB."""

    conversation_id: str
    agent_id: str
    deployment_id: str | None = None
    """Ignored."""
    limit: Newest | None = None
    """Count of the newest messages; at most 1,000, the default."""


@conversations.post(
    "/internal/conversation/{conversation_id}/add",
    role=Role.WORK,
    contract=True,
    idempotent=True,
    body="AddMessageRequest",
)
class AddConversationMessage(Operation[Done], frozen=True):
    """Append a message.

    Each agent keeps its newest messages, at most 10,000.
    """

    conversation_id: KeyName
    agent_id: Name
    role: Name
    content: RequiredJson
    agent_run_id: ExecutionId | None = None
    """The execution that wrote the message."""
    conversation_history_limit: Newest | None = None
    """Count of this agent's newest messages to keep."""
