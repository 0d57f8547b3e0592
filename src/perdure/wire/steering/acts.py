"""Pending calls of executions, and acts that decide the calls."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Struct, field

from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import ExecutionId, Int32, Int64, Json, KeyName, Name, Time, Uuid, text_check
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.base.records import NULL
from perdure.wire.base.status import Phase

NOTE_BYTES_MAX: Final = 2 << 10
ERROR_BYTES_MAX: Final = 2 << 10

Note = Annotated[str, text_check(NOTE_BYTES_MAX)]
"""The reason, kept with the author's name."""


class PendingKind(StrEnum):
    HELD = "held"
    """A held step or, without a key, the failed code of a held execution."""
    PAUSE = "pause"
    """A step between two tries."""
    STEP = "step"
    """A step that has run for at least 5 seconds."""
    TIMER = "timer"
    EVENT = "event"
    ANSWER = "answer"
    CHILD = "child"


class Action(StrEnum):
    TRY = "try"
    """Run the step again: a held step with fresh tries, a paused step now."""
    FIRE = "fire"
    """Let the timer end now."""
    COMPLETE = "complete"
    """Give the call a value."""
    FAIL = "fail"
    TIME_OUT = "time_out"
    """Raise `TimeoutError` in the waiting code."""


ACTIONS: Final[Mapping[PendingKind, tuple[Action, ...]]] = {
    PendingKind.HELD: (Action.TRY, Action.COMPLETE, Action.FAIL),
    PendingKind.PAUSE: (Action.TRY, Action.COMPLETE, Action.FAIL),
    PendingKind.STEP: (Action.COMPLETE, Action.FAIL),
    PendingKind.TIMER: (Action.FIRE,),
    PendingKind.EVENT: (Action.COMPLETE, Action.TIME_OUT),
    PendingKind.ANSWER: (Action.COMPLETE, Action.TIME_OUT),
    PendingKind.CHILD: (Action.COMPLETE, Action.FAIL),
}


class PendingCall(Record, frozen=True, kw_only=True):
    """A call of workflow code without an outcome, and the possible actions."""

    shown_as = "PendingCallResponse"

    key: str | None
    """Null: the code of a held execution itself."""
    kind: PendingKind
    name: str | None = None
    """The step's function, the topic, or the child's workflow."""
    since_us: Time | None = field(default=None, name="since")
    due_at_us: Time | None = field(default=None, name="due_at")
    """When the call ends or is tried again without an act."""
    tries: Int32 | None = None
    """Failed tries of the step so far."""
    error: str | None = None
    child_id: Uuid | None = None
    actions: list[Action]


class Actable(Struct, frozen=True, gc=False):
    """Facts of an execution that decide its pending calls."""

    id: str
    phase: Phase
    attempt: int
    next_seq: int
    kept_rows: int | None
    worker_id: str | None
    timer_key: str | None
    due_at_us: int | None
    ready_at_us: int | None
    error: str | None
    push: bool
    protocol: int
    """The last worker's protocol version."""


class Acted(Record, frozen=True):
    """`seq` is the journal row that the act wrote, or the last of several rows."""

    shown_as = "ActResponse"

    execution_id: Uuid
    key: str | None
    action: Action
    seq: Int64
    acted_by: str
    at_us: Time = field(name="at")


acts: Final = Noun("Executions")


@acts.get(
    "/api/v1/executions/{execution_id}/pending",
    under="pending",
    reply="PendingResponse",
    order="Held and paused steps first, then in the order of their begin.",
)
class GetPending(Operation[Listed[PendingCall]], frozen=True):
    """List the calls of an execution that have no outcome, and the possible actions of each.

    A step is listed after it has run for 5 seconds.
    """

    execution_id: ExecutionId


@acts.post("/api/v1/executions/{execution_id}/act", idempotent=True, body="ActRequest")
class ActOnExecution(Operation[Acted], frozen=True):
    """Decide a pending call: try, fire, complete, fail or time out.

    The first outcome stands. If the real outcome was first, the answer is 409. If the act was first, the journal notes
    a later real outcome as ignored.
    """

    execution_id: ExecutionId
    action: Action
    key: KeyName | None = None
    """Null: the held execution as a whole."""
    value: Json = NULL
    """The value of `complete`: the result, the event's data or the answer."""
    error: Annotated[str, text_check(ERROR_BYTES_MAX)] | None = None
    """The message of `fail`, raised in the code. Default: the recorded error."""
    deployment_id: Name | None = None
    """The deployment where a held execution continues after `try`."""
    note: Note | None = None

    def check(self) -> None:
        for name, given, action in (
            ("value", self.value is not None and bytes(self.value) != b"null", Action.COMPLETE),
            ("error", self.error is not None, Action.FAIL),
            ("deployment_id", self.deployment_id is not None, Action.TRY),
        ):
            if given and self.action is not action:
                raise BadValue(f"{name}: belongs to `{action}`, not to `{self.action}`", {"path": name})
        if self.key is None and self.action not in (Action.TRY, Action.FAIL):
            raise BadValue(f"key: `{self.action}` needs the key of what is pending", {"path": "key"})
