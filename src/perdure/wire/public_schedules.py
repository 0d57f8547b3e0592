"""The public API's shapes of schedules, with the contract's names where it has them (see `wire/public.py`)."""

from msgspec import Struct

from perdure.wire.public import Int32, Time, Uuid, rfc3339
from perdure.wire.records import MaybeRaw
from perdure.wire.schedules import Fire, Missed, Overlap, StoredSchedule


class CreateScheduleRequest(Struct, frozen=True):
    """Make a schedule, or replace the definition of the one with that workflow and key.

    What is left out, or null, stays as it is; of a new schedule it is the default.
    """

    workflow_id: str
    cron: str
    """Five fields: minute, hour, day of month, month, day of week; 0 and 7 are Sunday, names work too."""
    timezone: str
    """An IANA name."""
    key: str
    """Its name within the workflow."""
    overlap: Overlap | None = None
    """What happens to a due time while an execution of the schedule is open; `queue` by default."""
    missed: Missed | None = None
    """What happens to due times that passed while no server ran; `latest` by default."""
    missed_window_seconds: Int32 | None = None
    """How far back `all` reaches: 60 to 2,678,400, a day by default."""
    payload: MaybeRaw = None
    """What its executions get; null: the due time and what there is to say of it."""


class CreateScheduleResponse(Struct, frozen=True):
    """The schedule, new or known."""

    schedule_id: Uuid


class ScheduleResponse(Struct, frozen=True):
    """One schedule. `last_run_at` is the last due time for which an execution was started."""

    id: Uuid
    workflow_id: str
    cron: str
    timezone: str
    key: str
    status: str
    """`active` or `paused`."""
    next_run_at: Time
    """Of a paused one: what it would be if it went on now."""
    created_at: Time
    updated_at: Time
    last_run_at: Time | None = None
    overlap: str | None = None
    missed: str | None = None
    missed_window_seconds: Int32 | None = None
    payload: MaybeRaw = None
    declared: bool | None = None
    """Whether code declares it: it goes when a registration of the current deployment no longer does."""


def schedule_response(schedule: StoredSchedule) -> ScheduleResponse:
    """A schedule as the API shows it."""
    s = schedule
    return ScheduleResponse(
        s.id,
        s.workflow_id,
        s.cron,
        s.timezone,
        s.key,
        s.status.value,
        rfc3339(s.next_at_us),
        rfc3339(s.created_at_us),
        rfc3339(s.updated_at_us),
        None if s.last_slot_us is None else rfc3339(s.last_slot_us),
        s.overlap.value,
        s.missed.value,
        s.missed_window_seconds,
        s.payload,
        s.declared,
    )


class GetSchedulesResponse(Struct, frozen=True):
    """The schedules of one workflow, newest first; `next_cursor` asks for the following page and is null after the
    last."""

    schedules: list[ScheduleResponse]
    next_cursor: str | None = None


class GetScheduledWorkflowsResponse(Struct, frozen=True):
    """The workflows that have an active schedule, by name."""

    workflow_ids: list[str]


class SchedulesResponse(Struct, frozen=True):
    """One page, newest first; `next_cursor` asks for the following one and is null after the last."""

    schedules: list[ScheduleResponse]
    next_cursor: str | None = None


class NextRunsResponse(Struct, frozen=True):
    """The coming due times, with the offset that the schedule's zone has then."""

    next: list[Time]


class FireResponse(Struct, frozen=True):
    """What became of one due time, or (`by_hand`) of a run that somebody asked for."""

    due_at: Time
    fired_at: Time
    by_hand: bool
    state: str
    """`started`, `waiting` for the one before it, `done` once its execution has ended, or `skipped`."""
    execution_id: str | None = None
    reason: str | None = None
    """Why it was skipped."""


def fire_response(fire: Fire) -> FireResponse:
    """A fire as the API shows it."""
    return FireResponse(
        rfc3339(fire.slot_us),
        rfc3339(fire.fired_at_us),
        fire.by_hand,
        fire.state.value,
        fire.execution_id,
        fire.reason,
    )


class FiresResponse(Struct, frozen=True):
    """The latest fires, newest first; `has_more`: the page was full."""

    fires: list[FireResponse]
    has_more: bool
