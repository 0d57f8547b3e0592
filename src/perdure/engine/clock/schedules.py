"""The service of schedules, and the loop to fire due times."""

from __future__ import annotations

import asyncio
import logging

from uuid_utils import uuid7

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.clock import schedules
from perdure.wire.base.cursors import read_cursor, write_cursor
from perdure.wire.base.errors import PerdureError, Unavailable, UnknownOutcome
from perdure.wire.base.fields import FIRST_CURSOR, ZonedTime
from perdure.wire.base.operation import Listed
from perdure.wire.clock.calendar import SLOTS_MAX, Calendar, CalendarSchedule, GetCalendar, calendar_of
from perdure.wire.clock.cron import cron
from perdure.wire.clock.schedules import PreviewSchedule

logger = logging.getLogger("perdure.engine")

BATCH = 100
"""Schedules per round, and executions per round for a late schedule."""


class ScheduleService(Service):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._stuck: set[str] = set()
        self.waiting_workflows: frozenset[str] = frozenset()
        """Workflows whose ends may start a schedule's waiting execution."""

    @serves(GetCalendar)
    async def calendar(self, scope: Scope, op: GetCalendar) -> Calendar:
        now_us = self.now_us()
        from_us, to_us = op.range(now_us)
        (before,) = (FIRST_CURSOR,) if op.cursor is None else read_cursor(op.cursor, tuple[str], "newest")
        found = await self.scan(
            schedules.fires_between(
                project_id=scope.project_id,
                before=before,
                limit=op.limit + 1,
                from_us=from_us,
                to_us=to_us,
                fires_max=SLOTS_MAX,
            )
        )
        page = found[: op.limit]
        shown: list[CalendarSchedule] = []
        for schedule, fires in page:
            shown.append(calendar_of(schedule, fires, from_us, to_us, now_us))
            await asyncio.sleep(0)  # 500 due times take milliseconds
        return Calendar(
            from_us=from_us,
            to_us=to_us,
            schedules=shown,
            next_cursor=write_cursor((page[-1][0].id,)) if len(found) > op.limit else None,
        )

    @serves(PreviewSchedule)
    async def preview(self, scope: Scope, op: PreviewSchedule) -> Listed[ZonedTime]:
        read = cron(op.cron, op.timezone)
        return Listed([read.local(at_us) for at_us in read.slots(self.now_us(), 1 << 62, op.count)])

    def notify(self) -> None:
        self._core.notifier.notify(("loop", "schedule"))

    async def fire_due(self) -> float:
        """Fire due schedules. The query is only a hint: each verb checks again under the row's lock, and skips a
        schedule that another server is firing."""
        core = self._core
        now_us = core.clock.now_us()
        # Stuck schedules stay due the longest, and must not crowd out the rest.
        limit = BATCH + len(self._stuck)
        due = await core.store.read(schedules.due_schedules(now_us=now_us, limit=limit))
        self.waiting_workflows = due.waiting_workflows
        if not due.schedules:
            return 1.0 if due.next_at_us is None else min(max((due.next_at_us - now_us) / 1e6, 0.0), 1.0)
        if due.since_us is not None:
            core.stats.schedule_lag_seconds = (now_us - due.since_us) / 1e6
        answers = await core.store.write_all(
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
            elif answer is not None:
                self._stuck.discard(schedule_id)
                went_on = True
        return 0.0 if went_on else 1.0

    def _complain(self, schedule_id: str, error: Exception) -> None:
        if schedule_id in self._stuck:
            return
        self._stuck.add(schedule_id)
        known = error if not isinstance(error, PerdureError) else None
        logger.error("Schedule %s cannot be fired here: %s", schedule_id, error, exc_info=known)
