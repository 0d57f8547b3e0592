import shlex
from enum import StrEnum
from typing import Final, Literal

from msgspec import field

from perdure.wire.base.access import Role
from perdure.wire.base.fields import Int64, Name, Time, Uuid
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record


class PauseKind(StrEnum):
    """The kind of a paused thing."""

    DEPLOYMENT = "deployment"
    WORKFLOW = "workflow"
    QUEUE = "queue"
    KEY = "key"
    """A concurrency key of a queue."""


PauseKindName = Literal["deployment", "workflow", "queue", "key"]


class Pause(Record, frozen=True):
    """While the pause lasts, no server hands out a covered execution. Running executions end as usual."""

    kind: PauseKind
    name: str
    """The deployment, workflow or queue. A concurrency key has the queue here."""
    paused_at_us: Time = field(name="paused_at")
    paused_by: str
    concurrency_key: str | None = None
    note: str | None = None
    """The author's reason."""
    until_us: Time | None = field(default=None, name="until")
    """When the pause ends without an `unpause`."""
    held: Int64 = 0
    """How many ready executions are held, among the executions seen by the server since."""

    @property
    def what(self) -> str:
        """The paused thing, in words.

        >>> Pause(PauseKind.KEY, "mail", 0, "key 'ci'", concurrency_key="ann").what
        "concurrency key 'ann' of queue 'mail'"
        """
        return in_words(self.kind, self.name, self.concurrency_key)


def in_words(kind: PauseKind, name: str, concurrency_key: str | None) -> str:
    return f"{kind} {name!r}" if concurrency_key is None else f"concurrency key {concurrency_key!r} of queue {name!r}"


def unpause_command(one: Pause) -> str:
    """
    >>> unpause_command(Pause(PauseKind.KEY, "mail", 0, "key 'ci'", concurrency_key="ann b"))
    "perdure unpause key 'ann b' --queue mail"
    """
    name = shlex.quote(one.name)
    if one.concurrency_key is not None:
        return f"perdure unpause key {shlex.quote(one.concurrency_key)} --queue {name}"
    return f"perdure unpause {one.kind} {name}"


class QueueState(Record, frozen=True):
    name: str
    concurrency_limit: Int64 | None = None
    """How many executions of a concurrency key may run at once."""
    total_limit: Int64 | None = None
    """How many executions may run at once."""
    pause: Pause | None = None
    """While the pause lasts, the server hands out no execution of the queue."""
    queued: Int64 = 0
    """How many executions are ready and wait for a worker."""
    running: Int64 = 0


class ReadyExecution(Record, frozen=True):
    id: Uuid
    workflow_id: str
    deployment_id: str | None
    key: str | None
    concurrency_key: str | None
    ready_at_us: Time


queues: Final = Noun("Queues")


@queues.get("/api/v1/queues", under="queues", reply="QueueList")
class ListQueues(Operation[Listed[QueueState]], frozen=True):
    """Queues of the project, by name.

    A queue without limits and pause is listed while executions are ready or running.
    """


@queues.get("/api/v1/queues/{name}")
class GetQueue(Operation[QueueState], frozen=True):
    """A queue. A name without limits, pause and executions gets zeros."""

    name: Name


@queues.post("/api/v1/queues/{name}/pause", repeated="a repeated pause takes the newer end and note", role=Role.ADMIN)
class PauseQueue(Operation[QueueState], frozen=True):
    """Pause a queue, even before it exists. Equal to `POST /api/v1/pauses` without an end and a note."""

    name: Name


@queues.post("/api/v1/queues/{name}/resume", repeated="no effect", role=Role.ADMIN)
class ResumeQueue(Operation[QueueState], frozen=True):
    """Resume a queue. Workers get the queue's executions again, under the limits."""

    name: Name
