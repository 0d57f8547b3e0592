"""What executions leave in a worker's memory: nothing when they have ended, and no journal while they wait."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
from tests.embedded.house import House, reaches, until

from perdure.sdk.context import Context
from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.machine import Machine
from perdure.sdk.runner import Runner
from perdure.sdk.tries import Tries
from perdure.sdk.workflow import Registry
from perdure.wire.status import Phase

PARTS = (Runner, Tries, Machine, InnerLoop, Context)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only what is in no cycle is forgotten."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def there() -> dict[str, int]:
    """How many parts of executions there are in this process."""
    return dict(Counter(type(one).__name__ for one in gc.get_objects() if type(one) in PARTS))


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


async def sleeps_together(ctx: Context) -> None:
    await asyncio.gather(ctx.sleep(0.02), ctx.sleep(0.03))


async def sleeps_in_a_group(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.sleep(0.02))
        group.create_task(ctx.sleep(0.03))


async def waits_for_a_task(ctx: Context) -> None:
    await asyncio.create_task(ctx.sleep(0.02))


async def waits_for_an_older_task(ctx: Context) -> None:
    older = asyncio.create_task(ctx.sleep(0.02))

    async def younger() -> None:
        await older

    await asyncio.create_task(younger())


@pytest.mark.parametrize("wait", [sleeps_together, sleeps_in_a_group, waits_for_a_task, waits_for_an_older_task])
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


async def test_an_execution_that_waits_keeps_no_journal_in_memory(house: House) -> None:
    app = Registry()

    @app.workflow
    async def waiting(ctx: Context) -> int:
        total = sum([await ctx.step(double, n) for n in range(40)])
        await ctx.wait_for_event("now")
        await ctx.wait_for_event("then")
        return total

    async with house.open(app) as p:
        handle = await p.start(waiting)
        await reaches(handle, Phase.WAITING)
    async with house.open(app, parks=True) as p:  # which replays it all, and waits again
        await p.publish("now", None)
        await until(lambda: handle.id in p.worker._parked)
        runner = p.worker._parked[handle.id]
        assert runner.fetched > 40
        assert runner.machine is not None and runner.machine._rows == []
        assert runner.context is not None and runner.context.claim.rows == runner.claimed.rows == []
        await p.publish("then", None)
        assert await p.handle(handle.id, waiting).result() == sum(2 * n for n in range(40))
