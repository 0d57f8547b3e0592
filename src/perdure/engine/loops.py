"""Background loops, and their runner.

Any number of servers may run them: each round is a verb that takes what is due under the statement's own guards.
"""

import asyncio
import contextlib
import logging
import shlex
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from perdure.engine.base.clock import boottime_us
from perdure.engine.base.core import Core
from perdure.engine.base.notifier import Notifier
from perdure.engine.runs.beats import Beats
from perdure.store.verbs import retention
from perdure.store.verbs.outside.push_workers import PUSH_RUNTIME
from perdure.store.verbs.runs import claims, deployments, fields, queries, transitions
from perdure.store.verbs.steering import bulk
from perdure.wire.base.errors import StoreAway, Unavailable
from perdure.wire.base.status import LEASED, Phase

logger = logging.getLogger("perdure.engine")

BATCH = 500
CATCH_UP_SECONDS = 60.0
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
SETTLED_US = 30_000_000
"""Transactions that began before a field was declared have ended after this time."""


class Loop(NamedTuple):
    """A round returns the seconds until the next one."""

    name: str
    round: Callable[[], Awaitable[float]]


class Loops:
    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._refused: set[str] = set()

    async def run(self, loop: Loop) -> None:
        while True:
            cursor = self._notifier.cursor(("loop", loop.name))
            try:
                pause = await loop.round()
                self._passed(loop)
            except Unavailable as error:
                self._failed(loop, error)
                pause = 1.0
            except Exception as error:  # a loop must survive any error
                if str(error).startswith("cannot schedule new futures"):  # the interpreter is ending
                    return
                logger.exception("Loop %s failed; the next round comes in a second.", loop.name)
                pause = 1.0
            if pause > 0:
                await self._notifier.wait(("loop", loop.name), cursor, pause)
            else:
                await asyncio.sleep(0)

    def _failed(self, loop: Loop, error: Unavailable) -> None:
        """One log line for all loops."""
        if not self._refused:
            logger.warning("Loop %s: %s The loops try again every second.", loop.name, error)
        self._refused.add(loop.name)

    def _passed(self, loop: Loop) -> None:
        if loop.name in self._refused:
            self._refused.discard(loop.name)
            if not self._refused:
                logger.warning("The store answers all loops again.")


class Timers:
    def __init__(self, core: Core) -> None:
        self._core = core
        self.stepped_back_at_us = boottime_us()
        """Time since boot of the clock's last step back. First the start, because the clock may have stepped while no
        server ran. 0: all earlier timers are done."""
        self._told_of_ahead = False
        self._overdue_after = transitions.FIRST

    async def wake(self) -> float:
        async def wake(now_us: int) -> bool:
            return await self._core.store.write(transitions.wake_due(now_us=now_us, limit=BATCH)) > 0

        return await self._do_due(transitions.RESTING, wake)

    async def bring_forward(self) -> float:
        """Wakes timers set before the clock was put back, once their duration has passed since the step or the start of
        this process: after at most twice the duration. Rows stay unchanged.
        """
        if self.stepped_back_at_us == 0:
            return HOUR_US / 1e6
        found = await self._core.store.scan(transitions.set_ahead(now_us=self._core.clock.now_us()))
        if found is None:
            self.stepped_back_at_us = 0
            return HOUR_US / 1e6
        amount, shortest_us = found
        if not self._told_of_ahead:
            self._told_of_ahead = True
            logger.warning(
                "The clock was put back: %d executions went to sleep at a time that is still to come. Each wakes after "
                "its full duration, counted from now. Delayed starts, retries of workflows and schedules that were set "
                "before wait until the clock has caught up.",
                amount,
            )
        passed_us = boottime_us() - self.stepped_back_at_us
        if shortest_us <= passed_us:
            forward = transitions.bring_forward(now_us=self._core.clock.now_us(), passed_us=passed_us, limit=BATCH)
            return 0.0 if await self._core.store.write(forward) else 1.0
        return min(max((shortest_us - passed_us) / 1e6, 0.01), 60.0)

    async def end_overdue(self) -> float:
        """Run timeouts and graces. Separate from timers, because an end may have to wait for many locked executions."""

        core = self._core

        async def end(now_us: int) -> bool:
            found = await core.store.read(transitions.overdue(now_us=now_us, limit=BATCH, after=self._overdue_after))
            more = len(found) == BATCH
            self._overdue_after = found[-1] if more else transitions.FIRST  # executions behind locked ones may be free
            ends = [
                transitions.end_overdue(
                    project_id=one.project_id, execution_id=one.id, now_us=now_us, grace_us=core.grace_us
                )
                for one in found
            ]
            answers = await core.store.write_all(ends)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            return more or any(answers)

        return await self._do_due(LEASED, end)

    async def follow_clock(self) -> bool:
        """True if the clock jumped. Raises Unavailable."""
        core = self._core
        before_us = core.clock.now_us()
        jumped = core.clock.adjust(await core.read_time())
        if jumped and core.clock.now_us() < before_us:
            self.stepped_back_at_us, self._told_of_ahead = boottime_us(), False
            core.notifier.notify(("loop", "bring forward"))
        return jumped

    async def _do_due(self, phases: Collection[Phase], do: Callable[[int], Awaitable[bool]]) -> float:
        """If other servers hold all that is due, go on to the next due time without a busy loop."""
        now_us = self._core.clock.now_us()
        due = await self._core.store.read(transitions.next_due(phases=phases))
        if due is not None and due <= now_us:
            self._core.stats.timer_lag_seconds = (now_us - due) / 1e6
            if await do(now_us):
                return 0.0
            due = await self._core.store.read(transitions.next_due(phases=phases, after_us=now_us))
        pause = self._core.spread(1.0)
        return pause if due is None else min((due - now_us) / 1e6, pause)


class Reaper:
    def __init__(self, core: Core, timers: Timers, beats: Beats) -> None:
        self._core = core
        self._timers = timers
        self._beats = beats
        self._granting_until_us = 0
        """Time since boot until which the reaper grants leases. While not 0, leases that are too long must still be
        limited."""

    async def reap(self) -> float:
        """Run a round, and measure whether this server ran all the time.

        A frozen process is an absence, and so is a store that takes no writes. A wait for a lock is not: beats count
        from their arrival.
        """
        absence, lease_us = self._core.absence, self._core.lease_us
        began = seen = boottime_us()
        stood_still, away = False, absence.is_long(began)
        round = asyncio.ensure_future(self._round(away=away))
        try:
            while not round.done():
                await asyncio.wait({round}, timeout=lease_us / 4e6)
                stood_still = stood_still or boottime_us() - seen > lease_us // 2
                seen = boottime_us()
                if not round.done() and not away:
                    with contextlib.suppress(StoreAway):
                        await self._mark()
                    seen = boottime_us()
        finally:
            round.cancel()
        pause = round.result()
        absence.reaped_at_us = began if stood_still else seen
        return pause

    async def _round(self, *, away: bool) -> float:
        """End registrations whose lease ran out.

        After a long absence, grant leases instead, unless another server ran: servers that restart often would withhold
        the work of dead workers. After a jump of the clock, or with a locked registration, grant for one lease. Then
        limit leases that are too long because the clock went back.
        """
        core = self._core
        now = boottime_us()
        tick_us = min(core.lease_us // 4, 1_000_000)
        if await self._timers.follow_clock():
            self._granting_until_us = now + core.lease_us
        now_us = core.clock.now_us()
        until_us = now_us + core.lease_us
        if now < self._granting_until_us:
            await core.store.write(claims.grant_leases(until_us=until_us))
            core.absence.away_since_us = 0
            return tick_us / 1e6
        if away and await self._grant_unless_another_was_there():
            return tick_us / 1e6
        if self._granting_until_us:
            self._beats.limit(until_us)
            if not await core.store.write(claims.limit_leases(until_us=until_us)):
                self._granting_until_us = 0
        if not core.store.alone and not await self._mark():
            return tick_us / 1e6
        await self._beats.write_due(now_us)
        reaped = claims.reap(now_us=now_us, limit=BATCH, patience_us=core.lease_us, by_database=core.clock.of_database)
        if await core.store.write(reaped) == BATCH:
            return 0.0
        return core.spread(tick_us / 1e6)

    async def _mark(self) -> bool:
        """False if another server is writing the mark, or if the store was away: a mark would hide that from servers.
        Raises `StoreAway` if the store does not take the mark in time."""
        core, lease_us = self._core, self._core.lease_us
        if core.absence.is_store_away(boottime_us()):
            return False
        marks = claims.mark_reaper(now_us=core.clock.now_us(), every_us=lease_us // 8, locked_us=2 * lease_us)
        return await core.absence.written(core.store.write(marks))

    async def _grant_unless_another_was_there(self) -> bool:
        core, now_us, lease_us = self._core, self._core.clock.now_us(), self._core.lease_us
        unless_from_us = None if core.store.alone else now_us - lease_us // 2
        grants = claims.grant_leases(until_us=now_us + lease_us, unless_from_us=unless_from_us)
        left = await core.store.write(grants)
        core.absence.away_since_us = 0
        if left:
            self._granting_until_us = boottime_us() + lease_us
        return left is not None


class Housekeeping:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._prune_after = ("", "")
        self._alarmed: set[tuple[str, str, str | None, int | None]] = set()

    async def prune(self) -> float:
        core = self._core
        settings = core.settings
        now_us = core.clock.now_us()
        finished_before_us = now_us - int(settings.retention_days * DAY_US)
        _, self._prune_after, more = await core.store.write(
            retention.prune(
                after=self._prune_after,
                finished_before_us=finished_before_us,
                idempotency_before_us=now_us - int(settings.idempotency_hours * HOUR_US),
                now_us=now_us,
                limit=BATCH,
                workflows={
                    workflow_id: now_us - int(days * DAY_US)
                    for workflow_id, days in settings.retention_workflows.items()
                },
                statuses={status: now_us - int(days * DAY_US) for status, days in settings.retention_statuses.items()},
            )
        )
        await core.store.vacuum()
        more_jobs = await core.store.write(bulk.prune_jobs(before_us=finished_before_us, limit=BATCH))
        return 0.2 if more or more_jobs else core.spread(60.0)

    async def alarm(self) -> float:
        for project_id, deployment_id, python, protocol, amount, since_us in await self._core.store.scan(
            queries.unserved(before_us=self._core.clock.now_us() - 60_000_000)
        ):
            if (project_id, deployment_id, python, protocol) not in self._alarmed:
                self._alarmed.add((project_id, deployment_id, python, protocol))
                waited = (self._core.clock.now_us() - since_us) / 1e6
                began = python not in (None, PUSH_RUNTIME)
                logger.warning(
                    "%d executions of deployment %r %sare ready for up to %.0f s and no worker %s; start one with "
                    "`perdure work --deployment %s …`%s.",
                    amount,
                    deployment_id,
                    f"began on Python {python}, " if began else "",
                    waited,
                    "of it runs that" if began else "serves it" if protocol is None else "new enough serves it",
                    shlex.quote(deployment_id),
                    f" on Python {python}" if began else "" if protocol is None else " of the newest release",
                )
        return self._core.spread(60.0)

    async def fill_fields(self) -> float:
        core = self._core
        settled_us = 0 if core.store.alone else SETTLED_US
        fill = fields.fill_fields(declared_before_us=core.clock.now_us() - settled_us)
        return 0.05 if await core.store.write(fill) else core.spread(CATCH_UP_SECONDS)

    async def catch_up(self) -> float:
        """Starts and registrations of the same moment did not see each other. This cannot happen with one writer."""
        if self._core.store.alone:
            return HOUR_US / 1e6
        await self._core.store.write(deployments.catch_up())
        return self._core.spread(CATCH_UP_SECONDS)
