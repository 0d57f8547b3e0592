from typing import Final

from perdure.wire.access import Role
from perdure.wire.fields import Int64, Name
from perdure.wire.operation import Noun, Operation
from perdure.wire.pauses import Pause
from perdure.wire.record import Record


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


@queues.post("/api/v1/queues/{name}/pause", role=Role.ADMIN)
class PauseQueue(Operation[QueueState], frozen=True):
    """Pause a queue, also one that does not exist yet, as `POST /api/v1/pauses` does without an end and a note."""

    name: Name


@queues.post("/api/v1/queues/{name}/resume", role=Role.ADMIN)
class ResumeQueue(Operation[QueueState], frozen=True):
    """Resume a queue. Workers get its executions again, under its limits."""

    name: Name
