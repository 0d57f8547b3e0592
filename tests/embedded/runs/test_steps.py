"""Steps: results, retries, and records in the journal."""

import asyncio
import contextvars
import dataclasses
import enum
import functools
import gc
import math
import operator
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ParamSpec
from uuid import UUID

import msgspec
import pydantic
import pytest
from opentelemetry import baggage
from opentelemetry import context as telemetry
from tests.embedded.house import Counter, House, keys_of, pass_time, reaches, rows_of
from tests.kit.polling import until

from perdure.engine.base.clock import ManualClock
from perdure.sdk.base.errors import ExecutionFailed, Fatal, RecordedError, RetryAfter, StepFailed
from perdure.sdk.workers.step_runner import READ_BYTES_MAX, TRACED_TRIES
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.steps import current_context, current_step, step
from perdure.sdk.workflows.workflow import Registry
from perdure.wire.base.errors import BadValue
from perdure.wire.base.records import Kind
from perdure.wire.base.retry import RetryPolicy
from perdure.wire.base.status import Phase

P = ParamSpec("P")
AT_ONCE = RetryPolicy(max_attempts=5, initial_seconds=0.0)


tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


async def test_a_step_sees_the_context_variables_of_the_code_that_awaits_it(house: House, count: Counter) -> None:
    app = Registry()
    seen: dict[str, str] = {}

    def look(name: str) -> str:
        seen[name] = f"{tenant.get()} {baggage.get_baggage('order')} {current_step().name}"
        tenant.set("changed by a step")
        return seen[name]

    async def look_in_a_task(name: str) -> str:
        if count(name) < 3:
            tenant.set("changed by a try")
            raise ValueError("again")
        assert current_context.get() is None
        return await asyncio.create_task(asyncio.to_thread(look, name))

    @step
    async def decorated(name: str) -> str:
        return look(name)

    async def branch(ctx: Context, name: str) -> None:
        tenant.set(name)
        telemetry.attach(baggage.set_baggage("order", f"of {name}"))
        await ctx.step(look, f"{name} after {tenant.get()}")

    @app.workflow
    async def order(ctx: Context) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(branch(ctx, "ann"))
            group.create_task(branch(ctx, "bob"))
        before = ctx.step("early", look, "made before")
        tenant.set("workflow")
        telemetry.attach(baggage.set_baggage("order", 7))
        await before
        await ctx.sleep(0.001)  # replayed from here, where nothing is parked
        await ctx.step("thread", look, "in a thread")
        await ctx.step("task", look_in_a_task, "in a task", retry=AT_ONCE)
        await decorated("decorated")
        return f"{tenant.get()} {baggage.get_baggage('order')}"

    tenant.set("worker")
    async with house.open(app) as p:
        assert await (await p.start(order)).result() == "workflow 7"
    assert seen == {
        "ann after ann": "ann of ann look",
        "bob after bob": "bob of bob look",
        "made before": "workflow 7 early",
        "in a thread": "workflow 7 thread",
        "in a task": "workflow 7 task",
        "decorated": "workflow 7 decorated",
    }


async def test_a_forgotten_await_is_named(house: House) -> None:
    app = Registry()
    made: list[Coroutine[Any, Any, int]] = []

    @step
    async def charge(cents: int) -> int:
        return cents

    @app.workflow
    async def child(ctx: Context, n: int) -> int:
        return n

    @app.workflow
    async def as_result(ctx: Context) -> int:
        made.append(charge(5))
        return made[-1]  # type: ignore[return-value]  # the mistake

    @app.workflow
    async def as_argument(ctx: Context) -> int:
        return await charge(charge(5))  # type: ignore[arg-type]  # the mistake

    @app.workflow
    async def as_function(ctx: Context) -> object:
        return await ctx.step("pay", charge(5))  # type: ignore[call-overload]  # the mistake

    @app.workflow
    async def of_children(ctx: Context) -> object:
        return await ctx.map_children(child, [1, 2])

    says = {
        as_result: "result: a `coroutine` is not JSON; did you forget `await`?",
        as_argument: "Argument 1 of step 'charge' is a coroutine; did you forget `await`?",
        as_function: "got a coroutine, so the function was called already",
        of_children: "result: a `Mapped` is not JSON; take its `.results()`, or look at its `.outcomes`",
    }
    async with house.open(app) as p:
        for mistaken, words in says.items():
            with pytest.raises(ExecutionFailed, match=re.escape(words)):
                await (await p.start(mistaken)).result()
    for forgotten in made:
        forgotten.close()  # or Python tells as well


async def test_async_sync_and_decorated_steps_give_their_results(house: House) -> None:
    app = Registry()
    main_thread = threading.current_thread()

    async def double(n: int) -> int:
        assert threading.current_thread() is main_thread
        return n * 2

    def triple(n: int, *, plus: int = 0) -> int:
        assert threading.current_thread() is not main_thread
        return n * 3 + plus

    @step
    async def square(n: int) -> int:
        return n * n

    @app.workflow
    async def sums(ctx: Context, n: int) -> list[int]:
        return [
            await ctx.step("double", double, n),
            await ctx.step(triple, n, plus=1),
            await square(n),
            await ctx.step("lambda", lambda: 7),
        ]

    async with house.open(app) as p:
        handle = await p.start(sums, 5)
        assert await handle.result() == [10, 16, 25, 7]
        assert await keys_of(handle, Kind.STEP) == ["double", "triple", "square", "lambda"]


async def test_a_plain_function_is_a_step_that_runs_in_a_thread(house: House, count: Counter) -> None:
    app = Registry()
    main_thread = threading.current_thread()

    @step
    def weigh(n: int) -> list[Decimal]:
        assert threading.current_thread() is not main_thread
        return [Decimal(n)]

    @step(name="flaky", retry=AT_ONCE)
    def fails_once(text: str) -> str:
        if count(text) < 2:
            raise OSError("busy")
        assert current_step().tries == 2
        return f"{text} {current_step().key}"

    @step
    def later(n: int) -> Coroutine[Any, Any, list[Decimal]]:
        return outer(n)

    @step
    async def outer(n: int) -> list[Decimal]:
        return await weigh(n)

    class Shop:
        @step
        def price(self, n: int) -> int:
            return n * 2

        @staticmethod
        @step
        def tax(n: int) -> int:
            return n // 5

    @app.workflow
    async def sums(ctx: Context) -> tuple[list[Decimal], str, list[Decimal], list[Decimal], int, int]:
        weights, text = await asyncio.gather(weigh(5), fails_once("a"))
        return weights, text, await outer(6), await later(7), await Shop().price(4), await ctx.step(Shop.tax, 10)

    assert await weigh(1) == await outer(1) == await later(1) == [Decimal(1)], "outside of a workflow"
    async with house.open(app) as p:
        handle = await p.start(sums)
        assert await handle.result() == ([Decimal(5)], "a flaky", [Decimal(6)], [Decimal(7)], 8, 2)
        assert sorted(map(str, await keys_of(handle, Kind.STEP))) == [
            "flaky",
            "later",
            "outer",
            "price",
            "tax",
            "weigh",
        ]
    assert count["a"] == 2


async def test_builtins_are_steps_though_they_tell_nothing_of_their_result(house: House) -> None:
    app = Registry()

    @app.workflow
    async def builtins(ctx: Context) -> list[object]:
        now: float = await ctx.step("now", time.time)
        return [
            now > 0,
            await ctx.step(max, 1, 3),
            await ctx.step("smallest", functools.partial(min, 5), 4),
            await ctx.step("second", operator.itemgetter(1), [7, 8]),
            await ctx.step("text", str, 12),
        ]

    async with house.open(app) as p:
        handle = await p.start(builtins)
        assert await handle.result() == [True, 3, 4, 8, "12"]
        assert await keys_of(handle, Kind.STEP) == ["now", "max", "smallest", "second", "text"]


async def test_a_class_is_a_step_that_gives_what_it_makes(house: House) -> None:
    app = Registry()

    @dataclasses.dataclass
    class Stamp:
        n: int
        at: datetime = dataclasses.field(default_factory=lambda: datetime.now(UTC))

    class Model(pydantic.BaseModel):
        n: int

    class Smaller(Model): ...

    @app.workflow
    async def makes(ctx: Context) -> list[str]:
        made = [
            await ctx.step(Stamp, 1),
            await ctx.step("half", functools.partial(Stamp, at=datetime(2026, 1, 1, tzinfo=UTC)), 2),
            await ctx.step(Model, n=3),
            await ctx.step(Smaller, n=4),
            await ctx.step(Decimal, "0.50"),
            await ctx.step("text", str, 12),
        ]
        return [type(one).__name__ for one in made]

    async with house.open(app) as p:
        assert await (await p.start(makes)).result() == ["Stamp", "Stamp", "Model", "Smaller", "Decimal", "str"]


async def test_a_decorated_step_just_runs_outside_of_workflows_and_inside_steps(house: House) -> None:
    app = Registry()

    @step
    async def inner() -> str:
        return "inner"

    @step
    async def outer() -> str:
        return f"outer {await inner()}"

    @app.workflow
    async def nested(ctx: Context) -> str:
        return await outer()

    assert await outer() == "outer inner"
    async with house.open(app) as p:
        handle = await p.start(nested)
        assert await handle.result() == "outer inner"
        assert await keys_of(handle, Kind.STEP) == ["outer"]


async def test_methods_partials_and_wrapped_functions_are_the_steps_that_they_are(house: House, count: Counter) -> None:
    app = Registry()

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @step(retry=AT_ONCE)
        async def pay(self, cents: int) -> str:
            if count(f"pay {cents}") < 2:
                raise OSError("busy")
            return f"{self.name} {cents}"

        @classmethod
        @step
        async def of_all(cls, cents: int) -> str:
            return f"{cls.__name__} {cents}"

        async def plain(self, cents: int) -> str:
            return f"plain {self.name} {cents}"

    def loudly(fn: Callable[P, Coroutine[Any, Any, str]]) -> Callable[P, Coroutine[Any, Any, str]]:
        @functools.wraps(fn)
        async def louder(*args: P.args, **kwargs: P.kwargs) -> str:
            return (await fn(*args, **kwargs)).upper()

        return louder

    async def quiet(text: str) -> str:
        return text

    @step(name="flaky", retry=AT_ONCE)
    async def fails_once(text: str) -> str:
        if count(text) < 2:
            raise OSError("busy")
        return text

    loud = loudly(fails_once)

    @app.workflow
    async def all_kinds(ctx: Context) -> list[str]:
        shop = Shop("corner")
        return [
            await shop.pay(1),
            await ctx.step(shop.pay, 2),
            await ctx.step("pay", Shop.pay, shop, 3),
            await ctx.step(Shop.of_all, 4),
            await ctx.step("unbound", Shop.plain, shop, 5),
            await ctx.step("bound", shop.plain, 6),
            await ctx.step("plain", quiet, "a"),
            await ctx.step("wrapped", loudly(quiet), "b"),
            await ctx.step("a wrapped step", loud, "c"),
            await ctx.step(functools.partial(fails_once, "d")),
        ]

    async with house.open(app) as p:
        handle = await p.start(all_kinds)
        assert await handle.result() == [
            "corner 1",
            "corner 2",
            "corner 3",
            "Shop 4",
            "plain corner 5",
            "plain corner 6",
            "a",
            "B",
            "C",
            "d",
        ]
        keys = ["pay", "pay#2", "pay#3", "of_all", "unbound", "bound", "plain", "wrapped", "a wrapped step", "flaky"]
        assert await keys_of(handle, Kind.STEP) == keys
    assert count.runs == {"pay 1": 2, "pay 2": 2, "pay 3": 2, "c": 2, "d": 2}


async def test_a_decorated_step_in_a_finally_runs_in_the_workflow_only(house: House, count: Counter) -> None:
    app = Registry()

    @step
    async def unlock(name: str) -> None:
        count(name)

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await unlock("generator")

    @app.workflow
    async def locked(ctx: Context) -> str:
        async def branch() -> None:
            try:
                await ctx.wait_for_event("go")
            finally:
                await unlock("branch")

        values = numbers()
        await anext(values)
        ring: list[Any] = [values]
        ring.append(ring)  # only the collector finds it
        del values, ring
        gc.collect()
        try:
            await asyncio.gather(branch(), ctx.wait_for_event("on"))
        finally:
            await unlock("workflow")
        return "unlocked"

    async with house.open(app, parks=False) as p:
        handle = await p.start(locked)
        await reaches(handle, Phase.WAITING)
        await until(lambda: not p.worker._running)
        assert count.runs == {}  # it has left memory: its `finally` blocks ran, and their steps did not
        await p.publish("go", None)
        await p.publish("on", None)
        assert await handle.result() == "unlocked"
        assert count.runs == {"branch": 1, "workflow": 1}


async def test_keys_count_within_their_scope_and_key_overrides(house: House) -> None:
    app = Registry()

    async def fetch(n: int) -> int:
        return n

    @app.workflow
    async def keyed(ctx: Context) -> int:
        total = await ctx.step("fetch", fetch, 1) + await ctx.step("fetch", fetch, 2)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.step("fetch", fetch, n, key=f"mine-{n}")) for n in (3, 4)]

        async def branch() -> int:
            return await ctx.step("fetch", fetch, 5)

        return total + sum(task.result() for task in tasks) + await asyncio.create_task(branch())

    async with house.open(app) as p:
        handle = await p.start(keyed)
        assert await handle.result() == 15
        assert sorted(filter(None, await keys_of(handle, Kind.STEP))) == [
            "3/fetch",
            "fetch",
            "fetch#2",
            "mine-3",
            "mine-4",
        ]


async def test_the_same_key_twice_fails_the_workflow_with_the_reason(house: House) -> None:
    app = Registry()

    @app.workflow
    async def twice(ctx: Context) -> None:
        await ctx.step("a", lambda: None, key="pay")
        await ctx.step("b", lambda: None, key="pay")

    async with house.open(app) as p:
        with pytest.raises(ExecutionFailed, match="'pay' is used twice") as caught:
            await (await p.start(twice)).result()
        assert caught.value.type == "DuplicateKey"


async def test_a_step_knows_its_try_and_its_idempotency_key_stays_the_same(house: House) -> None:
    app = Registry()
    seen: list[tuple[int, str, str]] = []

    async def pay(ctx: Context) -> None:
        info = current_step()
        seen.append((info.tries, info.idempotency_key, ctx.idempotency_key))
        if info.tries < 3:
            raise ConnectionError("no answer")

    @app.workflow
    async def paying(ctx: Context) -> None:
        await ctx.step("pay", lambda: pay(ctx), retry=AT_ONCE)

    async with house.open(app) as p:
        handle = await p.start(paying)
        await handle.result()
    assert seen == [(n, f"{handle.id}:pay", f"{handle.id}:pay") for n in (1, 2, 3)]


async def test_failed_tries_are_journalled_and_the_last_one_raises_step_failed(house: House, count: Counter) -> None:
    app = Registry()

    async def breaks(where: str) -> None:
        raise ConnectionError(f"{where} did not answer, {count('breaks')}")

    @app.workflow
    async def catching(ctx: Context) -> list[object]:
        try:
            await ctx.step("call", breaks, "bank", retry=RetryPolicy(max_attempts=3, initial_seconds=0.001))
        except StepFailed as error:
            cause = error.__cause__
            assert isinstance(cause, RecordedError)
            return [error.type, error.message, error.key, error.tries, cause.type, "breaks" in (cause.detail or "")]
        return []

    async with house.open(app) as p:
        handle = await p.start(catching)
        failed = ["ConnectionError", "bank did not answer, 3", "call", 3, "ConnectionError", True]
        assert await handle.result() == failed
        rows = [row for row in await rows_of(handle) if row.key == "call"]
        assert [(row.kind, row.ok, row.tries) for row in rows] == [
            (Kind.STEP_FAILED, False, 1),
            (Kind.STEP_FAILED, False, 2),
            (Kind.STEP, False, 3),
        ]
        assert all(row.started_at_us is not None for row in rows)


async def test_only_the_first_tries_and_the_last_keep_their_tracebacks(house: House) -> None:
    app = Registry()

    def breaks() -> None:
        raise ConnectionError("away")

    @app.workflow
    async def failing(ctx: Context) -> None:
        await ctx.step("call", breaks, retry=RetryPolicy(max_attempts=TRACED_TRIES + 3, initial_seconds=0.0))

    async with house.open(app) as p:
        handle = await p.start(failing)
        with pytest.raises(ExecutionFailed, match="away"):
            await handle.result()
        errors = [msgspec.json.decode(row.value) for row in await rows_of(handle) if row.key == "call"]
    kept = [any(frame["own"] and frame["function"] == "breaks" for frame in one.get("frames", ())) for one in errors]
    assert kept == [True] * TRACED_TRIES + [False, False, True]
    assert [("detail" in one) for one in errors] == kept


async def test_a_step_is_tried_once_unless_told_otherwise_and_its_failure_fails_the_workflow(
    house: House, count: Counter
) -> None:
    app = Registry()

    def breaks() -> None:
        count("breaks")
        raise ValueError("bad amount")

    @app.workflow
    async def failing(ctx: Context) -> None:
        await ctx.step("call", breaks)

    async with house.open(app) as p:
        handle = await p.start(failing)
        with pytest.raises(ExecutionFailed, match="bad amount"):
            await handle.result()
        execution = await handle.get()
        assert execution.phase is Phase.FAILED and execution.error is not None and "bad amount" in execution.error
    assert count["breaks"] == 1


async def test_fatal_and_the_error_filters_end_a_step_at_once(house: House, count: Counter) -> None:
    app = Registry()

    async def raises(error: str) -> None:
        count(error)
        raise {"fatal": Fatal("pointless"), "key": KeyError("k"), "os": OSError("disk"), "value": ValueError("v")}[
            error
        ]

    @app.workflow
    async def filters(ctx: Context) -> list[str]:
        calls = [
            ctx.step("1", raises, "fatal", retry=AT_ONCE),
            ctx.step("2", raises, "key", retry=AT_ONCE, fatal=LookupError),
            ctx.step("3", raises, "os", retry=AT_ONCE, retry_if=(TimeoutError, ConnectionError)),
            ctx.step("4", raises, "value", retry=AT_ONCE, retry_if=lambda error: "v" in str(error)),
        ]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        return [error.type for error in errors if isinstance(error, StepFailed)]

    async with house.open(app) as p:
        assert await (await p.start(filters)).result() == ["Fatal", "KeyError", "OSError", "ValueError"]
    assert count.runs == {"fatal": 1, "key": 1, "os": 1, "value": 5}


async def test_retry_after_replaces_the_delay_and_not_the_number_of_tries(house: House, count: Counter) -> None:
    app = Registry()
    policy = RetryPolicy(max_attempts=2, initial_seconds=3_600.0, jitter=False)

    class TooBusy(Exception):
        retry_after = 0.001

    async def busy(error: bool) -> str:
        if count("busy") % 2:
            raise RetryAfter(0.001) if error else TooBusy()
        return "ok"

    @app.workflow
    async def patient(ctx: Context) -> list[str]:
        return [
            await ctx.step("own", busy, True, retry=policy),
            await ctx.step("theirs", busy, False, retry=policy),
        ]

    async with house.open(app) as p:
        assert await (await p.start(patient)).result() == ["ok", "ok"]
    assert count["busy"] == 4


async def test_each_try_has_its_timeout(house: House, count: Counter) -> None:
    app = Registry()

    async def slow() -> str:
        if count("slow") < 3:
            await asyncio.Event().wait()
        return "at last"

    @app.workflow
    async def limited(ctx: Context) -> list[str]:
        first = await ctx.step("slow", slow, timeout=0.01, retry=AT_ONCE)
        try:
            await ctx.step("slower", asyncio.Event().wait, timeout=0.01)
        except StepFailed as error:
            return [first, error.type, error.message]
        return []

    async with house.open(app) as p:
        assert await (await p.start(limited)).result() == [
            "at last",
            "TimeoutError",
            "step 'slower' took longer than its timeout of 0.01 s",
        ]


async def test_a_steps_own_timeout_is_not_taken_for_that_of_its_try(house: House) -> None:
    app = Registry()

    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    def socket_like() -> None:
        raise TimeoutError

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("not now")

    @app.workflow
    async def limited(ctx: Context) -> list[list[str]]:
        found = []
        for fn, seconds in ((impatient, 600), (socket_like, 600), (stubborn, 0.01)):
            try:
                await ctx.step(fn, timeout=seconds)
            except StepFailed as error:
                found.append([error.type, error.message])
        return found

    async with house.open(app) as p:
        assert await (await p.start(limited)).result() == [
            ["TimeoutError", ""],
            ["TimeoutError", ""],
            ["ValueError", "not now"],
        ]


async def test_a_long_pause_between_tries_suspends_and_the_count_of_tries_goes_on(house: House, count: Counter) -> None:
    app, clock = Registry(), ManualClock()

    async def flaky() -> int:
        if count("flaky") < 3:
            raise ConnectionError("not yet")
        return current_step().tries

    async def other() -> int:
        return count("other")

    @app.workflow
    async def backing_off(ctx: Context) -> list[int]:
        policy = RetryPolicy(max_attempts=3, initial_seconds=600.0, jitter=False)
        return list(await asyncio.gather(ctx.step("flaky", flaky, retry=policy), ctx.step("other", other)))

    async with house.open(app, clock=clock) as p:
        handle = await p.start(backing_off)
        await reaches(handle, Phase.WAITING)
        assert (await handle.get()).raw.due_at_us == clock.now_us() + 600_000_000 or count["flaky"] == 1
        await pass_time(p, clock, 601)
        await until(lambda: count["flaky"] == 2)
        await reaches(handle, Phase.WAITING)
        await pass_time(p, clock, 1_201)
        assert await handle.result() == [3, 1]
    assert count.runs == {"flaky": 3, "other": 1}


async def test_a_timer_that_is_due_before_a_long_pause_ends_wakes_the_workflow(house: House, count: Counter) -> None:
    app, clock = Registry(), ManualClock()

    def flaky() -> None:
        count("flaky")
        raise ConnectionError("never")

    @app.workflow
    async def impatient(ctx: Context) -> str:
        try:
            async with asyncio.timeout(60):
                await ctx.step("flaky", flaky, retry=RetryPolicy(max_attempts=9, initial_seconds=600.0, jitter=False))
        except TimeoutError:
            return "gave up"
        return "done"

    async with house.open(app, clock=clock) as p:
        handle = await p.start(impatient)
        await reaches(handle, Phase.WAITING)
        await pass_time(p, clock, 61)
        assert await handle.result() == "gave up"
    assert count["flaky"] == 1


@pytest.mark.parametrize("value", [0, "", [], False, None, {}, 0.0], ids=repr)
async def test_falsy_outcomes_replay_as_themselves(house: House, count: Counter, value: object) -> None:
    app = Registry()

    def give() -> object:
        count("give")
        return value

    @app.workflow
    async def falsy(ctx: Context) -> object:
        before = await ctx.step("give", give)
        await ctx.wait_for_event("go")
        return [before, await ctx.step("again", give)]

    async with house.open(app) as p:
        handle = await p.start(falsy)
        await reaches(handle, Phase.WAITING)
        await p.publish("go", None)
        assert await handle.result() == [value, value]
    assert count["give"] == 2


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        """The schema states no such rule, so the start does not check odd numbers."""
        if self.number % 2:
            raise ValueError("an odd number")


@dataclasses.dataclass
class Money:
    amount: Decimal
    currency: str = "EUR"


class Line(msgspec.Struct):
    id: UUID
    price: Money


class Order(pydantic.BaseModel):
    placed: datetime
    lines: list[str]
    note: bytes = b""


async def test_values_come_back_as_their_hints_say(house: House) -> None:
    app = Registry()
    id = UUID("0190a5f2-7c1e-7b3a-9d55-0242ac120002")
    placed = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    async def line(colour: Colour) -> Line:
        return Line(id, Money(Decimal("12.30")))

    async def order(when: datetime) -> Order:
        return Order(placed=when, lines=["a"])

    @app.workflow
    async def typed(ctx: Context, input: Money) -> tuple[Line, Order, set[int], bytes, Colour]:
        assert isinstance(input, Money) and input.amount == Decimal("1.5")
        one = await ctx.step("line", line, Colour.RED)
        two = await ctx.step("order", order, placed)
        await ctx.wait_for_event("go")
        assert isinstance(one, Line) and isinstance(one.price, Money) and isinstance(two, Order)
        return one, two, {1, 2}, b"\x00\xff", Colour.RED

    async with house.open(app) as p:
        handle = await p.start(typed, Money(Decimal("1.5")))
        await reaches(handle, Phase.WAITING)
        await p.publish("go", None)
        assert await handle.result() == (
            Line(id, Money(Decimal("12.30"))),
            Order(placed=placed, lines=["a"]),
            {1, 2},
            b"\x00\xff",
            Colour.RED,
        )


async def test_without_an_annotation_a_value_that_would_change_is_refused_at_once(house: House, count: Counter) -> None:
    """A live workflow never sees a value that a replay would not give."""
    app = Registry()

    @step(retry=AT_ONCE)
    async def find():  # type: ignore[no-untyped-def]
        count("find")
        return {"lines": [Money(Decimal("1.5"))]}

    @step
    async def count_up():  # type: ignore[no-untyped-def]
        return {"n": [1, 2.5, None, "a"]}

    @app.workflow
    async def finds(ctx: Context) -> Any:
        await find()  # type: ignore[no-untyped-call]

    @app.workflow
    async def counts(ctx: Context) -> Any:
        return await count_up()  # type: ignore[no-untyped-call]

    @app.workflow
    async def gives(ctx: Context):  # type: ignore[no-untyped-def]
        return Money(Decimal("1.5"))

    @app.workflow
    async def takes(ctx: Context, input) -> Any:  # type: ignore[no-untyped-def]
        return input["amount"]

    @app.workflow
    async def asks_for_any(ctx: Context) -> Any:
        return Money(Decimal("1.5"))

    @app.workflow
    async def parent(ctx: Context) -> None:
        await ctx.run_child(takes, Money(Decimal("1.5")))

    wrong = [
        (
            finds,
            r"result of step 'find'\.lines\[0\]: a `Money` would come back as a `dict`; annotate the return type of",
        ),
        (gives, r"result: a `Money` would come back as a `dict`; annotate the return type of"),
        (parent, r"the input of child 'takes': a `Money` would come back as a `dict`; annotate parameter 'input' of"),
    ]
    async with house.open(app) as p:
        for workflow, words in wrong:
            with pytest.raises(ExecutionFailed, match=words):
                await (await p.start(workflow)).result()
        with pytest.raises(
            BadValue, match=r"^input: a `Money` would come back as a `dict`; annotate parameter 'input'"
        ):
            await p.start(takes, Money(Decimal("1.5")))
        assert await (await p.start("takes", Money(Decimal("1.5")))).result() == "1.5", "by name: JSON is what is sent"
        assert await (await p.start(counts)).result() == {"n": [1, 2.5, None, "a"]}
        assert await (await p.start(asks_for_any)).result() == {"amount": "1.5", "currency": "EUR"}
    assert count["find"] == 1


async def test_a_value_is_read_back_once_and_is_the_code_s_own(house: House) -> None:
    """The value was read back when it was written; a large one does not wait in memory, and is read again."""
    app = Registry()
    made: list[object] = []

    class Text(msgspec.Struct):
        text: str

        def __post_init__(self) -> None:
            made.append(self)

    async def write(length: int) -> Text:
        return Text("x" * length)

    @app.workflow
    async def one(ctx: Context, length: int) -> int:
        made.clear()
        text = await ctx.step(write, length)
        assert text is made[-1] and text == made[0] and text is not made[0]
        return len(made)

    async with house.open(app) as p:
        assert await (await p.start(one, 5)).result() == 2
        assert await (await p.start(one, READ_BYTES_MAX)).result() == 3


async def test_big_values_pass_and_too_big_ones_fail_their_step(house: House) -> None:
    app = Registry()

    async def make(size: int) -> str:
        return "x" * size

    @app.workflow
    async def big(ctx: Context, text: str) -> list[int | str]:
        one = await ctx.step("one", make, 1_000_000)
        await ctx.wait_for_event("go")
        two = await ctx.step("two", make, 7_000_000)
        try:
            await ctx.step("three", make, 9_000_000)
        except StepFailed as error:
            return [len(text), len(one), len(two), error.message]
        return []

    async with house.open(app) as p:
        handle = await p.start(big, "y" * 2_000_000)
        await p.publish("go", None)
        *sizes, message = await handle.result()
        assert sizes == [2_000_000, 1_000_000, 7_000_000]
        assert isinstance(message, str) and "8" in message and "three" in message


async def test_values_that_json_cannot_hold_are_refused_with_their_path(house: House) -> None:
    app = Registry()

    @app.workflow
    async def bad(ctx: Context, input: dict[str, object]) -> str:
        try:
            await ctx.step("nan", lambda: {"rows": [{"price": math.nan}]})
        except StepFailed as error:
            return error.message
        return ""

    @app.workflow
    async def bad_result(ctx: Context) -> object:
        return {"a": ["\ud800"]}

    infinite: dict[str, object] = {"a": {"b": [1, math.inf]}}
    async with house.open(app) as p:
        with pytest.raises(BadValue, match=r"input.*a\.b\[1\]|input.*'b'.*1"):
            await p.start(bad, infinite)
        message = await (await p.start(bad, {})).result()
        assert "nan" in message and "price" in message
        with pytest.raises(ExecutionFailed, match="result"):
            await (await p.start(bad_result)).result()


async def test_an_input_that_does_not_fit_its_hint_fails_the_execution(house: House) -> None:
    app = Registry()

    @app.workflow
    async def typed(ctx: Context, input: Even) -> int:
        return input.number

    async with house.open(app) as p:
        handle = await p.start("typed", {"number": 1})
        with pytest.raises(ExecutionFailed, match="input"):
            await handle.result()
        assert b"Traceback" not in bytes((await rows_of(handle))[-1].value), "it would lead through our code alone"


async def test_a_step_that_calls_exit_fails_and_the_worker_lives_on(house: House) -> None:
    app = Registry()

    def leave() -> None:
        raise SystemExit(3)

    async def leave_async() -> None:
        raise SystemExit(3)

    @app.workflow
    async def leaving(ctx: Context) -> list[str]:
        errors = await asyncio.gather(ctx.step("thread", leave), ctx.step("loop", leave_async), return_exceptions=True)
        return [error.type for error in errors if isinstance(error, StepFailed)]

    async with house.open(app) as p:
        assert await (await p.start(leaving)).result() == ["SystemExit", "SystemExit"]


async def test_a_step_that_raises_stop_iteration_fails(house: House) -> None:
    app = Registry()

    @app.workflow
    async def exhausted(ctx: Context) -> str:
        try:
            await ctx.step("next", lambda: next(iter(())))
        except StepFailed as error:
            return error.message
        return ""

    async with house.open(app) as p:
        assert await (await p.start(exhausted)).result() == "the step raised StopIteration"


async def test_a_step_that_cancels_itself_fails(house: House) -> None:
    app = Registry()

    async def gives_up() -> None:
        raise asyncio.CancelledError

    @app.workflow
    async def odd(ctx: Context) -> str:
        try:
            await ctx.step("odd", gives_up)
        except StepFailed as error:
            return error.type
        return ""

    async with house.open(app) as p:
        assert await (await p.start(odd)).result() == "CancelledError"


async def test_a_sync_step_begins_when_a_thread_is_free(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Registry()
    go_on = threading.Event()
    asked: list[bool] = []
    begun: list[str] = []
    given_up_here = threading.Event()
    sure = True

    def blocks(name: str) -> None:
        begun.append(name)
        assert go_on.wait(60)

    def queued() -> str:
        begun.append("queued")
        return "done"

    def given_up() -> None:
        begun.append("given up")

    async def last() -> None:
        begun.append("last")

    @app.workflow
    async def crowd(ctx: Context) -> str:
        blocked = [asyncio.create_task(ctx.step(name, blocks, name)) for name in ("one", "two")]
        unwanted = asyncio.create_task(ctx.step("unwanted", given_up))
        waits = asyncio.create_task(ctx.step("queued", queued, timeout=60))
        await ctx.step("last", last)
        unwanted.cancel()
        given_up_here.set()
        await asyncio.gather(*blocked)
        return await waits

    async with house.open(app, capacity=2) as p:

        def may_start() -> bool:
            asked.append(sure)
            return sure

        monkeypatch.setattr(p.worker, "may_start_steps", may_start)
        try:
            handle = await p.start(crowd)

            await until(given_up_here.is_set)  # the journal has "last" before the code sees it
            assert await keys_of(handle, Kind.STEP) == ["last"]
            await until(lambda: len(begun) == 3)
            assert asked == [True] * 3, "a step that waits for a thread has not begun"
            sure = False  # the lease is in doubt
        finally:
            go_on.set()
        await until(lambda: len(asked) >= 4)  # each beat of the lease has it asked again
        assert sorted(begun) == ["last", "one", "two"]
        sure = True
        p.worker.on_lease()
        assert await handle.result() == "done"
        assert sorted(begun) == ["last", "one", "queued", "two"]
        # Each step gave its thread back, the one that was given up and the one that was held back, too.
        assert await (await p.start(crowd)).result() == "done"


async def test_a_timeout_does_not_free_the_thread_that_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Registry()
    begun, go_on = threading.Event(), threading.Event()
    asked: list[int] = []

    def stuck() -> None:
        begun.set()
        assert go_on.wait(60)

    async def last() -> None: ...

    @app.workflow
    async def late(ctx: Context) -> list[str]:
        found = []
        try:
            await ctx.step(stuck, timeout=0.01)
        except StepFailed as error:
            found.append(error.type)
        waits = asyncio.create_task(ctx.step("next", lambda: "done", timeout=60))
        await ctx.step("last", last)
        return [*found, await waits]

    async with house.open(app, capacity=1) as p:

        def may_start() -> bool:
            asked.append(1)
            return True

        monkeypatch.setattr(p.worker, "may_start_steps", may_start)
        try:
            handle = await p.start(late)

            async def is_recorded() -> bool:
                return "last" in await keys_of(handle, Kind.STEP)

            await until(is_recorded)
            # A step that its thread did not take up in time holds none.
            assert len(asked) == 2 or not begun.is_set(), "its successor waits for the thread"
        finally:
            go_on.set()
        assert await handle.result() == ["TimeoutError", "done"]


async def test_a_step_that_its_workflow_gave_up_is_cancelled(house: House) -> None:
    app = Registry()
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    @app.workflow
    async def racing(ctx: Context) -> str:
        slow = asyncio.create_task(ctx.step("slow", endless))
        quick = asyncio.create_task(ctx.step("quick", lambda: "quick"))
        done, _ = await asyncio.wait([slow, quick], return_when=asyncio.FIRST_COMPLETED)
        slow.cancel()
        assert done == {quick}
        return await quick

    async with house.open(app) as p:
        handle = await p.start(racing)
        assert await handle.result() == "quick"
        await until(lambda: ended == ["cancelled"])
        assert await keys_of(handle, Kind.STEP) == ["quick"]


async def test_a_step_that_was_given_up_is_not_tried_again_whatever_its_clean_up_raises(
    house: House, count: Counter
) -> None:
    app = Registry()
    running = asyncio.Event()

    async def breaks_when_cancelled() -> None:
        count("tries")
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the connection cannot be closed")

    @app.workflow
    async def racing(ctx: Context) -> None:
        slow = asyncio.create_task(ctx.step("slow", breaks_when_cancelled, retry=AT_ONCE))
        await ctx.step("until it runs", running.wait)
        slow.cancel()
        for _ in range(3):  # time enough for another try
            await ctx.step("go on", lambda: None)

    async with house.open(app) as p:
        handle = await p.start(racing)
        await handle.result()
        assert count["tries"] == 1
        assert Kind.STEP_FAILED not in [row.kind for row in await rows_of(handle)]


async def test_ctx_works_in_the_workflow_only(house: House) -> None:
    app = Registry()

    @app.workflow
    async def misplaced(ctx: Context) -> str:
        async def body() -> None:
            await ctx.step("inner", lambda: None)

        try:
            await ctx.step("outer", body)
        except StepFailed as error:
            return error.type
        return ""

    async with house.open(app) as p:
        assert await (await p.start(misplaced)).result() == "Misplaced"


async def test_now_uuid_and_random_are_alike_in_every_replay(house: House) -> None:
    app = Registry()
    seen: list[tuple[str, str, float]] = []

    @app.workflow
    async def same(ctx: Context) -> None:
        seen.append((ctx.now().isoformat(), str(ctx.uuid()), ctx.random.random()))
        await ctx.wait_for_event("go")
        await ctx.step("after", lambda: None)

    async with house.open(app) as p:
        handle = await p.start(same)
        await reaches(handle, Phase.WAITING)
        await p.publish("go", None)
        await handle.result()
    assert len(seen) == (1 if house.parks else 2)
    assert len(set(seen)) == 1


@pytest.mark.parametrize("choice", ["retry_if", "fatal"])
async def test_a_predicate_that_raises_fails_its_step(house: House, choice: str) -> None:
    """The error also names the step's own failure: the author of the predicate has not seen the failure yet."""
    app = Registry()

    def fetch() -> None:
        raise ConnectionError("no route")

    def judge(error: BaseException) -> bool:
        return error.status_code >= 500  # type: ignore[attr-defined,no-any-return]  # the mistake

    @app.workflow
    async def asks(ctx: Context) -> None:
        chosen: Any = {choice: judge}
        await ctx.step("get", fetch, retry=AT_ONCE, **chosen)

    async with house.open(app) as p:
        handle = await p.start(asks)
        with pytest.raises(ExecutionFailed) as caught:
            await asyncio.wait_for(handle.result(), 60)
    assert "ConnectionError: no route" in str(caught.value)
    assert "'ConnectionError' object has no attribute 'status_code'" in str(caught.value)


async def test_errors_are_named_by_classes_a_union_of_them_or_a_predicate(house: House, count: Counter) -> None:
    app = Registry()

    @step(retry=AT_ONCE, fatal=ValueError | KeyError)
    async def get() -> None:
        count("get")
        raise KeyError("k")

    @app.workflow
    async def gets(ctx: Context) -> None:
        await get()

    async with house.open(app) as p:
        with pytest.raises(ExecutionFailed):
            await asyncio.wait_for((await p.start(gets)).result(), 60)
    assert count["get"] == 1
    with pytest.raises(TypeError, match=r"fatal wants an exception class, a tuple of them or a predicate, got \["):
        step(fatal=[ValueError])  # type: ignore[call-overload]  # the mistake


def test_a_time_out_is_seconds_or_a_timedelta() -> None:
    def options(**given: Any) -> Any:
        async def one() -> None: ...

        return vars(step(**given)(one))["_perdure_options"]

    assert options(timeout=timedelta(minutes=2)).timeout_seconds == 120
    assert options(timeout=0.5).timeout_seconds == 0.5
    with pytest.raises(TypeError, match="timeout wants seconds or a timedelta, got '3'"):
        options(timeout="3")
    for wrong in (0, timedelta(0), -1, float("nan")):
        with pytest.raises(ValueError, match="more than 0 seconds"):
            options(timeout=wrong)


async def test_a_call_of_a_step_takes_a_timedelta(house: House) -> None:
    app = Registry()

    async def hangs() -> None:
        await asyncio.Event().wait()

    @app.workflow
    async def one(ctx: Context) -> None:
        await ctx.step(hangs, timeout=timedelta(milliseconds=1))

    async with house.open(app) as p:
        with pytest.raises(ExecutionFailed, match=r"0\.001"):
            await (await p.start(one)).result()


@pytest.mark.parametrize("name", ["retires", "x" * 200, "שלום"])
def test_unknown_options_name_the_known_ones(name: str) -> None:
    for decorator, option in ((step, "timeout"), (Registry().workflow, "run_timeout_seconds")):
        with pytest.raises(TypeError, match=f"has no option '{name}'") as caught:
            decorator(**{name: 3})  # type: ignore[call-overload]  # as a program in a hurry writes it
        assert option in str(caught.value)
        assert ("Did you mean 'retry'?" in str(caught.value)) is (name == "retires")
