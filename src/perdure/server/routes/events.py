"""Streams of events."""

from collections.abc import AsyncGenerator
from typing import Annotated, Final

import msgspec

from perdure.engine.runs.streams import PIECE_BYTES
from perdure.server.http.routing import RouteCall, Routes
from perdure.server.http.streams import EventStream, frame
from perdure.server.http.topic_followers import event_frame, until_reported
from perdure.wire.base.codec import check_name
from perdure.wire.base.errors import BadRequest, PerdureError
from perdure.wire.base.fields import Moment, Position, checked_id, described, is_uuid
from perdure.wire.base.status import Phase
from perdure.wire.base.times import microseconds
from perdure.wire.runs.events import checked_topic

STREAM_PAGE: Final = 100

routes = Routes("Events")


@routes.get("/api/v1/events/stream", contract=True, headers=("Last-Event-ID",))
async def stream_events(
    call: RouteCall,
    *,
    project_id: Annotated[str | None, described("Instead of the header.")] = None,
    topic: str | None = None,
    workflow_id: Annotated[str | None, described("The workflow, together with `workflow_run_id`.")] = None,
    workflow_run_id: Annotated[str | None, described("Topic becomes workflow/{workflow_id}/{workflow_run_id}.")] = None,
    last_sequence_id: Annotated[Position | None, described("Exclusive.")] = None,
    last_timestamp: Annotated[Moment | None, described("Exclusive.")] = None,
) -> EventStream:
    """Follow a topic or a run as server-sent events.

    404 for a run that does not exist.
    """
    call.check_project(project_id)
    run_id = None
    if workflow_run_id is not None and is_uuid(workflow_run_id):
        run_id = checked_id(workflow_run_id)
    name = topic or ""
    if workflow_run_id is not None and workflow_id is None:
        raise BadRequest("query.workflow_run_id: needs `workflow_id` too.", {"path": "query.workflow_id"})
    if run_id is not None:
        assert workflow_id is not None
        check_name(workflow_id, where="query.workflow_id")
        name = f"workflow/{workflow_id}/{run_id}"
    if not name:
        raise BadRequest("query.topic: name a topic, or a `workflow_id` with its `workflow_run_id`.")
    checked_topic(name, "topic")
    seen = call.header(b"last-event-id")
    if seen:
        if not (seen.isascii() and seen.isdigit() and len(seen) < 19):
            raise BadRequest(f"Last-Event-ID {seen!r} is not one of this stream's.")
        after = int(seen)
    elif last_sequence_id is not None:
        after = last_sequence_id
    else:
        at_us = None if last_timestamp is None else microseconds(last_timestamp)
        after = await call.engine.events.last_until(call.project_id, name, at_us)
    if run_id is not None:
        await call.engine.executions.how_ended(call.project_id, run_id)  # raises NotFound: it would never end
    # Clients without `Last-Event-ID` take a stream's end for that of the run, so the server does not cut theirs.
    return EventStream(_follow(call, name, after, run_id), cut=bool(seen))


async def _follow(call: RouteCall, topic: str, after: int, run_id: str | None) -> AsyncGenerator[bytes, None]:
    with call.services.tails.following(call.project_id, topic, run_id) as tail:
        while True:
            turn = tail.turn
            chunk = b""
            if tail.first is not None and after >= tail.first:
                after, chunk = tail.after(after)
            elif not tail.over or tail.ended is not None:
                first = tail.first
                try:
                    after, chunk = await _frames(call, topic, after, run_id)
                except PerdureError:
                    return  # the store is closed
                if not chunk and first is not None:
                    after = max(after, first)  # those events are gone; the tail has all later ones
                    continue
            if chunk:
                yield chunk
            elif tail.ended is not None:
                if tail.ended.phase == Phase.FAILED:
                    message = tail.ended.error or "The execution failed."
                    yield frame(_encode({"type": "error", "message": message}))
                return
            elif tail.over:
                return
            else:
                await tail.wait(turn)


async def _frames(call: RouteCall, topic: str, after: int, run_id: str | None) -> tuple[int, bytes]:
    page = await call.engine.events.page(call.project_id, topic, after, STREAM_PAGE, bytes_max=PIECE_BYTES)
    page = await until_reported(call.engine, call.project_id, run_id, page)
    return (page[-1].sequence_id, b"".join(map(event_frame, page))) if page else (after, b"")


_encode: Final = msgspec.json.Encoder().encode
