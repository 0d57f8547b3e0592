"""The API's shape of stream items."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from perdure.wire.public import Int64, Time, rfc3339
from perdure.wire.streams import StreamItem


class StreamItemResponse(Struct, frozen=True):
    """One item of a stream. Items that a `key` emits under a higher `attempt`, or later `tries` of the same one,
    replace all of its earlier items."""

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
