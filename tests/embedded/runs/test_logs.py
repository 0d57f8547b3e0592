"""What people see of a run: log lines and progress, written once however often the code is replayed."""

import asyncio
import logging
import math
from collections.abc import Callable

import pytest
from tests.embedded.house import House, reaches
from tests.kit.polling import until

from perdure.sdk.clients.client import Client
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.logs import to_log_line
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import BadValue
from perdure.wire.base.status import Phase

log = logging.getLogger("tests.embedded")


@pytest.fixture(autouse=True)
def info_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tests.embedded")


async def lines(p: Client, id: str) -> list[str]:
    return [line.text for _, line in await p.logs(id)]


async def test_lines_of_workflow_and_steps_come_in_order_and_once(house: House) -> None:
    app = Registry()

    def in_thread() -> None:
        log.info("in a thread: %d", 3)

    async def in_loop() -> None:
        log.warning("in a step")
        log.debug("too quiet")

    @app.workflow
    async def talking(ctx: Context) -> None:
        ctx.log("begin %s", "here")
        log.info("by logging")
        await ctx.step("one", in_loop)
        await ctx.wait_for_event("go")
        await ctx.step("two", in_thread)
        ctx.log("end", level=logging.ERROR)

    async with house.open(app) as p:
        handle = await p.start(talking)
        await reaches(handle, Phase.WAITING)
        await p.publish("go", None)
        await handle.result()
        found = await p.logs(handle.id)
        assert [(line.text, line.level) for _, line in found] == [
            ("begin here", logging.INFO),
            ("by logging", logging.INFO),
            ("in a step", logging.WARNING),
            ("in a thread: 3", logging.INFO),
            ("end", logging.ERROR),
        ]
        assert [n for n, _ in found] == [1, 2, 3, 4, 5]
        assert await p.logs(handle.id, after=3) == found[3:]


async def test_a_long_step_is_heard_before_it_ends(house: House) -> None:
    app = Registry()
    go = asyncio.Event()

    @app.workflow
    async def long(ctx: Context) -> None:
        async def body() -> None:
            log.info("half-way")
            ctx.progress(1, 2)
            await go.wait()

        await ctx.step("body", body)

    async with house.open(app) as p:
        handle = await p.start(long)

        async def is_heard() -> bool:
            return await lines(p, handle.id) == ["half-way"] and (await handle.get()).progress is not None

        await until(is_heard)
        go.set()
        await handle.result()


async def test_a_long_step_is_heard_before_it_ends_though_its_worker_was_idle(house: House) -> None:
    app = Registry()
    go = asyncio.Event()

    @app.workflow
    async def long(ctx: Context) -> None:
        async def body() -> None:
            log.info("half-way")
            await go.wait()

        await ctx.wait_for_event("go")
        await ctx.step("body", body)

    async with house.open(app) as p:
        handle = await p.start(long)
        await reaches(handle, Phase.WAITING)
        await until(lambda: not p.worker._looking)
        await p.publish("go", None)

        async def is_heard() -> bool:
            return await lines(p, handle.id) == ["half-way"]

        await until(is_heard)
        go.set()
        await handle.result()


async def test_lines_outside_of_executions_go_nowhere(house: House) -> None:
    app = Registry()

    @app.workflow
    async def quiet(ctx: Context) -> None:
        await ctx.step("one", lambda: None)

    handlers = list(logging.getLogger().handlers)
    async with house.open(app) as p:
        log.info("outside")
        handle = await p.start(quiet)
        await handle.result()
        assert await lines(p, handle.id) == []
        assert logging.getLogger().handlers == handlers


async def test_an_exception_is_logged_with_its_traceback(house: House) -> None:
    app = Registry()

    @app.workflow
    async def unlucky(ctx: Context) -> None:
        try:
            raise ValueError("bad luck")
        except ValueError:
            log.exception("it happened")

    async with house.open(app) as p:
        handle = await p.start(unlucky)
        await handle.result()
        (line,) = await lines(p, handle.id)
        assert line.startswith("it happened\nTraceback") and "bad luck" in line


async def test_a_line_that_a_thread_adds_during_a_report_is_kept(house: House) -> None:
    app = Registry()

    @app.workflow
    async def talking(ctx: Context) -> None:
        held_by_a_thread = ctx.logs
        ctx.log("before the report")
        await ctx.step("report", lambda: None)
        held_by_a_thread.append(to_log_line(ctx, logging.INFO, "from the thread"))

    async with house.open(app) as p:
        handle = await p.start(talking)
        await handle.result()
        assert await lines(p, handle.id) == ["before the report", "from the thread"]


async def test_a_thousand_lines_are_kept(house: House) -> None:
    app = Registry()

    @app.workflow
    async def chatty(ctx: Context) -> None:
        for n in range(1_500):
            ctx.log("line %d", n)
            if n % 100 == 0:
                await ctx.step("step", lambda: None)

    async with house.open(app) as p:
        handle = await p.start(chatty)
        await handle.result()
        found = await p.logs(handle.id, limit=1_000)
        assert len(found) == 1_000
        assert found[-1][1].text == "line 1499"


async def test_progress_is_the_last_one_said(house: House) -> None:
    app = Registry()

    @app.workflow
    async def counting(ctx: Context) -> None:
        for n in range(3):
            ctx.progress(n + 1, 3, f"part {n + 1}")
            await ctx.step("part", lambda: None)
        await ctx.wait_for_event("go")

    async with house.open(app) as p:
        handle = await p.start(counting)
        await reaches(handle, Phase.WAITING)
        progress = (await handle.get()).progress
        assert progress == {"done": 3, "total": 3, "text": "part 3"}
        await p.publish("go", None)
        await handle.result()


@pytest.mark.parametrize(
    "say",
    [
        lambda ctx: ctx.log("%d", "no number"),
        lambda ctx: ctx.progress(math.nan),
        lambda ctx: ctx.emit("said", math.nan),
        lambda ctx: ctx.emit("", 1),
    ],
)
async def test_what_cannot_be_said_raises_in_a_replay_too(house: House, say: Callable[[Context], None]) -> None:
    app = Registry()

    @app.workflow
    async def careful(ctx: Context) -> str:
        try:
            say(ctx)
        except (BadValue, TypeError):
            await ctx.step("make do", str, "without")
        await ctx.sleep(0.01)
        return "done"

    async with house.open(app, parks=False) as p:
        handle = await p.start(careful)

        async def has_settled() -> bool:
            return (await handle.get()).phase in (Phase.COMPLETED, Phase.BLOCKED)

        await until(has_settled)
        assert (await handle.get()).phase is Phase.COMPLETED
