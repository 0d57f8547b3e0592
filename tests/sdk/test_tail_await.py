"""Which code only returns what it awaits."""

import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from perdure.sdk.replay.tail_await import has_tails, only_returns

LINES: list[str] = []
Code = Callable[[], Coroutine[Any, Any, object]]


class Pause:
    def __await__(self) -> Any:
        return (yield)


async def inner() -> object:
    return await Pause()


async def returned() -> object:
    return await inner()


async def of_another() -> object:
    return await returned()


async def of_a_choice() -> object:
    one: Awaitable[object] = inner() if contextlib else returned()
    return await one


async def kept_errors() -> object:
    try:
        return await inner()
    except ValueError:
        return None


async def endless() -> object:
    while True:
        return await inner()


async def second() -> object:
    await inner()
    return await inner()


async def named() -> object:
    value = await inner()
    return value


async def dropped() -> None:
    await inner()


async def changed() -> object:
    return [await inner()]


async def replaced() -> object:
    return await inner() or 1


async def followed() -> object:
    try:
        return await inner()
    finally:
        LINES.append("a line of the user's")


async def within() -> object:
    with contextlib.nullcontext():
        return await inner()


async def within_async() -> object:
    async with contextlib.AsyncExitStack():
        return await inner()


async def in_a_loop() -> object:
    for _ in range(2):
        return await inner()
    return None


async def of_a_longer_one() -> object:
    return await named()


def waits(code: Code, times: int = 1) -> bool:
    coro = code()
    try:
        may = has_tails(coro)
        for _ in range(times):
            coro.send(None)
        assert may or not only_returns(coro, inner.__code__)
        return only_returns(coro, inner.__code__)
    finally:
        coro.close()


@pytest.mark.parametrize("code", [returned, of_another, of_a_choice, kept_errors, endless])
def test_code_that_only_returns(code: Code) -> None:
    assert waits(code)


@pytest.mark.parametrize(
    "code", [named, dropped, changed, replaced, followed, within, within_async, in_a_loop, of_a_longer_one]
)
def test_code_that_goes_on(code: Code) -> None:
    assert not waits(code)


def test_code_without_such_a_place_is_known_before_it_runs() -> None:
    coro = named()
    assert not has_tails(coro)
    coro.close()


def test_the_place_counts_not_the_code() -> None:
    assert not waits(second)
    assert waits(second, times=2)


def test_another_awaitable_is_not_the_one_that_counts() -> None:
    async def other() -> object:
        return await Pause()

    assert not waits(other)
