"""Inputs that the server makes."""

import contextlib
from typing import Any, Final

import msgspec

from perdure.wire.schedules import ScheduledFor
from perdure.wire.triggers import EventBatch, TopicEvent

_KINDS: Final = (ScheduledFor, TopicEvent, EventBatch)


def is_made_by_server(input: Any) -> bool:
    """A workflow need not take the input of a schedule or trigger."""
    for kind in _KINDS:
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.convert(input, kind)
            return True
    return False
