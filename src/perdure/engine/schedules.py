"""Desk: schedules are made, changed, deleted, previewed, run by hand; and what is due is fired."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace
from uuid_utils import uuid7

from perdure.engine.executions import checked_cursor, checked_id
from perdure.store.verbs import schedules
from perdure.store.verbs.idempotency import Idempotency
from perdure.wire.codec import check_json, check_name
from perdure.wire.cron import NEXT_MAX, cron
from perdure.wire.errors import BadRequest, BadValue, PerdureError, Unavailable, UnknownOutcome
from perdure.wire.requests import ScheduleChange, ScheduleSpec, Started
from perdure.wire.schedules import WINDOW_SECONDS_MAX, WINDOW_SECONDS_MIN, Fire, ScheduleStatus, StoredSchedule

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

logger = logging.getLogger("perdure.engine")

LIST_MAX = 1_000
BATCH = 100
"""Schedules fired in one go, and executions started in one go for one that is behind."""


class Schedules:
    """What callers may ask of schedules, and what the loop does with them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stuck: set[str] = set()
        """Those that could not be fired here when they were looked at last."""
        self.waiting_workflows: frozenset[str] = frozenset()
        """Whose executions' ends are waited for: a schedule's next one is started then."""

    async def put(self, project_id: str, spec: ScheduleSpec, *, idempotency: Idempotency | None = None) -> str:
        """Make a schedule, or bring the one of that (workflow, key) up to date; answers its id. Raises BadValue."""
        check_spec(spec)
        id = await self._engine.store.write(
            schedules.make_schedule(
                project_id=project_id,
                id=str(uuid7()),
                spec=spec,
                now_us=self._engine.clock.now_us(),
                idempotency=idempotency,
            )
        )
        self.ring()
        return id

    async def change(self, project_id: str, schedule_id: str, change: ScheduleChange) -> StoredSchedule:
        """Change, pause or resume a schedule; answers what it is now. Raises NotFound, BadValue."""
        check_window(change.missed_window_seconds)
        if change.payload is not None:
            check_json(bytes(change.payload), where="payload")
        changed = await self._engine.store.write(
            schedules.change_schedule(
                project_id=project_id,
                schedule_id=checked_id(schedule_id, "schedule"),
                change=change,
                now_us=self._engine.clock.now_us(),
            )
        )
        self.ring()
        return changed

    async def delete(self, project_id: str, schedule_id: str) -> None:
        """Delete a schedule; executions that it started stay. Raises NotFound."""
        await self._engine.store.write(
            schedules.delete_schedule(project_id=project_id, schedule_id=checked_id(schedule_id, "schedule"))
        )

    async def run(self, project_id: str, schedule_id: str, *, idempotency: Idempotency | None = None) -> Started:
        """Start an execution of a schedule now. Raises NotFound, WorkflowNotFound."""
        return await self._engine.store.write(
            schedules.run_schedule(
                project_id=project_id,
                schedule_id=checked_id(schedule_id, "schedule"),
                id=str(uuid7()),
                now_us=self._engine.clock.now_us(),
                idempotency=idempotency,
            )
        )

    async def get(self, project_id: str, schedule_id: str) -> StoredSchedule:
        """One schedule. Raises NotFound."""
        return self._shown(
            await self._engine.store.read(
                schedules.get_schedule(project_id=project_id, schedule_id=checked_id(schedule_id, "schedule"))
            )
        )

    async def list(
        self, project_id: str, workflow_id: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[StoredSchedule], str | None]:
        """A page of schedules, newest first, and where the next one starts."""
        if not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"`limit` must be 1 to {LIST_MAX:,}, got {limit}.")
        before = checked_cursor(cursor)
        found = await self._engine.store.read(
            schedules.list_schedules(project_id=project_id, workflow_id=workflow_id, before=before, limit=limit + 1)
        )
        page = [self._shown(one) for one in found[:limit]]
        return page, page[-1].id if len(found) > limit else None

    async def workflows(self, project_id: str) -> Sequence[str]:
        """The workflows that have an active schedule."""
        return await self._engine.store.read(schedules.scheduled_workflows(project_id=project_id))

    async def fires(
        self, project_id: str, schedule_id: str, *, before_us: int = 1 << 62, limit: int = 50
    ) -> Sequence[Fire]:
        """What became of a schedule's due times, newest first. Raises NotFound."""
        if not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"`limit` must be 1 to {LIST_MAX:,}, got {limit}.")
        return await self._engine.store.read(
            schedules.list_fires(
                project_id=project_id,
                schedule_id=checked_id(schedule_id, "schedule"),
                before_us=before_us,
                limit=limit,
            )
        )

    async def next(self, project_id: str, schedule_id: str, count: int = 10) -> Sequence[datetime]:
        """The coming due times, in the schedule's zone; of a paused one those that would be. Raises NotFound."""
        if not 1 <= count <= NEXT_MAX:
            raise BadRequest(f"`count` must be 1 to {NEXT_MAX}, got {count}.")
        schedule = await self.get(project_id, schedule_id)
        read = cron(schedule.cron, schedule.timezone)
        first = schedule.next_at_us
        return [read.local(at_us) for at_us in [first, *read.slots(first, 1 << 62, count - 1)]]

    def _shown(self, schedule: StoredSchedule) -> StoredSchedule:
        """As it is shown: what is next of a paused one is what would be next if it went on now."""
        if schedule.status is ScheduleStatus.ACTIVE:
            return schedule
        try:
            return replace(schedule, next_at_us=schedule.following(self._engine.clock.now_us()))
        except BadValue:  # a zone that only other servers know
            return schedule

    # --- the loop ----------------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Something may be due sooner than the loop knows."""
        self._engine.doorbell.ring(("loop", "schedule"))

    async def fire_due(self) -> float:
        """Fire what is due; answers after how many seconds to look again.

        The look is only a hint: each schedule is fired by a verb that looks again under its row's lock, and leaves it
        to another server that is at it already.
        """
        engine = self._engine
        now_us = engine.clock.now_us()
        # What cannot be fired stays due the longest: it is to take no place of others.
        limit = BATCH + len(self._stuck)
        due = await engine.store.read(schedules.due_schedules(now_us=now_us, limit=limit))
        self.waiting_workflows = due.waiting_workflows
        if not due.schedules:
            return 1.0 if due.next_at_us is None else min(max((due.next_at_us - now_us) / 1e6, 0.0), 1.0)
        if due.since_us is not None:
            engine.stats.schedule_lag_seconds = (now_us - due.since_us) / 1e6
        answers = await engine.store.write_all(
            [
                schedules.fire_schedule(
                    project_id=project_id,
                    schedule_id=schedule_id,
                    ids=[str(uuid7()) for _ in range(BATCH if every else 2)],
                    now_us=now_us,
                )
                for project_id, schedule_id, every in due.schedules
            ]
        )
        went_on = False
        for (_, schedule_id, _), answer in zip(due.schedules, answers, strict=True):
            if isinstance(answer, Unavailable | UnknownOutcome):
                raise answer
            if isinstance(answer, Exception):
                self._complain(schedule_id, answer)
            elif answer.looked:
                self._stuck.discard(schedule_id)
                went_on = True
        return 0.0 if went_on else 1.0

    def _complain(self, schedule_id: str, error: Exception) -> None:
        """One log line for a schedule that cannot be fired here; it stays due."""
        if schedule_id in self._stuck:
            return
        self._stuck.add(schedule_id)
        known = error if not isinstance(error, PerdureError) else None
        logger.error("Schedule %s cannot be fired here: %s", schedule_id, error, exc_info=known)


def check_spec(spec: ScheduleSpec) -> None:
    """Refuse what could not be kept or would never be due. Raises BadValue with the field."""
    check_name(spec.workflow_id, where="workflow_id")
    check_name(spec.key, where="key")
    cron(spec.cron, spec.timezone)
    check_window(spec.missed_window_seconds)
    if spec.payload is not None:
        check_json(bytes(spec.payload), where="payload")


def check_window(seconds: int | None) -> None:
    if seconds is not None and not WINDOW_SECONDS_MIN <= seconds <= WINDOW_SECONDS_MAX:
        raise BadValue(
            f"missed_window_seconds: must be {WINDOW_SECONDS_MIN} to {WINDOW_SECONDS_MAX:,}, got {seconds}.",
            {"path": "missed_window_seconds"},
        )
