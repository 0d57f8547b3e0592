"""What workflow code and steps emit reaches whoever follows them, once, however often the code is replayed."""

import asyncio
import threading
from contextlib import aclosing
from typing import Any

import pytest
from tests.embedded.house import House, reaches

from perdure import RetryPolicy, StreamItem, current_step
from perdure.sdk.base.errors import ExecutionCancelled, ExecutionFailed, Misplaced
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import BadRequest, BadValue, NotFound
from perdure.wire.base.status import Phase


def said(items: list[StreamItem]) -> list[tuple[str, Any]]:
    return [(item.kind, item.data) for item in items]


async def test_workflow_and_steps_emit_in_order_and_once(house: House) -> None:
    app = Registry()

    def in_thread() -> None:
        current_step().emit("step", threading.current_thread().name.split("_")[0])

    @app.workflow
    async def talking(ctx: Context) -> None:
        async def in_loop() -> None:
            ctx.emit("step", {"n": 1})

        ctx.emit("code", "begin")
        await ctx.step("one", in_loop)
        ctx.emit("code", "waits")
        await ctx.wait_for_event("go")
        await ctx.step("two", in_thread)
        ctx.emit("code")

    async with house.open(app) as p:
        handle = await p.start(talking)
        await reaches(handle, Phase.WAITING)
        await p.publish("go", None)
        items = [item async for item in handle.stream()]
        assert said(items) == [
            ("code", "begin"),
            ("step", {"n": 1}),
            ("code", "waits"),
            ("step", "perdure-step"),
            ("code", None),
        ]
        assert [item.key for item in items] == ["emit()", "one", "emit()#2", "two", "emit()#3"]
        assert [item.n for item in items] == [1, 2, 3, 4, 5]
        assert not any(item.restarted for item in items)
        again = [item async for item in handle.stream(after=items[2].cursor)]
        assert again == items[3:]


async def test_items_come_while_the_step_that_emits_them_runs(house: House) -> None:
    app = Registry()
    heard = [asyncio.Event() for _ in range(3)]

    @app.workflow
    async def slow(ctx: Context) -> None:
        async def body() -> None:
            for n, event in enumerate(heard):
                ctx.emit("token", n)
                await event.wait()

        await ctx.step("body", body)

    async with house.open(app) as p:
        handle = await p.start(slow)
        async for item in handle.stream():
            heard[item.data].set()
        await handle.result()


async def test_a_step_that_begins_anew_says_so(house: House) -> None:
    app = Registry()

    @app.workflow
    async def stumbling(ctx: Context) -> None:
        async def body() -> None:
            ctx.emit("token", "Hel")
            if current_step().tries == 1:
                raise RuntimeError("broken off")
            ctx.emit("token", "lo")

        ctx.emit("before")
        await ctx.step("model", body, retry=RetryPolicy(max_attempts=2, initial_seconds=0.001))

    async with house.open(app) as p:
        handle = await p.start(stumbling)
        text = ""
        async for item in handle.stream():
            if item.restarted:
                text = ""
            if item.kind == "token":
                text += item.data
        assert text == "Hello"


async def test_what_a_lost_attempt_has_sent_is_replaced_by_the_next_one(house: House) -> None:
    app = Registry()
    stuck = asyncio.Event()
    attempts = 0

    @app.workflow
    async def lost(ctx: Context) -> None:
        async def body() -> None:
            nonlocal attempts
            attempts += 1
            ctx.emit("token", f"of run {attempts}")
            if attempts == 1:
                stuck.set()
                await asyncio.Event().wait()

        await ctx.step("done", lambda: ctx.emit("token", "recorded"))
        ctx.emit("code", "between")
        await ctx.step("model", body)

    async with house.open(app, grace_seconds=0.0) as p:  # gives it back unfinished
        handle = await p.start(lost)
        async with aclosing(handle.stream()) as stream:
            first = [await anext(stream) for _ in range(3)]
        await stuck.wait()
    async with house.open(app) as p:
        items = [item async for item in p.handle(handle.id).stream()]
    assert items[:3] == first
    assert [(item.key, item.data, item.attempt, item.restarted) for item in items] == [
        ("done", "recorded", 1, False),
        ("emit()", "between", 1, False),
        ("model", "of run 1", 1, False),
        ("emit()", "between", 2, True),
        ("model", "of run 2", 2, True),
    ]


async def test_children_are_merged_with_their_path(house: House) -> None:
    app = Registry()

    @app.workflow
    async def kid(ctx: Context, n: int) -> int:
        ctx.emit("from", n)
        return n

    @app.workflow
    async def parent(ctx: Context) -> int:
        ctx.emit("from", "parent")
        found = await ctx.map_children(kid, range(3))
        total = sum(found.results())
        ctx.emit("from", "sum")
        return total

    async with house.open(app) as p:
        handle = await p.start(parent)
        items = [item async for item in handle.stream()]
        assert [item.data for item in items if not item.path] == ["parent", "sum"]
        below = {item.data: item.path for item in items if item.path}
        assert below == {0: ("kid",), 1: ("kid#2",), 2: ("kid#3",)}
        assert items[0].data == "parent" and items[-1].data == "sum"
        rest = [item async for item in handle.stream(after=items[2].cursor)]
        assert rest == items[3:]


async def test_many_items_at_once_cost_few_reports(house: House) -> None:
    app = Registry()

    @app.workflow
    async def chatty(ctx: Context) -> None:
        async def body() -> None:
            for n in range(2_000):
                ctx.emit("token", n)
                if n % 10 == 0:
                    await asyncio.sleep(0)

        await ctx.step("body", body)

    async with house.open(app) as p:
        handle = await p.start(chatty)
        assert [item.data async for item in handle.stream()] == list(range(2_000))
        assert p.engine.store.group_verbs < 500


async def test_a_last_step_may_emit_more_than_one_report_holds(house: House) -> None:
    app = Registry()

    async def burst() -> None:
        for n in range(100):
            current_step().emit("burst", [n, "x" * 60_000])

    @app.workflow
    async def ends_with_a_burst(ctx: Context) -> None:
        return await ctx.step("burst", burst)

    async with house.open(app) as p:
        handle = await p.start(ends_with_a_burst)
        assert [item.data[0] async for item in handle.stream()] == [*range(100)]


async def test_what_cannot_be_sent_is_refused_where_it_is_emitted(house: House) -> None:
    app = Registry()
    refused: list[str] = []

    @app.workflow
    async def wrong(ctx: Context) -> None:
        for kind, data in (("", 1), ("a\nb", 1), ("large", "x" * 70_000), ("odd", object())):
            with pytest.raises(BadValue) as caught:
                ctx.emit(kind, data)
            refused.append(caught.value.message)
        ctx.emit("token", "fine")

    outside: list[Context] = []

    @app.workflow
    async def keeps(ctx: Context) -> None:
        outside.append(ctx)

    async with house.open(app) as p:
        handle = await p.start(wrong)
        assert said([item async for item in handle.stream()]) == [("token", "fine")]
        assert len(refused) == 4 and "65,536" in refused[2]
        await (await p.start(keeps)).result()
        with pytest.raises(Misplaced):
            outside[0].emit("token")
        for cursor in ("x", "1,", "1,abc:2"):
            with pytest.raises(BadRequest):
                await anext(handle.stream(after=cursor))
        with pytest.raises(NotFound):
            await anext(p.handle("0190a5f2-7c1e-7b3a-9d55-0242ac120002").stream())


async def test_the_stream_of_a_run_that_failed_ends_with_its_failure(house: House) -> None:
    app = Registry()

    @app.workflow
    async def failing(ctx: Context, says: str | None) -> None:
        if says is not None:
            ctx.emit("token", says)
        raise ValueError("out of words")

    async with house.open(app) as p:
        for says in ("Hel", None):
            handle = await p.start(failing, says)
            seen: list[Any] = []
            with pytest.raises(ExecutionFailed) as streamed:
                async for item in handle.stream():
                    seen += [item.data]
            with pytest.raises(ExecutionFailed) as awaited:
                await handle.result()
            assert seen == [] if says is None else [says]
            assert vars(streamed.value) == vars(awaited.value)
            assert (streamed.value.type, streamed.value.message) == ("ValueError", "out of words")
            assert streamed.value.execution_id == handle.id
            with pytest.raises(ExecutionFailed, match="out of words"):  # behind its last item
                await anext(p.stream(handle.id, after="1" if says else "0"))


async def test_the_stream_of_a_cancelled_run_says_so(house: House) -> None:
    app = Registry()

    @app.workflow
    async def waiting(ctx: Context) -> None:
        ctx.emit("token", "waits")
        await ctx.wait_for_event("never")

    async with house.open(app) as p:
        handle = await p.start(waiting)
        stream = handle.stream()
        assert (await anext(stream)).data == "waits"
        await handle.cancel()
        with pytest.raises(ExecutionCancelled, match=f"Execution {handle.id} was cancelled"):
            await anext(stream)
