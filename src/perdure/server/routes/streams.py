"""Streams of items."""

from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from perdure.engine.streams import Follower
from perdure.server.routes.executions import StreamQuery, end_frame
from perdure.server.routing import Call, Routes
from perdure.server.streams import EventStream, frame
from perdure.wire.errors import PerdureError
from perdure.wire.record import writer
from perdure.wire.streams import StreamItem

STREAM_PAGE: Final = 200

routes = Routes("Executions")


@routes.get("/api/v1/executions/{execution_id}/stream", headers=("Last-Event-ID",))
async def stream_items(call: Call, execution_id: str, query: StreamQuery) -> EventStream:
    """Follow the items that an execution and all below it emit.

    The server-sent events are `item`, and `end` when the execution is final.
    """
    cursor = call.header(b"last-event-id") or query.last_event_id
    follower = await call.engine.streams.open(call.project_id, execution_id, cursor)
    return EventStream(_follow(execution_id.lower(), follower))


async def _follow(execution_id: str, follower: Follower) -> AsyncGenerator[bytes, None]:
    while True:
        cursors = follower.cursors()
        try:
            items = await follower.read(STREAM_PAGE)
        except PerdureError:
            return  # the execution was deleted, or the store is closed
        if items:
            yield b"".join(frame(_encode(_item(item)), id=follower.take(item), event="item") for item in items)
        elif follower.ended is not None:
            yield end_frame(execution_id, follower.ended, follower.error, follower.cursor)
            return
        else:
            await follower.watch(cursors, follower.look_seconds)


_item: Final = writer(StreamItem)
_encode: Final = msgspec.json.Encoder().encode
