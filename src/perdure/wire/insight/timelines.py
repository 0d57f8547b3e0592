"""The timeline of an execution: the journal without large values, folded to spans."""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import field

from perdure.wire.base.fields import Double, ExecutionId, Int32, Int64, Position, Time, Uuid, Value, between, described
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase

ROWS_MAX: Final = 10_000
MESSAGE_CHARS_MAX: Final = 500


class SpanKind(StrEnum):
    STEP = "step"
    TIMER = "timer"
    EVENT = "event"
    ANSWER = "answer"
    CHILD = "child"
    PUBLISH = "publish"
    SENT = "sent"
    """An answer sent to another execution."""
    TRANSCRIPT = "transcript"
    MESSAGE = "message"
    CANCEL = "cancel"


class SpanState(StrEnum):
    RUNNING = "running"
    """The newest beat of a worker says that the call is in flight, or a child is not final."""
    COMPLETED = "completed"
    FAILED = "failed"
    WAITING = "waiting"
    PAUSED = "paused"
    """The call waits for its next try."""
    HELD = "held"
    LOST = "lost"
    """The worker was lost during the call."""
    CLOSED = "closed"
    """The code no longer waits for the call."""
    CANCELLED = "cancelled"
    """A cancelled child."""


class ClaimEnd(StrEnum):
    WAITING = "waiting"
    RELEASED = "released"
    LOST = "lost"
    RETRIED = "retried"
    HELD = "held"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SpanError(Record, frozen=True, omit_defaults=True):
    """The first 500 characters of a recorded error."""

    type: str = "Error"
    message: str = ""


class SpanTry(Record, frozen=True, omit_defaults=True, kw_only=True):
    """A try with a recorded outcome."""

    n: Int32
    seq: Int64
    attempt: Int32
    started_at_us: Time | None = None
    ended_at_us: Time
    ok: bool
    error: SpanError | None = None
    retry_at_us: Time | None = None
    """When the next try begins."""


class SpanRun(Record, frozen=True, omit_defaults=True, kw_only=True):
    """A try without an outcome: a running try or, with `lost_at`, a try whose worker was lost."""

    attempt: Int32
    worker: str
    n: Int32
    started_at_us: Time
    lost_at_us: Time | None = None


class SpanWait(Record, frozen=True, omit_defaults=True, kw_only=True):
    what: str = field(name="for")
    """timer, event or answer."""
    topic: str | None = None
    match: Value = None
    until_us: Time | None = field(default=None, name="until")
    by: str | None = None
    """The author of the answer."""


class SpanChild(Record, frozen=True, omit_defaults=True, kw_only=True):
    """A child; a deleted child has no phase."""

    execution_id: Uuid
    workflow_id: str
    phase: Phase | None = None


class TimelineSpan(Record, frozen=True, omit_defaults=True, kw_only=True):
    """A call of the workflow's code. `kind` and `key` identify it across pages."""

    key: str
    kind: SpanKind
    name: str | None = None
    """The step's function, the topic or the child's workflow."""
    label: str | None = None
    """How people read a step."""
    quiet: bool = False
    """Neighbouring spans may be folded with a quiet span."""
    state: SpanState
    queued_at_us: Time | None = None
    """When a child was created."""
    started_at_us: Time | None = None
    ended_at_us: Time | None = None
    """When the newest outcome came."""
    tries: list[SpanTry] = field(default_factory=list)
    runs: list[SpanRun] = field(default_factory=list)
    wait: SpanWait | None = None
    child: SpanChild | None = None
    error: SpanError | None = None
    """The error of a call without tries."""
    edited: str | None = None
    """The act that decided the call."""
    copied: bool = False
    """Whether a fork copied the rows."""
    bytes: Int64 | None = None
    """The value's size."""
    usd: Double | None = None
    tokens: Int64 | None = None
    seqs: list[Int64] = field(default_factory=list)
    """Journal rows of the call."""


class TimelineClaim(Record, frozen=True, omit_defaults=True, kw_only=True):
    """A worker held the execution. Without `to` the worker still does, or a later page says when the hold ended."""

    attempt: Int32
    worker: str | None = None
    from_us: Time | None = field(default=None, name="from")
    seq: Int64 | None = None
    to_us: Time | None = field(default=None, name="to")
    to_seq: Int64 | None = None
    how: ClaimEnd | None = None
    copied: bool = False


class TimelineMark(Record, frozen=True, omit_defaults=True, kw_only=True):
    """A change of the execution outside all spans."""

    seq: Int64
    at_us: Time
    kind: Kind
    key: str | None = None
    name: str | None = None
    error: SpanError | None = None


class Proof(Record, frozen=True):
    """Counts over the rows of the page."""

    lost: Int64
    """How many times a worker was lost with the execution."""
    steps_rerun: Int64
    """Outcomes of steps beyond the first, apart from failures taken back by a retry."""


class Timeline(Record, frozen=True, omit_defaults=True, kw_only=True):
    """Folded rows after `after` up to `last_seq`. Spans and claims of the page before are continued."""

    shown_as = "TimelineResponse"

    execution_id: Uuid
    last_seq: Int64
    has_more: Annotated[bool, described("Whether rows follow: ask for those after `last_seq`.")]
    spans: list[TimelineSpan]
    """Spans in the order of their first rows. The last page has open waits and runs."""
    claims: list[TimelineClaim]
    marks: list[TimelineMark]
    counts: dict[str, int]
    """The page's rows by kind."""
    proof: Proof


timelines: Final = Noun("Executions")


@timelines.get("/api/v1/executions/{execution_id}/timeline")
class GetTimeline(Operation[Timeline], frozen=True):
    """The journal of an execution, folded to spans: steps with their tries, waits and children, and the claims of
    workers.

    A page may fold fewer rows than `limit`. To merge the pages, append lists. Of `name`, `label`, `queued_at`,
    `started_at` and of claims keep the first value, of other fields the last. Add up `counts` and `proof`.
    """

    execution_id: ExecutionId
    after: Position = 0
    """The `last_seq` of the page before."""
    limit: Annotated[int, between(1, ROWS_MAX), described(f"Rows: 1 to {ROWS_MAX:,}.")] = 5_000
