"""The public shape of what an execution's stream carries."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from perdure.wire.public import Int64, Time, rfc3339
from perdure.wire.streams import StreamItem


class StreamItemResponse(Struct, frozen=True):
    """One item of a stream. What a `key` of an execution emits under a higher `attempt`, or later `tries` of the same
    one, takes the place of all that it emitted before."""

    execution_id: str
    n: Int64
    """Its number among the items of that execution, from 1 and without gaps."""
    at: Time
    path: list[str]
    """The keys of the children that lead there; empty for the execution's own items."""
    attempt: int
    tries: int
    key: Annotated[str, Meta(description="The step that emitted it; an item of workflow code has one of its own.")]
    kind: str
    data: Raw


def stream_item_response(item: StreamItem) -> StreamItemResponse:
    """An item as the API shows it."""
    return StreamItemResponse(
        item.execution_id,
        item.n,
        rfc3339(item.at_us),
        list(item.path),
        item.attempt,
        item.tries,
        item.key,
        item.kind,
        item.data,
    )
