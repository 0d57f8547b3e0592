"""The loop of workflow code: supported calls, refused calls, and no trace outside the loop."""

import asyncio
import contextlib
import contextvars
import gc
import math
import socket
import subprocess
import sys
from asyncio import (
    as_completed as early_as_completed,
)  # before anything of ours: must be the replayable one all the same
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.sdk.fake_server import Journal, advance

from perdure.sdk.base.errors import DuplicateKey, Evicted, Misplaced
from perdure.sdk.replay.calls import MachineState
from perdure.sdk.replay.inner_loop import FAR_US, InnerLoop
from perdure.sdk.replay.machine import Machine
from perdure.wire.base.codec import KEY_BYTES_MAX
from perdure.wire.base.errors import BadValue
from perdure.wire.base.records import Kind


def outcome_of(code: Callable[[Machine], Any], journal: Journal | None = None) -> Any:
    """What `code` comes to with no more than `journal`; its error is raised."""
    machine = Machine(lambda: code(machine), seed="seed")
    effects = advance(machine, (journal or Journal()).rows)
    assert effects.state is MachineState.DONE, effects
    if machine.error is not None:
        raise machine.error
    return machine.result


def keys_of(code: Callable[[Machine], Any]) -> list[str]:
    """The keys that `code` asks for first."""
    machine = Machine(lambda: code(machine), seed="seed")
    effects = advance(machine, Journal().rows)
    keys = [call.key for call in effects.started]
    machine.close()
    return keys


# --- inside and outside --------------------------------------------------------------------------------------------


async def look_around(machine: Machine) -> tuple[bool, str]:
    task = asyncio.current_task()
    assert task is not None
    assert task in asyncio.all_tasks()
    return asyncio.get_running_loop() is machine.loop, task.get_name()


def test_code_sees_its_own_loop_and_task() -> None:
    assert outcome_of(look_around) == (True, "workflow")


@pytest.mark.parametrize("loop_factory", ["asyncio", "uvloop"])
@pytest.mark.parametrize("inside_a_task", [True, False], ids=["task", "callback"])
def test_the_outer_loop_is_running_again_afterwards(loop_factory: str, inside_a_task: bool) -> None:
    if loop_factory == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        factory = uvloop.new_event_loop
    else:
        factory = asyncio.new_event_loop

    def drive() -> None:
        assert outcome_of(look_around) == (True, "workflow")

    async def outer() -> None:
        before = asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks()
        if inside_a_task:
            drive()
        else:
            done = before[0].create_future()

            def callback() -> None:
                assert asyncio.current_task() is None
                drive()
                assert asyncio.get_running_loop() is before[0]
                assert asyncio.current_task() is None
                done.set_result(None)

            before[0].call_soon(callback)
            await done
        assert before == (asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks())
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(outer())


def test_a_machine_may_be_driven_inside_another_ones_code() -> None:
    async def outer(machine: Machine) -> bool:
        assert outcome_of(look_around) == (True, "workflow")
        return asyncio.get_running_loop() is machine.loop

    assert outcome_of(outer)


def test_context_variables_of_the_worker_do_not_leak_in() -> None:
    variable = contextvars.ContextVar("variable", default="clean")
    variable.set("of the worker")

    async def code(machine: Machine) -> str:
        return variable.get()

    assert outcome_of(code) == "clean"


# --- what is refused -----------------------------------------------------------------------------------------------


async def open_socket(machine: Machine) -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def resolve(machine: Machine) -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)


async def to_thread(machine: Machine) -> None:
    await asyncio.to_thread(len, "x")


async def anyio_thread(machine: Machine) -> None:
    await anyio.to_thread.run_sync(len, "x")


async def executor(machine: Machine) -> None:
    await asyncio.get_running_loop().run_in_executor(None, len, "x")


async def future_of_a_thread(machine: Machine) -> None:
    pool = ThreadPoolExecutor(1)
    try:
        await asyncio.wrap_future(pool.submit(len, "x"))
    finally:
        pool.shutdown()


async def shell(machine: Machine) -> None:
    await asyncio.create_subprocess_exec("true", stdout=subprocess.DEVNULL)


async def signals(machine: Machine) -> None:
    asyncio.get_running_loop().add_signal_handler(15, print)


async def reader(machine: Machine) -> None:
    with socket.socket() as sock:
        asyncio.get_running_loop().add_reader(sock, print)


async def threadsafe(machine: Machine) -> None:
    asyncio.get_running_loop().call_soon_threadsafe(print)


async def nested_run(machine: Machine) -> None:
    asyncio.get_running_loop().run_until_complete(asyncio.get_running_loop().create_future())


async def factory(machine: Machine) -> None:
    asyncio.get_running_loop().set_task_factory(None)


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize(
    "code",
    [
        *(
            open_socket,
            resolve,
            to_thread,
            anyio_thread,
            executor,
            future_of_a_thread,
            shell,
            signals,
            reader,
            threadsafe,
        ),
        *(nested_run, factory),
    ],
    ids=lambda code: code.__name__,
)
def test_input_and_output_say_where_they_belong(code: Callable[[Machine], Any]) -> None:
    with pytest.raises(Misplaced, match="step"):
        outcome_of(code)


def test_the_future_of_a_thread_is_refused_by_name_and_works_outside() -> None:
    with pytest.raises(Misplaced, match="future of a thread cannot be awaited in workflow code"):
        outcome_of(future_of_a_thread)

    async def outside() -> int:
        with ThreadPoolExecutor(1) as pool:
            return await asyncio.wrap_future(pool.submit(len, "x")) + await asyncio.to_thread(len, "y")

    assert asyncio.run(outside()) == 2


def test_the_code_may_set_an_exception_handler() -> None:
    async def code(machine: Machine) -> tuple[list[str], str]:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

        def handler(its_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            assert its_loop is loop
            told.append(f"{variable.get()} {type(context['exception']).__name__}")
            if isinstance(context["exception"], KeyError):
                raise RuntimeError("of the handler")

        variable.set("set")
        assert loop.get_exception_handler() is None
        loop.set_exception_handler(handler)
        assert loop.get_exception_handler() is handler
        for error in (ValueError, KeyError):
            loop.call_soon(raises, error)
        await asyncio.sleep(0)
        loop.set_exception_handler(None)
        loop.call_soon(raises, TypeError)
        await asyncio.sleep(0)
        with pytest.raises(TypeError, match="callable"):
            loop.set_exception_handler(7)  # type: ignore[arg-type]  # the mistake
        return told, "done"

    def raises(error: type[Exception]) -> None:
        raise error

    assert outcome_of(code) == (["set ValueError", "set KeyError"], "done")


def test_what_the_collector_finds_is_logged_and_not_told_to_the_code(caplog: pytest.LogCaptureFixture) -> None:
    async def code(machine: Machine) -> list[object]:
        told: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        for in_a_cycle in (False, True):
            future = loop.create_future()
            future.set_exception(ValueError("of a future"))
            if in_a_cycle:
                future.cycle = future  # type: ignore[attr-defined]  # a future takes attributes
            del future
        gc.collect()
        return told

    assert len(outcome_of(code)) == 1
    assert caplog.text.count("ValueError: of a future") == 1


def test_every_method_of_a_loop_is_there_or_refuses() -> None:
    loop = Machine(lambda: asyncio.sleep(0), seed="seed").loop
    for name in vars(asyncio.AbstractEventLoop):
        if not name.startswith("_"):
            assert getattr(type(loop), name) is not vars(asyncio.AbstractEventLoop)[name], name


# --- keys ----------------------------------------------------------------------------------------------------------


def step(machine: Machine, name: str, key: str | None = None) -> Any:
    return machine.call(Kind.STEP, name, None, None, key=key)


def test_keys_are_counted_in_the_scope_of_a_task() -> None:
    async def inner(machine: Machine) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(two(machine))
            await two(machine)

    async def two(machine: Machine) -> None:
        await asyncio.gather(step(machine, "a"), step(machine, "a"))

    async def code(machine: Machine) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(step(machine, "own"))  # The key is made here, in the scope of the caller.
            group.create_task(two(machine))
            group.create_task(inner(machine))
            await two(machine)

    assert keys_of(code) == ["own", "a", "a#2", "2/a", "2/a#2", "3/a", "3/a#2", "3/1/a", "3/1/a#2"]


def test_names_cannot_pass_for_other_keys() -> None:
    names = ["a", "a#2", "a", "1/a", "a%232", "x/y", "50%", "ü" * 300, "ü" * 301, "~/timer"]

    async def code(machine: Machine) -> None:
        await asyncio.gather(*(step(machine, name) for name in names), child(machine))

    async def child(machine: Machine) -> None:
        await step(machine, "a")

    keys = keys_of(code)
    assert len(set(keys)) == len(names) + 1
    assert {"a", "a#2", "x/y"} <= set(keys)
    assert all(len(key.encode()) <= KEY_BYTES_MAX for key in keys)


def test_tasks_nested_without_end_keep_their_keys_short() -> None:
    async def nest(machine: Machine, depth: int) -> None:
        if depth:
            await asyncio.create_task(nest(machine, depth - 1))
        await step(machine, "a")

    (key,) = keys_of(lambda machine: nest(machine, 150))
    assert len(key) < 200


def test_a_key_that_is_used_twice_is_an_error() -> None:
    async def code(machine: Machine) -> None:
        await asyncio.gather(step(machine, "a", key="k"), asyncio.create_task(again(machine)))

    async def again(machine: Machine) -> None:
        await step(machine, "b", key="k")

    machine = Machine(lambda: code(machine), seed="seed")
    advance(machine, Journal().rows)
    assert isinstance(machine.error, DuplicateKey)

    async def taken(machine: Machine) -> None:
        await asyncio.gather(step(machine, "fetch"), step(machine, "b", key="fetch"))

    with pytest.warns(RuntimeWarning, match="never awaited"), pytest.raises(DuplicateKey):
        outcome_of(taken)
        gc.collect()


@pytest.mark.parametrize("key", ["3/fetch", "fetch#2", "~/timer", "50%", "", "a\nb", "a\0b", "x" * 2_000])
def test_a_key_that_could_be_mistaken_is_refused(key: str) -> None:
    async def code(machine: Machine) -> None:
        await step(machine, "a", key=key)

    with pytest.raises((ValueError, BadValue)):
        outcome_of(code)


# --- time ----------------------------------------------------------------------------------------------------------


def test_timers_are_due_exactly_when_they_say() -> None:
    async def code(machine: Machine) -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        when = loop.time() + 0.1234567
        done = loop.create_future()
        loop.call_at(when, done.set_result, None)
        await done
        return when, loop.time()

    machine = Machine(lambda: code(machine), seed="seed")
    journal = Journal()
    effects = advance(machine, journal.rows)
    assert effects.timer is not None
    key, due_us = effects.timer
    # The store's clock may be a little behind the one that found the timer due.
    advance(machine, [journal.add(Kind.TIMER, key, dt_us=due_us - journal.rows[-1].at_us - 50)])
    when, then = machine.result
    assert when <= then < when + 0.000_002


def test_what_is_due_already_needs_no_timer() -> None:
    async def code(machine: Machine) -> str:
        loop = asyncio.get_running_loop()
        order: list[int] = []
        loop.call_later(0, order.append, 1)
        loop.call_later(-5, order.append, 2)
        loop.call_at(0, order.append, 3).cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(-1)
        assert order == [1, 2]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        return "no timer"

    assert outcome_of(code) == "no timer"


def test_far_and_impossible_times() -> None:
    async def code(machine: Machine) -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="NaN"):
            loop.call_later(math.nan, print)
        async with asyncio.TaskGroup() as group:
            for delay in (1e300, math.inf, 1e9):
                group.create_task(asyncio.sleep(delay))

    machine = Machine(lambda: code(machine), seed="seed")
    effects = advance(machine, Journal().rows)
    assert effects.state is MachineState.SUSPENDED
    assert effects.timer == ("3/timer", 1_000_000_000 + 10**15)
    assert {timer.due_us for timer in machine.loop.timers.values()} == {FAR_US, 1_000_000_000 + 10**15}
    machine.close()


def test_time_outs_with_one_deadline_are_over_together() -> None:
    async def code(machine: Machine) -> tuple[bool, bool, list[str]]:
        loop = asyncio.get_running_loop()
        log: list[str] = []
        when = loop.time() + 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(when) as outer, asyncio.timeout_at(when) as inner:
                await asyncio.gather(
                    *(asyncio.create_task(wait_until(when, log, name)) for name in "ab"),
                    wait_until(when + 1e-6, log, "later"),
                )
        return outer.expired(), inner.expired(), log

    async def wait_until(when: float, log: list[str], name: str) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_at(when, done.set_result, None)
        loop.call_at(when, log.append, name)
        await done

    machine = Machine(lambda: code(machine), seed="seed")
    journal = Journal()
    effects = advance(machine, journal.rows)
    first = effects.timer
    assert first is not None
    advance(machine, [journal.add(Kind.TIMER, first[0], dt_us=first[1] - journal.rows[-1].at_us)])
    assert machine.result == (True, True, ["a", "b"])


def test_a_journal_that_has_a_row_for_each_timer_of_a_moment_replays() -> None:
    async def code(machine: Machine) -> float:
        await asyncio.gather(*(asyncio.sleep(1) for _ in range(3)))
        await asyncio.sleep(1)
        return asyncio.get_running_loop().time()

    machine = Machine(lambda: code(machine), seed="seed")
    journal = Journal()
    for key in ("1/timer", "2/timer", "3/timer", "timer"):
        journal.add(Kind.TIMER, key, dt_us=1_000_000)
    advance(machine, journal.rows)
    assert machine.result == 1_004.0


def test_cancelled_timers_cost_nothing_in_the_long_run() -> None:
    async def code(machine: Machine) -> int:
        for _ in range(5_000):
            async with asyncio.timeout(100):
                await asyncio.sleep(0)
        return len(machine.loop._heap)

    assert outcome_of(code) < 100


# --- sets ----------------------------------------------------------------------------------------------------------


def test_tasks_futures_and_scopes_iterate_alike_in_every_replay() -> None:
    async def code(machine: Machine) -> list[Any]:
        async def one(n: int) -> int:
            return n

        loop = asyncio.get_running_loop()
        tasks = {asyncio.create_task(one(n)) for n in range(50)}
        names = [task.get_name() for task in tasks]
        futures = [loop.create_future() for _ in range(50)]
        gathered = [asyncio.gather(asyncio.sleep(0)) for _ in range(20)]
        scopes = [anyio.CancelScope() for _ in range(50)]
        sets: list[list[Any]] = [futures, gathered, scopes]
        orders = [[things.index(thing) for thing in set(things)] for things in sets]
        order = [await one for one in asyncio.as_completed([one(n) for n in range(50)])]
        early = [await one for one in early_as_completed([one(n) for n in range(50)])]
        await asyncio.gather(*tasks, *gathered)
        return [names, *orders, order, early]

    keep = [outcome_of(code) for _ in range(20)]  # kept, so that addresses differ
    assert all(one == keep[0] for one in keep)


def test_as_completed_takes_no_future_nor_coroutine() -> None:
    async def code(machine: Machine) -> None:
        coro = asyncio.sleep(0)
        for wrong in (asyncio.get_running_loop().create_future(), coro):
            with pytest.raises(TypeError, match=r"expects? an iterable of"):
                list(asyncio.as_completed(wrong))  # type: ignore[arg-type]  # the mistake
        coro.close()

    outcome_of(code)


def test_a_task_has_the_name_that_it_was_given() -> None:
    async def code(machine: Machine) -> list[str]:
        async def name() -> str:
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        return [await asyncio.create_task(name(), name=given) for given in ("", None, "mine")]

    assert outcome_of(code) == ["", "2", "mine"]


async def test_as_completed_is_the_usual_one_outside() -> None:
    async def one(n: int) -> int:
        for _ in range(n):
            await asyncio.sleep(0)
        return n

    assert [await one for one in asyncio.as_completed([one(3), one(1), one(2)])] == [1, 2, 3]
    with pytest.raises(TypeError):
        list(asyncio.as_completed(one))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expects? an iterable of"):
        list(asyncio.as_completed(asyncio.get_running_loop().create_future()))
    with pytest.raises(TimeoutError):
        for slow in asyncio.as_completed([asyncio.sleep(10)], timeout=0.001):
            await slow


# --- async generators ----------------------------------------------------------------------------------------------


async def numbers(log: list[str]) -> AsyncIterator[int]:
    try:
        for n in range(10):
            yield n
            await asyncio.sleep(0)
    finally:
        log.append("closing")
        await asyncio.sleep(0)
        log.append("closed")


def test_a_dropped_generator_is_closed_in_its_own_loop() -> None:
    log: list[str] = []

    async def code(machine: Machine) -> None:
        async for n in numbers(log):
            if n == 2:
                break
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    outcome_of(code)
    assert log == ["closing", "closed"]


def test_a_task_that_others_wait_for_is_not_cancelled_when_it_is_evicted() -> None:
    seen: list[object] = []

    async def older() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            task = asyncio.current_task()
            assert task is not None
            seen.append((task.cancelling(), type(sys.exc_info()[1]).__name__))

    async def code(machine: Machine) -> None:
        first = asyncio.create_task(older())

        async def younger() -> None:
            await first

        await asyncio.create_task(younger())

    machine = Machine(lambda: code(machine), seed="seed")
    advance(machine, Journal().rows)
    machine.close()
    assert seen == [(0, "Evicted")]


def test_a_generator_that_only_the_collector_finds_disturbs_nobody() -> None:
    log: list[str] = []

    async def code(machine: Machine) -> bool:
        values = numbers(log)
        ring: list[Any] = [values]
        ring.append(ring)
        await anext(values)
        del values, ring
        gc.collect()
        await asyncio.sleep(0)
        return machine.loop._loose is None

    assert outcome_of(code) is True
    assert log == ["closing"]


# --- leaving memory ------------------------------------------------------------------------------------------------


def test_closing_runs_no_handler_and_lets_nothing_be_asked_for() -> None:
    log: list[str] = []

    async def branch(machine: Machine, name: str) -> None:
        try:
            await step(machine, "a")
        except asyncio.CancelledError:
            log.append("cancelled")
        except Exception:
            log.append("failed")
        finally:
            log.append(name)
            try:
                await step(machine, "cleanup")
            except Evicted:
                log.append("evicted")
                raise

    async def code(machine: Machine) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(branch(machine, "first"))
            group.create_task(branch(machine, "second"))
            try:
                await asyncio.sleep(100)
            finally:
                with anyio.CancelScope(shield=True):
                    await asyncio.sleep(1)
                    log.append("never")

    machine = Machine(lambda: code(machine), seed="seed")
    assert advance(machine, Journal().rows).state is MachineState.RUNNING
    machine.close()
    machine.close()
    assert log == ["second", "evicted", "first", "evicted"]
    assert not machine.outstanding()
    gc.collect()


def test_closing_before_the_first_line_and_after_the_last() -> None:
    async def code(machine: Machine) -> int:
        return 7

    machine = Machine(lambda: code(machine), seed="seed")
    machine.close()
    machine = Machine(lambda: code(machine), seed="seed")
    advance(machine, Journal().rows)
    machine.close()
    assert machine.result == 7


def test_code_that_swallows_everything_is_dropped_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn(machine: Machine) -> None:
        for _ in range(2_000):  # Not for ever: the interpreter frees it in the end.
            with contextlib.suppress(BaseException):
                await step(machine, "a")
            with contextlib.suppress(BaseException):
                await asyncio.sleep(10)

    machine = Machine(lambda: stubborn(machine), seed="seed")
    advance(machine, Journal().rows)
    machine.close()
    assert "swallows" in caplog.text


def test_loops_are_told_apart() -> None:
    assert isinstance(Machine(lambda: asyncio.sleep(0), seed="a").loop, InnerLoop)
