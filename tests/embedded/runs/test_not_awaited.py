"""Calls of the workflow's code without `await`. Such a call did not run, so the execution fails and names it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.embedded.house import Counter, House, answer_when_asked

from perdure.sdk.base.errors import ExecutionFailed, StepFailed
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.steps import step
from perdure.sdk.workflows.workflow import Registry, Workflow

app = Registry()
LONG = "אבג" * 60 + "é" * 20
KEPT: list[object] = []


@step
async def notify(text: str = "") -> str:
    return text


@step(name=LONG)
async def long_name() -> None: ...


@step
async def fails() -> None:
    raise ValueError("as planned")


@app.workflow
async def child(ctx: Context) -> int:
    return 1


async def start(house: House, code: Callable[[Context], Awaitable[Any]]) -> Any:
    here = Registry(child)

    here.add(Workflow(code, name="tested"))  # type: ignore[arg-type]  # an awaitable of these tests is a coroutine
    async with house.open(here) as p:
        return await (await p.start("tested")).result()


async def error_of(house: House, code: Callable[[Context], Awaitable[Any]]) -> str:
    with pytest.raises(ExecutionFailed) as caught:
        await start(house, code)
    assert caught.value.type == "NotAwaited", caught.value
    return caught.value.message


async def test_a_step_that_is_not_awaited_fails_the_execution_with_its_name_and_line(house: House) -> None:
    async def code(ctx: Context) -> str:
        notify("forgotten")  # type: ignore[unused-coroutine]  # as the test wants it
        return await notify("awaited")

    line = code.__code__.co_firstlineno + 1
    message = await error_of(house, code)
    assert f'notify at {__file__}:{line} (`notify("forgotten")' in message
    assert "without `await`" in message


async def test_a_call_is_found_in_a_helper_after_a_wait_and_with_a_long_name(house: House) -> None:
    def helper() -> None:
        long_name()  # type: ignore[unused-coroutine]

    async def code(ctx: Context) -> None:
        helper()
        assert await ctx.suspend("ask") == 2**63

    here = Registry(Workflow(code))
    async with house.open(here) as p:
        handle = await p.start("code")
        answering = asyncio.create_task(answer_when_asked(handle, "ask", 2**63))
        with pytest.raises(ExecutionFailed) as caught:
            await handle.result()
        await answering
    assert caught.value.type == "NotAwaited"
    assert f"{LONG} at {__file__}:{helper.__code__.co_firstlineno + 1}" in caught.value.message


MADE: dict[str, Callable[[Context], Any]] = {
    "named": lambda ctx: ctx.step("named", fails),
    "ask": lambda ctx: ctx.suspend("ask"),
    "orders": lambda ctx: ctx.wait_for_event("orders"),
    "topic": lambda ctx: ctx.publish("topic", None),
    "child": lambda ctx: ctx.run_child(child),
    "child ": lambda ctx: ctx.start_child(child),
    "workflow 'child'": lambda ctx: child(ctx),
    "ctx.map_children()": lambda ctx: ctx.map_children(child, [None]),
    "ctx.sleep()": lambda ctx: ctx.sleep(3600),
    "ctx.sleep_until()": lambda ctx: ctx.sleep_until(ctx.now()),
}


@pytest.mark.parametrize("name", MADE)
async def test_every_durable_call_is_told(house: House, name: str) -> None:
    async def code(ctx: Context) -> None:
        unused = MADE[name](ctx)  # noqa: F841  # as the test wants it

    message = await error_of(house, code)
    assert f"so they did not run: {name.strip()} at {__file__}:" in message


async def test_many_calls_are_told_in_one_error(house: House) -> None:
    async def code(ctx: Context) -> None:
        for _ in range(10_000):
            notify()  # type: ignore[unused-coroutine]

    message = await error_of(house, code)
    assert "and 9997 more" in message
    assert len(message) < 1_500


async def closes(ctx: Context) -> None:
    notify().close()


async def met_an_error(ctx: Context) -> None:
    later = notify()
    try:
        await fails()
        await later
    except StepFailed:
        pass


async def met_errors_together(ctx: Context) -> None:
    calls = [ctx.sleep(3600), fails(), notify()]
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)


async def raises_in_a_group(ctx: Context) -> None:
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(notify())
            raise ValueError("before the task began")


async def leaves_a_task(ctx: Context) -> None:
    KEPT.append(asyncio.create_task(notify()))


async def waits_in_other_ways(ctx: Context) -> None:
    async def texts() -> AsyncIterator[str]:
        for text in "abc":
            yield await notify(text)

    assert [text async for text in texts()] == ["a", "b", "c"]
    assert await asyncio.wait_for(notify("a"), 60) == "a"
    assert await asyncio.shield(notify("a")) == "a"
    assert await asyncio.gather(*{notify("a"), notify("a")}) == ["a", "a"]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await notify("late")


@pytest.mark.parametrize(
    "code", [closes, met_an_error, met_errors_together, raises_in_a_group, leaves_a_task, waits_in_other_ways]
)
async def test_calls_that_were_dropped_on_purpose_or_by_an_error_are_not_told(
    house: House, code: Callable[[Context], Awaitable[None]]
) -> None:
    assert await start(house, code) is None


async def test_a_statement_is_told_even_after_an_error(house: House) -> None:
    async def code(ctx: Context) -> None:
        notify("forgotten")  # type: ignore[unused-coroutine]
        with contextlib.suppress(StepFailed):
            await fails()

    assert 'notify("forgotten")' in await error_of(house, code)


MISCALLED: list[tuple[str, Callable[[Context], Any]]] = [
    ("(int)", lambda ctx: child(3)),  # type: ignore[call-overload]  # as the test wants it
    ("(Context, int)", lambda ctx: child(ctx, 3)),  # type: ignore[call-overload]  # as above
]


@pytest.mark.parametrize(("given", "call"), MISCALLED)
async def test_a_workflow_called_as_a_function_says_what_to_write(
    house: House, given: str, call: Callable[[Context], Any]
) -> None:
    async def code(ctx: Context) -> None:
        await call(ctx)

    with pytest.raises(ExecutionFailed) as caught:
        await start(house, code)
    assert f"'child' was called with {given}. Write `await ctx.run_child(child)`" in caught.value.message
    assert "`await child(ctx)`" in caught.value.message


async def test_an_error_of_the_code_counts_more(house: House) -> None:
    async def code(ctx: Context) -> None:
        notify()  # type: ignore[unused-coroutine]
        raise LookupError("the code's own")

    with pytest.raises(ExecutionFailed, match="the code's own") as caught:
        await start(house, code)
    assert caught.value.type == "LookupError"


async def test_the_workflow_is_not_tried_again(house: House, count: Counter) -> None:
    async def code(ctx: Context) -> None:
        count("run")
        notify()  # type: ignore[unused-coroutine]

    async with house.open(Registry(Workflow(code, retry=3))) as p:
        with pytest.raises(ExecutionFailed, match="without `await`"):
            await (await p.start("code")).result()
    assert count["run"] == 1
