"""Questions of suspended steps, and their answers."""

from enum import StrEnum
from typing import Final

from msgspec import Raw, Struct

from perdure.wire.status import Phase

ASKED: Final = "suspend_"
ANSWERED: Final = "resume_"
"""Prefixes of the event types by which push workers ask and are answered; the step's key follows."""


class QuestionState(StrEnum):
    OPEN = "open"
    ANSWERED = "answered"
    EXPIRED = "expired"
    CLOSED = "closed"
    """Given up: the code continued without an answer, or the execution ended."""


class How(StrEnum):
    """The way by which an answer came."""

    API = "api"
    """With a key, or as a user."""
    PAGE = "page"
    """On the page, by a signed-in user."""
    LINK = "link"
    """By a holder of the signed link."""


class Became(StrEnum):
    """The effect of an answer."""

    ANSWERED = "answered"
    """It stands, and the step continues with it."""
    EARLY = "early"
    """No step has asked yet. A step that shows nothing takes it; a later question does not."""


class Approval(Struct, frozen=True):
    """An answer, its author and its time."""

    answered_at_us: int
    answered_by: str
    how: How
    data: Raw


class Resumed(Struct, frozen=True):
    """An answer's effect, and the answer that stands."""

    became: Became
    approval: Approval | None
    """None: its author is not known."""


class Question(Struct, frozen=True):
    """A suspended step's question."""

    id: str
    """The question's id; a later question under the same key has another."""
    execution_id: str
    """The execution whose step asks."""
    root_execution_id: str
    workflow_id: str
    step_key: str
    phase: Phase
    """Of the execution named in the request."""
    state: QuestionState
    data: Raw
    """The data for the person who answers."""
    asked_at_us: int
    expires_at_us: int | None = None
    topic: str | None = None
    """Where the answer is published, if the asking step reads it there."""
    approval: Approval | None = None
    early: Approval | None = None
    """An answer from before the question, which does not count."""
    must_name: bool = False
    """Whether an answer must name the question, because it could be meant for another one."""
