"""Kinds of journal rows."""

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from msgspec import Raw, Struct, UnsetType

NULL: Final = Raw(b"null")

if TYPE_CHECKING:
    MaybeRaw = Raw | None
else:
    # msgspec decodes `Raw | None` only from null; this type takes any JSON.
    MaybeRaw = Raw | UnsetType


class Kind(StrEnum):
    """The first group are outcomes, which workflow code awaited and replay delivers."""

    STEP = "step"
    """The value of the step if `ok`, otherwise the error after the last retry."""
    TIMER = "timer"
    EVENT = "event"
    """The value is the event."""
    RESUME = "resume"
    """A suspended step was answered; the value is the answer."""
    CHILD_STARTED = "child_started"
    """The value is the child's id."""
    CHILD = "child"
    """A child ended; `key` is the key of its start."""
    PUBLISHED = "published"
    """The value lists the sequence numbers of the published events."""
    SENT = "sent"
    """The execution answered a suspended step of another execution."""
    TRANSCRIPT = "transcript"
    """The execution read a session's transcript, added to it, or took messages of later turns, by `name`. The value
    holds versions, never messages."""
    MESSAGE = "message"
    """A later turn has a message that the execution may take; `name` is the turn's execution."""
    CANCEL = "cancel_asked"
    """The delivery cancels the workflow's main task."""

    STEP_FAILED = "step_failed"
    """A failed try of a step before a retry."""
    CLAIMED = "claimed"
    WAITING = "waiting"
    """A wait for a timer has the timer's fingerprint here, and the timer's own row may lack it."""
    WOKEN = "woken"
    """The pause before a step's next try is over; with a `key`, an act has ended the pause of that step."""
    FORKED = "forked"
    """Earlier rows are copies from the execution `name`; `key` is the first step to run again."""
    RETRIED = "retried"
    """The value is the `seq` of the failure taken back, a list of several, or null. With a `key`, an act lets the held
    step run again, with fresh tries."""
    HELD = "held"
    """The value is the error, with the keys of the `held` steps; no key if the code itself failed. `key` is the step's,
    if any."""
    IGNORED = "ignored"
    """The late outcome of a call after an act gave an outcome. The value describes the late outcome."""
    RELEASED = "released"
    LOST = "lost"
    BLOCKED = "blocked"
    UNBLOCKED = "unblocked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


OUTCOMES: Final[frozenset[Kind]] = frozenset(
    {
        Kind.STEP,
        Kind.TIMER,
        Kind.EVENT,
        Kind.RESUME,
        Kind.CHILD_STARTED,
        Kind.CHILD,
        Kind.PUBLISHED,
        Kind.SENT,
        Kind.TRANSCRIPT,
        Kind.MESSAGE,
        Kind.CANCEL,
    }
)


def fingerprint_of_timer(due_us: int) -> str:
    """Timers of an execution differ by due time."""
    return str(due_us)


class Problem(Struct, frozen=True, omit_defaults=True):
    """The shape of every error."""

    error: str
    error_type: str
    details: dict[str, object] | None = None
