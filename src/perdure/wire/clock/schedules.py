"""Schedules, and the pure function to select due times for firing."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from msgspec import Raw, Struct, field, json

from perdure.wire.base.access import Role
from perdure.wire.base.brief_executions import StartedExecution
from perdure.wire.base.fields import (
    PAGE_MAX,
    Cursor,
    Declared,
    HasMore,
    Int32,
    Json,
    Limit,
    Name,
    ProjectInQuery,
    Time,
    Uuid,
    Value,
    ZonedTime,
    between,
    id_check,
    within,
)
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.clock.cron import NEXT_MAX, cron

MISSED_AFTER_US: Final = 60_000_000
"""A slot found later is missed. The minute is the finest step of cron."""
WINDOW_SECONDS: Final = 86_400
"""How far back `missed="all"` reaches by default."""
WINDOW_SECONDS_MIN: Final = 60
WINDOW_SECONDS_MAX: Final = 31 * 86_400
WAITING_MAX: Final = 100
"""Most waiting fires of a schedule; further slots are skipped."""
_FAR_US: Final = 221_845_392_000_000_000  # the year 9000


class ScheduleStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"


class Overlap(StrEnum):
    SKIP = "skip"
    QUEUE = "queue"
    """The due time waits for a turn."""
    ALLOW = "allow"


class Missed(StrEnum):
    SKIP = "skip"
    LATEST = "latest"
    """The last due time is fired, late."""
    ALL = "all"
    """Each within `missed_window_seconds` is fired, in order."""


class FireState(StrEnum):
    STARTED = "started"
    WAITING = "waiting"
    DONE = "done"
    SKIPPED = "skipped"


ScheduleId = Annotated[str, id_check("schedule")]
Window = Annotated[Int32, within(WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX)]


class StoredSchedule(Record, frozen=True):
    shown_as: ClassVar[str] = "ScheduleResponse"

    id: Uuid
    workflow_id: str
    cron: str
    timezone: str
    key: str
    status: ScheduleStatus
    next_at_us: Time = field(name="next_run_at")
    """The first due time not handled yet. A paused schedule shows the next due time after now."""
    created_at_us: Time = field(name="created_at")
    updated_at_us: Time = field(name="updated_at")
    last_slot_us: Time | None = field(default=None, name="last_run_at")
    """The last due time with an execution."""
    overlap: Overlap = Overlap.QUEUE
    missed: Missed = Missed.LATEST
    missed_window_seconds: Int32 = WINDOW_SECONDS
    payload: Value = None
    """The input of executions; null: the due time and its context."""
    declared: Declared = False

    def following(self, at_us: int) -> int:
        """The next due time. Never before the last fired slot: a clock going back repeats no slot."""
        at_us = max(at_us, self.last_slot_us or 0)
        return cron(self.cron, self.timezone).next_after(at_us) or _FAR_US


class Fire(Record, frozen=True):
    """A due time, or a run `by_hand`."""

    shown_as: ClassVar[str] = "FireResponse"

    slot_us: Time = field(name="due_at")
    fired_at_us: Time = field(name="fired_at")
    by_hand: bool
    state: FireState
    """`started` while the execution is open, `waiting` for the execution before, `done` after the end, or `skipped`."""
    execution_id: str | None = None
    reason: str | None = None
    """The reason for skipping."""


class ScheduleMade(Record, frozen=True):
    shown_as: ClassVar[str] = "CreateScheduleResponse"

    schedule_id: Uuid


class Fires(Record, frozen=True):
    shown_as: ClassVar[str] = "FiresResponse"

    fires: list[Fire]
    has_more: HasMore


class ScheduleSpec(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The pair (workflow, key) names a schedule. Omitted or null fields stay; a new schedule takes the defaults."""

    workflow_id: Name
    cron: str
    """Minute, hour, day of month, month, day of week; 0 and 7 are Sunday, names work too."""
    timezone: str
    """An IANA name."""
    key: Name
    """The schedule's name within the workflow."""
    overlap: Overlap | None = None
    """A due time while an earlier execution is open: `queue` by default."""
    missed: Missed | None = None
    """Due times while no server ran: `latest` by default."""
    missed_window_seconds: Window | None = None
    """How far back `all` reaches: 60 to 2,678,400, a day by default."""
    payload: Json = None
    """The input of executions; null: the due time and its context."""

    def check(self) -> None:
        cron(self.cron, self.timezone)


schedules: Final = Noun("Schedules")


@schedules.post("/api/v1/schedules", role=Role.WORK, contract=True, idempotent=True, body="CreateScheduleRequest")
class CreateSchedule(ScheduleSpec, Operation[ScheduleMade], frozen=True, forbid_unknown_fields=False):
    """Make or replace a schedule.

    The same definition again changes nothing. A changed schedule starts again from now. A paused schedule stays paused.
    """


@schedules.get(
    "/api/v1/schedules/workflows", contract=True, under="workflow_ids", reply="GetScheduledWorkflowsResponse"
)
class GetScheduledWorkflows(Operation[Listed[str]], frozen=True):
    """Workflows with an active schedule, by name."""

    project_id: ProjectInQuery | None = None


@schedules.get(
    "/api/v1/schedules/workflows/{workflow_id}", contract=True, reply="GetSchedulesResponse", under="schedules"
)
class GetSchedulesForWorkflow(Operation[Listed[StoredSchedule]], frozen=True):
    """Schedules of a workflow, newest first."""

    workflow_id: str
    cursor: Cursor | None = None
    limit: Limit = PAGE_MAX
    project_id: ProjectInQuery | None = None


@schedules.get("/api/v1/schedules", under="schedules", reply="SchedulesResponse")
class ListSchedules(Operation[Listed[StoredSchedule]], frozen=True):
    """The project's schedules, newest first."""

    workflow_id: str | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


@schedules.get("/api/v1/schedules/{schedule_id}")
class GetSchedule(Operation[StoredSchedule], frozen=True):
    """A schedule."""

    schedule_id: ScheduleId


@schedules.patch("/api/v1/schedules/{schedule_id}", body="ScheduleChange")
class ChangeSchedule(Operation[StoredSchedule], frozen=True):
    """Change, pause or resume a schedule.

    Fields that are left out or null stay, but a null `payload` makes the due time the input again. Due times during a
    pause are not missed.
    """

    schedule_id: ScheduleId
    status: ScheduleStatus | None = None
    cron: str | None = None
    timezone: str | None = None
    overlap: Overlap | None = None
    missed: Missed | None = None
    missed_window_seconds: Window | None = None
    payload: Json = None


@schedules.delete("/api/v1/schedules/{schedule_id}")
class DeleteSchedule(Operation[None], frozen=True):
    """Delete a schedule and its fires, but no executions."""

    schedule_id: ScheduleId


@schedules.get(
    "/api/v1/schedules/{schedule_id}/next",
    under="next",
    reply="NextRunsResponse",
    order="The coming due times, each with the offset that the schedule's zone has then.",
)
class GetNextRuns(Operation[Listed[ZonedTime]], frozen=True):
    """The coming due times of a schedule."""

    schedule_id: ScheduleId
    count: Annotated[int, between(1, NEXT_MAX)] = 10
    """1 to 100."""


@schedules.get(
    "/api/v1/schedules/preview",
    under="next",
    reply="NextRunsResponse",
    order="The coming due times, each with the offset that the schedule's zone has then.",
)
class PreviewSchedule(Operation[Listed[ZonedTime]], frozen=True):
    """The coming due times of an expression, before a schedule exists."""

    cron: str
    timezone: str = "UTC"
    count: Annotated[int, between(1, NEXT_MAX)] = 10
    """1 to 100."""

    def check(self) -> None:
        cron(self.cron, self.timezone)


@schedules.get("/api/v1/schedules/{schedule_id}/fires")
class GetFires(Operation[Fires], frozen=True):
    """Outcomes of a schedule's due times, newest first."""

    schedule_id: ScheduleId
    before: Time | None = None
    """Only earlier due times: the `due_at` of the last fire of the page before."""
    limit: Limit = 50


@schedules.post("/api/v1/schedules/{schedule_id}/run", idempotent=True)
class RunSchedule(Operation[StartedExecution], frozen=True):
    """Start an execution of a schedule now.

    The overlap policy does not apply, and the due times stay.
    """

    schedule_id: ScheduleId


class ScheduledFor(Struct, frozen=True):
    """The input of an execution from a schedule. Times are in the schedule's zone."""

    timestamp: datetime
    """The due time of the execution."""
    last_timestamp: datetime | None
    """The previous due time with an execution."""
    timezone: str
    schedule_id: str
    key: str
    upcoming: datetime


def due_slots(schedule: StoredSchedule, now_us: int, limit: int) -> tuple[list[int], int]:
    """Slots to fire now, `limit` at most, and the next slot. Raises BadValue for a zone unknown here."""
    first = schedule.next_at_us
    if first > now_us:
        return [], first
    read = cron(schedule.cron, schedule.timezone)
    if schedule.missed is Missed.ALL:
        after = now_us - schedule.missed_window_seconds * 1_000_000 - 1
        # The stored slot stays valid, though the zone's rules may have changed since.
        kept = [first] if first > after else []
        slots = [*kept, *read.slots(max(first, after), now_us, limit - len(kept))]
        return slots, schedule.following(slots[-1] if len(slots) == limit else now_us)
    last = max(first, read.last_until(now_us) or first)
    is_late = now_us - last >= MISSED_AFTER_US
    return [] if is_late and schedule.missed is Missed.SKIP else [last], schedule.following(now_us)


def input_of(schedule: StoredSchedule, at_us: int) -> Raw:
    if schedule.payload is not None:
        return schedule.payload
    read = cron(schedule.cron, schedule.timezone)
    last_us = schedule.last_slot_us
    return Raw(
        json.encode(
            ScheduledFor(
                timestamp=read.local(at_us),
                last_timestamp=None if last_us is None else read.local(last_us),
                timezone=schedule.timezone,
                schedule_id=schedule.id,
                key=schedule.key,
                upcoming=read.local(read.next_after(at_us) or _FAR_US),
            )
        )
    )
