"""Held executions, and acts on held executions."""

import asyncio
import dataclasses
from typing import Any

import msgspec
import pytest
from tests.embedded.house import Counter, House, Report, ends, on_reports, reaches, rows_of
from tests.kit.polling import until

from perdure.embedded import Embedded
from perdure.engine.base.clock import ManualClock
from perdure.sdk.base.errors import ExecutionFailed, StepFailed
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.steps import current_step, step
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import BadValue, Conflict, NotFound, TooLarge
from perdure.wire.base.records import Kind
from perdure.wire.base.retry import RetryPolicy
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import ReportReply, ReportRequest, StepDone

TWICE = RetryPolicy(max_attempts=2, initial_seconds=0.0)


@dataclasses.dataclass
class Share:
    of: int

    def __post_init__(self) -> None:
        """The schema states no such rule, so the start does not check negative shares."""
        if self.of < 0:
            raise ValueError("a share is of something")


class Till:
    """A provider that is down until the test mends the provider."""

    def __init__(self, count: Counter) -> None:
        self.count = count
        self.is_down = True
        self.tries: list[int] = []

    async def pay(self, what: str) -> str:
        self.count(what)
        self.tries.append(current_step().tries)
        if self.is_down:
            raise ConnectionError("the till is down")
        return f"paid {what}"


async def tried(p: Embedded, handle: Handle[Any]) -> list[str | None]:
    """Keys of pending calls, without steps that run: a slow machine lists running steps as well."""
    return [call.key for call in await p.pending(handle.id) if call.kind != "step"]


@pytest.fixture
def till(count: Counter) -> Till:
    return Till(count)


@pytest.fixture
def app(till: Till, count: Counter) -> Registry:
    app = Registry()

    @app.workflow
    async def order(ctx: Context) -> str:
        await ctx.step("reserve", count, "reserve")
        try:
            paid = await ctx.step("pay", till.pay, "pay", retry=TWICE, on_failure="hold")
        except StepFailed as error:
            paid = f"{error.type}: {error.message}"
        await ctx.step("ship", count, "ship")
        return paid

    @app.workflow(on_failure="hold", retry=TWICE)
    async def whole(ctx: Context) -> str:
        await ctx.step("reserve", count, "reserve")
        paid = await ctx.step("pay", till.pay, "pay")
        await ctx.step("ship", count, "ship")
        return paid

    return app


async def test_a_held_step_is_tried_again_with_fresh_tries(house: House, app: Registry, till: Till) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["order"])
        await reaches(handle, Phase.HELD)
        held = await handle.get()
        assert held.error == "step 'pay' failed after 2 tries: ConnectionError: the till is down"
        assert held.due_at is None
        [call] = await p.pending(handle.id)
        assert (call.key, call.kind, call.tries, list(call.actions)) == ("pay", "held", 2, ["try", "complete", "fail"])
        assert call.error == "ConnectionError: the till is down"
        till.is_down = False
        acted = await p.act(handle.id, "try", key="pay", note="the till is up")
        assert (acted.key, acted.action, acted.acted_by) == ("pay", "try", "the embedding program")
        assert await handle.result() == "paid pay"
        assert till.tries == [1, 2, 1]
        assert till.count.runs == {"reserve": 1, "pay": 3, "ship": 1}
        rows = await rows_of(handle)
        assert rows[acted.seq - 1].kind is Kind.RETRIED
        assert [row.key for row in rows if row.kind in (Kind.HELD, Kind.RETRIED)] == ["pay", "pay"]
        assert (await handle.get()).error is None


async def test_a_held_step_is_completed_by_hand(house: House, app: Registry, till: Till) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["order"])
        await reaches(handle, Phase.HELD)
        await p.act(handle.id, "complete", key="pay", value="paid by hand")
        assert await handle.result() == "paid by hand"
        assert till.count.runs == {"reserve": 1, "pay": 2, "ship": 1}
        with pytest.raises(Conflict, match="is completed already"):
            await p.act(handle.id, "complete", key="pay", value="again")


@pytest.mark.parametrize("error", [None, "no money"])
async def test_the_code_handles_the_failure_of_a_held_step(house: House, app: Registry, error: str | None) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["order"])
        await reaches(handle, Phase.HELD)
        await p.act(handle.id, "fail", key="pay", error=error)
        assert await handle.result() == ("Failed: no money" if error else "ConnectionError: the till is down")


async def test_a_held_execution_is_given_up(house: House, app: Registry) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["order"])
        await reaches(handle, Phase.HELD)
        await p.act(handle.id, "fail")
        with pytest.raises(ExecutionFailed, match="step 'pay' failed after 2 tries"):
            await handle.result()
        *_, failure, end = await rows_of(handle)
        assert (failure.kind, failure.key, failure.ok) == (Kind.STEP, "pay", False)
        assert msgspec.json.decode(end.value)["steps"] == ["pay"]


async def test_a_held_execution_is_cancelled(house: House, app: Registry) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["order"])
        await reaches(handle, Phase.HELD)
        await handle.cancel()
        assert await ends(handle) is Phase.CANCELLED
        assert (await handle.get()).error is None


@pytest.mark.parametrize("end", ["given up", "cancelled"])
async def test_a_retry_runs_the_held_step_with_fresh_tries(house: House, app: Registry, till: Till, end: str) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["order"])
        await reaches(handle, Phase.HELD)
        if end == "given up":
            await p.act(handle.id, "fail")
        else:
            await handle.cancel()
        await ends(handle)
        till.is_down = False
        assert await (await handle.retry()).result() == "paid pay"
        assert till.tries == [1, 2, 1]
        assert till.count.runs == {"reserve": 1, "pay": 3, "ship": 1}


async def test_failed_code_is_tried_again(house: House, app: Registry, till: Till) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["whole"])
        await reaches(handle, Phase.HELD)
        whole, pay = await p.pending(handle.id)
        assert (whole.key, list(whole.actions)) == (None, ["try", "fail"])
        assert (pay.key, list(pay.actions)) == ("pay", ["try", "complete"])
        await p.act(handle.id, "try")
        await reaches(handle, Phase.HELD)
        till.is_down = False
        await p.act(handle.id, "try")
        assert await handle.result() == "paid pay"
        assert till.count.runs == {"reserve": 1, "pay": 5, "ship": 1}


async def test_the_step_that_ended_the_code_is_completed_by_hand(house: House, app: Registry, till: Till) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["whole"])
        await reaches(handle, Phase.HELD)
        await p.act(handle.id, "complete", key="pay", value="by hand")
        assert await handle.result() == "by hand"
        assert till.count.runs == {"reserve": 1, "pay": 2, "ship": 1}


async def test_bad_input_and_broken_code_are_held_too(house: House) -> None:
    app = Registry()

    @app.workflow(on_failure="hold")
    async def strict(ctx: Context, share: Share) -> int:
        return 1 // share.of

    async with house.open(app) as p:
        for of in (-1, 0):
            handle = await p.start("strict", {"of": of})
            await reaches(handle, Phase.HELD)
            [whole] = await p.pending(handle.id)
            assert whole.key is None
            await p.act(handle.id, "fail", error="never mind")
            with pytest.raises(ExecutionFailed, match="never mind"):
                await handle.result()


async def test_several_steps_are_held_together_and_released_one_by_one(house: House, till: Till) -> None:
    app = Registry()
    ready = asyncio.Event()

    @step(on_failure="hold")
    async def pay(what: str) -> str:
        if what == "c":
            await ready.wait()
        return await till.pay(what)

    @app.workflow
    async def branches(ctx: Context) -> list[str]:
        return list(await asyncio.gather(pay("a"), pay("b"), pay("c"), ctx.step("slow", slowly)))

    async def slowly() -> str:
        return "slow"

    async with house.open(app) as p:
        handle = await p.start(branches)

        async def two_have_failed() -> bool:
            return await tried(p, handle) == ["pay", "pay#2"]

        await until(two_have_failed)
        assert (await handle.get()).phase is Phase.RUNNING  # `c` still runs
        ready.set()
        await reaches(handle, Phase.HELD)
        assert (await handle.get()).error == ("step 'pay' failed: ConnectionError: the till is down, and 2 other steps")
        await p.act(handle.id, "complete", key="pay#2", value="B")
        await reaches(handle, Phase.HELD)
        assert [call.key for call in await p.pending(handle.id)] == ["pay", "pay#3"]
        till.is_down = False
        await p.act(handle.id, "try")
        assert await handle.result() == ["paid a", "B", "paid c", "slow"]
        assert till.count.runs == {"a": 2, "b": 1, "c": 2}


async def test_another_worker_does_not_run_a_held_step(house: House, till: Till) -> None:
    """The worker ends while another step runs, so the worker has not reported the hold."""
    app = Registry()
    mended = False

    async def slowly() -> str:
        if not mended:
            await asyncio.sleep(3_600)
        return "slow"

    @app.workflow
    async def branches(ctx: Context) -> list[str]:
        return list(await asyncio.gather(ctx.step("pay", till.pay, "pay", on_failure="hold"), ctx.step("slow", slowly)))

    async with house.open(app, grace_seconds=0.0) as p:
        handle = await p.start(branches)

        async def has_failed() -> bool:
            return await tried(p, handle) == ["pay"]

        await until(has_failed)
    mended = True
    async with house.open(app) as p:
        handle = p.handle(handle.id, app["branches"])
        await reaches(handle, Phase.HELD)
        assert till.count.runs == {"pay": 1}
        till.is_down = False
        await p.act(handle.id, "try", key="pay")
        assert await handle.result() == ["paid pay", "slow"]
        assert till.tries == [1, 1]


async def test_a_held_step_of_a_running_execution_is_tried_again(house: House, till: Till) -> None:
    """Another step still runs, so the execution is not held yet."""
    app = Registry()
    go = asyncio.Event()

    @app.workflow
    async def branches(ctx: Context) -> list[object]:
        return list(await asyncio.gather(ctx.step("pay", till.pay, "pay", on_failure="hold"), ctx.step("go", go.wait)))

    async with house.open(app) as p:
        handle = await p.start(branches)

        async def has_failed() -> bool:
            return await tried(p, handle) == ["pay"]

        await until(has_failed)
        till.is_down = False
        await p.act(handle.id, "try", key="pay")
        await until(lambda: till.count.runs["pay"] == 2)
        go.set()
        assert await handle.result() == ["paid pay", True]
        assert till.tries == [1, 1]


async def test_what_happens_meanwhile_is_seen_later(house: House, till: Till) -> None:
    app = Registry()

    @app.workflow
    async def child(ctx: Context) -> str:
        return str(await ctx.suspend("go"))

    @app.workflow
    async def parent(ctx: Context) -> list[object]:
        return list(
            await asyncio.gather(
                ctx.step("pay", till.pay, "pay", on_failure="hold"),
                ctx.suspend("approve"),
                ctx.run_child(child),
                asyncio.sleep(0.01, "slept"),
            )
        )

    async with house.open(app) as p:
        handle = await p.start(parent)
        await reaches(handle, Phase.HELD)
        await handle.resume("approve", "yes")
        [below] = [call for call in await p.pending(handle.id) if call.kind == "child"]
        assert below.child_id is not None
        await p.resume(below.child_id, "go", "child")
        assert await p.handle(below.child_id).result() == "child"
        assert (await handle.get()).phase is Phase.HELD
        till.is_down = False
        await p.act(handle.id, "try", key="pay")
        assert await handle.result() == ["paid pay", "yes", "child", "slept"]


async def test_a_parent_waits_for_its_held_child(house: House, app: Registry, till: Till) -> None:
    @app.workflow
    async def parent(ctx: Context) -> str:
        return await ctx.run_child(app["order"])

    async with house.open(app) as p:
        handle = await p.start(parent)
        await reaches(handle, Phase.WAITING)
        [child] = await p.pending(handle.id)
        assert child.child_id is not None
        await reaches(p.handle(child.child_id), Phase.HELD)
        till.is_down = False
        await p.act(child.child_id, "try")
        assert await handle.result() == "paid pay"


async def test_a_cancelled_execution_that_is_held_cleans_up(house: House, count: Counter, till: Till) -> None:
    app = Registry()

    @app.workflow(on_cancel="wake")
    async def cleans_up(ctx: Context) -> None:
        try:
            await ctx.step("pay", till.pay, "pay", on_failure="hold")
        finally:
            await ctx.step("clean up", count, "clean up")

    async with house.open(app) as p:
        handle = await p.start(cleans_up)
        await reaches(handle, Phase.HELD)
        await handle.cancel()
        assert await ends(handle) is Phase.CANCELLED
        assert count.runs == {"pay": 1, "clean up": 1}


async def test_refusals_say_what_would_work(house: House, app: Registry) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["order"])
        await reaches(handle, Phase.HELD)
        with pytest.raises(NotFound, match=r"Nothing is pending under 'x' .* Pending: 'pay'\."):
            await p.act(handle.id, "try", key="x")
        with pytest.raises(Conflict, match=r"Step 'reserve' .* has its outcome since .*, in row 2"):
            await p.act(handle.id, "complete", key="reserve")
        with pytest.raises(BadValue, match="a held step takes `try` or `complete` or `fail`, not `fire`"):
            await p.act(handle.id, "fire", key="pay")
        with pytest.raises(BadValue, match="value: belongs to `complete`, not to `fail`"):
            await p.act(handle.id, "fail", key="pay", value=1)
        with pytest.raises(NotFound, match="does not exist"):
            await p.act("0190a5f2-7c1e-7b3a-9d55-0242ac120002", "try")
        with pytest.raises(NotFound, match="Deployment 'v9' does not exist"):
            await p.act(handle.id, "try", deployment_id="v9")
        assert (await handle.get()).phase is Phase.HELD


async def test_a_released_step_pauses_again_before_another_worker_runs_it(house: House, till: Till) -> None:
    app = Registry()
    later = RetryPolicy(max_attempts=2, initial_seconds=3_600.0, jitter=False)

    @app.workflow
    async def run(ctx: Context) -> None:
        async def asks() -> None:
            await ctx.suspend("one")
            await ctx.suspend("two")

        await asyncio.gather(ctx.step("pay", till.pay, "pay", retry=later, on_failure="hold"), asks())

    clock = ManualClock()
    async with house.open(app, clock=clock) as p:
        handle = await p.start(run)
        await reaches(handle, Phase.WAITING)
        await p.act(handle.id, "try", key="pay")
        await reaches(handle, Phase.HELD)
        await p.act(handle.id, "try", key="pay")
        await reaches(handle, Phase.WAITING)
    async with house.open(app, clock=clock) as p:
        again = p.handle(handle.id)
        await again.resume("one", 1)

        async def asks_more() -> bool:
            return {call.key for call in await p.pending(again.id)} == {"pay", "two"}

        await until(asks_more)
        await reaches(again, Phase.WAITING)
        assert till.count.runs == {"pay": 3}


@pytest.mark.parametrize(
    "retry", [1, RetryPolicy(max_attempts=2, initial_seconds=3_600.0, jitter=False)], ids=["held", "pause"]
)
async def test_a_single_timer_beside_a_failed_step_is_listed(
    house: House, till: Till, retry: int | RetryPolicy
) -> None:
    app = Registry()

    @app.workflow
    async def run(ctx: Context) -> list[str]:
        paid = ctx.step("pay", till.pay, "pay", retry=retry, on_failure="hold")
        return list(await asyncio.gather(paid, asyncio.sleep(86_400, "slept")))

    async with house.open(app, clock=ManualClock()) as p:
        handle = await p.start(run)
        phase = Phase.HELD if retry == 1 else Phase.WAITING
        await reaches(handle, phase)
        pay, timer = await p.pending(handle.id)
        assert (pay.key, timer.kind) == ("pay", "timer")
        await p.act(handle.id, "fire", key=timer.key)
        await reaches(handle, phase)
        await p.act(handle.id, "complete", key="pay", value="by hand")
        assert await handle.result() == ["by hand", "slept"]


async def test_time_does_not_jump_to_a_timer_that_an_act_fires(house: House) -> None:
    app = Registry()

    @app.workflow
    async def run(ctx: Context) -> float:
        began = ctx.now()
        await asyncio.gather(asyncio.sleep(86_400), asyncio.sleep(86_400))
        await asyncio.sleep(3_600)
        return (ctx.now() - began).total_seconds()

    async with house.open(app, clock=ManualClock()) as p:
        handle = await p.start(run)
        for left in (2, 1, 1):

            async def waits(left: int = left) -> bool:
                return len(await p.pending(handle.id)) == left

            await until(waits)
            await reaches(handle, Phase.WAITING)
            first, *_ = await p.pending(handle.id)
            await p.act(handle.id, "fire", key=first.key)
        assert await handle.result() < 60


async def test_a_try_of_failed_code_releases_its_held_steps(house: House, till: Till) -> None:
    app = Registry()
    ready = asyncio.Event()

    async def second() -> str:
        await ready.wait()
        return await till.pay("second")

    @app.workflow(on_failure="hold")
    async def run(ctx: Context) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(ctx.step("first", till.pay, "first", on_failure="hold")),
                group.create_task(ctx.step("second", second)),
            ]
        return [task.result() for task in tasks]

    async with house.open(app) as p:
        handle = await p.start(run)

        async def first_is_held() -> bool:
            return await tried(p, handle) == ["first"]

        await until(first_is_held)
        ready.set()
        await reaches(handle, Phase.HELD)
        till.is_down = False
        await p.act(handle.id, "try")
        assert await handle.result() == ["paid first", "paid second"]


async def test_a_retry_runs_the_steps_that_ended_held_code(house: House, app: Registry, till: Till) -> None:
    async with house.open(app) as p:
        handle = await p.start(app["whole"])
        await reaches(handle, Phase.HELD)
        await handle.cancel()
        assert await ends(handle) is Phase.CANCELLED
        till.is_down = False
        again = await handle.retry()
        assert await again.result() == "paid pay"
        assert (await again.get()).forked_at_step == "pay"
        assert till.count.runs == {"reserve": 1, "pay": 3, "ship": 1}


async def test_a_value_for_a_step_that_did_not_end_the_code_this_time(house: House, till: Till) -> None:
    """The replay ends at the other failure, before the value."""
    app = Registry()
    later = RetryPolicy(max_attempts=2, initial_seconds=3_600.0, jitter=False)
    paused = asyncio.Event()

    async def second() -> str:
        await paused.wait()
        return await till.pay("second")

    @app.workflow(on_failure="hold")
    async def run(ctx: Context) -> list[str]:
        first = ctx.step("first", till.pay, "first", retry=later)
        return list(await asyncio.gather(first, ctx.step("second", second)))

    async with house.open(app, clock=ManualClock()) as p:
        handle = await p.start(run)

        async def first_is_paused() -> bool:
            return await tried(p, handle) == ["first"]

        await until(first_is_paused)
        paused.set()
        await reaches(handle, Phase.HELD)
        await p.act(handle.id, "fail", key="first")
        await p.act(handle.id, "complete", key="second", value="by hand")
        await reaches(handle, Phase.HELD)
        await p.act(handle.id, "complete", key="first", value="too")
        assert await handle.result() == ["too", "by hand"]


async def test_a_run_whose_report_is_refused_is_held(house: House, app: Registry, till: Till) -> None:
    till.is_down = False
    is_full = True

    async def refuse(report: Report, request: ReportRequest) -> ReportReply:
        if is_full and any(isinstance(one, StepDone) and one.key == "pay" for i in request.items for one in i.entries):
            raise TooLarge("That is too much.")
        return await report(request)

    async with house.open(app) as p:
        on_reports(p, refuse)
        handle = await p.start(app["whole"])
        await reaches(handle, Phase.HELD)
        assert (await handle.get()).error == "That is too much."
        is_full = False
        await p.act(handle.id, "try")
        assert await handle.result() == "paid pay"
