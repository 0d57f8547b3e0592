"""Sleeps, time-outs, delayed starts: durable, and in the engine's time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.embedded.house import Counter, House, keys_of, pass_time, reaches
from tests.kit.polling import until

from perdure.engine.base.clock import ManualClock
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import BadValue
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase

DAY = 86_400.0


def moment(clock: ManualClock, seconds: float) -> datetime:
    return datetime.fromtimestamp(clock.now_us() / 1e6, UTC) + timedelta(seconds=seconds)


async def test_sleeps_of_all_kinds_suspend_and_wake_when_due(house: House) -> None:
    app, clock = Registry(), ManualClock()
    start = moment(clock, 0)

    @app.workflow
    async def sleeping(ctx: Context) -> list[float]:
        async def passed() -> float:
            return (ctx.now() - start).total_seconds()

        await ctx.sleep(timedelta(days=3))
        first = await passed()
        await asyncio.sleep(60)
        second = await passed()
        await ctx.sleep_until(start + timedelta(days=5))
        await ctx.sleep_until(start)  # has passed: at once
        await ctx.sleep(0)
        return [first, second, await passed()]

    async with house.open(app, clock=clock) as p:
        handle = await p.start(sleeping)
        for seconds in (3 * DAY, 60.0, 2 * DAY - 60):
            await reaches(handle, Phase.WAITING)
            await pass_time(p, clock, seconds - 1)
            assert (await handle.get()).phase is Phase.WAITING
            due_before = (await handle.get()).due_at
            await pass_time(p, clock, 1)

            async def moved_on(before: datetime | None = due_before) -> bool:
                return (await handle.get()).due_at != before

            await until(moved_on)
        assert await handle.result() == [3 * DAY, 3 * DAY + 60, 5 * DAY]
        assert len(await keys_of(handle, Kind.TIMER)) == 3  # what has passed needs no row


async def test_short_sleeps_in_real_time(house: House) -> None:
    app = Registry()

    @app.workflow
    async def napping(ctx: Context, naps: int) -> int:
        for _ in range(naps):
            await ctx.sleep(0.001)
        return naps

    async with house.open(app) as p:
        handles = [await p.start(napping, 5) for _ in range(20)]
        assert await asyncio.gather(*[handle.result() for handle in handles]) == [5] * 20


async def test_a_timer_runs_in_the_worker_while_a_step_runs(house: House) -> None:
    app = Registry()
    go = asyncio.Event()

    @app.workflow
    async def both(ctx: Context) -> list[str]:
        step = asyncio.create_task(ctx.step("wait", go.wait))
        await ctx.sleep(0.001)
        await ctx.step("open", go.set)
        await step
        return ["slept", "stepped"]

    async with house.open(app) as p:
        handle = await p.start(both)
        assert await handle.result() == ["slept", "stepped"]
        assert Kind.WAITING not in [row.kind for row in await p.journal(handle.id)]


async def test_asyncio_timeout_is_durable(house: House, count: Counter) -> None:
    app, clock = Registry(), ManualClock()

    @app.workflow
    async def bounded(ctx: Context) -> list[str]:
        seen = []
        try:
            async with asyncio.timeout(600):
                await ctx.wait_for_event("never")
        except TimeoutError:
            seen.append("timeout")
        try:
            await asyncio.wait_for(ctx.sleep(10 * DAY), 60)
        except TimeoutError:
            seen.append("wait_for")
        async with asyncio.timeout(3_600):
            await ctx.step("quick", count, "quick")
        return seen

    async with house.open(app, clock=clock) as p:
        handle = await p.start(bounded)
        await reaches(handle, Phase.WAITING)
        await pass_time(p, clock, 601)
        await until(lambda: _is_due(handle, clock.now_us() + 60_000_000))
        await pass_time(p, clock, 61)
        assert await handle.result() == ["timeout", "wait_for"]
    assert count["quick"] == 1


async def _is_due(handle: object, due_us: int) -> bool:
    execution = await handle.get()  # type: ignore[attr-defined]  # a handle of any workflow
    return execution.phase is Phase.WAITING and execution.raw.due_at_us == due_us


async def test_delay_and_at_put_a_start_off(house: House) -> None:
    app, clock = Registry(), ManualClock()

    @app.workflow
    async def now(ctx: Context) -> datetime:
        return ctx.now()

    async with house.open(app, clock=clock) as p:
        later = await p.start(now, delay=timedelta(hours=1))
        at = await p.start(now, at=moment(clock, 7_200))
        past = await p.start(now, at=moment(clock, -7_200))
        assert await past.result() == moment(clock, 0)
        await pass_time(p, clock, 3_599)
        assert (await later.get()).phase is Phase.QUEUED
        await pass_time(p, clock, 1)
        assert await later.result() == moment(clock, 0)
        assert (await at.get()).phase is Phase.QUEUED
        await pass_time(p, clock, 3_600)
        assert await at.result() == moment(clock, 0)


async def test_times_that_mean_nothing_are_refused(house: House) -> None:
    app = Registry()

    @app.workflow
    async def now(ctx: Context) -> str:
        try:
            await ctx.sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001  # what the test is about
        except ValueError as error:
            return str(error)
        return ""

    async with house.open(app) as p:
        for delay in (-1.0, float("nan"), float("inf")):
            with pytest.raises(BadValue, match="delay"):
                await p.start(now, delay=delay)
        with pytest.raises(BadValue, match="time zone"):
            await p.start(now, at=datetime(2030, 1, 1))  # noqa: DTZ001  # what the test is about
        assert "time zone" in await (await p.start(now)).result()
