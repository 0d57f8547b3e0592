"""The session of `perdure dev`, as known to its server: workers, kills, repeated steps."""

from enum import StrEnum
from typing import Annotated, Protocol

from msgspec import Meta, Struct, field

from perdure.wire.base.fields import Int64, Time
from perdure.wire.base.record import Record


class KilledBy(StrEnum):
    PERSON = "person"
    CHAOS = "chaos"


class DevWorker(Record, frozen=True):
    worker_id: str
    pid: Int64


class LastKill(Record, frozen=True, kw_only=True):
    worker_id: str
    pid: Int64
    at_us: Time = field(name="at")
    by: KilledBy
    held: Int64
    """How many executions the worker ran."""
    resumed_after_ms: Int64 | None = None
    """Milliseconds until another worker took over. Null: none has."""


class DevStatus(Record, frozen=True, kw_only=True):
    """Kills of workers under `perdure dev`, and whether a recorded step ran again."""

    kills: Int64 = 0
    bodies: Int64 = 0
    """How many bodies of steps began."""
    steps_rerun: Int64 = 0
    """How many step bodies began despite a recorded outcome. The journal confirms each."""
    chaos_seconds: float | None = None
    """About how often a worker is killed at random; null: never."""
    workers: list[DevWorker] = field(default_factory=list)
    last_kill: LastKill | None = None


class Kill(Struct, frozen=True, forbid_unknown_fields=True):
    worker_id: str | None = None
    """Default: the running worker."""


class Killed(Record, frozen=True):
    worker_id: str
    pid: Int64
    kills: Int64
    """How many kills there were, including the newest."""


class Chaos(Struct, frozen=True, forbid_unknown_fields=True):
    every_seconds: Annotated[float, Meta(ge=1, le=3_600)] | None
    """About how often; null ends it."""


class Dev(Protocol):
    async def status(self) -> DevStatus: ...

    async def kill(self, worker_id: str | None) -> Killed:
        """Kill a worker with SIGKILL. Raises NotFound for another worker, and Conflict without a worker."""
        ...

    async def set_chaos(self, every_seconds: float | None) -> DevStatus: ...
