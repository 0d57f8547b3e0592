"""Streams of executions: items emitted by code, apart from the journal."""

from typing import ClassVar, Final

from msgspec import Raw, Struct, field

from perdure.wire.base.fields import Time
from perdure.wire.base.record import Record
from perdure.wire.base.status import Phase

ITEM_BYTES_MAX: Final = 64 << 10


class StreamItem(Record, frozen=True, gc=False):
    """Items of a later run of a key (a higher attempt, or a later try) replace earlier items: the earlier run was lost
    or failed."""

    shown_as: ClassVar[str] = "StreamItemResponse"
    sent_as: ClassVar[str] = "item"

    execution_id: str
    n: int
    """The item's number in the execution, from 1 and without gaps."""
    at_us: Time = field(name="at")
    """When the server took the item."""
    path: tuple[str, ...]
    """The keys of children between the stream's execution and the item's."""
    attempt: int
    tries: int
    key: str
    """The emitting step; items of workflow code have keys of their own."""
    kind: str
    data: Raw


class StreamEnd(Record, frozen=True):
    """The execution is final, and the stream is complete."""

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
    """Enough of the id to tell the executions of a tree apart."""
    return execution_id[-12:]
