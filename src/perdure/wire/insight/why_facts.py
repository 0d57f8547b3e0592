"""Facts of the store that explain an execution."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.failures import read_failure
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.insight.summaries import ExecutionSummary
from perdure.wire.insight.why import Holder
from perdure.wire.runs.admission import Rule
from perdure.wire.runs.queues import Pause
from perdure.wire.runs.waits import RecordedWait
from perdure.wire.runs.workers import ListedWorker
from perdure.wire.steering.acts import PendingCall

BLAMED: Final = (Kind.STEP, Kind.CHILD_STARTED, Kind.CHILD)
"""Outcomes whose failures end an execution."""
BEFORE_MAX: Final = 10_000


class Subject(Struct, frozen=True, kw_only=True, gc=False):
    """An execution in a list or an explanation, with columns that both need besides the summary."""

    summary: ExecutionSummary
    due_at_us: int | None
    error: str | None
    gate: int
    timer_key: str | None
    python: str | None
    """The Python version of the first attempt."""
    needs_protocol: int | None
    waits_for_turn: bool
    cancelled_at_us: int | None
    cancelled_by: str | None
    run_timeout_seconds: int | None
    ready_at_us: int
    rank: int


class ServingWorker(Struct, frozen=True, gc=False):
    listed: ListedWorker
    suits_python: str
    """The worker's Python version for claims; empty for push workers."""
    protocol: int

    @property
    def room(self) -> int:
        return max(0, self.listed.capacity - self.listed.running)


class Limit(Struct, frozen=True, gc=False):
    """A reached limit of an execution's queue, and the number of executions that count against the limit."""

    most: int
    held: int


class Queued(Struct, frozen=True):
    """Facts about a queued execution. `rule` is the first rule of admission that holds it back from the most suitable
    worker."""

    subject: Subject
    rule: Rule | None
    newest: JournalEntry | None = None
    session_id: str | None = None
    behind_id: str | None = None
    """The execution whose end the turn awaits."""
    limit: Limit | None = None
    pause: Pause | None = None
    holders: Sequence[Holder] = ()
    workers: Sequence[ServingWorker] = ()
    push: bool = False
    before: int = 0
    """Ready executions that come before, at most BEFORE_MAX."""
    beside: int = 0
    """Other ready executions that may go first when groups with limits take turns."""


class WaitFacts(Struct, frozen=True):
    """Facts about a waiting or held execution."""

    subject: Subject
    calls: Sequence[PendingCall]
    waits: Mapping[str, RecordedWait] = {}
    """More about events and answers among the calls, by key."""
    phases: Mapping[str, Phase] = {}
    """Phases of children among the calls, by id."""


class Losses(Struct, frozen=True, gc=False):
    """How often workers were lost, or handed the execution back."""

    lost: int = 0
    released: int = 0
    last_lost_at_us: int | None = None


class Running(Struct, frozen=True):
    """Facts about a running or cancelling execution. `claimed_at_us` is when the present attempt was claimed."""

    subject: Subject
    worker: ListedWorker | None
    claimed_at_us: int
    newest: JournalEntry | None
    losses: Losses
    steps: Sequence[PendingCall] = ()


class Blocked(Struct, frozen=True):
    subject: Subject
    row: JournalEntry


class Cause(Struct, frozen=True):
    id: str
    workflow_id: str
    end: JournalEntry
    failed: Sequence[JournalEntry]
    """Failed outcomes, newest first."""
    tries: Sequence[JournalEntry] = ()
    """Failed tries of the step that ended the execution, without the last try."""

    @property
    def row(self) -> JournalEntry | None:
        """Return the outcome that ended the execution. None: the code itself failed."""
        error = read_failure(self.end.value)
        if error.steps or error.children:
            keys = {*(error.steps or ()), *(error.children or ())}
            return next((row for row in reversed(self.failed) if row.key in keys), None)
        if error.type == "StepFailed":
            return next((row for row in self.failed if row.kind is Kind.STEP), None)
        if error.type in ("ChildFailed", "ChildCancelled"):
            return next((row for row in self.failed if row.kind is not Kind.STEP), None)
        # A group, or an error of its own in place of the one that it caught last.
        is_group = error.type in ("ExceptionGroup", "BaseExceptionGroup")
        newest = self.failed[0] if self.failed else None
        return newest if newest is not None and (is_group or newest.seq == self.end.seq - 1) else None


class Compared(Struct, frozen=True):
    id: str
    deployment_id: str | None
    python: str | None
    queue_name: str
    payload_bytes: int
    completed_at_us: int
    payload: bytes | None = None
    """None if too large."""
    steps: Sequence[JournalEntry] = ()
    step_count: int = 0


class Failed(Struct, frozen=True):
    """Facts about a failure. `causes` lead down to the descendant that failed first."""

    subject: Subject
    causes: Sequence[Cause]
    run: Compared
    before: Compared | None
    """The workflow's newest completed run before the failed one."""
    later: Sequence[str] = ()
    """Steps after the failure for which a retry needs a decision."""


class EndFacts(Struct, frozen=True):
    """Facts about a completed or cancelled execution."""

    subject: Subject
    end: JournalEntry | None
    steps: int


Facts = Queued | WaitFacts | Running | Blocked | Failed | EndFacts
