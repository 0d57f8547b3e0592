"""Kinds of journal rows.

Times are integer microseconds since the epoch (`_us`). Values are JSON bytes (`Raw`), which nothing decodes between
their writer and their reader.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from msgspec import Raw, Struct, UnsetType

NULL: Final = Raw(b"null")

if TYPE_CHECKING:
    MaybeRaw = Raw | None
else:
    # msgspec decodes `Raw | None` only from null. This type takes any JSON, null included. A missing one reads as None.
    MaybeRaw = Raw | UnsetType


class Kind(StrEnum):
    """Kinds of journal rows. The first group are outcomes: workflow code awaited them, and replay delivers them."""

    STEP = "step"
    """A step's outcome: `ok` and its value, or not `ok` and its error after the last retry."""
    TIMER = "timer"
    """A timer of the workflow's code is due."""
    EVENT = "event"
    """A wait for an event was met; the value is the event."""
    RESUME = "resume"
    """A suspended step was answered; the value is the answer."""
    CHILD_STARTED = "child_started"
    """A child execution exists; the value is its id."""
    CHILD = "child"
    """A child reached a final phase; `key` is the key it was started under."""
    PUBLISHED = "published"
    """This execution published events; the value lists their sequence numbers."""
    SENT = "sent"
    """This execution answered a suspended step of another one."""
    TRANSCRIPT = "transcript"
    """The execution read a session's transcript, added to it, or took messages of later turns; `name` says which.
    The value holds versions, never messages."""
    MESSAGE = "message"
    """A later turn of the session has a message that this execution may take; `name` is that turn's execution."""
    CANCEL = "cancel_asked"
    """A cancel was requested. When this row is delivered, the workflow's main task is cancelled."""

    STEP_FAILED = "step_failed"
    """A failed try of a step that will be retried."""
    CLAIMED = "claimed"
    WAITING = "waiting"
    """It was suspended. If it waits for a timer, this row has the timer's fingerprint, and the timer's own row may
    lack it."""
    WOKEN = "woken"
    """The pause before a step's next try is over."""
    RETRIED = "retried"
    """The workflow's code failed and will be retried. The value is the `seq` of the failure taken back, a list of
    several, or null."""
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
    """Timers of an execution differ by their due time."""
    return str(due_us)


class Problem(Struct, frozen=True, omit_defaults=True):
    """The JSON shape of every error."""

    error: str
    error_type: str
    details: dict[str, object] | None = None
