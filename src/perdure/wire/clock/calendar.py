"""Due times of all schedules in a range of time."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final

from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.fields import NextCursor, PageCursor, Time, Uuid, between
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.clock.cron import cron
from perdure.wire.clock.schedules import Fire, ScheduleStatus, StoredSchedule

SLOTS_MAX: Final = 500
"""Most due times of a schedule."""
DAYS_MAX: Final = 8
SCHEDULES_MAX: Final = 100
_DAY_US: Final = 86_400_000_000


class SlotState(StrEnum):
    DUE = "due"
    """The due time is still to come."""
    STARTED = "started"
    WAITING = "waiting"
    DONE = "done"
    SKIPPED = "skipped"


class CalendarSlot(Record, frozen=True):
    due_at_us: Time
    state: SlotState
    execution_id: str | None = None
    reason: str | None = None
    """The reason for skipping."""


class CalendarSchedule(Record, frozen=True, kw_only=True):
    schedule_id: Uuid
    workflow_id: str
    key: str
    status: ScheduleStatus
    slots: list[CalendarSlot]
    """Due times in order, without runs by hand."""
    more: bool = False
    """Later due times are left out."""


class Calendar(Record, frozen=True, kw_only=True):
    from_us: Time
    to_us: Time
    schedules: list[CalendarSchedule]
    """The newest first."""
    next_cursor: NextCursor | None = None


def calendar_of(
    schedule: StoredSchedule, fires: Sequence[Fire], from_us: int, to_us: int, now_us: int
) -> CalendarSchedule:
    """`fires` are in the range. A schedule with a zone unknown here has no coming due times."""
    past = [
        CalendarSlot(one.slot_us, SlotState(one.state.value), one.execution_id, one.reason)
        for one in sorted(fires, key=lambda fire: fire.slot_us)
        if not one.by_hand
    ]
    coming: list[int] = []
    if schedule.status is ScheduleStatus.ACTIVE:
        after_us = max(now_us, from_us - 1, schedule.last_slot_us or 0)
        try:
            coming = cron(schedule.cron, schedule.timezone).slots(after_us, to_us - 1, SLOTS_MAX + 1)
        except BadValue:
            coming = []
    slots = [*past, *(CalendarSlot(at_us, SlotState.DUE) for at_us in coming)]
    return CalendarSchedule(
        schedule_id=schedule.id,
        workflow_id=schedule.workflow_id,
        key=schedule.key,
        status=schedule.status,
        slots=slots[:SLOTS_MAX],
        more=len(slots) > SLOTS_MAX,
    )


calendar: Final = Noun("Schedules")


@calendar.get("/api/v1/schedules/calendar")
class GetCalendar(Operation[Calendar], frozen=True):
    """Due times of all schedules in a range: past due times with outcomes, and coming due times."""

    from_us: Time | None = None
    """The beginning of the range, now by default."""
    to_us: Time | None = None
    """The end of the range, at most 8 days later. 7 days later by default."""
    cursor: PageCursor | None = None
    limit: Annotated[int, between(1, SCHEDULES_MAX)] = SCHEDULES_MAX
    """1 to 100 schedules."""

    def range(self, now_us: int) -> tuple[int, int]:
        """Raises BadRequest for an empty or too long range."""
        from_us = now_us if self.from_us is None else self.from_us
        to_us = from_us + 7 * _DAY_US if self.to_us is None else self.to_us
        if not from_us < to_us <= from_us + DAYS_MAX * _DAY_US:
            raise BadRequest(f"query.to: must be later than `from`, by at most {DAYS_MAX} days.", {"path": "query.to"})
        return from_us, to_us
