"""The table of background loops, and their runner.

Any number of servers may run them: each round is a verb that takes what is due under the statement's own guards.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from perdure.engine.clock import boottime_us
from perdure.store.verbs import claims, deployments, queries, transitions
from perdure.store.verbs.push_workers import PYTHON as PUSHED
from perdure.wire.errors import Unavailable
from perdure.wire.status import HELD, Phase

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

logger = logging.getLogger("perdure.engine")

BATCH = 500
CATCH_UP_SECONDS = 60.0
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000


class Loop(NamedTuple):
    """A round returns the seconds until the next one."""

    name: str
    round: Callable[[Engine], Awaitable[float]]


async def _wake(engine: Engine) -> float:
    """Timers and delayed starts."""

    async def wake(now_us: int) -> bool:
        return await engine.store.write(transitions.wake_due(now_us=now_us, limit=BATCH)) > 0

    return await _do_due(engine, transitions.RESTING, wake)


async def _bring_forward(engine: Engine) -> float:
    """Wakes timers that were set before the clock was put back.

    Such a timer is due at a time that the clock must reach again, so it was set before the step or before this process
    started. It wakes when its own duration has passed since then: never too early, at most after twice the duration.
    Its row stays unchanged, so a short error of the clock has no effect.
    """
    if engine.stepped_back_at_us == 0:
        return HOUR_US / 1e6
    found = await engine.store.scan(transitions.set_ahead(now_us=engine.clock.now_us()))
    if found is None:
        engine.stepped_back_at_us = 0
        return HOUR_US / 1e6
    if not engine.told_of_ahead:
        engine.told_of_ahead = True
        logger.warning(
            "The clock was put back: %d executions went to sleep at a time that is still to come. Each wakes after its "
            "full duration, counted from now. Delayed starts, retries of workflows and schedules that were set before "
            "wait until the clock has caught up.",
            found.amount,
        )
    passed_us = boottime_us() - engine.stepped_back_at_us
    if found.shortest_us <= passed_us:
        forward = transitions.bring_forward(now_us=engine.clock.now_us(), passed_us=passed_us, limit=BATCH)
        return 0.0 if await engine.store.write(forward) else 1.0
    return min(max((found.shortest_us - passed_us) / 1e6, 0.01), 60.0)


async def _end_overdue(engine: Engine) -> float:
    """Run timeouts and graces. Separate from timers, because an end may have to wait for many locked executions."""

    async def end(now_us: int) -> bool:
        found = await engine.store.read(transitions.overdue(now_us=now_us, limit=BATCH, after=engine.overdue_after))
        more = len(found) == BATCH
        engine.overdue_after = found[-1] if more else transitions.FIRST  # executions behind locked ones may be free
        ends = [
            transitions.end_overdue(project_id=project_id, execution_id=id, now_us=now_us, grace_us=engine.grace_us)
            for _, project_id, id in found
        ]
        answers = await engine.store.write_all(ends)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return more or any(answers)

    return await _do_due(engine, HELD, end)


async def _do_due(engine: Engine, phases: Collection[Phase], do: Callable[[int], Awaitable[bool]]) -> float:
    """Do what is due in these phases. If other servers hold all of it, go on to the next due time without a busy
    loop."""
    now_us = engine.clock.now_us()
    due = await engine.store.read(transitions.next_due(phases=phases))
    if due is not None and due <= now_us:
        engine.stats.timer_lag_seconds = (now_us - due) / 1e6
        if await do(now_us):
            return 0.0
        due = await engine.store.read(transitions.next_due(phases=phases, after_us=now_us))
    pause = engine.spread(1.0)
    return pause if due is None else min((due - now_us) / 1e6, pause)


async def _schedule(engine: Engine) -> float:
    return await engine.schedules.fire_due()


async def _trigger(engine: Engine) -> float:
    return await engine.triggers.take_due()


async def _reap(engine: Engine) -> float:
    """A round of the reaper. It also measures whether this server ran all the time.

    A wait for a lock is not an absence: beats go on, or wait too and count from their arrival. A frozen process or
    machine is an absence, and so is a store that refuses writes.
    """
    began = seen = boottime_us()
    stood_still = False
    round = asyncio.ensure_future(_reap_round(engine, away=began - engine.reaped_at_us > engine.lease_us // 2))
    try:
        while not round.done():
            await asyncio.wait({round}, timeout=engine.lease_us / 4e6)
            stood_still = stood_still or boottime_us() - seen > engine.lease_us // 2
            seen = boottime_us()
    finally:
        round.cancel()
    pause = round.result()
    engine.reaped_at_us = began if stood_still else seen
    return pause


async def _reap_round(engine: Engine, *, away: bool) -> float:
    """End registrations whose lease ran out. After an absence, first grant all workers a full lease, unless another
    server was running. Otherwise, servers that restart often would withhold the work of dead workers.

    After a jump of the clock, grant for one lease, because other servers may still renew by the old time. Then limit
    leases that are too long because the clock went back.

    Also grant for one lease if a registration is locked: it gets its lease once it is free. A worker whose row is
    locked for longer cannot beat to any server.
    """
    now = boottime_us()
    tick_us = min(engine.lease_us // 4, 1_000_000)
    if await engine.follow_clock():
        engine.granting_until_us = now + engine.lease_us
    now_us = engine.clock.now_us()
    until_us = now_us + engine.lease_us
    if now < engine.granting_until_us:
        await engine.store.write(claims.grant_leases(until_us=until_us))
        return tick_us / 1e6
    if away and await _grant_unless_another_was_there(engine):
        return tick_us / 1e6
    if engine.granting_until_us and not await engine.store.write(claims.limit_leases(until_us=until_us)):
        engine.granting_until_us = 0
    if not engine.store.alone and not await _may_reap(engine, now_us):
        return tick_us / 1e6
    reaped = claims.reap(now_us=now_us, limit=BATCH, patience_us=engine.lease_us, by_database=engine.clock.of_database)
    if await engine.store.write(reaped) == BATCH:
        return 0.0
    return engine.spread(tick_us / 1e6)


async def _may_reap(engine: Engine, now_us: int) -> bool:
    """Record that this server runs. If that takes half a lease, beats on other servers may be written only after this
    server would reap. It then counts as absent."""
    asked_us, lease_us = boottime_us(), engine.lease_us
    marks = claims.mark_reaper(now_us=now_us, every_us=lease_us // 8, locked_us=2 * lease_us)
    if not await engine.store.write(marks):
        return False
    return boottime_us() - asked_us <= lease_us // 2 or not await _grant_unless_another_was_there(engine)


async def _grant_unless_another_was_there(engine: Engine) -> bool:
    """Grant leases, unless another server ran within the last half of a lease and could take beats."""
    now_us, lease_us = engine.clock.now_us(), engine.lease_us
    grants = claims.grant_leases(until_us=now_us + lease_us, unless_from_us=now_us - lease_us // 2)
    left = await engine.store.write(grants)
    if left:
        engine.granting_until_us = boottime_us() + lease_us
    return left is not None


async def _push(engine: Engine) -> float:
    return await engine.push.dispatcher.look()


async def _deliver(engine: Engine) -> float:
    return await engine.webhooks.deliver_due()


async def _prune(engine: Engine) -> float:
    settings = engine.settings
    now_us = engine.clock.now_us()
    pruned = await engine.store.write(
        queries.prune(
            after=engine.prune_after,
            finished_before_us=now_us - int(settings.retention_days * DAY_US),
            idempotency_before_us=now_us - int(settings.idempotency_hours * HOUR_US),
            now_us=now_us,
            limit=BATCH,
            workflows={
                workflow_id: now_us - int(days * DAY_US) for workflow_id, days in settings.retention_workflows.items()
            },
            statuses={status: now_us - int(days * DAY_US) for status, days in settings.retention_statuses.items()},
        )
    )
    engine.prune_after = pruned.after
    if pruned.deleted:
        await engine.store.vacuum()
    return 0.2 if pruned.more else engine.spread(60.0)


async def _alarm(engine: Engine) -> float:
    for project_id, deployment_id, python, amount, since_us in await engine.store.scan(
        queries.unserved(before_us=engine.clock.now_us() - 60_000_000)
    ):
        if (project_id, deployment_id, python) not in engine.alarmed:
            engine.alarmed.add((project_id, deployment_id, python))
            waited = (engine.clock.now_us() - since_us) / 1e6
            began = python not in (None, PUSHED)
            logger.warning(
                "%d executions of deployment %r %sare ready for up to %.0f s and no worker %s; start one with "
                "`perdure work --deployment %s …`%s.",
                amount,
                deployment_id,
                f"began on Python {python}, " if began else "",
                waited,
                "of it runs that" if began else "serves it",
                shlex.quote(deployment_id),
                f" on Python {python}" if began else "",
            )
    return engine.spread(60.0)


async def _catch_up(engine: Engine) -> float:
    """Starts and registrations of the same moment did not see each other. This cannot happen with one writer."""
    if engine.store.alone:
        return HOUR_US / 1e6
    await engine.store.write(deployments.catch_up())
    return engine.spread(CATCH_UP_SECONDS)


LOOPS = (
    Loop("wake", _wake),
    Loop("bring forward", _bring_forward),
    Loop("overdue", _end_overdue),
    Loop("schedule", _schedule),
    Loop("trigger", _trigger),
    Loop("reap", _reap),
    Loop("push", _push),
    Loop("deliver", _deliver),
    Loop("prune", _prune),
    Loop("alarm", _alarm),
    Loop("catch up", _catch_up),
)


async def run_loop(engine: Engine, loop: Loop) -> None:
    """A failing round is logged and tried again."""
    while True:
        cursor = engine.notifier.cursor(("loop", loop.name))
        try:
            pause = await loop.round(engine)
            _passed(engine, loop)
        except Unavailable as error:
            _refused(engine, loop, error)
            pause = 1.0
        except Exception:  # a loop must survive any error
            logger.exception("Loop %s failed; the next round comes in a second.", loop.name)
            pause = 1.0
        if pause > 0:
            await engine.notifier.wait(("loop", loop.name), cursor, pause)
        else:
            await asyncio.sleep(0)


def _refused(engine: Engine, loop: Loop, error: Unavailable) -> None:
    """One log line for all loops."""
    if not engine.refused:
        logger.warning("Loop %s: %s The loops try again every second.", loop.name, error)
    engine.refused.add(loop.name)


def _passed(engine: Engine, loop: Loop) -> None:
    if loop.name in engine.refused:
        engine.refused.discard(loop.name)
        if not engine.refused:
            logger.warning("The store answers all loops again.")
