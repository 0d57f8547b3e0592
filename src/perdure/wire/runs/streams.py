"""Streams of executions: items that code emitted, apart from the journal."""

from typing import ClassVar, Final

from msgspec import Raw, Struct, field

from perdure.wire.base.fields import Time
from perdure.wire.base.record import Record
from perdure.wire.base.status import Phase

ITEM_BYTES_MAX: Final = 64 << 10


class StreamItem(Record, frozen=True, gc=False):
    """Items that a key emits in a later run (a higher attempt, or a later try of the same one) replace its earlier
    items: that run was lost or failed."""

    shown_as: ClassVar[str] = "StreamItemResponse"
    sent_as: ClassVar[str] = "item"

    execution_id: str
    n: int
    """Its number among the items of its execution, from 1 and without gaps."""
    at_us: Time = field(name="at")
    """When the server took it."""
    path: tuple[str, ...]
    """The keys of the children that lead to it from the execution whose stream it is."""
    attempt: int
    tries: int
    key: str
    """The step whose body emitted it; an item of workflow code has a key of its own."""
    kind: str
    data: Raw


class StreamEnd(Record, frozen=True):
    """The execution is final, and nothing of its stream is left."""

    sent_as: ClassVar[str] = "end"

    id: str
    status: str
    phase: Phase
    error: str | None


class StreamPage(Struct, frozen=True):
    """`ended` is the execution's final phase, once nothing is left of the stream."""

    items: list[StreamItem]
    root_id: str
    ended: Phase | None = None
    error: str | None = None


def short_id(execution_id: str) -> str:
    """It tells the executions of one tree apart."""
    return execution_id[-12:]
