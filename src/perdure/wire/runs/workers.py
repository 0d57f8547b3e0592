"""Workers as operators see them."""

from enum import StrEnum
from typing import ClassVar, Final

from msgspec import field

from perdure.wire.base.fields import Int64, Limit, PageCursor, Time
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record


class WorkerKind(StrEnum):
    NATIVE = "native"
    """It asks for work."""
    EMBEDDED = "embedded"
    """It runs in the process that has the store open, without a lease."""
    PUSH = "push"
    """The server sends it work."""


class WorkerState(StrEnum):
    ONLINE = "online"
    REGISTERED = "registered"
    """A push worker that has not reported online yet: it gets no work."""
    LAPSED = "lapsed"
    """Its lease has run out, so its work goes to other workers."""


class ListedWorker(Record, frozen=True):
    shown_as: ClassVar[str] = "WorkerResponse"

    id: str
    deployment_id: str
    kind: WorkerKind
    state: WorkerState
    capacity: Int64
    """How many executions it runs at once."""
    running: Int64
    """How many executions it holds."""
    registered_at_us: Time = field(name="registered_at")
    last_beat_at_us: Time | None = field(default=None, name="last_beat_at")
    """When its lease was last renewed, as the lease's end shows it. A server that was away renews leases, too."""
    lease_until_us: Time | None = field(default=None, name="lease_until")
    """Its work goes to other workers if it does not beat until then."""
    python: str | None = None
    """The Python version of a native or embedded worker."""
    url: str | None = None
    """The URL of a push worker."""
    host: str | None = None
    """The name of the machine of a native or embedded worker."""
    pid: Int64 | None = None
    """Its process on that machine."""


workers: Final = Noun("Workers")


@workers.get("/api/v1/workers", under="workers", reply="WorkersResponse")
class ListWorkers(Operation[Listed[ListedWorker]], frozen=True):
    """Registered workers of the project, by id.

    A worker that has ended is not listed. A push worker that lapsed stays for a day.
    """

    cursor: PageCursor | None = None
    limit: Limit = 100
