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
    """The first group are outcomes: workflow code awaited them, and replay delivers them."""

    STEP = "step"
    """`ok` and its value, or not `ok` and its error after the last retry."""
    TIMER = "timer"
    EVENT = "event"
    """The value is the event."""
    RESUME = "resume"
    """A suspended step was answered; the value is the answer."""
    CHILD_STARTED = "child_started"
    """The value is the child's id."""
    CHILD = "child"
    """A child ended; `key` is the key it was started under."""
    PUBLISHED = "published"
    """The value lists the sequence numbers of the published events."""
    SENT = "sent"
    """This execution answered a suspended step of another one."""
    TRANSCRIPT = "transcript"
    """It read a session's transcript, added to it, or took messages of later turns, by `name`. The value holds
    versions, never messages."""
    MESSAGE = "message"
    """A later turn has a message that this execution may take; `name` is that turn's execution."""
    CANCEL = "cancel_asked"
    """When it is delivered, the workflow's main task is cancelled."""

    STEP_FAILED = "step_failed"
    """A failed try of a step that will be retried."""
    CLAIMED = "claimed"
    WAITING = "waiting"
    """If it waits for a timer, this row has the timer's fingerprint, and the timer's own row may lack it."""
    WOKEN = "woken"
    """The pause before a step's next try is over; with a `key`, an act has ended the pause of that step."""
    FORKED = "forked"
    """The rows before it are copies from the execution `name`; `key` is the first step that runs again."""
    RETRIED = "retried"
    """The value is the `seq` of the failure taken back, a list of several, or null. With a `key`, an act lets the held
    step of that key run again, with fresh tries."""
    HELD = "held"
    """The value is the error, with the keys of the steps that are `held`; none if the code itself has failed. `key` is
    the step's if there is one."""
    IGNORED = "ignored"
    """The late outcome of a call that an act had given one. The value says what it was."""
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
    """Every error has this shape."""

    error: str
    error_type: str
    details: dict[str, object] | None = None
