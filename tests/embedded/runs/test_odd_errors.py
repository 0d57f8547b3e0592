"""Errors of users' own classes end the execution that raised the error, and no other execution."""

import asyncio
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterable

import pytest
from tests.embedded.house import Counter, House

from perdure.sdk.base.errors import ExecutionFailed, Fatal, RetryAfter
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.retry import RetryPolicy

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


@dataclasses.dataclass(frozen=True)
class Unchangeable(Exception):
    words: str


def nested() -> Exception:
    error: Exception = ValueError("at the bottom")
    for _ in range(990):
        error = ExceptionGroup("a group", [error])
    return error


ODD: list[tuple[Callable[[], Exception], str]] = [
    (lambda: OutOfStock(7), "OutOfStock: 7"),
    (lambda: Busy(7), "Busy: 7; the decision about a retry failed: AttributeError: "),
    (lambda: Vague("who knows"), "Vague: who knows"),
    (lambda: Unchangeable("as it is"), "Unchangeable: as it is"),
    (
        nested,
        "ExceptionGroup: a group (1 sub-exception): ValueError: at the bottom; "
        "the decision about a retry failed: Recursion",
    ),
]


@pytest.mark.parametrize("where", ["step", "first line", "behind a step"])
async def test_an_error_that_cannot_be_asked_ends_its_execution_and_no_other(house: House, where: str) -> None:
    app = Registry()

    def fails(number: int) -> None:
        raise ODD[number][0]()

    @app.workflow(retry=AT_ONCE)
    async def odd(ctx: Context, number: int) -> None:
        if where == "step":
            await ctx.step(fails, number, retry=AT_ONCE)
        if where == "behind a step":
            await ctx.step("note", str, "so far")
        fails(number)

    @app.workflow
    async def plain(ctx: Context) -> str:
        return "done"

    async with house.open(app) as p:
        for number, (_, words) in enumerate(ODD):
            with pytest.raises(ExecutionFailed) as caught:
                await asyncio.wait_for((await p.start(odd, number)).result(), 60)
            assert words in str(caught.value)
            assert await asyncio.wait_for((await p.start(plain)).result(), 60) == "done", words


def interrupts() -> None:
    raise KeyboardInterrupt


def leaves() -> None:
    sys.exit(3)


@pytest.mark.parametrize("end", [interrupts, leaves])
async def test_code_that_ends_programs_ends_its_execution_and_not_the_worker(
    house: House, count: Counter, end: Callable[[], None]
) -> None:
    app = Registry()
    kind = "KeyboardInterrupt" if end is interrupts else "SystemExit"

    async def ends() -> None:
        count("step")
        end()

    def refuses(error: BaseException) -> bool:
        end()
        return True

    @dataclasses.dataclass
    class Checked:
        value: int

        def __post_init__(self) -> None:
            if self.value == 13:
                end()

    class Unreadable(Exception):
        def __str__(self) -> str:
            end()
            return "never"

    @app.workflow
    async def in_a_step(ctx: Context) -> None:
        await ctx.step(ends, retry=AT_ONCE)

    @app.workflow
    async def in_a_thread(ctx: Context) -> None:
        await ctx.step(end, retry=AT_ONCE)

    @app.workflow
    async def in_a_predicate(ctx: Context) -> None:
        await ctx.step("one more", int, "x", retry_if=refuses, retry=AT_ONCE)

    @app.workflow
    async def in_words(ctx: Context) -> None:
        async def fails() -> None:
            raise Unreadable

        await ctx.step(fails)

    @app.workflow
    async def in_the_code(ctx: Context) -> None:
        await ctx.sleep(0.001)
        end()

    @app.workflow
    async def in_a_task(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.sleep(0.001)).add_done_callback(lambda _: end())
            await asyncio.create_task(in_the_code(ctx))

    @app.workflow
    async def in_its_input(ctx: Context, value: Checked) -> None: ...

    @app.workflow
    async def in_a_step_result(ctx: Context) -> None:
        def wrong() -> Checked:
            made = Checked(7)
            made.value = 13
            return made

        await ctx.step(wrong)

    @app.workflow
    async def in_its_result(ctx: Context) -> Checked:
        made = Checked(7)
        made.value = 13
        return made

    @app.workflow
    async def in_a_clean_up(ctx: Context) -> None:
        try:
            await asyncio.gather(ctx.sleep(100), in_the_code(ctx))
        finally:
            end()

    @app.workflow
    async def plain(ctx: Context) -> str:
        return await ctx.step("greet", str, "done")

    async with house.open(app) as p:
        for odd in app:
            if odd is plain:
                continue
            handle = await p.start(odd.name, {"value": 13} if odd is in_its_input else None)
            with pytest.raises(ExecutionFailed) as caught:
                await asyncio.wait_for(handle.result(), 60)
            words = "text could not be read" if odd is in_words else kind
            assert words in str(caught.value), odd.name
        assert await asyncio.wait_for((await p.start(plain)).result(), 60) == "done"
    assert count["step"] == AT_ONCE.max_attempts


def test_ctrl_c_during_a_step_ends_the_program_and_the_execution_goes_on_in_the_next(
    house: House, count: Counter
) -> None:
    app = Registry()

    async def stopped() -> str:
        count("step")
        signal.raise_signal(signal.SIGINT)
        return "ended in time"

    @app.workflow
    async def plain(ctx: Context) -> str:
        said = await ctx.step(stopped)
        return f"{said}, {await ctx.step(str, count('code'))}"

    async def first() -> None:
        async with house.open(app) as p:
            await (await p.start(plain, key="one")).result()

    async def second() -> str:
        async with house.open(app) as p:
            return await (await p.find(plain, "one")).result()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    assert asyncio.run(second()).startswith("ended in time, ")
    assert count["step"] == 1


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


async def test_what_failed_is_told_once_with_its_causes(house: House) -> None:
    app = Registry()

    class CardDeclined(Exception):
        pass

    async def pay(n: int) -> None:
        raise CardDeclined(f"card {n} has expired")

    @app.workflow
    async def declines(ctx: Context) -> None:
        raise CardDeclined("the card has expired")

    @app.workflow
    async def says_nothing(ctx: Context) -> None:
        raise CardDeclined

    @app.workflow
    async def grouped(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("first", pay, 1))

    @app.workflow
    async def parent(ctx: Context) -> None:
        await ctx.run_child(declines)

    told = []
    rows = []
    async with house.open(app) as p:
        for workflow in (declines, says_nothing, grouped, parent):
            handle = await p.start(workflow)
            with pytest.raises(ExecutionFailed) as caught:
                await handle.result()
            told.append((caught.value.type, caught.value.message))
            rows.append((await handle.get()).error)
            assert str(caught.value) == rows[-1]
    assert told[0] == ("CardDeclined", "the card has expired") and rows[0] == "CardDeclined: the card has expired"
    assert told[1] == ("CardDeclined", "") and rows[1] == "CardDeclined"
    assert told[2] == (
        "ExceptionGroup",
        "unhandled errors in a TaskGroup (1 sub-exception): "
        "StepFailed: step 'first' failed: CardDeclined: card 1 has expired",
    )
    assert told[3][0] == "ChildFailed" and told[3][1].endswith(") failed: CardDeclined: the card has expired")
