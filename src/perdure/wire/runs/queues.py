import shlex
from enum import StrEnum
from typing import Final, Literal

from msgspec import field

from perdure.wire.base.access import Role
from perdure.wire.base.fields import Int64, Name, Time, Uuid
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record


class PauseKind(StrEnum):
    """The kind of thing that a pause holds."""

    DEPLOYMENT = "deployment"
    WORKFLOW = "workflow"
    QUEUE = "queue"
    KEY = "key"
    """One concurrency key of a queue."""


PauseKindName = Literal["deployment", "workflow", "queue", "key"]


class Pause(Record, frozen=True):
    """While it lasts, no server hands out an execution that it covers. Running executions end as usual."""

    kind: PauseKind
    name: str
    """The deployment, workflow or queue. For a concurrency key: its queue."""
    paused_at_us: Time = field(name="paused_at")
    paused_by: str
    concurrency_key: str | None = None
    note: str | None = None
    """The reason, as its author wrote it."""
    until_us: Time | None = field(default=None, name="until")
    """When it ends by itself."""
    held: Int64 = 0
    """How many ready executions it holds, of those that the server has looked at since."""

    @property
    def what(self) -> str:
        """The thing that it holds, in words.

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
    """How many executions of one concurrency key may run at once."""
    total_limit: Int64 | None = None
    """How many executions may run at once."""
    pause: Pause | None = None
    """While it lasts, the server hands out no execution of the queue."""
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

    A queue without limits and pause is listed while it has executions that are ready or running.
    """


@queues.get("/api/v1/queues/{name}")
class GetQueue(Operation[QueueState], frozen=True):
    """One queue. A name without limits, pause and executions is answered with zeros."""

    name: Name


@queues.post("/api/v1/queues/{name}/pause", repeated="a repeated pause takes the newer end and note", role=Role.ADMIN)
class PauseQueue(Operation[QueueState], frozen=True):
    """Pause a queue, also one that does not exist yet, as `POST /api/v1/pauses` does without an end and a note."""

    name: Name


@queues.post("/api/v1/queues/{name}/resume", repeated="no effect", role=Role.ADMIN)
class ResumeQueue(Operation[QueueState], frozen=True):
    """Resume a queue. Workers get its executions again, under its limits."""

    name: Name
