"""Workers, for operators."""

from enum import StrEnum
from typing import ClassVar, Final

from msgspec import field

from perdure.wire.base.fields import Int64, Limit, PageCursor, Time
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record


class WorkerKind(StrEnum):
    NATIVE = "native"
    """The worker asks for work."""
    EMBEDDED = "embedded"
    """The worker runs in the process with the open store, without a lease."""
    PUSH = "push"
    """The server sends work."""


class WorkerState(StrEnum):
    ONLINE = "online"
    REGISTERED = "registered"
    """A push worker before its first online report gets no work."""
    LAPSED = "lapsed"
    """The lease has run out, so other workers get the work."""


class ListedWorker(Record, frozen=True):
    shown_as: ClassVar[str] = "WorkerResponse"

    id: str
    deployment_id: str
    kind: WorkerKind
    state: WorkerState
    capacity: Int64
    """How many executions the worker runs at once."""
    running: Int64
    """How many executions the worker holds."""
    registered_at_us: Time = field(name="registered_at")
    last_beat_at_us: Time | None = field(default=None, name="last_beat_at")
    """The lease's last renewal, computed from the lease's end. A server back from an absence also renews leases."""
    lease_until_us: Time | None = field(default=None, name="lease_until")
    """If no beat comes until then, other workers get the work."""
    python: str | None = None
    """The Python version of a native or embedded worker."""
    url: str | None = None
    """The URL of a push worker."""
    host: str | None = None
    """The name of the machine of a native or embedded worker."""
    pid: Int64 | None = None
    """The process on the machine `host`."""


workers: Final = Noun("Workers")


@workers.get("/api/v1/workers", under="workers", reply="WorkersResponse")
class ListWorkers(Operation[Listed[ListedWorker]], frozen=True):
    """Registered workers of the project, by id.

    Ended workers are not listed. A lapsed push worker stays for a day.
    """

    cursor: PageCursor | None = None
    limit: Limit = 100
