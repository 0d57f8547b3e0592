from typing import Annotated, ClassVar, Final, Literal

from msgspec import Raw, Struct, field

from perdure.wire.base.access import Role
from perdure.wire.base.codec import TOPIC_BYTES_MAX, check_name
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import (
    PAGE_MAX,
    HasMore,
    Int32,
    Int64,
    Limit,
    MaxItems,
    PageCursor,
    Position,
    ProjectInQuery,
    RequiredJson,
    Time,
    Topic,
    Uuid,
    between,
    is_uuid,
    text_check,
)
from perdure.wire.base.operation import Listed, Noun, Operation, validated
from perdure.wire.base.record import Record
from perdure.wire.runs.requests import EventItem

PUBLISH_MAX: Final = 1_000


class Event(Record, frozen=True, gc=False):
    """An event. `sequence_id` grows by one per topic, without gaps."""

    shown_as: ClassVar[str] = "EventResponse"

    id: Uuid
    sequence_id: Int64
    topic: str
    data: Raw
    created_at_us: Time = field(name="created_at")
    event_type: str | None = None


class EventPage(Record, frozen=True):
    shown_as: ClassVar[str] = "GetEventsResponse"

    events: list[Event]
    has_more: HasMore
    next_sequence_id: Int64 | None = None


class ListedTopic(Record, frozen=True):
    """Retention deletes the oldest events; numbers are not given again."""

    shown_as: ClassVar[str] = "TopicResponse"

    topic: str
    last_sequence_id: Int64
    """How many events were ever published; 0 for a topic with waits only."""
    first_sequence_id: Int64 | None = None
    """The oldest kept event."""
    last_event_at_us: Time | None = field(default=None, name="last_event_at")
    """Null if the last event is not kept."""
    last_event_type: str | None = None


class PublishedEvents(Record, frozen=True):
    """The numbers in the order of the request."""

    shown_as: ClassVar[str] = "PublishEventResponse"

    sequence_ids: list[Int64]
    created_at_us: Time = field(name="created_at")


class JournalEvent(Struct, frozen=True, gc=False):
    """An event as the value of a journal row."""

    id: str
    sequence_id: int
    topic: str
    event_type: str | None
    data: Raw
    created_at_us: int


class EventData(EventItem, frozen=True, forbid_unknown_fields=False):
    """An event to publish. For a repeated `dedup_key` the topic keeps the first event and answers with its number."""

    data: RequiredJson
    execution_id: str | None = None
    attempt_number: Int32 | None = None


def checked_topic(value: str, where: str) -> str:
    """Raises BadValue."""
    check_name(value, where=f"query.{where}", max_bytes=TOPIC_BYTES_MAX)
    return value


events: Final = Noun("Events")


@events.post("/api/v1/events/publish", role=Role.WORK, contract=True, idempotent=True)
class PublishEvent(Operation[PublishedEvents], frozen=True, forbid_unknown_fields=False):
    """Append events to a topic, in order, in one transaction.

    A `suspend_…` event names the asking execution in `execution_id`, here or in the first event.
    """

    topic: Topic
    events: Annotated[list[EventData], MaxItems(PUBLISH_MAX, BadRequest)]
    durable: bool | None = None
    execution_id: str | None = None
    root_execution_id: str | None = None

    def check(self) -> None:
        if self.durable and not (is_uuid(self.execution_id or "") and is_uuid(self.root_execution_id or "")):
            raise BadRequest("body.durable: needs `execution_id` and `root_execution_id`, both UUIDs.")
        if not 1 <= len(self.events) <= PUBLISH_MAX:
            raise BadRequest(f"Publish 1 to {PUBLISH_MAX} events at once, got {len(self.events)}.")
        for event in self.events:
            validated(event)


@events.get("/api/v1/events", contract=True)
class GetEvents(Operation[EventPage], frozen=True):
    """Read a topic."""

    topic: Annotated[str, checked_topic]
    last_sequence_id: Position | None = None
    """Exclusive; wins over last_timestamp."""
    last_timestamp_us: Time | None = field(default=None, name="last_timestamp")
    """Exclusive."""
    limit: Annotated[Int32, between(1, PAGE_MAX)] = 100
    """1 to 1,000."""
    sort: Literal["asc", "desc"] = "asc"
    project_id: ProjectInQuery | None = None


@events.get("/api/v1/topics", under="topics", reply="TopicsResponse")
class ListTopics(Operation[Listed[ListedTopic]], frozen=True):
    """Topics of the project, by name, without the topics of budgets (`budget/ID`)."""

    prefix: Annotated[str, text_check(TOPIC_BYTES_MAX)] = ""
    """Only topics whose name begins with this text."""
    cursor: PageCursor | None = None
    limit: Limit = 100
