"""Event triggers, and the pure rule for when a batch is complete."""

import contextlib
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Struct, field

from perdure.wire.base.access import Role
from perdure.wire.base.fields import (
    Cursor,
    Declared,
    Int32,
    Int64,
    KeyName,
    Limit,
    Name,
    Time,
    Topic,
    Uuid,
    id_check,
    within,
)
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Done, Record
from perdure.wire.clock.schedules import ScheduledFor

BATCH_MAX: Final = 10_000
TIMEOUT_SECONDS_MAX: Final = 31 * 86_400

BatchSize = Annotated[Int32, within(1, BATCH_MAX)]
BatchTimeout = Annotated[Int32, within(1, TIMEOUT_SECONDS_MAX)]


class StoredTrigger(Record, frozen=True):
    id: Uuid
    workflow_id: str
    topic: str = field(name="event_topic")
    batch_size: Int32
    taken_seq: Int64 = field(name="last_sequence_id")
    """The last event taken by the trigger, or published before the trigger."""
    created_at_us: Time = field(name="created_at")
    updated_at_us: Time = field(name="updated_at")
    batch_timeout_seconds: Int32 | None = None
    queue_name: str | None = None
    declared: Declared = False

    @property
    def takes_single_events(self) -> bool:
        return self.batch_size == 1 and self.batch_timeout_seconds is None


class ListedTrigger(StoredTrigger, frozen=True, kw_only=True):
    shown_as: ClassVar[str] = "EventTriggerResponse"

    waiting: Int64
    """Events not taken yet."""


class TriggerSpec(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The pair (workflow, topic) names a trigger."""

    workflow_id: Name
    topic: Topic
    batch_size: BatchSize = 1
    batch_timeout_seconds: BatchTimeout | None = None
    queue_name: KeyName | None = None


triggers: Final = Noun("Event triggers")


@triggers.post("/api/v1/event-triggers/register", role=Role.WORK, contract=True, idempotent=True)
class RegisterEventTrigger(Operation[Done], frozen=True):
    """Create or update the trigger of a workflow and a topic.

    A new trigger starts at the topic's end; an update keeps the place in the topic. Only the current deployment may
    update.
    """

    workflow_id: Name
    deployment_id: KeyName
    """The worker's deployment. Executions start on the current deployment."""
    topic: Topic = field(name="event_topic")
    batch_size: BatchSize
    """How many events an execution gets: 1 to 10,000."""
    batch_timeout_seconds: BatchTimeout | None = None
    """How long the first event of a batch waits for more events; null: until the batch is full."""
    queue_name: KeyName | None = None
    """Default: the workflow's own."""


@triggers.get("/api/v1/event-triggers", under="triggers", reply="EventTriggersResponse")
class ListEventTriggers(Operation[Listed[ListedTrigger]], frozen=True):
    """The project's event triggers, newest first."""

    cursor: Cursor | None = None
    limit: Limit = 100


@triggers.delete("/api/v1/event-triggers/{trigger_id}")
class DeleteEventTrigger(Operation[None], frozen=True):
    """Delete an event trigger, but no executions."""

    trigger_id: Annotated[str, id_check("event trigger")]


def due_at_us(batch_size: int, timeout_seconds: int | None, waiting: int, since_us: int | None) -> int | None:
    """When to start a batch: 0 is at once; None means too few events.

    `since_us` is when the first waiting event was published; None: the events are gone.

    >>> due_at_us(10, 60, 10, 5), due_at_us(10, 60, 3, 1_000_000), due_at_us(10, None, 3, 1_000_000)
    (0, 61000000, None)
    """
    if waiting <= 0:
        return None
    if waiting >= batch_size or since_us is None:
        return 0
    return None if timeout_seconds is None else since_us + timeout_seconds * 1_000_000


class TopicEvent(Struct, frozen=True):
    """An event as the input of an execution."""

    id: str
    sequence_id: int
    topic: str
    data: Any
    created_at: datetime
    event_type: str | None = None


class EventBatch(Struct, frozen=True):
    """The events for an execution, in order."""

    events: list[TopicEvent]


_KINDS: Final = (ScheduledFor, TopicEvent, EventBatch)


def is_made_by_server(input: Any) -> bool:
    """A workflow need not take the input of a schedule or trigger."""
    for kind in _KINDS:
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.convert(input, kind)
            return True
    return False
