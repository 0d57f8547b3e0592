"""What the server remembers of schedules, and the pure function that says which due times are fired.

A *slot* is a due time. Each slot of a schedule is fired once: an execution is started for it, or waits for the one
before it to end, or the slot is skipped, as the schedule's `overlap` says. Slots that passed while nobody looked are
*missed*, and `missed` says what becomes of them.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Raw, Struct, json

from perdure.wire.cron import cron
from perdure.wire.records import MaybeRaw

MISSED_AFTER_US: Final = 60_000_000
"""How late a due time may be found and still be fired as if it were on time; the minute is the finest step of cron."""
WINDOW_SECONDS: Final = 86_400
"""How far back `missed="all"` reaches unless the schedule says so itself."""
WINDOW_SECONDS_MIN: Final = 60
WINDOW_SECONDS_MAX: Final = 31 * 86_400
WAITING_MAX: Final = 100
"""How many fires of one schedule wait for the one before them; further due times are skipped."""
_FAR_US: Final = 221_845_392_000_000_000  # the year 9000: an expression that is never due again


class ScheduleStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"


class Overlap(StrEnum):
    """What happens to a due time while an execution of the schedule is still open."""

    SKIP = "skip"
    """Nothing is started."""
    QUEUE = "queue"
    """It waits its turn: one at a time, in order."""
    ALLOW = "allow"
    """It is started beside the other."""


class Missed(StrEnum):
    """What happens to due times that passed while no server ran."""

    SKIP = "skip"
    """Nothing is started for them."""
    LATEST = "latest"
    """The last one is fired, late."""
    ALL = "all"
    """Each within `missed_window_seconds` is fired, in order."""


class FireState(StrEnum):
    STARTED = "started"
    """Its execution is open."""
    WAITING = "waiting"
    """It waits for the execution before it."""
    DONE = "done"
    """Its execution has ended."""
    SKIPPED = "skipped"


class StoredSchedule(Struct, frozen=True):
    """A schedule as stored. `next_at_us` is the first due time that was not looked at yet."""

    id: str
    project_id: str
    workflow_id: str
    key: str
    cron: str
    timezone: str
    status: ScheduleStatus
    overlap: Overlap
    missed: Missed
    missed_window_seconds: int
    payload: MaybeRaw
    declared: bool
    next_at_us: int
    last_slot_us: int | None
    created_at_us: int
    updated_at_us: int

    def following(self, at_us: int) -> int:
        """The first due time after a moment and after all that were fired: a clock that goes back repeats none."""
        at_us = max(at_us, self.last_slot_us or 0)
        return cron(self.cron, self.timezone).next_after(at_us) or _FAR_US


class Fire(Struct, frozen=True):
    """What became of one due time; `by_hand`: it was run when somebody asked, due or not."""

    slot_us: int
    by_hand: bool
    state: FireState
    execution_id: str | None
    reason: str | None
    fired_at_us: int


class ScheduledFor(Struct, frozen=True):
    """The input of a scheduled execution. Times are in the schedule's zone."""

    timestamp: datetime
    """The due time that it was started for."""
    last_timestamp: datetime | None
    """The last due time before it for which one was started."""
    timezone: str
    schedule_id: str
    key: str
    upcoming: datetime
    """The due time that follows."""


def due_slots(schedule: StoredSchedule, now_us: int, limit: int) -> tuple[list[int], int]:
    """The slots to fire now, at most so many, and the next one to look at. Raises BadValue for a zone unknown here."""
    first = schedule.next_at_us
    if first > now_us:
        return [], first
    read = cron(schedule.cron, schedule.timezone)
    if schedule.missed is Missed.ALL:
        after = now_us - schedule.missed_window_seconds * 1_000_000 - 1
        # The slot that is stored stands, though the zone's rules may have changed since.
        kept = [first] if first > after else []
        slots = [*kept, *read.slots(max(first, after), now_us, limit - len(kept))]
        return slots, schedule.following(slots[-1] if len(slots) == limit else now_us)
    last = max(first, read.last_until(now_us) or first)
    is_late = now_us - last >= MISSED_AFTER_US
    return [] if is_late and schedule.missed is Missed.SKIP else [last], schedule.following(now_us)


def input_of(schedule: StoredSchedule, at_us: int) -> Raw:
    """What the execution for a slot (or for a moment by hand) gets as its input."""
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
