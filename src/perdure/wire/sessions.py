"""Sessions: the conversations of agents, as the store knows them."""

from collections.abc import Sequence
from typing import Final

from msgspec import Raw, Struct

from perdure.wire.status import Phase

SUMMARY_BYTES_MAX: Final = 1 << 20


class Memory(Struct, frozen=True):
    """An agent's memory of a session. `version` counts the writes; 0: none yet."""

    summary: str | None
    messages: Raw
    version: int


class SessionTool(Struct, frozen=True):
    """A durable agent's tool call, as its step recorded it; without a value that is too large."""

    name: str
    ok: bool
    at_us: int
    value: bytes | None


class SessionRun(Struct, frozen=True):
    """A root execution of a session. A payload or result of None was too large to be shown."""

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
    """How many suspended steps asked a question."""
    input_tokens: int = 0
    output_tokens: int = 0
    """Recorded tokens of a durable agent's models."""
    tools: Sequence[SessionTool] = ()
    """Recorded tool calls of a durable agent."""


class Question(Struct, frozen=True):
    """A suspended step's question and its answer."""

    step_key: str
    open: bool
    asked_at_us: int
    request: bytes | None = None
    answered_at_us: int | None = None
    response: bytes | None = None


class Session(Struct, frozen=True):
    """The runs of a session, oldest first, with their questions, and the requested run."""

    run: SessionRun
    runs: Sequence[SessionRun]
    questions: Sequence[Question]
