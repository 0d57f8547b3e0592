"""A worker's memory keeps nothing of ended executions, and no journal of waiting executions."""

import asyncio
import gc
import itertools
import threading
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from tests.embedded.house import House, reaches
from tests.kit.polling import until

from perdure.sdk.base.errors import ExecutionCancelled, ExecutionFailed, StepFailed
from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.machine import Machine
from perdure.sdk.workers.runner import Runner
from perdure.sdk.workers.step_runner import StepRunner
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.retry import RetryPolicy
from perdure.wire.base.status import Phase

pytestmark = pytest.mark.slow

PARTS = (Runner, StepRunner, Machine, InnerLoop, Context)
TWICE = RetryPolicy(max_attempts=2, initial_seconds=0.0)


def there() -> Counter[str]:
    """The number of parts of executions in the process."""
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in PARTS)


async def double(value: int) -> int:
    return 2 * value


async def test_what_has_ended_leaves_nothing_to_the_collector(house: House, no_collector: None) -> None:
    app = Registry()

    @app.workflow
    async def child(ctx: Context, value: int) -> int:
        return await ctx.step(double, value)

    @app.workflow
    async def busy(ctx: Context, value: int) -> int:
        ctx.emit("said", value)
        first, second = await asyncio.gather(ctx.step(double, value), ctx.step("in a thread", int, "7"))
        await ctx.sleep(0.01)
        event = await ctx.wait_for_event("go")
        return first + second + int(str(event.data)) + await ctx.run_child(child, value)

    async with house.open(app) as p:
        before = there()
        handles = [await p.start(busy, n) for n in range(5)]
        for handle in handles:
            await reaches(handle, Phase.WAITING)
        if house.parks:
            assert there()["Machine"] >= 5
        await p.publish("go", 1)
        assert [await handle.result() for handle in handles] == [2 * n + 7 + 1 + 2 * n for n in range(5)]
        await until(lambda: there() == before)


async def sleeps_together(ctx: Context, seconds: float = 0.02) -> None:
    await asyncio.gather(ctx.sleep(seconds), ctx.sleep(1.5 * seconds))


async def sleeps_in_a_group(ctx: Context, seconds: float = 0.02) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.sleep(seconds))
        group.create_task(ctx.sleep(1.5 * seconds))


async def waits_for_a_task(ctx: Context, seconds: float = 0.02) -> None:
    await asyncio.create_task(ctx.sleep(seconds))


async def waits_for_an_older_task(ctx: Context, seconds: float = 0.02) -> None:
    older = asyncio.create_task(ctx.sleep(seconds))

    async def younger() -> None:
        await older

    await asyncio.create_task(younger())


WAITS = (sleeps_together, sleeps_in_a_group, waits_for_a_task, waits_for_an_older_task)


@pytest.mark.parametrize("wait", WAITS)
async def test_what_is_let_go_while_it_waits_leaves_nothing_either(
    house: House, wait: Callable[[Context], Awaitable[None]], no_collector: None
) -> None:
    app = Registry()

    @app.workflow
    async def waiting(ctx: Context) -> int:
        await wait(ctx)
        return 7

    async with house.open(app, parks=False) as p:
        before = there()
        assert await (await p.start(waiting)).result() == 7
        await until(lambda: there() == before)


async def fails() -> None:
    raise ValueError("of a step")


def fails_in_a_thread() -> None:
    raise ValueError("of a thread")


async def keeps_its_error() -> None:
    try:
        await fails()
    except ValueError as error:
        kept = error
    raise kept


async def hangs() -> None:
    await (
        asyncio.Event().wait()
    )  # not a sleep: asyncio keeps cancelled timers, and their context variables, for a while


async def fails_together() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fails())
        group.create_task(hangs())


async def is_too_late() -> None:
    async with asyncio.timeout(0.001):
        await hangs()


async def code_of_a_step(ctx: Context, body: Callable[[], object]) -> None:
    await ctx.step(body)


async def code_of_a_retried_step(ctx: Context, body: Callable[[], object]) -> None:
    await ctx.step(body, retry=TWICE)


async def code_of_a_group(ctx: Context, body: Callable[[], object]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.sleep(100))
        group.create_task(code_of_a_step(ctx, body))


async def code_of_a_time_out(ctx: Context, body: Callable[[], object]) -> None:
    async with asyncio.timeout(0.001):
        await asyncio.wait_for(ctx.wait_for_event("never"), 50)


async def code_that_keeps_an_error(ctx: Context, body: Callable[[], object]) -> None:
    me = asyncio.current_task()
    try:
        await asyncio.gather(ctx.step(body), ctx.sleep(100))
    except StepFailed as error:
        kept = error
    raise RuntimeError(f"of {me}") from kept


BODIES = (fails, fails_in_a_thread, keeps_its_error, fails_together, is_too_late)
CODES = (code_of_a_step, code_of_a_retried_step, code_of_a_group, code_of_a_time_out, code_that_keeps_an_error)


def ours() -> Counter[str]:
    """The number of objects of the SDK's own types in the process."""
    kinds = map(type, gc.get_objects())
    return Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("perdure.sdk"))


@pytest.mark.parametrize("retried", [False, True], ids=["once", "retried"])
async def test_what_has_failed_leaves_nothing_either(house: House, retried: bool, no_collector: None) -> None:
    app = Registry()

    @app.workflow(retry=TWICE if retried else None)
    async def failing(ctx: Context, which: tuple[int, int]) -> None:
        await CODES[which[0]](ctx, BODIES[which[1]])

    async def run_all() -> None:
        for which in itertools.product(range(len(CODES)), range(len(BODIES))):
            with pytest.raises(ExecutionFailed):
                await (await p.start(failing, which)).result()

    others = there()
    async with house.open(app) as p:
        await run_all()  # what is made once for a function is there now
        await until(lambda: not there() - others)
        before = ours()
        await run_all()
        await until(lambda: not ours() - before)


@pytest.mark.parametrize("wait", [*WAITS, "step", "step in a group", "thread"])
async def test_what_was_cancelled_leaves_nothing_either(
    house: House, wait: Callable[[Context, float], Awaitable[None]] | str, no_collector: None
) -> None:
    app = Registry()
    began, go_on = asyncio.Event(), threading.Event()

    async def begins_and_hangs() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(hangs())
            began.set()

    def hangs_in_a_thread() -> None:
        loop.call_soon_threadsafe(began.set)
        go_on.wait()

    @app.workflow(on_cancel="wake")
    async def cancelled(ctx: Context) -> None:
        try:
            async with asyncio.timeout(1_000):
                if wait == "step":
                    await ctx.step(begins_and_hangs)
                elif wait == "thread":
                    await ctx.step(hangs_in_a_thread)
                elif not isinstance(wait, str):
                    await wait(ctx, 100)
                else:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(ctx.step(begins_and_hangs))
                        group.create_task(ctx.sleep(100))
        finally:
            await ctx.step("clean up", double, 1)

    async def run() -> None:
        began.clear()
        go_on.clear()
        handle = await p.start(cancelled)
        await (began.wait() if isinstance(wait, str) else reaches(handle, Phase.WAITING))
        await handle.cancel()
        with pytest.raises(ExecutionCancelled):
            await handle.result()
        go_on.set()

    loop, others = asyncio.get_running_loop(), there()
    async with house.open(app) as p:
        await run()
        await until(lambda: not there() - others)
        before = ours()
        for _ in range(3):
            await run()
        await until(lambda: not ours() - before)


async def test_an_execution_that_waits_keeps_neither_journal_nor_input_in_memory(house: House) -> None:
    app = Registry()

    @app.workflow
    async def waiting(ctx: Context, text: str) -> int:
        total = sum([await ctx.step(double, n) for n in range(40)])
        await ctx.wait_for_event("now")
        await ctx.wait_for_event("then")
        assert ctx.tags == {"kind": text[:4]}
        return total

    async with house.open(app) as p:
        handle = await p.start(waiting, "long" * 1_000, tags={"kind": "long"})
        await reaches(handle, Phase.WAITING)
    async with house.open(app, parks=True) as p:  # which replays it all, and waits again
        await p.publish("now", None)
        await until(lambda: handle.id in p.worker._parked)
        runner = p.worker._parked[handle.id]
        assert runner.fetched > 40
        assert runner.machine is not None and runner.machine._rows == []
        assert runner.context is not None and runner.context.claim is runner.claimed
        assert runner.claimed.rows == [] and bytes(runner.claimed.payload) == b"null"
        assert runner.context.tags == {"kind": "long"}
        await p.publish("then", None)
        assert await p.handle(handle.id, waiting).result() == sum(2 * n for n in range(40))
