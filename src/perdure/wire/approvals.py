"""What a suspended step asks, and what became of it."""

from enum import StrEnum
from typing import Final

from msgspec import Raw, Struct

from perdure.wire.status import Phase

ASKED: Final = "suspend_"
ANSWERED: Final = "resume_"
"""How the types of the events begin by which push workers ask, and are answered; the step's key is the rest."""


class QuestionState(StrEnum):
    """Where a question stands."""

    OPEN = "open"
    ANSWERED = "answered"
    EXPIRED = "expired"
    CLOSED = "closed"
    """Given up: the code went on without an answer, or the execution has ended."""


class How(StrEnum):
    """Which way an answer came."""

    API = "api"
    """With a key, or as a user."""
    PAGE = "page"
    """On the page, by somebody who had signed in."""
    LINK = "link"
    """By whoever had the signed link."""


class Became(StrEnum):
    """What became of an answer."""

    ANSWERED = "answered"
    """It stands, and the step goes on with it."""
    EARLY = "early"
    """No step has asked yet. A step that shows nothing takes it; a question that comes later does not."""


class Approval(Struct, frozen=True):
    """Who answered what, and when."""

    answered_at_us: int
    answered_by: str
    how: How
    data: Raw


class Resumed(Struct, frozen=True):
    """What became of an answer, and the one that stands."""

    became: Became
    approval: Approval | None
    """None: it is not known who gave it."""


class Question(Struct, frozen=True):
    """What a suspended step asks."""

    id: str
    """Of this very question: what is asked later under the same key has another one."""
    execution_id: str
    """Whose step asks."""
    root_execution_id: str
    workflow_id: str
    step_key: str
    phase: Phase
    """Of the execution that was asked about."""
    state: QuestionState
    data: Raw
    """What is shown to whoever answers."""
    asked_at_us: int
    expires_at_us: int | None = None
    topic: str | None = None
    """Where the answer is published, if the one who asks looks for it there."""
    approval: Approval | None = None
    early: Approval | None = None
    """One that came before the question, and does not count."""
    must_name: bool = False
    """Whether an answer has to name the question, since it could be meant for another one."""
