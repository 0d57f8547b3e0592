"""Why an execution is in its state: a sentence, then the details."""

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
    """A detail: `at` is a time, `text` describes what happened."""

    name: str
    text: str = ""
    at_us: Time | None = None


class Holder(Record, frozen=True):
    """An execution that holds something the explained execution waits for."""

    execution_id: Uuid
    workflow_id: str
    phase: Phase
    worker_id: str | None = None
    since_us: Time | None = None
    """When the holder began to run."""


class Difference(Record, frozen=True):
    """A difference from the workflow's last completed run."""

    what: str
    then: str
    """The value in the completed run."""
    now: str


class PathKind(StrEnum):
    """The use of a part of the time."""

    QUEUE = "queue"
    """Time from ready until claimed."""
    CODE = "code"
    """The workflow's code, with the replay before."""
    STEP = "step"
    PAUSE = "pause"
    """Time between a failed try and the next."""
    WAIT = "wait"
    """Waiting for an event or an answer."""
    TIMER = "timer"
    CHILD = "child"
    """A child whose parts are unknown."""
    LOST = "lost"
    """Work of an attempt since the last outcome, lost with the worker."""
    BLOCKED = "blocked"
    HELD = "held"
    REST = "rest"
    """All parts below one per cent."""
    UNREAD = "unread"
    """Too long ago to be read."""


class PathPart(Record, frozen=True):
    """A part of the critical path. Parts follow without gaps."""

    kind: PathKind
    name: str
    """The step's key, the topic or the child's workflow; otherwise empty."""
    execution_id: Uuid
    """The execution itself or a descendant."""
    started_at_us: Time = field(name="started_at")
    seconds: Double
    """Seconds, without parts in between that are shown as `rest`."""
    percent: Double
    """Percent of the whole time, to a tenth. All parts have the sum 100."""
    times: Int64 = 1
    """How many spans the part covers."""


class Why(Record, frozen=True, kw_only=True):
    """`sentence` is the answer; the other fields say the same to programs. Times in texts are UTC."""

    execution_id: Uuid
    phase: Phase
    sentence: str
    rule: str | None = None
    """The rule of admission that holds a queued execution back; otherwise null."""
    since_us: Time | None = None
    """When the state began."""
    until_us: Time | None = None
    """When the state ends by itself."""
    holders: list[Holder] = field(default_factory=list)
    """The executions, at most ten, that hold the awaited room, turn or worker."""
    held_by_count: Int64 | None = None
    """How many executions hold the awaited room."""
    pause: Pause | None = None
    """The pause that holds the execution back."""
    remedy: str | None = None
    """The event that lets the execution continue or start."""
    commands: list[str] = field(default_factory=list)
    """Commands that show more or carry out the remedy."""
    facts: list[Fact] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    """Differences that may explain a failure."""
    path: list[PathPart] | None = None
    """The critical path, on request: the use of the time from the execution's creation to its end."""

    @shown_before("sentence")
    def status(self) -> Status:
        return STATUS[self.phase]

    @property
    def id(self) -> str:
        """The id, same as `execution_id`."""
        return self.execution_id

    @property
    def since(self) -> datetime | None:
        """The time `since_us`, in UTC."""
        return None if self.since_us is None else moment(self.since_us)

    @property
    def until(self) -> datetime | None:
        """The time `until_us`, in UTC."""
        return None if self.until_us is None else moment(self.until_us)


explanations: Final = Noun("Executions")


@explanations.get("/api/v1/executions/{execution_id}/why")
class ExplainExecution(Operation[Why], frozen=True):
    """Why an execution is in its state, and what lets it continue.

    With `slow`, also the critical path: the steps, waits and queues that used the time.
    """

    execution_id: ExecutionId
    slow: bool = False


NEXT_MAX: Final = 50


class NextExecution(ReadyExecution, frozen=True, kw_only=True):
    """A ready execution of a queue, and the rule that holds the execution back."""

    why: Why | None = None
    """Null: the execution has left the queue meanwhile."""


class NextInQueue(Record, frozen=True):
    executions: list[NextExecution]
    exact: bool = True
    """False: more are ready than the server has sorted."""


@queues.get("/api/v1/queues/{name}/next")
class GetNextInQueue(Operation[NextInQueue], frozen=True):
    """Ready executions of a queue in the order of claims, each with the rule that holds the execution back.

    Each deployment and each concurrency key has its own order. So a later execution may start first, if its worker or
    key has room.
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
