"""Errors of users' own classes: whatever they are, they end their execution, and nobody else's."""

import asyncio
from collections.abc import Callable, Iterable

import pytest
from tests.embedded.house import House

from perdure.sdk.context import Context
from perdure.sdk.errors import ExecutionFailed, Fatal, RetryAfter
from perdure.sdk.workflow import Registry
from perdure.wire.retry import RetryPolicy

AT_ONCE = RetryPolicy(max_attempts=3, initial_seconds=0.0)


class OutOfStock(Fatal):
    def __init__(self, sku: int) -> None:  # and not that of `Fatal`
        self.sku = sku


class Busy(RetryAfter):
    def __init__(self, line: int) -> None:
        self.line = line


class Vague(Fatal):
    @property
    def details(self) -> dict[str, object]:
        raise KeyError("nothing to tell")

    @details.setter
    def details(self, given: object) -> None: ...


def nested() -> Exception:
    error: Exception = ValueError("at the bottom")
    for _ in range(990):
        error = ExceptionGroup("a group", [error])
    return error


@pytest.mark.parametrize("where", ["step", "first line", "behind a step"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OutOfStock(7), "OutOfStock: 7"),
        (lambda: Busy(7), "Busy: 7; and whether to try again could not be asked: AttributeError: "),
        (lambda: Vague("who knows"), "Vague: who knows"),
        (nested, "ExceptionGroup: a group (1 sub-exception); and whether to try again could not be asked: Recursion"),
    ],
    ids=["no init", "no seconds", "no details", "deeply nested"],
)
async def test_an_error_that_cannot_be_asked_ends_its_execution_and_no_other(
    house: House, make: Callable[[], Exception], words: str, where: str
) -> None:
    app = Registry()

    def fails() -> None:
        raise make()

    @app.workflow(retry=AT_ONCE)
    async def odd(ctx: Context) -> None:
        if where == "step":
            await ctx.step(fails, retry=AT_ONCE)
        if where == "behind a step":
            await ctx.step("note", str, "so far")
        fails()

    @app.workflow
    async def plain(ctx: Context) -> str:
        return "done"

    async with house.open(app) as p:
        with pytest.raises(ExecutionFailed) as caught:
            await asyncio.wait_for((await p.start(odd)).result(), 60)
        assert words in str(caught.value)
        assert await asyncio.wait_for((await p.start(plain)).result(), 60) == "done"


@pytest.mark.parametrize("kind", ["no JSON", "of another type", "whose type cannot be read"])
async def test_a_step_that_has_run_and_whose_result_cannot_be_recorded_is_not_tried_again(
    house: House, kind: str
) -> None:
    app = Registry()
    charged: list[str] = []

    def charge() -> object:
        charged.append(kind)
        return object()

    def charge_in_cents() -> int:
        charged.append(kind)
        return "five"  # type: ignore[return-value]  # that is what is wrong with it

    def charge_each() -> Iterable[int]:
        charged.append(kind)
        return [5]

    step = {"no JSON": charge, "of another type": charge_in_cents, "whose type cannot be read": charge_each}[kind]

    @app.workflow
    async def order(ctx: Context) -> None:
        await ctx.step("charge", step, retry=AT_ONCE)

    async with house.open(app) as p:
        with pytest.raises(ExecutionFailed, match=r"result of step 'charge'.*has run, so it is not tried again"):
            await asyncio.wait_for((await p.start(order)).result(), 60)
    assert charged == [kind]
