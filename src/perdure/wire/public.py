"""Shapes of the public API, with the contract's names. Times are RFC 3339 with offset; values are JSON byte for byte.

Contract requests ignore unknown fields, which clients of other versions send. Requests that Perdure added refuse them
(`wire/requests.py`). A reply's fields with defaults may be null.
"""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from perdure.wire.fields import Int32, Int64, Uuid
from perdure.wire.records import Event
from perdure.wire.times import rfc3339

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


# --- events --------------------------------------------------------------------------------------------------------


class EventData(Struct, frozen=True):
    """One event to publish. With a `dedup_key` the topic keeps the first and answers repeats with its number."""

    data: Raw
    event_type: str | None = None
    execution_id: str | None = None
    attempt_number: Int32 | None = None
    dedup_key: str | None = None


class PublishEventRequest(Struct, frozen=True):
    """Append events to a topic, in order, in one transaction."""

    topic: str
    events: list[EventData]
    durable: bool | None = None
    execution_id: str | None = None
    root_execution_id: str | None = None


class PublishEventResponse(Struct, frozen=True):
    """The events' numbers, in the order of the request."""

    sequence_ids: list[Int64]
    created_at: Time


class EventResponse(Struct, frozen=True):
    """One event. `sequence_id` grows by one per topic, without gaps."""

    id: Uuid
    sequence_id: Int64
    topic: str
    data: Raw
    created_at: Time
    event_type: str | None = None


def event_response(event: Event) -> EventResponse:
    return EventResponse(
        event.id, event.sequence_id, event.topic, event.data, rfc3339(event.created_at_us), event.event_type
    )


class GetEventsResponse(Struct, frozen=True):
    """A page of a topic; `has_more`: the page was full."""

    events: list[EventResponse]
    has_more: bool
    next_sequence_id: Int64 | None = None
