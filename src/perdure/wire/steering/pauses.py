"""Pauses: hold executions back, for a while or until an admin ends the pause."""

from typing import Final

from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import Int64, KeyName, Name, Note, Time
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.runs.queues import Pause, PauseKind


class EndedPause(Record, frozen=True):
    was_paused: bool
    held: Int64 = 0
    """How many executions the pause held."""


pauses: Final = Noun("Pauses")


def check_key(kind: PauseKind, concurrency_key: str | None) -> None:
    if (kind is PauseKind.KEY) != (concurrency_key is not None):
        raise BadValue(
            "A pause of kind `key` needs its `concurrency_key`, and as `name` the queue; other kinds have none.",
            {"path": "concurrency_key"},
        )


@pauses.post("/api/v1/pauses", repeated="a repeated pause takes the newer end and note", role=Role.ADMIN)
class PutPause(Operation[Pause], frozen=True):
    """Pause a queue, a queue's concurrency key, a workflow or a deployment.

    After the answer no server hands out the paused executions. Running executions end as usual, new ones wait.
    Schedules and event triggers continue. A repeat changes `until` and `note`. 404 for an unknown workflow or
    deployment; a queue need not exist.
    """

    kind: PauseKind
    name: Name
    concurrency_key: KeyName | None = None
    """The paused key, for the kind `key`."""
    until: Time | None = None
    """When the pause ends by itself. Default: an admin must end the pause."""
    note: Note | None = None

    def check(self) -> None:
        check_key(self.kind, self.concurrency_key)


@pauses.delete("/api/v1/pauses", role=Role.ADMIN)
class EndPause(Operation[EndedPause], frozen=True):
    """End a pause. Workers get the executions again, in the old order. Repeats succeed."""

    kind: PauseKind
    name: Name
    concurrency_key: KeyName | None = None

    def check(self) -> None:
        check_key(self.kind, self.concurrency_key)


@pauses.get("/api/v1/pauses", under="pauses", reply="PausesResponse")
class ListPauses(Operation[Listed[Pause]], frozen=True):
    """Pauses of the project, by kind and name."""
