"""Cancelling from every phase, clean-up, grace and time limits."""

import asyncio

import pytest
from tests.embedded.house import Counter, House, ends, keys_of, pass_time, reaches
from tests.kit.polling import until

from perdure.engine.base.clock import ManualClock
from perdure.engine.base.settings import EngineSettings
from perdure.sdk.base.errors import ExecutionCancelled, StepFailed
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import NotCancellable
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase


async def test_queued_and_waiting_executions_are_cancelled_at_once_and_run_no_more_code(
    house: House, count: Counter
) -> None:
    app, clock = Registry(), ManualClock()

    @app.workflow
    async def waiting(ctx: Context) -> None:
        count("begun")
        try:
            await ctx.wait_for_event("never")
        except asyncio.CancelledError:
            await ctx.step("clean up", count, "clean up")
            raise

    async with house.open(app, clock=clock) as p:
        queued = await p.start(waiting, delay=60)
        assert (await queued.cancel()).phase is Phase.CANCELLED
        handle = await p.start(waiting)
        await reaches(handle, Phase.WAITING)
        cancelled = await handle.cancel()
        assert (cancelled.phase, cancelled.cancelled_by) == (Phase.CANCELLED, "user")
        assert cancelled.cancelled_at is not None
        with pytest.raises(ExecutionCancelled):
            await handle.result()
        with pytest.raises(NotCancellable):
            await handle.cancel()
    assert count.runs == {"begun": 1}


async def test_a_running_execution_is_told_and_cleans_up_in_steps(house: House, count: Counter) -> None:
    app = Registry()
    inside, seen = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            count("step ended")

    async def undo() -> None:
        await seen.wait()
        count("undo")

    @app.workflow
    async def careful(ctx: Context) -> None:
        try:
            await ctx.step("endless", endless)
        except asyncio.CancelledError:
            assert ctx.is_cancelling
            await ctx.step("undo", undo)
            await ctx.sleep(0.001)
            await ctx.publish("undone", {"by": "me"})
            raise

    async with house.open(app) as p:
        handle = await p.start(careful)
        await inside.wait()
        assert (await handle.cancel()).phase is Phase.CANCELLING
        seen.set()
        with pytest.raises(ExecutionCancelled):
            await handle.result()
        assert await keys_of(handle, Kind.STEP) == ["undo"]
        assert len(await p.events("undone")) == 1
    assert count.runs == {"step ended": 1, "undo": 1}


async def test_a_workflow_may_answer_a_cancel_with_a_result(house: House) -> None:
    app = Registry()
    inside = asyncio.Event()

    @app.workflow
    async def stubborn(ctx: Context) -> str:
        async def endless() -> None:
            inside.set()
            await asyncio.Event().wait()

        try:
            await ctx.step("endless", endless)
        except asyncio.CancelledError:
            return "finished anyway"
        return ""

    async with house.open(app) as p:
        handle = await p.start(stubborn)
        await inside.wait()
        await handle.cancel()
        assert await handle.result() == "finished anyway"
        assert (await handle.get()).phase is Phase.COMPLETED


async def test_steps_that_end_while_cancelling_are_recorded(house: House) -> None:
    app = Registry()
    inside, go = asyncio.Event(), asyncio.Event()

    @app.workflow
    async def shielding(ctx: Context) -> None:
        async def body() -> str:
            inside.set()
            await go.wait()
            return "recorded"

        step = asyncio.create_task(ctx.step("body", body))
        try:
            await asyncio.shield(step)
        except asyncio.CancelledError:
            await step
            raise

    async with house.open(app) as p:
        handle = await p.start(shielding)
        await inside.wait()
        await handle.cancel()
        go.set()
        assert await ends(handle) is Phase.CANCELLED
        assert await keys_of(handle, Kind.STEP) == ["body"]


async def test_on_cancel_wake_lets_a_waiting_execution_clean_up(house: House, count: Counter) -> None:
    app = Registry()

    @app.workflow(on_cancel="wake")
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.step("reserve", count, "reserve")
            await ctx.wait_for_event("never")
        except asyncio.CancelledError:
            await ctx.step("release", count, "release")
            raise

    async with house.open(app) as p:
        handle = await p.start(tidy)
        await reaches(handle, Phase.WAITING)
        await handle.cancel()
        with pytest.raises(ExecutionCancelled):
            await handle.result()
        assert await keys_of(handle, Kind.STEP) == ["reserve", "release"]
        assert (await handle.get()).cancelled_by == "user"
    assert count.runs == {"reserve": 1, "release": 1}


async def test_clean_up_that_outlasts_the_grace_is_overruled(house: House) -> None:
    app, clock = Registry(), ManualClock()
    inside, cleaning = asyncio.Event(), asyncio.Event()
    dropped = asyncio.Event()

    @app.workflow
    async def slow(ctx: Context) -> None:
        async def endless(event: asyncio.Event) -> None:
            event.set()
            try:
                await asyncio.Event().wait()
            finally:
                if event is cleaning:
                    dropped.set()

        try:
            await ctx.step("work", lambda: endless(inside))
        finally:
            await ctx.step("clean", lambda: endless(cleaning))

    async with house.open(app, clock=clock, settings=EngineSettings(grace_seconds=30.0)) as p:
        handle = await p.start(slow)
        await inside.wait()
        await handle.cancel()
        await cleaning.wait()
        await pass_time(p, clock, 29)
        assert (await handle.get()).phase is Phase.CANCELLING
        await pass_time(p, clock, 2)
        with pytest.raises(ExecutionCancelled):
            await handle.result()
        await dropped.wait()
        await until(lambda: p.worker.running == 0)


async def test_running_too_long_is_cancelled_by_the_system_and_waiting_does_not_count(house: House) -> None:
    app, clock = Registry(), ManualClock()
    inside = asyncio.Event()

    @app.workflow(run_timeout_seconds=60)
    async def long(ctx: Context) -> None:
        await ctx.wait_for_event("go")

        async def endless() -> None:
            inside.set()
            await asyncio.Event().wait()

        await ctx.step("endless", endless)

    async with house.open(app, clock=clock) as p:
        handle = await p.start(long)
        await reaches(handle, Phase.WAITING)
        await pass_time(p, clock, 3_600)
        await p.publish("go", None)
        await inside.wait()
        await pass_time(p, clock, 59)
        assert (await handle.get()).phase is Phase.RUNNING
        await pass_time(p, clock, 2)
        with pytest.raises(ExecutionCancelled):
            await handle.result()
        execution = await handle.get()
        assert (execution.cancelled_by, execution.run_timeout_seconds) == ("system", 60)


async def test_the_run_timeout_of_a_start_goes_before_the_workflows(house: House) -> None:
    app, clock = Registry(), ManualClock()
    inside = asyncio.Event()

    @app.workflow(run_timeout_seconds=3_600)
    async def long(ctx: Context) -> None:
        async def endless() -> None:
            inside.set()
            await asyncio.Event().wait()

        await ctx.step("endless", endless)

    async with house.open(app, clock=clock) as p:
        handle = await p.start(long, run_timeout_seconds=5)
        await inside.wait()
        await pass_time(p, clock, 6)
        assert await ends(handle) is Phase.CANCELLED


async def test_a_cancel_that_hits_a_pause_between_tries_needs_no_waiting(house: House, count: Counter) -> None:
    app = Registry()

    @app.workflow
    async def retrying(ctx: Context) -> str:
        def flaky() -> None:
            count("flaky")
            raise ConnectionError("no")

        try:
            await ctx.step("flaky", flaky, retry=100)
        except StepFailed:
            return "failed"
        return "done"

    async with house.open(app) as p:
        handle = await p.start(retrying)
        await until(lambda: count["flaky"] > 0)
        await handle.cancel()
        with pytest.raises(ExecutionCancelled):
            await handle.result()
