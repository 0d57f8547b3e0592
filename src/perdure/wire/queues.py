from typing import Annotated, Final

from perdure.wire.access import Role
from perdure.wire.fields import Int64, Name, Time, Uuid, between
from perdure.wire.operation import Noun, Operation
from perdure.wire.pauses import Pause
from perdure.wire.record import Record
from perdure.wire.why import Why

NEXT_MAX: Final = 50


class QueueState(Record, frozen=True):
    name: str
    concurrency_limit: Int64 | None = None
    """How many executions of one concurrency key may run at once."""
    total_limit: Int64 | None = None
    """How many executions may run at once."""
    pause: Pause | None = None
    """While it lasts, the server hands out no execution of the queue."""
    queued: Int64 = 0
    """How many executions are ready and wait for a worker."""
    running: Int64 = 0


class QueueList(Record, frozen=True):
    queues: list[QueueState]


class ReadyExecution(Record, frozen=True):
    id: Uuid
    workflow_id: str
    deployment_id: str | None
    key: str | None
    concurrency_key: str | None
    ready_at_us: Time


class NextExecution(ReadyExecution, frozen=True, kw_only=True):
    """A ready execution of a queue, and the rule that holds it back."""

    why: Why | None = None
    """Null: it has left the queue meanwhile."""


class NextInQueue(Record, frozen=True):
    executions: list[NextExecution]
    exact: bool = True
    """False: more are ready than the server has sorted."""


queues: Final = Noun("Queues")


@queues.get("/api/v1/queues")
class ListQueues(Operation[QueueList], frozen=True):
    """Queues of the project, by name.

    A queue without limits and pause is listed while it has executions that are ready or running.
    """


@queues.get("/api/v1/queues/{name}")
class GetQueue(Operation[QueueState], frozen=True):
    """One queue. A name without limits, pause and executions is answered with zeros."""

    name: Name


@queues.get("/api/v1/queues/{name}/next")
class GetNextInQueue(Operation[NextInQueue], frozen=True):
    """Ready executions of a queue in the order of claims, each with the rule that holds it back.

    Each deployment and each concurrency key has this order. So a later one may start first, if its worker or its key
    has room.
    """

    name: Name
    limit: Annotated[int, between(1, NEXT_MAX)] = 20
    """1 to 50."""


@queues.post("/api/v1/queues/{name}/pause", repeated="a repeated pause takes the newer end and note", role=Role.ADMIN)
class PauseQueue(Operation[QueueState], frozen=True):
    """Pause a queue, also one that does not exist yet, as `POST /api/v1/pauses` does without an end and a note."""

    name: Name


@queues.post("/api/v1/queues/{name}/resume", repeated="no effect", role=Role.ADMIN)
class ResumeQueue(Operation[QueueState], frozen=True):
    """Resume a queue. Workers get its executions again, under its limits."""

    name: Name
