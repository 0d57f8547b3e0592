"""Lists of executions for people: rows without payload and result, each with a line on the execution's state."""

from enum import StrEnum
from typing import Annotated, ClassVar, Final, NamedTuple

from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import (
    Int32,
    Int64,
    NextCursor,
    PageCursor,
    Time,
    Uuid,
    Value,
    between,
    checked_cursor,
    is_uuid,
)
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record, derived, shown_before
from perdure.wire.base.status import STATUS, Phase, Status
from perdure.wire.runs.executions import LIST_MAX, ListFilters


class ExecutionSummary(Record, frozen=True, kw_only=True, gc=False):
    """An execution in a list, without payload and result."""

    id: Uuid
    workflow_id: str
    key: str | None
    phase: Phase
    details: str | None = None
    """A line with the error, else the current step, else the wait, whose times are `since` and `due_at`. Completed
    executions: why the run ended early, else null."""
    since_us: Time
    """When the phase began."""
    due_at_us: Time | None
    """When the phase ends by itself."""
    created_at_us: Time
    started_at_us: Time | None
    completed_at_us: Time | None
    losses: Int32
    """Workers lost with the execution since the last outcome."""
    tries: Int32
    """How often the retry policy has begun the execution."""
    progress: Value
    """Null above 1 KiB."""
    deployment_id: str | None
    queue_name: str
    concurrency_key: str | None
    paused: bool
    """Whether a pause holds the ready execution."""
    assigned_to_worker: str | None
    parent_execution_id: str | None
    root_execution_id: str | None
    batch_id: str | None
    session_id: str
    user_id: str | None
    tags: Value
    forked_from: str | None
    forked_at_step: str | None
    retried_as: str | None

    @shown_before("phase")
    def status(self) -> Status:
        return STATUS[self.phase]

    @derived
    def took_ms(self) -> Int64 | None:
        """Time from begin to end; null while open, and without a begin."""
        if self.started_at_us is None or self.completed_at_us is None:
            return None
        return max(0, self.completed_at_us - self.started_at_us) // 1_000


class SummaryPage(Record, frozen=True):
    shown_as: ClassVar[str] = "SummariesResponse"
    sent_as: ClassVar[str] = "page"

    executions: list[ExecutionSummary]
    next_cursor: NextCursor | None = None
    searched_to_us: Time | None = None
    """Meaning as in `ExecutionsResponse`."""
    searchable_from_us: Time | None = None
    """Meaning as in `ExecutionsResponse`."""


class EndedSummary(NamedTuple):
    """An ended execution, and the execution's place in a list by end."""

    at_us: int
    id: str


def read_ended(cursor: str) -> EndedSummary:
    """Raises BadRequest."""
    at_us, _, id = cursor.partition("-")
    if not (at_us.isdecimal() and len(at_us) < 19 and is_uuid(id)):
        raise BadRequest("`cursor` is not one that a list by end gave; leave it out to start with the newest.")
    return EndedSummary(int(at_us), id.lower())


class SummarySort(StrEnum):
    CREATED = "created"
    ENDED = "ended"


summaries: Final = Noun("Executions")


@summaries.get("/api/v1/executions/summaries")
class ListSummaries(ListFilters, Operation[SummaryPage], frozen=True):
    """List executions for people, newest first: without payloads and results, each with a line of details."""

    cursor: PageCursor | None = None
    limit: Annotated[int, between(1, LIST_MAX)] = 50
    """1 to 500."""
    sort: SummarySort = SummarySort.CREATED
    """`ended`: only ended executions, the newest end first."""

    def check(self) -> None:
        """Raises BadRequest for the cursor of another list."""
        if self.cursor is None:
            return
        if self.sort is SummarySort.ENDED:
            read_ended(self.cursor)
        else:
            checked_cursor(self.cursor, "cursor")
