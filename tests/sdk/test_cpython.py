"""CPython's own tests of asyncio run as workflow code, live and in replay from each row of their journals.

The modules come from the installed interpreter. Each test method is the code of an execution. The method's sleeps and
time-outs become rows `timer`; nothing else wakes the code. Our own cases do so without the modules.
"""

import asyncio
import importlib
import importlib.util
import inspect
import sys
import unittest
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from tests.sdk.fake_server import Journal, advance

from perdure import Registry
from perdure.embedded import embedded
from perdure.sdk.base.errors import UnsupportedPython
from perdure.sdk.replay import self_test
from perdure.sdk.replay.calls import Effects, MachineState
from perdure.sdk.replay.machine import Machine
from perdure.sdk.replay.self_test import TESTED, check_python
from perdure.wire.base.records import Kind

Code = Callable[[], Coroutine[Any, Any, Any]]

MODULES: Final = {"taskgroups": 35, "timeouts": 15, "locks": 70, "queues": 30, "waitfor": 10}
"""The modules `test.test_asyncio.test_…`, and how many of their methods run at least."""
EXCLUDED: Final = {
    # A task of these two sleeps until `time.monotonic()` has moved on; time in workflow code is the journal's.
    "AsyncioWaitForTest.test_asyncio_wait_for_cancelled": "waits for the clock of the machine",
    "AsyncioWaitForTest.test_asyncio_wait_for_timeout": "waits for the clock of the machine",
    "TestTaskGroup.test_coro_closed_when_tg_closed": "calls run_until_complete of the loop that runs it",
}
REFERENCES: Final = "test_exception_refcycles"
"""The tests of 3.14 with this name look at references from coroutines and tasks. The inner loop holds its tasks, so
that garbage collections replay."""
ROWS_MAX: Final = 100


class Seen(NamedTuple):
    """State of an execution that has settled."""

    timer: tuple[str, int] | None
    outcome: str | None


def look(machine: Machine, effects: Effects) -> Seen:
    return Seen(effects.timer, repr(machine.outcome) if effects.state is MachineState.DONE else None)


def live_and_replayed(code: Code) -> Any:
    """Run `code` live, then from each prefix of the journal, and compare. Returns the result or raises the error."""
    journal = Journal()
    machine = Machine(code, seed="seed")
    effects = advance(machine, journal.rows)
    seen = [look(machine, effects)]
    while effects.state is not MachineState.DONE:
        assert effects.timer is not None and len(journal.rows) < ROWS_MAX
        key, due_us = effects.timer
        effects = advance(machine, [journal.add(Kind.TIMER, key, dt_us=due_us - journal.rows[-1].at_us)])
        seen.append(look(machine, effects))
    machine.close()
    if machine.error is not None:
        raise machine.error
    for length in range(1, len(journal.rows) + 1):
        again = Machine(code, seed="seed")
        effects = advance(again, journal.rows[:length])
        assert look(again, effects) == seen[length - 1], f"after row {length}"
        if length < len(journal.rows):
            effects = advance(again, journal.rows[length:])
            assert look(again, effects) == seen[-1], f"from row {length}"
        again.close()
    return machine.result


# --- CPython's modules ---------------------------------------------------------------------------------------------


async def as_workflow(kind: type[unittest.TestCase], method: str) -> None:
    """Run a test method like `IsolatedAsyncioTestCase`, in the running loop."""
    case: Any = kind(method)
    await called(case.setUp)
    await called(case.asyncSetUp)
    try:
        await called(getattr(case, method))
    finally:
        await called(case.asyncTearDown)
        await called(case.tearDown)
        while case._cleanups:
            function, args, options = case._cleanups.pop()
            await called(function, *args, **options)


async def called(function: Callable[..., Any], *args: Any, **options: Any) -> None:
    given = function(*args, **options)
    if inspect.isawaitable(given):
        await given


def methods_of(module: str) -> Iterator[tuple[type[unittest.TestCase], str]]:
    found = importlib.import_module(f"test.test_asyncio.test_{module}")
    for kind in vars(found).values():
        if isinstance(kind, type) and issubclass(kind, unittest.IsolatedAsyncioTestCase):
            for method in unittest.defaultTestLoader.getTestCaseNames(kind):
                if method.startswith(REFERENCES) and sys.version_info >= (3, 14):
                    continue
                if f"{kind.__name__}.{method}" not in EXCLUDED:
                    yield kind, method


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_tests_of_cpython_pass_as_workflow_code(module: str) -> None:
    if sys.version_info[:2] not in TESTED:
        pytest.skip(f"the tests of Python {sys.version_info[0]}.{sys.version_info[1]} were not tried yet: see TESTED")
    if importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_asyncio") is None:
        pytest.skip("this Python comes without its package `test` (Debian: libpython3-testsuite)")
    wrong: list[Exception] = []
    passed = 0
    for kind, method in methods_of(module):
        try:
            live_and_replayed(lambda kind=kind, method=method: as_workflow(kind, method))  # type: ignore[misc]  # mypy cannot infer a lambda's defaults
            passed += 1
        except unittest.SkipTest:
            continue
        except Exception as error:
            error.add_note(f"{kind.__name__}.{method}")
            wrong.append(error)
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} tests of test_{module} do not pass as workflow code", wrong)
    assert passed >= MODULES[module]


# --- our own -------------------------------------------------------------------------------------------------------


async def task_groups() -> list[object]:
    said: list[object] = []

    async def member(name: str, seconds: float, error: Exception | None = None) -> None:
        try:
            await asyncio.sleep(seconds)
            if error is not None:
                raise error
            said.append(name)
        except asyncio.CancelledError:
            said.append(f"{name} cancelled")
            await asyncio.sleep(0.01)
            raise

    try:
        async with asyncio.TaskGroup() as outer:
            outer.create_task(member("first", 0.1))
            outer.create_task(member("last", 9))
            async with asyncio.TaskGroup() as inner:
                inner.create_task(member("slow", 5))
                inner.create_task(member("fails", 0.2, KeyError("fails")))
    except* KeyError as group:
        said.append(repr(group))
    return said


async def time_outs() -> list[object]:
    said: list[object] = []
    loop = asyncio.get_running_loop()
    for outer_seconds, inner_seconds in ((1, 2), (2, 1), (1, 1)):
        began = loop.time()
        try:
            async with asyncio.timeout(outer_seconds) as outer:
                try:
                    async with asyncio.timeout(inner_seconds) as inner:
                        await asyncio.sleep(3)
                except TimeoutError:
                    said.append("inner")
                    outer.reschedule(loop.time() + 0.5)
                    await asyncio.sleep(9)
        except TimeoutError:
            said.append("outer")
        said.append((outer.expired(), inner.expired(), round(loop.time() - began, 3)))
    return said


async def locks() -> list[object]:
    said: list[object] = []
    lock, condition, slots, barrier = asyncio.Lock(), asyncio.Condition(), asyncio.Semaphore(2), asyncio.Barrier(3)

    async def branch(name: str, seconds: float) -> None:
        async with lock:
            await asyncio.sleep(seconds)
            said.append(f"{name} locked")
        async with slots:
            await asyncio.sleep(seconds)
            said.append(f"{name} slot")
        place = await barrier.wait()
        async with condition:
            said.append(f"{name} {place}")
            condition.notify_all()
            await condition.wait_for(lambda: len(said) >= 9)
            await asyncio.sleep(seconds)
            said.append(f"{name} done")

    await asyncio.gather(branch("a", 0.3), branch("b", 0.2), branch("c", 0.1))
    return said


async def queues() -> list[object]:
    said: list[object] = []
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)

    async def consume(name: str, seconds: float) -> None:
        while True:
            item = await queue.get()
            await asyncio.sleep(seconds)
            said.append((name, item))
            queue.task_done()

    consumers = [asyncio.create_task(consume(name, seconds)) for name, seconds in (("a", 0.2), ("b", 0.3))]
    for item in range(6):
        await queue.put(item)
    await queue.join()
    for one in consumers:
        one.cancel()
    said.extend(type(end).__name__ for end in await asyncio.gather(*consumers, return_exceptions=True))
    return said


async def wait_for() -> list[object]:
    said: list[object] = []

    async def slow(to_clean_up: float, value: str) -> str:
        try:
            await asyncio.sleep(1)
        finally:
            await asyncio.sleep(to_clean_up)
            said.append(f"{value} cleaned up")
        return value

    for timeout, to_clean_up in ((2, 0.1), (0.5, 0.1), (0.5, 2), (0, 0), (None, 0)):
        try:
            said.append(await asyncio.wait_for(slow(to_clean_up, f"{timeout}"), timeout))
        except TimeoutError:
            said.append("too late")
    return said


OUTCOMES: Final = {
    task_groups: [
        "first",
        "slow cancelled",
        "last cancelled",
        "ExceptionGroup('unhandled errors in a TaskGroup', [ExceptionGroup('unhandled errors in a TaskGroup', "
        "[KeyError('fails')])])",
    ],
    time_outs: [
        *("outer", (True, False, 1.0)),
        *("inner", "outer", (True, True, 1.5)),
        *("outer", (True, True, 1.0)),
    ],
    locks: [
        *("a locked", "b locked", "a slot", "c locked", "b slot", "c slot"),
        *("c 2", "a 0", "b 1", "b done", "c done", "a done"),
    ],
    queues: [("a", 0), ("b", 1), ("a", 2), ("b", 3), ("a", 4), ("b", 5), "CancelledError", "CancelledError"],
    wait_for: [
        *("2 cleaned up", "2", "0.5 cleaned up", "too late", "0.5 cleaned up", "too late", "too late"),
        *("None cleaned up", "None"),
    ],
}


@pytest.mark.parametrize("code", OUTCOMES, ids=lambda code: code.__name__)
def test_code_does_in_workflows_what_it_does_elsewhere(code: Code) -> None:
    assert live_and_replayed(code) == OUTCOMES[code]


def test_code_that_reads_a_clock_of_its_own_does_not_pass() -> None:
    count = iter(range(100))

    async def code() -> int:
        await asyncio.sleep(1)
        return next(count)

    with pytest.raises(AssertionError, match="from row 1"):
        live_and_replayed(code)


# --- versions that were not tested ---------------------------------------------------------------------------------


async def test_an_untested_version_passes_or_a_worker_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    check_python()
    check_python((3, 99))
    for name, broken, fault in (
        ("EXPECTED", ["another order"], "live: "),
        ("_surroundings", object, "the outer event loop has changed"),
        ("Machine", None, "TypeError: "),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(self_test, name, broken)
            with pytest.raises(
                UnsupportedPython, match=rf"does not run on Python 3\.99 .*{fault}.* Use Python 3\.11 to"
            ):
                check_python((3, 99))


async def test_a_worker_on_an_untested_version_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(self_test, "TESTED", ((3, 1),))
    async with embedded(str(tmp_path / "a.db"), Registry()):
        pass
    monkeypatch.setattr(self_test, "_find_fault", lambda: "live: []")
    with pytest.raises(UnsupportedPython, match="live"):
        async with embedded(str(tmp_path / "b.db"), Registry()):
            pass
