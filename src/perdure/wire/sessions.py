"""Sessions: the conversations of agents, as the store knows them."""

from collections.abc import Sequence
from typing import Final

from msgspec import Raw, Struct

from perdure.wire.status import Phase

SUMMARY_BYTES_MAX: Final = 1 << 20


class Memory(Struct, frozen=True):
    """What an agent remembers of a session. `version` counts the writes; 0: there was none."""

    summary: str | None
    messages: Raw
    version: int


class SessionTool(Struct, frozen=True):
    """A call of a tool by a durable agent, as its step recorded it; without its value when that is too large."""

    name: str
    ok: bool
    at_us: int
    value: bytes | None


class SessionRun(Struct, frozen=True):
    """A root execution of a session. Payload and result are None when they are too large to be shown."""

    id: str
    workflow_id: str
    phase: Phase
    session_id: str
    created_at_us: int
    started_at_us: int | None
    completed_at_us: int | None
    error: str | None
    payload: bytes | None
    result: bytes | None
    approvals: int
    """How many suspended steps asked something."""
    input_tokens: int = 0
    output_tokens: int = 0
    """What the models took that a durable agent asked, as far as it is recorded."""
    tools: Sequence[SessionTool] = ()
    """What a durable agent called, as far as it is recorded."""


class Question(Struct, frozen=True):
    """What a suspended step asked, and how it was answered."""

    step_key: str
    open: bool
    asked_at_us: int
    request: bytes | None = None
    answered_at_us: int | None = None
    response: bytes | None = None


class Session(Struct, frozen=True):
    """The runs of a session, oldest first, with what their steps asked; and the one that it was asked for by."""

    run: SessionRun
    runs: Sequence[SessionRun]
    questions: Sequence[Question]
