"""Topics: publish, read and follow events."""

from collections.abc import AsyncGenerator
from typing import Final, Literal

import msgspec
from msgspec import Struct

from perdure.engine.events import PUBLISH_MAX
from perdure.server.bodies import VALUES
from perdure.server.routes.approvals import name_of
from perdure.server.routes.executions import idempotency, page_limit
from perdure.server.routing import Call, Routes
from perdure.server.streams import PIECE_BYTES, EventStream, frame
from perdure.server.tails import event_frame, until_reported
from perdure.wire.approvals import ANSWERED
from perdure.wire.codec import TOPIC_BYTES_MAX, check_name
from perdure.wire.errors import BadRequest, PerdureError
from perdure.wire.fields import INT64_MAX, Int32, Moment, Most, Position, checked_id, is_uuid
from perdure.wire.public import GetEventsResponse, PublishEventRequest, PublishEventResponse, event_response
from perdure.wire.records import Event
from perdure.wire.requests import EventItem
from perdure.wire.status import Phase
from perdure.wire.times import microseconds, rfc3339

STREAM_PAGE: Final = 100

routes = Routes("Events")


@routes.post(
    "/api/v1/events/publish",
    contract=True,
    idempotent=True,
    body_bytes_max=VALUES,
    lists={"events": Most(PUBLISH_MAX, BadRequest)},
)
async def publish_event(call: Call, body: PublishEventRequest) -> PublishEventResponse:
    """Append events to a topic, in order, in one transaction.

    For a `suspend_…` event, `execution_id`, or that of the first event, names the execution that asks.
    """
    if body.durable and not (is_uuid(body.execution_id or "") and is_uuid(body.root_execution_id or "")):
        raise BadRequest("body.durable: needs `execution_id` and `root_execution_id`, both UUIDs.")
    items = [EventItem(event.data, event.event_type, event.dedup_key) for event in body.events]
    asked_by = body.execution_id or (body.events[0].execution_id if body.events else None)
    answered_by = None
    if any((item.event_type or "").startswith(ANSWERED) for item in items):
        assert call.principal is not None
        answered_by = await name_of(call, call.principal)
    numbers, at_us = await call.engine.events.publish_once(
        call.project_id, body.topic, items, idempotency(call), asked_by=asked_by, answered_by=answered_by
    )
    return PublishEventResponse(numbers, rfc3339(at_us))


class EventsQuery(Struct, frozen=True):
    topic: str
    project_id: str | None = None
    """Instead of the header."""
    last_sequence_id: Position | None = None
    """Exclusive; wins over last_timestamp."""
    last_timestamp: Moment | None = None
    """Exclusive."""
    limit: Int32 = 100
    """1 to 1,000."""
    sort: Literal["asc", "desc"] = "asc"


@routes.get("/api/v1/events", contract=True)
async def get_events(call: Call, query: EventsQuery) -> GetEventsResponse:
    """Read a topic.

    A page may hold fewer than `limit` events and still say `has_more`.
    """
    call.check_project(query.project_id)
    limit = page_limit(query.limit)
    topic = _Topic(call, query.topic)
    after = await topic.start(query.last_sequence_id, query.last_timestamp)
    read = call.engine.events.read if query.sort == "asc" else call.engine.events.read_newest
    events, more = await read(call.project_id, topic.name, after, limit)
    last = events[-1].sequence_id if events else None
    return GetEventsResponse([event_response(event) for event in events], more, last)


class StreamEventsQuery(Struct, frozen=True):
    project_id: str | None = None
    """Instead of the header."""
    topic: str | None = None
    workflow_id: str | None = None
    """With workflow_run_id."""
    workflow_run_id: str | None = None
    """Topic becomes workflow/{workflow_id}/{workflow_run_id}."""
    last_sequence_id: Position | None = None
    """Exclusive."""
    last_timestamp: Moment | None = None
    """Exclusive."""


@routes.get("/api/v1/events/stream", contract=True, headers=("Last-Event-ID",))
async def stream_events(call: Call, query: StreamEventsQuery) -> EventStream:
    """Follow a topic or a run as server-sent events.

    404 for a run that does not exist.
    """
    call.check_project(query.project_id)
    run_id = None
    if query.workflow_run_id is not None and is_uuid(query.workflow_run_id):
        run_id = checked_id(query.workflow_run_id)
    name = query.topic or ""
    if query.workflow_run_id is not None and query.workflow_id is None:
        raise BadRequest("query.workflow_run_id: needs `workflow_id` too.", {"path": "query.workflow_id"})
    if run_id is not None:
        assert query.workflow_id is not None
        check_name(query.workflow_id, where="query.workflow_id")
        name = f"workflow/{query.workflow_id}/{run_id}"
    if not name:
        raise BadRequest("query.topic: name a topic, or a `workflow_id` with its `workflow_run_id`.")
    topic = _Topic(call, name)
    seen = call.header(b"last-event-id")
    if seen:
        if not (seen.isascii() and seen.isdigit() and len(seen) < 19):
            raise BadRequest(f"Last-Event-ID {seen!r} is not one of this stream's.")
        after = int(seen)
    else:
        after = await topic.start(query.last_sequence_id, query.last_timestamp)
    if run_id is not None:
        await call.engine.executions.how_ended(call.project_id, run_id)  # raises NotFound: it would never end
    # Clients without `Last-Event-ID` take a stream's end for that of the run. So the server cuts only the streams of
    # clients that sent it: they come back.
    return EventStream(_follow(call, topic, after, run_id), cut=bool(seen))


async def _follow(call: Call, topic: "_Topic", after: int, run_id: str | None) -> AsyncGenerator[bytes, None]:
    with call.services.tails.following(call.project_id, topic.name, run_id) as tail:
        while True:
            turn = tail.turn
            chunk = b""
            if tail.first is not None and after >= tail.first:
                after, chunk = tail.after(after)
            elif not tail.over or tail.ended is not None:
                first = tail.first
                try:
                    after, chunk = await topic.frames(after, run_id)
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


class _Topic:
    """A topic of the caller's project, and positions in it. Numbers have no gaps, so a binary search finds a time."""

    def __init__(self, call: Call, name: str) -> None:
        """Raises BadValue for a name that a topic cannot have."""
        check_name(name, where="query.topic", max_bytes=TOPIC_BYTES_MAX)
        self.name = name
        self._call = call

    async def _read(self, after: int, limit: int) -> list[Event]:
        read = self._call.engine.events.read
        return (await read(self._call.project_id, self.name, after, limit, bytes_max=PIECE_BYTES))[0]

    async def frames(self, after: int, run_id: str | None) -> tuple[int, bytes]:
        """A piece of the frames after a number. Returns the number of the last, and the frames."""
        call = self._call
        page = await until_reported(call.engine, call.project_id, run_id, await self._read(after, STREAM_PAGE))
        return (page[-1].sequence_id, b"".join(map(event_frame, page))) if page else (after, b"")

    async def start(self, last_sequence_id: int | None, last_timestamp: Moment | None) -> int:
        """The number after which a reader starts."""
        if last_sequence_id is not None:
            return last_sequence_id
        if last_timestamp is None:
            return 0
        at_us = microseconds(last_timestamp)

        async def next_until_then(number: int) -> int | None:
            found = await self._read(number, 1)
            return found[0].sequence_id if found and found[0].created_at_us <= at_us else None

        low, step = 0, 1
        while low + step < INT64_MAX and (found := await next_until_then(low + step - 1)) is not None:
            low, step = found, step * 2
        while step > 1:
            step //= 2
            if low + step < INT64_MAX and (found := await next_until_then(low + step - 1)) is not None:
                low = found
        return low


_encode: Final = msgspec.json.Encoder().encode
