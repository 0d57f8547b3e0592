"""The API's shapes of conversations and Slack apps, with the contract's names (see `wire/public.py`)."""

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


class RegisterSlackAppRequest(Struct, frozen=True):
    """A Slack app to bind to the project."""

    api_app_id: str


class SlackApp(Struct, frozen=True):
    """A Slack app of the project."""

    api_app_id: str
    bound_at: Time


class SlackAppsResponse(Struct, frozen=True):
    """The project's Slack apps, by id; at most 1,000."""

    apps: list[SlackApp]
