"""The API's shapes of conversations, with the contract's names (see `wire/public.py`)."""

from msgspec import Raw, Struct

from perdure.wire.public import Int64, Time


class AddMessageRequest(Struct, frozen=True):
    """A message to append."""

    agent_id: str
    role: str
    content: Raw
    agent_run_id: str | None = None
    """The execution that wrote it."""
    conversation_history_limit: Int64 | None = None
    """How many of this agent's newest messages to keep."""


class ConversationMessage(Struct, frozen=True):
    """One message; `id` grows within its conversation."""

    id: Int64
    conversation_id: str
    agent_id: str
    role: str
    content: Raw
    created_at: Time
    agent_run_id: str | None = None


class ConversationResponse(Struct, frozen=True):
    """The newest messages, oldest first."""

    messages: list[ConversationMessage]
