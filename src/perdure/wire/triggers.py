"""What the server remembers of event triggers, and the pure rule that says when a batch is complete."""

from datetime import datetime
from typing import Any, Final

from msgspec import Struct

BATCH_MAX: Final = 10_000
"""How many events a batch has at most."""
TIMEOUT_SECONDS_MAX: Final = 31 * 86_400


class StoredTrigger(Struct, frozen=True):
    """A trigger as stored: events of `topic` start `workflow_id`. Those up to `taken_seq` were taken."""

    id: str
    project_id: str
    workflow_id: str
    topic: str
    batch_size: int
    batch_timeout_seconds: int | None
    queue_name: str | None
    declared: bool
    taken_seq: int
    created_at_us: int
    updated_at_us: int

    @property
    def takes_single_events(self) -> bool:
        """Whether its executions get an event as it is, rather than a list of events."""
        return self.batch_size == 1 and self.batch_timeout_seconds is None


def due_at_us(batch_size: int, timeout_seconds: int | None, waiting: int, since_us: int | None) -> int | None:
    """When a batch is started for the events that wait: 0, at once; None, when more have come.

    `since_us` is when the first of them was published; None: they are gone.

    >>> due_at_us(10, 60, 10, 5), due_at_us(10, 60, 3, 1_000_000), due_at_us(10, None, 3, 1_000_000)
    (0, 61000000, None)
    """
    if waiting <= 0:
        return None
    if waiting >= batch_size or since_us is None:
        return 0
    return None if timeout_seconds is None else since_us + timeout_seconds * 1_000_000


class TopicEvent(Struct, frozen=True):
    """An event, as an execution gets it that the event started."""

    id: str
    sequence_id: int
    topic: str
    data: Any
    created_at: datetime
    event_type: str | None = None


class EventBatch(Struct, frozen=True):
    """The events that started an execution, in order."""

    events: list[TopicEvent]
