"""Turns answers of the HTTP API into the SDK's records."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec

from perdure.wire.errors import PerdureError
from perdure.wire.public import EventResponse
from perdure.wire.records import Event
from perdure.wire.times import microseconds

T = TypeVar("T")


def read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode the body of an answer. Raises PerdureError if it is not an answer of Perdure."""
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise PerdureError(f"The server's answer is not one of Perdure ({error}); is it the right server?") from error


def to_us(time: str) -> int:
    """Microseconds since the epoch."""
    return microseconds(datetime.fromisoformat(time))


def event(shown: EventResponse) -> Event:
    return Event(shown.id, shown.sequence_id, shown.topic, shown.event_type, shown.data, to_us(shown.created_at))
