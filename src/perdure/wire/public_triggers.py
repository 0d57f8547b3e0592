"""The public API's shapes of event triggers, with the contract's names where it has them (see `wire/public.py`)."""

from msgspec import Struct

from perdure.wire.public import Int32, Int64, Time, Uuid, rfc3339
from perdure.wire.triggers import StoredTrigger


class RegisterEventTriggerRequest(Struct, frozen=True):
    """Start a workflow from the events of a topic."""

    workflow_id: str
    deployment_id: str
    """Whose worker says so. The current deployment runs what is started, whichever it is then."""
    event_topic: str
    batch_size: Int32
    """How many events an execution gets: 1 to 10,000."""
    batch_timeout_seconds: Int32 | None = None
    """How long the first event of a batch waits for the others; null: until they come."""
    queue_name: str | None = None
    """Default: the workflow's own."""


class EventTriggerResponse(Struct, frozen=True):
    """One event trigger."""

    id: Uuid
    workflow_id: str
    event_topic: str
    batch_size: Int32
    last_sequence_id: Int64
    """The last event that was taken, or that was there before the trigger."""
    waiting: Int64
    """How many events came after it."""
    created_at: Time
    updated_at: Time
    batch_timeout_seconds: Int32 | None = None
    queue_name: str | None = None
    declared: bool = False
    """Whether code declares it: it goes when a registration of the current deployment no longer does."""


def trigger_response(trigger: StoredTrigger, waiting: int) -> EventTriggerResponse:
    """A trigger as the API shows it."""
    t = trigger
    return EventTriggerResponse(
        t.id,
        t.workflow_id,
        t.topic,
        t.batch_size,
        t.taken_seq,
        waiting,
        rfc3339(t.created_at_us),
        rfc3339(t.updated_at_us),
        t.batch_timeout_seconds,
        t.queue_name,
        t.declared,
    )


class EventTriggersResponse(Struct, frozen=True):
    """One page, newest first; `next_cursor` asks for the following one and is null after the last."""

    triggers: list[EventTriggerResponse]
    next_cursor: str | None = None
