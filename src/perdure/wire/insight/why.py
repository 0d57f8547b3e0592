"""Why an execution is where it is: one sentence, then the details."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from msgspec import field

from perdure.wire.base.fields import Double, ExecutionId, Int64, Name, Time, Uuid, between
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record, shown_before
from perdure.wire.base.status import STATUS, Phase, Status
from perdure.wire.base.times import moment
from perdure.wire.insight.summaries import ExecutionSummary
from perdure.wire.runs.queues import Pause, ReadyExecution, queues
from perdure.wire.runs.workers import ListedWorker


class Fact(Record, frozen=True):
    """A detail: `at` is a time, `text` says the rest."""

    name: str
    text: str = ""
    at_us: Time | None = None


class Holder(Record, frozen=True):
    """An execution that holds what this one waits for."""

    execution_id: Uuid
    workflow_id: str
    phase: Phase
    worker_id: str | None = None
    since_us: Time | None = None
    """When it began to run."""


class Difference(Record, frozen=True):
    """A difference from the last run of the workflow that completed."""

    what: str
    then: str
    """In that run."""
    now: str


class PathKind(StrEnum):
    """The use of a part of the time."""

    QUEUE = "queue"
    """From ready until claimed."""
    CODE = "code"
    """The workflow's code, with the replay before it."""
    STEP = "step"
    PAUSE = "pause"
    """Between a failed try and the next one."""
    WAIT = "wait"
    """For an event or an answer."""
    TIMER = "timer"
    CHILD = "child"
    """A child whose own parts are not known."""
    LOST = "lost"
    """Work of an attempt whose worker vanished, since its last outcome."""
    BLOCKED = "blocked"
    HELD = "held"
    REST = "rest"
    """Parts below one per cent, together."""
    UNREAD = "unread"
    """Too long ago to be read."""


class PathPart(Record, frozen=True):
    """A part of the critical path. The parts follow one another without a gap."""

    kind: PathKind
    name: str
    """The step's key, the topic, the child's workflow; empty for others."""
    execution_id: Uuid
    """The execution itself or a descendant."""
    started_at_us: Time = field(name="started_at")
    seconds: Double
    """Without the parts in between that are shown as `rest`."""
    percent: Double
    """Of the whole time, to a tenth. All parts together are 100."""
    times: Int64 = 1
    """How many spans it stands for."""


class Why(Record, frozen=True, kw_only=True):
    """`sentence` is the answer; the other fields say the same to programs. Times in texts are UTC."""

    execution_id: Uuid
    phase: Phase
    sentence: str
    rule: str | None = None
    """Of a queued execution: the rule of admission that holds it back; null if none does."""
    since_us: Time | None = None
    """Since when this is so."""
    until_us: Time | None = None
    """When it ends by itself."""
    holders: list[Holder] = field(default_factory=list)
    """Up to ten executions that hold the room, the turn or the worker that it waits for."""
    held_by_count: Int64 | None = None
    """How many executions hold it."""
    pause: Pause | None = None
    """The pause that holds it back."""
    remedy: str | None = None
    """The event that lets it go on, or start."""
    commands: list[str] = field(default_factory=list)
    """Commands that show more or do this."""
    facts: list[Fact] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    """Of a failed execution."""
    path: list[PathPart] | None = None
    """The critical path, if the request asks for it: the use of the time from its creation to its end."""

    @shown_before("sentence")
    def status(self) -> Status:
        return STATUS[self.phase]

    @property
    def id(self) -> str:
        """As `execution_id`."""
        return self.execution_id

    @property
    def since(self) -> datetime | None:
        """As `since_us`, in UTC."""
        return None if self.since_us is None else moment(self.since_us)

    @property
    def until(self) -> datetime | None:
        """As `until_us`, in UTC."""
        return None if self.until_us is None else moment(self.until_us)


explanations: Final = Noun("Executions")


@explanations.get("/api/v1/executions/{execution_id}/why")
class ExplainExecution(Operation[Why], frozen=True):
    """Why an execution is where it is, and what lets it go on.

    With `slow`, also its critical path: which steps, waits and queues its time went into.
    """

    execution_id: ExecutionId
    slow: bool = False


NEXT_MAX: Final = 50


class NextExecution(ReadyExecution, frozen=True, kw_only=True):
    """A ready execution of a queue, and the rule that holds it back."""

    why: Why | None = None
    """Null: it has left the queue meanwhile."""


class NextInQueue(Record, frozen=True):
    executions: list[NextExecution]
    exact: bool = True
    """False: more are ready than the server has sorted."""


@queues.get("/api/v1/queues/{name}/next")
class GetNextInQueue(Operation[NextInQueue], frozen=True):
    """Ready executions of a queue in the order of claims, each with the rule that holds it back.

    Each deployment and each concurrency key has this order. So a later one may start first, if its worker or its key
    has room.
    """

    name: Name
    limit: Annotated[int, between(1, NEXT_MAX)] = 20
    """1 to 50."""


def explained(
    summary: ExecutionSummary,
    sentence: str,
    *,
    details: Iterable[Fact] = (),
    commands: Iterable[str] = (),
    since_us: int | None = None,
    until_us: int | None = None,
    remedy: str | None = None,
) -> Why:
    if summary.forked_from is not None:
        step = "" if summary.forked_at_step is None else f" at step {summary.forked_at_step}"
        details = [*details, Fact("forked from", f"{summary.forked_from}{step}")]
    if summary.retried_as is not None:
        sentence += f" It was retried as {summary.retried_as}."
    about = [Fact("workflow", summary.workflow_id), Fact("created", "", summary.created_at_us)]
    if summary.deployment_id is not None:
        about.insert(1, Fact("deployment", summary.deployment_id))
    return Why(
        execution_id=summary.id,
        phase=summary.phase,
        sentence=sentence,
        since_us=since_us,
        until_us=until_us,
        remedy=remedy,
        commands=[*commands],
        facts=[*details, *about],
    )


def worker_words(worker: ListedWorker) -> str:
    python = "" if worker.python is None else f", Python {worker.python}"
    about = f"{worker.id} ({worker.kind.value}, {worker.state.value}{python})"
    return f"{about}, runs {worker.running:,} of {worker.capacity:,}"
