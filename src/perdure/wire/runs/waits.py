"""The reasons why an execution waits."""

from typing import ClassVar, Final

from msgspec import field

from perdure.wire.base.fields import ExecutionId, Int64, Time, Value
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.runs.queues import Pause


class PendingWait(Record, frozen=True):
    """A wait for an event of `topic` whose top-level fields equal `match`, or for an answer if there is `data` or no
    topic. A push worker's question has both: an event of the run's topic is the answer."""

    shown_as: ClassVar[str] = "WaitResponse"

    key: str
    opened_at_us: Time = field(name="opened_at")
    topic: str | None = None
    match: Value = None
    data: Value = None
    """The question, as shown to the person who answers."""
    expires_at_us: Time | None = field(default=None, name="expires_at")
    """When the server begins to refuse answers."""

    @property
    def is_question(self) -> bool:
        return not self.topic or self.data is not None


class RecordedWait(PendingWait, frozen=True, gc=False):
    """A wait as people look at it, with the columns that its statement selects. Large values are left out."""

    state: str = "open"
    event_type: str | None = None
    """The type of the event that answers a push worker's question."""
    batch_id: str | None = None
    answered_by: str | None = None
    execution_id: str = ""
    amount: int = 1
    """How many waits of the execution are open."""

    @property
    def is_question(self) -> bool:
        return self.event_type is not None or (self.topic is None and self.batch_id is None)


class QueuedBehind(Record, frozen=True):
    """The session or queue in which a queued execution waits."""

    shown_as: ClassVar[str] = "QueuedBehindResponse"

    what: str
    """session: for a turn; queue: for room; concurrency_key: for room under the key in the queue; pause: for the end of
    the pause."""
    name: str
    execution_ids: list[str]
    """Executions in front, ten at most."""
    limit: Int64 | None = None
    """How many executions may run there."""
    pause: Pause | None = None


class PendingWaits(Record, frozen=True):
    """Open waits, oldest first."""

    shown_as: ClassVar[str] = "WaitsResponse"

    waits: list[PendingWait]
    queued_behind: QueuedBehind | None = None


class WorkerStatus(Record, frozen=True):
    """How many workers hold a lease."""

    shown_as: ClassVar[str] = "WorkerStatusResponse"

    online_count: Int64
    has_workers: bool


waits: Final = Noun("Executions")


@waits.get("/api/v1/executions/{execution_id}/waits")
class GetWaits(Operation[PendingWaits], frozen=True):
    """Open waits of an execution, for events and answers.

    A queued execution waits for its turn or for room. Timers and children are in the journal.
    """

    execution_id: ExecutionId


@waits.get("/api/v1/workers/status", contract=True)
class GetWorkerStatus(Operation[WorkerStatus], frozen=True):
    """Live workers of a deployment."""

    deployment_id: str
