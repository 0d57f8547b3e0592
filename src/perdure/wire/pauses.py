"""Pauses: hold executions back, for a while or until an admin ends the pause."""

import shlex
from enum import StrEnum
from typing import ClassVar, Final, Literal

from msgspec import field

from perdure.wire.access import Role
from perdure.wire.errors import BadValue
from perdure.wire.fields import Int64, KeyName, Name, Note, Time
from perdure.wire.operation import Noun, Operation
from perdure.wire.record import Record


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


class EndedPause(Record, frozen=True):
    was_paused: bool
    held: Int64 = 0
    """How many executions it held."""


class PauseList(Record, frozen=True):
    shown_as: ClassVar[str] = "PausesResponse"

    pauses: list[Pause]


pauses: Final = Noun("Pauses")


def check_key(kind: PauseKind, concurrency_key: str | None) -> None:
    if (kind is PauseKind.KEY) != (concurrency_key is not None):
        raise BadValue(
            "A pause of kind `key` needs its `concurrency_key`, and as `name` the queue; other kinds have none.",
            {"path": "concurrency_key"},
        )


@pauses.post("/api/v1/pauses", repeated="a repeated pause takes the newer end and note", role=Role.ADMIN)
class PutPause(Operation[Pause], frozen=True):
    """Pause a queue, one concurrency key of a queue, a workflow or a deployment.

    After the answer no server hands out an execution of it. Running executions end as usual, new ones wait. Schedules
    and event triggers go on. A repeat changes `until` and `note`. 404 for a workflow or a deployment that is not there;
    a queue need not exist.
    """

    kind: PauseKind
    name: Name
    concurrency_key: KeyName | None = None
    """Only for the kind `key`."""
    until: Time | None = None
    """When the pause ends by itself. It lasts until an admin ends it by default."""
    note: Note | None = None

    def check(self) -> None:
        check_key(self.kind, self.concurrency_key)


@pauses.delete("/api/v1/pauses", role=Role.ADMIN)
class EndPause(Operation[EndedPause], frozen=True):
    """End a pause. Workers get its executions again, in their old order. A repeat is answered as well."""

    kind: PauseKind
    name: Name
    concurrency_key: KeyName | None = None

    def check(self) -> None:
        check_key(self.kind, self.concurrency_key)


@pauses.get("/api/v1/pauses")
class ListPauses(Operation[PauseList], frozen=True):
    """Pauses of the project, by kind and name."""
