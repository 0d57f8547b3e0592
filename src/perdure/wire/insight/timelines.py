"""The timeline of an execution: its journal without large values, folded to spans."""

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
    """It answered another execution."""
    TRANSCRIPT = "transcript"
    MESSAGE = "message"
    CANCEL = "cancel"


class SpanState(StrEnum):
    RUNNING = "running"
    """A worker has it in flight, as its newest beat says; or a child that is not final."""
    COMPLETED = "completed"
    FAILED = "failed"
    WAITING = "waiting"
    PAUSED = "paused"
    """Between two tries."""
    HELD = "held"
    LOST = "lost"
    """Its worker was lost while it ran."""
    CLOSED = "closed"
    """The code no longer waits for it."""
    CANCELLED = "cancelled"
    """Of a child."""


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
    """A try without an outcome: it runs now or, with `lost_at`, its worker was lost."""

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
    """Without a phase the child is deleted."""

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
    """Its neighbours may be folded with it."""
    state: SpanState
    queued_at_us: Time | None = None
    """When a child was created."""
    started_at_us: Time | None = None
    ended_at_us: Time | None = None
    """Of its newest outcome."""
    tries: list[SpanTry] = field(default_factory=list)
    runs: list[SpanRun] = field(default_factory=list)
    wait: SpanWait | None = None
    child: SpanChild | None = None
    error: SpanError | None = None
    """Of calls without tries."""
    edited: str | None = None
    """The act that decided it."""
    copied: bool = False
    """A fork copied its rows."""
    bytes: Int64 | None = None
    """The size of its value."""
    usd: Double | None = None
    tokens: Int64 | None = None
    seqs: list[Int64] = field(default_factory=list)
    """Its rows in the journal."""


class TimelineClaim(Record, frozen=True, omit_defaults=True, kw_only=True):
    """A worker held the execution. Without `to` it still does, or a later page says."""

    attempt: Int32
    worker: str | None = None
    from_us: Time | None = field(default=None, name="from")
    seq: Int64 | None = None
    to_us: Time | None = field(default=None, name="to")
    to_seq: Int64 | None = None
    how: ClaimEnd | None = None
    copied: bool = False


class TimelineMark(Record, frozen=True, omit_defaults=True, kw_only=True):
    """A change of the execution that belongs to no span."""

    seq: Int64
    at_us: Time
    kind: Kind
    key: str | None = None
    name: str | None = None
    error: SpanError | None = None


class Proof(Record, frozen=True):
    """Counted in the rows of the page."""

    lost: Int64
    """How many times a worker was lost with it."""
    steps_rerun: Int64
    """Recorded outcomes of steps beyond the first, apart from failures that a retry took back."""


class Timeline(Record, frozen=True, omit_defaults=True, kw_only=True):
    """Folds the rows after `after` up to `last_seq`. A span or a claim that a page before has is continued."""

    shown_as = "TimelineResponse"

    execution_id: Uuid
    last_seq: Int64
    has_more: Annotated[bool, described("Whether rows follow: ask for those after `last_seq`.")]
    spans: list[TimelineSpan]
    """In the order of their first rows. Open waits and runs are in the last page."""
    claims: list[TimelineClaim]
    marks: list[TimelineMark]
    counts: dict[str, int]
    """The page's rows by kind."""
    proof: Proof


timelines: Final = Noun("Executions")


@timelines.get("/api/v1/executions/{execution_id}/timeline")
class GetTimeline(Operation[Timeline], frozen=True):
    """The journal of an execution, folded to spans: steps with their tries, waits and children, and who held it when.

    A page may fold fewer rows than `limit`. To merge the pages, append lists. Of `name`, `label`, `queued_at`,
    `started_at` and of claims keep the first value, of other fields the last one. Add up `counts` and `proof`.
    """

    execution_id: ExecutionId
    after: Position = 0
    """The `last_seq` of the page before."""
    limit: Annotated[int, between(1, ROWS_MAX), described(f"Rows: 1 to {ROWS_MAX:,}.")] = 5_000
