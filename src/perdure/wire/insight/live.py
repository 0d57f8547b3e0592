"""One stream of changes for everything that a page shows."""

from enum import StrEnum
from typing import Annotated, Final

from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import Int64, Time, Uuid, between
from perdure.wire.base.operation import Noun, Operation, Stream
from perdure.wire.base.record import Record
from perdure.wire.insight.summaries import ExecutionSummary, SummaryPage
from perdure.wire.runs.executions import LIST_MAX, LastEventId, ListFilters, words_check
from perdure.wire.runs.queues import QueueState


class Watch(StrEnum):
    LIST = "list"
    """A page of a list of executions."""
    COUNTS = "counts"
    INBOX = "inbox"
    QUEUES = "queues"


class CachedRecord(Record, frozen=True, dict=True):
    """A record for many streams, encoded once by the server."""


class ChangedRows(CachedRecord, frozen=True):
    """Changed executions of the page."""

    sent_as = "changed"

    executions: list[ExecutionSummary]


class GoneRows(CachedRecord, frozen=True):
    """Executions of the page that no longer fit, or were deleted. An execution that fits again comes as `changed`."""

    sent_as = "gone"

    ids: list[Uuid]


class NewRows(CachedRecord, frozen=True):
    """How many executions fit the filters and belong on the page, but are missing there."""

    sent_as = "new"

    count: Int64
    failed: Int64
    """How many new executions have failed."""
    at_least: bool
    """There are more, and the stream counts no further."""


class LiveCounts(CachedRecord, frozen=True):
    """The open executions and questions of the project."""

    sent_as = "counts"

    phases: dict[str, int]
    """How many executions are in each open phase."""
    paused: Int64
    """How many queued executions a pause holds."""
    questions: Int64
    """How many questions wait for an answer."""
    at_least: bool
    """Whether there are more questions: the server counts to 1,000."""


class InboxChanged(CachedRecord, frozen=True):
    """The open questions have changed: ask `GET /api/v1/approvals` again."""

    sent_as = "inbox"

    questions: Int64
    at_least: bool
    newest_at_us: Time | None
    """When the newest question was asked."""


class QueuesChanged(CachedRecord, frozen=True):
    """All queues, as in `GET /api/v1/queues`."""

    sent_as = "queues"

    queues: list[QueueState]


LiveEvent = SummaryPage | ChangedRows | GoneRows | NewRows | LiveCounts | InboxChanged | QueuesChanged

live: Final = Noun("Live")


@live.get("/api/v1/live")
class FollowLive(ListFilters, Operation[Stream[LiveEvent]], frozen=True, kw_only=True):
    """Follow what a page shows: a list, the counts of open executions, open questions, queues.

    The server-sent events are `page`, `changed`, `gone` and `new` for the list, and `counts`, `inbox` and `queues`.
    Each kind comes about once a second at most, and only if something changed. `page` comes first, and again after a
    gap. Filters are as in `GET /api/v1/executions`.
    """

    watch: Annotated[list[str], words_check(Watch)]
    """list, counts, inbox, queues; several with commas."""
    limit: Annotated[int, between(1, LIST_MAX)] = 50
    """How many executions the page has: 1 to 500."""
    last_event_id: LastEventId | None = None

    def check(self) -> None:
        if not self.watch:
            raise BadRequest(f"query.watch: name at least one of {', '.join(Watch)}", {"path": "query.watch"})
