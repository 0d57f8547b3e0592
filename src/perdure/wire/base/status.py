"""The state machine as data.

The verbs, the CHECK constraints, the documentation's diagram and the tests read `TRANSITIONS`. An execution that is
woken into a waiting claim makes two moves at once: wake and claim.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class Phase(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    CANCELLING = "cancelling"
    BLOCKED = "blocked"
    HELD = "held"
    """Failed, and waits for the decision of a person or a program."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Status(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATUS: Final[dict[Phase, Status]] = {
    Phase.QUEUED: Status.PENDING,
    Phase.RUNNING: Status.RUNNING,
    Phase.WAITING: Status.RUNNING,
    Phase.CANCELLING: Status.RUNNING,
    Phase.BLOCKED: Status.RUNNING,
    Phase.HELD: Status.RUNNING,
    Phase.COMPLETED: Status.COMPLETED,
    Phase.FAILED: Status.FAILED,
    Phase.CANCELLED: Status.CANCELLED,
}

FINAL: Final[frozenset[Phase]] = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED})
LEASED: Final[frozenset[Phase]] = frozenset({Phase.RUNNING, Phase.CANCELLING})


class Move(NamedTuple):
    """A transition. A worker requests a fenced move with its attempt."""

    sources: frozenset[Phase]
    target: Phase
    fenced: bool = False


TRANSITIONS: Final[dict[str, Move]] = {
    "claim": Move(frozenset({Phase.QUEUED}), Phase.RUNNING),
    "claim_cancelling": Move(frozenset({Phase.QUEUED}), Phase.CANCELLING),
    "suspend": Move(frozenset({Phase.RUNNING}), Phase.WAITING, fenced=True),
    "wake": Move(frozenset({Phase.WAITING}), Phase.QUEUED),
    "complete": Move(LEASED, Phase.COMPLETED, fenced=True),
    "fail": Move(LEASED, Phase.FAILED, fenced=True),
    "retry": Move(frozenset({Phase.RUNNING}), Phase.QUEUED, fenced=True),
    "release": Move(frozenset({Phase.RUNNING}), Phase.QUEUED, fenced=True),
    "lose": Move(frozenset({Phase.RUNNING}), Phase.QUEUED),
    "poison": Move(frozenset({Phase.RUNNING}), Phase.FAILED),
    "block": Move(frozenset({Phase.RUNNING}), Phase.BLOCKED, fenced=True),
    "unblock": Move(frozenset({Phase.BLOCKED}), Phase.QUEUED),
    "hold": Move(frozenset({Phase.RUNNING}), Phase.HELD, fenced=True),
    "release_hold": Move(frozenset({Phase.HELD}), Phase.QUEUED),
    "give_up": Move(frozenset({Phase.HELD}), Phase.FAILED),
    "cancel": Move(frozenset({Phase.QUEUED, Phase.WAITING, Phase.BLOCKED, Phase.HELD}), Phase.CANCELLED),
    "ask_cancel": Move(frozenset({Phase.RUNNING}), Phase.CANCELLING),
    "confirm_cancel": Move(frozenset({Phase.CANCELLING}), Phase.CANCELLED, fenced=True),
    "overrule": Move(frozenset({Phase.CANCELLING}), Phase.CANCELLED),
}
