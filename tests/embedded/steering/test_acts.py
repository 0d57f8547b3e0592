"""Acts on what an execution waits for."""

import asyncio

import pytest
from tests.embedded.house import Counter, House, Report, keys_of, listed, on_reports, reaches, rows_of
from tests.kit.polling import until

from perdure.engine.base.clock import ManualClock
from perdure.sdk.base.errors import ChildFailed, StepFailed
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import Conflict
from perdure.wire.base.records import Kind
from perdure.wire.base.retry import RetryPolicy
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import ReportReply, ReportRequest, StepDone

LATER = RetryPolicy(max_attempts=2, initial_seconds=3_600.0, jitter=False)


async def test_timers_are_fired(house: House) -> None:
    app = Registry()

    @app.workflow
    async def sleeps(ctx: Context) -> list[str]:
        return list(
            await asyncio.gather(asyncio.sleep(86_400, "day"), asyncio.sleep(3_600, "hour"), asyncio.sleep(9e8, "?"))
        )

    async with house.open(app, clock=ManualClock()) as p:
        handle = await p.start(sleeps)
        await reaches(handle, Phase.WAITING)
        calls = await p.pending(handle.id)
        assert sorted((call.due_at_us or 0) - calls[0].since_us for call in calls if calls[0].since_us) == [
            3_600_000_000,
            86_400_000_000,
            900_000_000_000_000,
        ]
        for call in sorted(calls, key=lambda one: -(one.due_at_us or 0)):
            await reaches(handle, Phase.WAITING)
            assert call.key is not None
            await p.act(handle.id, "fire", key=call.key)
            with pytest.raises(Conflict, match="has its outcome since"):
                await p.act(handle.id, "fire", key=call.key)
        assert await handle.result() == ["day", "hour", "?"]


async def test_a_timer_that_an_act_fires_leaves_the_clock_and_other_timers(house: House) -> None:
    app = Registry()

    @app.workflow
    async def sleeps(ctx: Context) -> float:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        day = asyncio.create_task(asyncio.sleep(86_400))
        other = asyncio.create_task(asyncio.sleep(86_400))
        await asyncio.wait([day, other], return_when=asyncio.FIRST_COMPLETED)
        assert not other.done()
        return loop.time() - begin

    async with house.open(app, clock=ManualClock()) as p:
        handle = await p.start(sleeps)
        await reaches(handle, Phase.WAITING)
        day, _ = sorted(await p.pending(handle.id), key=lambda one: str(one.key))
        await p.act(handle.id, "fire", key=day.key)
        assert await handle.result() < 3_600


@pytest.mark.parametrize("action", ["try", "complete", "fail"])
async def test_a_pause_between_tries_is_ended(house: House, count: Counter, action: str) -> None:
    app = Registry()

    async def flaky() -> str:
        if count("flaky") == 1:
            raise ConnectionError("down")
        return "up"

    @app.workflow
    async def run(ctx: Context) -> str:
        try:
            return await ctx.step("flaky", flaky, retry=LATER)
        except StepFailed as error:
            return f"failed: {error.message}"

    async with house.open(app, clock=ManualClock()) as p:
        handle = await p.start(run)
        await reaches(handle, Phase.WAITING)
        call = await listed(p, handle, "pause")
        assert (call.key, call.error, call.tries) == ("flaky", "ConnectionError: down", 1)
        if action == "try":
            await p.act(handle.id, "try", key="flaky")
            assert await handle.result() == "up"
        elif action == "complete":
            await p.act(handle.id, "complete", key="flaky", value="by hand")
            assert await handle.result() == "by hand"
        else:
            await p.act(handle.id, "fail", key="flaky")
            assert await handle.result() == "failed: down"
        assert count.runs == {"flaky": 2 if action == "try" else 1}


@pytest.mark.parametrize("action", ["complete", "time_out"])
@pytest.mark.parametrize("kind", ["event", "answer"])
async def test_waits_are_decided(house: House, kind: str, action: str) -> None:
    app = Registry()

    @app.workflow
    async def waits(ctx: Context) -> object:
        try:
            if kind == "event":
                event = await ctx.wait_for_event("orders", key="wait")
                return [event.topic, event.data, event.sequence_id]
            return await ctx.suspend("wait", "may I?")
        except TimeoutError as error:
            return str(error)

    async with house.open(app) as p:
        handle = await p.start(waits)
        await reaches(handle, Phase.WAITING)
        call = await listed(p, handle, kind)
        assert call.key == "wait"
        if action == "complete":
            await p.act(handle.id, "complete", key="wait", value=7)
            assert await handle.result() == (["orders", 7, 0] if kind == "event" else 7)
        else:
            await p.act(handle.id, "time_out", key="wait")
            assert await handle.result() == "The wait was timed out by the embedding program."
        await p.publish("orders", 8)


@pytest.mark.parametrize("action", ["complete", "fail"])
async def test_a_child_gets_an_outcome_and_goes_on(house: House, action: str) -> None:
    app = Registry()

    @app.workflow
    async def child(ctx: Context) -> str:
        return str(await ctx.suspend("go"))

    @app.workflow
    async def parent(ctx: Context) -> str:
        try:
            said = await ctx.run_child(child)
        except ChildFailed as error:
            said = error.message
        return said + str(await ctx.suspend("more"))

    async with house.open(app) as p:
        handle = await p.start(parent)
        await reaches(handle, Phase.WAITING)
        call = await listed(p, handle, "child")
        assert call.child_id is not None and call.key is not None
        if action == "complete":
            await p.act(handle.id, "complete", key=call.key, value="given")
        else:
            await p.act(handle.id, "fail", key=call.key, error="given")
        await listed(p, handle, "answer")
        await p.resume(call.child_id, "go", "late")
        assert await p.handle(call.child_id).result() == "late"
        assert len(await keys_of(handle, Kind.CHILD)) == 1
        await handle.resume("more", "!")
        assert await handle.result() == "given!"


@pytest.mark.parametrize("action", ["complete", "fail"])
@pytest.mark.usefixtures("listed_at_once")
async def test_a_running_step_gets_an_outcome(house: House, action: str) -> None:
    app = Registry()
    cancelled = asyncio.Event()

    async def slow() -> str:
        try:
            await asyncio.sleep(3_600)
        finally:
            cancelled.set()
        return "done"

    @app.workflow
    async def run(ctx: Context) -> str:
        try:
            return await ctx.step("slow", slow)
        except StepFailed as error:
            return error.message

    async with house.open(app) as p:
        handle = await p.start(run)
        call = await listed(p, handle, "step")
        assert (call.key, call.name) == ("slow", "slow")
        if action == "complete":
            await p.act(handle.id, "complete", key="slow", value="given")
        else:
            await p.act(handle.id, "fail", key="slow", error="given")
        assert await handle.result() == "given"
        await cancelled.wait()
        assert await keys_of(handle, Kind.IGNORED) == []


@pytest.mark.parametrize("end", ["alone", "with the end", "lost reply"])
@pytest.mark.usefixtures("listed_at_once")
async def test_a_late_outcome_is_ignored_and_noted(house: House, end: str) -> None:
    """The step ends while the act is under way."""
    app = Registry()
    go = asyncio.Event()

    async def slow() -> str:
        await go.wait()
        return "real"

    @app.workflow
    async def run(ctx: Context) -> object:
        step = asyncio.ensure_future(ctx.step("slow", slow))
        if end == "with the end":
            return await ctx.suspend("stop")
        said = await step
        return [said, await ctx.suspend("more")]

    async with house.open(app) as p:
        handle = await p.start(run)
        await listed(p, handle, "step")
        acted = False

        async def slowly(report: Report, request: ReportRequest) -> ReportReply:
            nonlocal acted
            done = any(type(one) is StepDone for item in request.items for one in item.entries)
            if not done or acted:
                return await report(request)
            acted = True
            await p.act(handle.id, "complete", key="slow", value="given")
            reply = await report(request)
            return await report(request) if end == "lost reply" else reply

        on_reports(p, slowly)
        go.set()
        if end == "with the end":
            await until(lambda: acted)
            await handle.resume("stop", "stopped")
            assert await handle.result() == "stopped"
        else:
            await listed(p, handle, "answer")
            await handle.resume("more", "!")
            assert await handle.result() == ["given", "!"]
        rows = await rows_of(handle)
        [given] = [row for row in rows if row.kind is Kind.STEP]
        [late] = [row for row in rows if row.kind is Kind.IGNORED]
        assert (bytes(given.value), bytes(late.value), late.key) == (b'"given"', b'"real"', "slow")
