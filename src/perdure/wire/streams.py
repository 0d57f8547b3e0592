"""What an execution's stream carries: items that its code emitted, apart from its journal."""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct

from perdure.wire.status import Phase

ITEM_BYTES_MAX: Final = 64 << 10
"""How large the data of one item may be, as JSON."""


class StreamItem(Struct, frozen=True, gc=False):
    """One item. What a key emits in a later run (a higher attempt, or a later try of the same one) takes the place of
    what it emitted before: that run was lost, or failed.
    """

    execution_id: str
    n: int
    """Its number among the items of its execution, from 1 and without gaps."""
    at_us: int
    """When the server took it."""
    path: tuple[str, ...]
    """The keys of the children that lead to it from the execution whose stream it is; empty for its own items."""
    attempt: int
    tries: int
    key: str
    """The step whose body emitted it; an item of workflow code has a key of its own."""
    kind: str
    data: Raw


class StreamPage(Struct, frozen=True):
    """What came next in a stream. `ended` is the final phase of the execution, once there is nothing left of it."""

    items: list[StreamItem]
    root_id: str
    ended: Phase | None = None
    error: str | None = None


def short_id(execution_id: str) -> str:
    """What of an id is kept in a place in a stream: enough to tell the executions of one tree apart."""
    return execution_id[-12:]
