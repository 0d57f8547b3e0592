"""The machine: rows in, effects out. One rule of the module's docstring at a time."""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
import pytest
from msgspec import Raw
from tests.sdk.fake_server import Journal, advance

from perdure.sdk.base.errors import ChildFailed, Diverged, Fatal, Outdated, StepFailed, Stuck
from perdure.sdk.replay.calls import AwaitedStart, DurableCall, Effects, MachineState
from perdure.sdk.replay.failures import calls_to_blame, steps_to_blame
from perdure.sdk.replay.machine import CALLBACKS_MAX, Machine
from perdure.wire.base.records import Kind, fingerprint_of_timer
from perdure.wire.runs.executions import Row

Code = Callable[[Machine], Any]


def machine_of(code: Code, **options: Any) -> Machine:
    machine = Machine(lambda: code(machine), seed="seed", **options)
    return machine


def step(machine: Machine, name: str, fingerprint: str | None = None, key: str | None = None) -> Any:
    return machine.call(Kind.STEP, name, fingerprint, None, key=key)


async def number(machine: Machine, name: str) -> int:
    return int(bytes((await step(machine, name)).value))


def started(effects: Effects) -> list[str]:
    return [call.key for call in effects.started]


def abandoned(effects: Effects) -> list[str]:
    return [call.key for call in effects.abandoned]


class Live:
    """A machine with its journal, for tests that tell a story."""

    def __init__(self, code: Code, **options: Any) -> None:
        self.code = code
        self.options = options
        self.journal = Journal()
        self.machine = machine_of(code, **options)
        self.effects = advance(self.machine, self.journal.rows)

    def add(self, kind: Kind, key: str | None = None, name: str | None = None, **rest: Any) -> Effects:
        return self.feed([self.journal.add(kind, key, name, **rest)])

    def step(self, key: str, value: int = 1, **rest: Any) -> Effects:
        call = next(call for call in self.machine.outstanding() if call.key == key)
        return self.feed([self.journal.answer(call, value, **rest)])

    def timer(self) -> Effects:
        assert self.effects.timer is not None
        key, due_us = self.effects.timer
        return self.add(
            Kind.TIMER, key, fingerprint=fingerprint_of_timer(due_us), dt_us=due_us - self.journal.rows[-1].at_us
        )

    def feed(self, rows: Sequence[Row]) -> Effects:
        self.effects = advance(self.machine, rows)
        return self.effects

    def replay(self, **options: Any) -> Effects:
        """Crash, and replay what is recorded."""
        self.machine.close()
        self.machine = machine_of(self.code, **self.options)
        self.effects = advance(self.machine, self.journal.rows, **options)
        return self.effects


# --- asking and answering ------------------------------------------------------------------------------------------


def test_a_step_is_started_when_it_is_awaited_not_when_it_is_called() -> None:
    async def code(machine: Machine) -> int:
        second = number(machine, "unused")
        second.close()
        waiting = step(machine, "a")
        await step(machine, "b")
        await waiting
        return 1

    live = Live(code)
    assert started(live.effects) == ["b"]
    assert started(live.step("b")) == ["a"]
    assert live.step("a").state is MachineState.DONE
    assert live.machine.result == 1


def test_states() -> None:
    async def code(machine: Machine) -> str:
        await step(machine, "a")
        async with asyncio.TaskGroup() as group:
            group.create_task(machine.call(Kind.EVENT, "topic", None, "wait"))
            group.create_task(machine.call(Kind.RESUME, None, None, "wait", key="approve"))
            group.create_task(asyncio.sleep(5))
        return "done"

    live = Live(code)
    assert live.effects.state is MachineState.RUNNING
    effects = live.step("a")
    assert effects.state is MachineState.SUSPENDED
    assert started(effects) == ["topic", "approve"]
    assert effects.timer == ("3/timer", live.machine.now_us + 5_000_000)
    assert live.machine.waits() == ["topic", "approve"]
    live.add(Kind.RESUME, "approve")
    assert live.machine.waits() == ["topic"]
    live.timer()
    assert live.effects.timer is None
    assert live.add(Kind.EVENT, "topic", "topic").state is MachineState.DONE


def test_requests_may_be_made_with_the_final_key() -> None:
    async def code(machine: Machine) -> None:
        await machine.call(Kind.PUBLISHED, "topic", None, lambda key: f"publish under {key}")

    (call,) = Live(code).effects.started
    assert call.request == "publish under topic"


def test_outcomes_are_delivered_one_at_a_time_and_the_code_settles_between() -> None:
    async def code(machine: Machine) -> list[str]:
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(step(machine, name)) for name in "abc"], return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        return [task.result().key for task in done]

    live = Live(code)
    a, b, c = live.effects.started
    # All three in one report: the second and third come too late all the same.
    live.feed([live.journal.answer(b), live.journal.answer(a), live.journal.answer(c)])
    assert live.machine.result == ["b"]
    live.replay()
    assert live.machine.result == ["b"]


def test_rows_that_overlap_are_taken_once_and_gaps_are_refused() -> None:
    live = Live(lambda machine: number(machine, "a"))
    live.feed(live.journal.rows)
    assert live.effects.started == ()
    with pytest.raises(ValueError, match="gap"):
        live.machine.advance([Row(7, 2_000_000_000, Kind.CLAIMED)])


def test_nothing_starts_while_the_journal_has_more() -> None:
    async def code(machine: Machine) -> None:
        await step(machine, "a")
        await step(machine, "b")
        async with asyncio.timeout(3):
            await step(machine, "c")

    live = Live(code)
    live.step("a")
    live.step("b")
    machine = machine_of(code)
    for row in live.journal.rows:
        effects = advance(machine, [row], more=True)
        assert (effects.started, effects.abandoned, effects.timer) == ((), (), None)
        assert effects.state is MachineState.RUNNING
    effects = advance(machine, (), more=False)
    assert started(effects) == ["c"]
    assert effects.timer is not None
    machine.close()


def test_a_long_run_gives_the_outer_loop_its_turn() -> None:
    async def code(machine: Machine) -> int:
        for _ in range(CALLBACKS_MAX * 3):
            await asyncio.sleep(0)
        return 1

    machine = machine_of(code)
    states = [machine.advance(Journal().rows).state]
    while states[-1] is MachineState.AGAIN:
        states.append(machine.advance(()).state)
    assert states == [MachineState.AGAIN] * 3 + [MachineState.DONE]


def test_a_busy_loop_still_gets_its_outcomes() -> None:
    """`while not ready: await sleep(0)` never settles; after a fixed number of turns it is taken as settled."""

    async def code(machine: Machine) -> int:
        task = asyncio.create_task(number(machine, "a"))
        while not task.done():  # noqa: ASYNC110  # what the test is about
            await asyncio.sleep(0)
        return await task + machine.random().randrange(1_000)

    live = Live(code)
    assert live.effects.state is MachineState.RUNNING
    assert started(live.effects) == ["1/a"] or started(live.effects) == ["a"]
    live.step(started(live.effects)[0], 5)
    result = live.machine.result
    assert live.replay().state is MachineState.DONE
    assert live.machine.result == result


def test_random_and_uuid_repeat() -> None:
    async def code(machine: Machine) -> list[Any]:
        before = [machine.random().random(), machine.uuid()]
        await step(machine, "a")
        return [*before, machine.random().random(), machine.uuid(), machine.uuid()]

    live = Live(code)
    live.step("a")
    first = live.machine.result
    live.replay()
    assert live.machine.result == first
    assert len(set(first)) == 5
    other = Machine(lambda: code(other), seed="other")
    advance(other, live.journal.rows)
    assert other.result[0] != first[0]


# --- giving up -----------------------------------------------------------------------------------------------------


def test_a_call_that_was_given_up_is_reported_and_its_late_outcome_ignored() -> None:
    async def code(machine: Machine) -> str:
        try:
            async with asyncio.timeout(2):
                await step(machine, "slow")
        except TimeoutError:
            return str(await number(machine, "b"))
        return "in time"

    live = Live(code)
    effects = live.timer()
    assert abandoned(effects) == ["slow"]
    assert started(effects) == ["b"]
    late = Row(len(live.journal.rows) + 1, live.journal.rows[-1].at_us, Kind.STEP, 1, "slow", "slow")
    live.journal.rows.append(late)
    assert live.feed([late]) == Effects((), (), None, MachineState.RUNNING)
    live.step("b", 7)
    assert live.machine.result == "7"
    live.replay()
    assert live.machine.result == "7"


def test_what_is_asked_for_and_given_up_while_replaying_is_never_started() -> None:
    async def code(machine: Machine) -> None:
        task = asyncio.create_task(step(machine, "loser"))
        await step(machine, "a")
        task.cancel()
        await step(machine, "b")

    live = Live(code)
    assert started(live.effects) == ["a", "loser"]
    assert abandoned(live.step("a")) == ["loser"]
    effects = live.replay()
    assert started(effects) == ["b"]
    assert abandoned(effects) == []


def test_branches_that_run_on_when_the_function_returns_are_dropped() -> None:
    log: list[str] = []

    async def branch(machine: Machine) -> None:
        try:
            await step(machine, "branch")
        finally:
            log.append("dropped")

    async def code(machine: Machine) -> str:
        task = asyncio.create_task(branch(machine))
        await step(machine, "a")
        assert not task.done()
        return "done"

    live = Live(code)
    effects = live.step("a")
    assert effects.state is MachineState.DONE
    assert abandoned(effects) == ["1/branch"]
    assert log == ["dropped"]
    # Its outcome may be recorded all the same, before or after.
    live.journal.add(Kind.STEP, "1/branch", "branch")
    assert live.replay().state is MachineState.DONE
    assert live.machine.seen == len(live.journal.rows)


def test_cancel_reaches_the_main_task_in_its_order() -> None:
    async def code(machine: Machine) -> str:
        try:
            await step(machine, "a")
            await step(machine, "b")
        except asyncio.CancelledError:
            await step(machine, "cleanup")
            raise
        return "not cancelled"

    live = Live(code)
    live.step("a")
    assert not live.machine.cancel_requested
    effects = live.add(Kind.CANCEL)
    assert live.machine.cancel_requested
    assert started(effects) == ["cleanup"]
    assert abandoned(effects) == ["b"]
    live.step("cleanup")
    assert isinstance(live.machine.error, asyncio.CancelledError)
    live.replay()
    assert isinstance(live.machine.error, asyncio.CancelledError)


def test_cancel_before_the_first_line() -> None:
    async def code(machine: Machine) -> None:
        await step(machine, "a")

    live = Live(code)
    live.add(Kind.CANCEL)
    assert isinstance(live.machine.error, asyncio.CancelledError)


async def two_waits(machine: Machine) -> list[str]:
    got = []
    for _ in range(2):
        try:
            async with asyncio.timeout(60):
                row = await machine.call(Kind.EVENT, "bell", "all", "wait")
                got.append(bytes(row.value).decode())
        except TimeoutError:
            got.append("none")
        await step(machine, "pause")
    return got


def ring(live: Live, key: str, value: int) -> Row:
    return live.journal.add(Kind.EVENT, key, "bell", value=Raw(str(value).encode()))


def test_an_event_that_meets_a_wait_just_given_up_goes_to_the_next_wait_that_asks() -> None:
    live = Live(two_waits)
    assert abandoned(live.timer()) == ["bell"]
    live.feed([ring(live, "bell", 1)])
    effects = live.step("pause")
    assert started(effects) == ["pause#2"]
    live.step("pause#2")
    assert live.machine.result == ["none", "1"]
    live.replay()
    assert live.machine.result == ["none", "1"]


def test_an_event_that_meets_a_wait_just_given_up_goes_to_a_wait_that_is_open() -> None:
    live = Live(two_waits)
    live.timer()
    assert started(live.step("pause")) == ["bell#2"]
    effects = live.feed([ring(live, "bell", 1)])
    assert started(effects) == ["pause#2"]
    assert abandoned(effects) == ["bell#2"]  # It is open no longer; whatever meets it now is for the wait after it.
    live.feed([ring(live, "bell#2", 2)])
    live.step("pause#2")
    assert live.machine.result == ["none", "1"]
    live.replay()
    assert live.machine.result == ["none", "1"]


def test_an_event_is_not_handed_to_a_wait_that_asks_for_something_else() -> None:
    async def code(machine: Machine) -> str:
        try:
            async with asyncio.timeout(60):
                await machine.call(Kind.EVENT, "bell", "loud", "wait")
        except TimeoutError:
            await machine.call(Kind.EVENT, "bell", "soft", "wait")
        return "done"

    live = Live(code)
    assert started(live.timer()) == ["bell#2"]
    assert live.feed([ring(live, "bell", 1)]).state is MachineState.SUSPENDED
    assert live.feed([ring(live, "bell#2", 2)]).state is MachineState.DONE


# --- children ------------------------------------------------------------------------------------------------------


async def start(machine: Machine, name: str = "child") -> str:
    call = machine.new_call(Kind.CHILD_STARTED, name, None, "start")
    await machine.wait(call)
    return call.key


@pytest.mark.parametrize("beside", ["nothing", "another", "a wait", "a step", "a start that is not awaited"])
def test_starts_of_children_that_are_awaited_are_told_apart(beside: str) -> None:
    """The code waits once the awaited children have begun."""

    async def child(machine: Machine, key: str, of: type[DurableCall]) -> None:
        await machine.wait(machine.new_call(Kind.CHILD_STARTED, "child", None, None, key=key, of=of))
        await machine.child_end(key)

    async def code(machine: Machine) -> None:
        branches: list[Any] = [child(machine, "a", AwaitedStart)]
        match beside:
            case "another":
                branches.append(child(machine, "b", AwaitedStart))
            case "a wait":
                branches.append(machine.call(Kind.EVENT, "topic", None, None))
            case "a step":
                branches.append(step(machine, "s"))
            case "a start that is not awaited":
                branches.append(child(machine, "b", DurableCall))
        await asyncio.gather(*branches)

    live = Live(code)
    alone = beside in ("nothing", "another")
    assert live.effects.state is (MachineState.STARTING if alone else MachineState.RUNNING)
    effects = live.add(Kind.CHILD_STARTED, "a", "child")
    if alone:
        assert effects.state is (MachineState.RUNNING if beside == "another" else MachineState.SUSPENDED)
        assert not effects.started


def test_a_childs_end_is_held_until_somebody_asks() -> None:
    async def code(machine: Machine) -> list[int]:
        key = await start(machine)
        await step(machine, "a")
        ends = await asyncio.gather(*(end(machine, key) for _ in range(3)))
        return [*ends, await end(machine, key)]

    async def end(machine: Machine, key: str) -> int:
        return int(bytes((await machine.child_end(key)).value))

    live = Live(code)
    assert live.step("child", 11).state is MachineState.RUNNING
    live.add(Kind.CHILD, "child", "completed", value=Raw(b"7"))
    assert live.step("a").state is MachineState.DONE
    assert live.machine.result == [7, 7, 7, 7]

    early = Live(code)
    early.step("child", 11)
    effects = early.step("a")
    assert effects.state is MachineState.SUSPENDED
    assert early.machine.children() == ["child"]
    assert early.add(Kind.CHILD, "child", "completed", value=Raw(b"7")).state is MachineState.DONE
    assert early.machine.result == [7, 7, 7, 7]


def test_waiting_for_a_child_can_be_given_up() -> None:
    async def code(machine: Machine) -> str:
        key = await start(machine)
        try:
            async with asyncio.timeout(1):
                await machine.child_end(key)
        except TimeoutError:
            await step(machine, "a")
        return "done"

    live = Live(code)
    live.step("child")
    effects = live.timer()
    assert live.machine.children() == []
    assert abandoned(effects) == []
    live.add(Kind.CHILD, "child", "completed")
    live.step("a")
    assert live.machine.result == "done"


def test_a_child_nobody_waits_for_wakes_nobody() -> None:
    async def code(machine: Machine) -> None:
        await start(machine)
        await asyncio.Event().wait()

    live = Live(code)
    with pytest.raises(Stuck):
        live.step("child")


# --- divergence ----------------------------------------------------------------------------------------------------


def replay_with(old: Code, new: Code, **options: Any) -> Machine:
    """Record `old` as far as two steps go, replay with `new`."""
    live = Live(old)
    for _ in range(2):
        if live.effects.state is not MachineState.DONE and live.machine.outstanding():
            live.step(live.machine.outstanding()[0].key)
    live.machine.close()
    machine = machine_of(new, **options)
    try:
        advance(machine, live.journal.rows)
    finally:
        machine.close()
    return machine


async def two_steps(machine: Machine) -> None:
    await step(machine, "a", "print")
    await step(machine, "b", "print")
    await step(machine, "c", "print")


async def removed(machine: Machine) -> None:
    await step(machine, "a")
    await step(machine, "c")


async def reordered(machine: Machine) -> None:
    await step(machine, "b")
    await step(machine, "a")


async def returned(machine: Machine) -> None:
    await step(machine, "a")


async def waits_instead(machine: Machine) -> None:
    await step(machine, "a")
    await machine.call(Kind.EVENT, "b", None, None)


async def sleeps_instead(machine: Machine) -> None:
    await step(machine, "a")
    await asyncio.sleep(1)


async def renamed(machine: Machine) -> None:
    await step(machine, "a", key="a")
    await step(machine, "other", key="b")


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (removed, r"row 3 is step 'b', but the code asks for step 'c' \(.*test_machine.py:\d+\)"),
        (reordered, r"row 2 is step 'a', but the code asks for step 'b' \("),
        (returned, "row 3 is step 'b', but the code has already ended"),
        (waits_instead, "row 3 is step 'b', but the code asks for event 'b'"),
        (sleeps_instead, r"row 3 is step 'b', but the code asks for timer 'timer' \(.*test_machine.py:\d+\)"),
        (renamed, "row 3 is step 'b', but the code asks for step 'b' of 'other'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_divergence_names_both_sides_and_the_line(new: Code, says: str) -> None:
    with pytest.raises(Diverged, match=says) as caught:
        replay_with(two_steps, new)
    details = caught.value.details
    assert details is not None
    assert details["seq"] == caught.value.seq
    assert "recorded" in details


def test_the_line_is_found_through_wrappers() -> None:
    async def helper(machine: Machine) -> None:
        await asyncio.gather(step(machine, "x"), step(machine, "y"))

    async def new(machine: Machine) -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(helper(machine))

    with pytest.raises(Diverged) as caught:
        replay_with(two_steps, new)
    assert caught.value.source is not None
    assert caught.value.source.endswith(f"test_machine.py:{helper.__code__.co_firstlineno + 1}")


def test_a_swallowed_exception_does_not_hide_a_divergence() -> None:
    async def new(machine: Machine) -> None:
        while True:
            try:
                await step(machine, "x")
            except Exception:
                continue

    with pytest.raises(Diverged):
        replay_with(two_steps, new)


async def changed_input(machine: Machine) -> None:
    await step(machine, "a", "print")
    await step(machine, "b", "another")
    await step(machine, "c", "print")


def test_a_changed_input_is_marked() -> None:
    changed = replay_with(two_steps, changed_input).changed_inputs
    assert changed is not None
    assert changed.keys == ["b"]


def test_a_changed_input_diverges_when_strict() -> None:
    with pytest.raises(Diverged, match="another input"):
        replay_with(two_steps, changed_input, strict=True)


def test_stuck_says_where() -> None:
    async def code(machine: Machine) -> None:
        lock = asyncio.Lock()
        async with lock:
            await asyncio.gather(lock.acquire())

    with pytest.raises(Stuck, match=r"workflow at .*test_machine.py:\d+, 1 at"):
        Live(code)


def test_a_busy_loop_for_nothing_is_stuck() -> None:
    async def code(machine: Machine) -> None:
        while True:  # noqa: ASYNC110  # what the test is about
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="spins"):
        Live(code)


# --- tries and failed attempts -------------------------------------------------------------------------------------


class Boom(Exception):
    pass


async def risky(machine: Machine, name: str) -> int:
    row = await step(machine, name)
    if not row.ok:
        raise Boom
    return int(bytes(row.value))


def test_failed_tries_are_counted() -> None:
    live = Live(lambda machine: risky(machine, "a"))
    assert live.machine.failed_tries("a") == 0
    live.add(Kind.STEP_FAILED, "a", "a", ok=False, tries=1)
    live.add(Kind.STEP_FAILED, "a", "a", ok=False, tries=2)
    assert live.machine.failed_tries("a") == 2
    assert live.replay().state is MachineState.RUNNING
    assert live.machine.failed_tries("a") == 2
    live.step("a", 5)
    assert live.machine.result == 5


def take_back(live: Live, key: str) -> None:
    """What the server writes when the attempt has failed."""
    rows = live.journal.rows
    at = next(n for n, row in enumerate(rows) if row.key == key and row.kind is Kind.STEP)
    old = rows[at]
    rows[at] = Row(old.seq, old.at_us, Kind.STEP_FAILED, 1, key, old.name, None, False, tries=3)
    live.journal.add(Kind.RETRIED, ok=False, value=Raw(str(old.seq).encode()))


def test_a_step_whose_failure_was_taken_back_has_all_its_tries_again() -> None:
    live = Live(lambda machine: risky(machine, "a"))
    live.step("a", ok=False)
    assert isinstance(live.machine.error, Boom)
    take_back(live, "a")
    assert started(live.replay()) == ["a"]
    assert live.machine.failed_tries("a") == 0
    live.step("a", 5)
    assert live.machine.result == 5


@pytest.mark.parametrize("taken", [Raw(b"2"), Raw(b"[2]"), Raw(b"[2, 3]")])
def test_a_retry_takes_back_one_failure_or_several(taken: Raw) -> None:
    async def code(machine: Machine) -> list[int]:
        return list(await asyncio.gather(risky(machine, "a"), risky(machine, "b")))

    live = Live(code)
    calls = live.effects.started
    rows = live.journal.rows
    live.feed([live.journal.answer(call, 1, ok=False) for call in calls])
    for n in (1, 2) if b"3" in bytes(taken) else (1,):
        rows[n] = msgspec.structs.replace(rows[n], kind=Kind.STEP_FAILED)
    live.journal.add(Kind.RETRIED, ok=False, value=taken)
    effects = live.replay()
    if rows[2].kind is Kind.STEP:
        assert isinstance(live.machine.error, Boom)
        return
    assert started(effects) == [call.key for call in calls]
    assert [live.machine.failed_tries(call.key) for call in calls] == [0, 0]
    live.machine.close()


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_failures_that_came_too_late_for_the_code_are_named(chunk: int) -> None:
    """The code may have ended before the machine has the whole journal, wherever the journal is cut."""

    async def code(machine: Machine) -> list[int]:
        return list(await asyncio.gather(*[risky(machine, name) for name in "abc"]))

    journal = Journal()
    live = Live(code)
    for call in live.effects.started:
        journal.answer(call, 1, ok=call.name == "b")
    live.machine.close()
    journal.add(Kind.LOST)
    journal.add(Kind.CLAIMED)
    machine, rows = machine_of(code), journal.rows
    for at in range(0, len(rows), chunk):
        effects = advance(machine, rows[at : at + chunk], more=at + chunk < len(rows))
    assert effects.state is MachineState.DONE
    assert machine.failed_beside(["1/a"]) == ["3/c"]
    assert machine.failed_beside([]) == ["3/c"]


def test_what_failed_unseen_before_the_end_stays() -> None:
    """The next attempt gives the group up at the same place."""

    async def code(machine: Machine) -> None:
        try:
            async with asyncio.timeout(1):
                await risky(machine, "slow")
        except TimeoutError:
            async with asyncio.TaskGroup() as group:
                group.create_task(risky(machine, "a"))
                group.create_task(risky(machine, "b"))

    live = Live(code)
    (slow,) = live.effects.started
    live.timer()
    live.feed([live.journal.answer(slow, 1, ok=False)])
    live.feed([live.journal.answer(call, 1, ok=False) for call in live.machine.outstanding()])
    assert isinstance(live.machine.error, ExceptionGroup)
    assert live.machine.failed_beside(["1/a"]) == ["2/b"]
    assert live.machine.failed_beside([]) == ["2/b"]


def test_the_steps_that_an_error_came_from() -> None:
    def failed(key: str | None) -> StepFailed:
        return StepFailed("no", key=key)

    def raised(error: BaseException, *, handling: BaseException, cause: BaseException | None = None) -> BaseException:
        error.__context__ = handling
        if cause is not None:
            error.__cause__ = cause
        return error

    a, b, c = failed("a"), failed("b"), failed("c")
    assert steps_to_blame(a) == ["a"]
    assert steps_to_blame(failed(None)) == []
    assert steps_to_blame(ValueError()) == []
    assert steps_to_blame(raised(ValueError(), handling=a)) == ["a"]
    assert steps_to_blame(raised(failed("d"), handling=a)) == ["d"]
    assert steps_to_blame(raised(ValueError(), handling=a, cause=b)) == ["b"]
    assert steps_to_blame(ExceptionGroup("", [a, ValueError(), ExceptionGroup("", [b, a])])) == ["a", "b"]
    assert steps_to_blame(raised(ExceptionGroup("", [a, b]), handling=c)) == ["a", "b"]
    assert steps_to_blame(raised(ExceptionGroup("", [ValueError()]), handling=c)) == ["c"]
    in_a_circle = ValueError()
    assert steps_to_blame(raised(in_a_circle, handling=in_a_circle)) == []


def test_the_calls_that_ended_a_run() -> None:
    step_, child = StepFailed("no", key="pay"), ChildFailed("no", key="ship")
    assert calls_to_blame(step_) == (["pay"], [])
    assert calls_to_blame(child) == ([], ["ship"])
    assert calls_to_blame(ValueError()) == ([], [])
    assert calls_to_blame(ExceptionGroup("", [child, step_, child])) == (["pay"], ["ship"])
    child.__context__ = step_
    assert calls_to_blame(child) == ([], ["ship"])
    assert steps_to_blame(child) == ["pay"]


async def with_cleanup(machine: Machine) -> str:
    await step(machine, "begin")
    try:
        await risky(machine, "a")
        await asyncio.sleep(3600)
        return await notify(machine, "well")
    except Boom:
        await asyncio.sleep(1)
        await notify(machine, "badly")
        raise
    finally:
        await step(machine, "release", "same")


async def notify(machine: Machine, how: str) -> str:
    row = await machine.call(Kind.STEP, "notify", how, None)
    return bytes(row.value).decode()


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_what_a_failed_attempt_left_behind(chunk: int) -> None:
    live = Live(with_cleanup)
    live.step("begin")
    live.step("a", ok=False)
    live.timer()
    live.step("notify", 1)
    live.step("release", 2)
    assert isinstance(live.machine.error, Boom)
    take_back(live, "a")

    machine = live.machine = machine_of(with_cleanup)
    rows = live.journal.rows
    for at in range(0, len(rows), chunk):
        effects = advance(machine, rows[at : at + chunk], more=at + chunk < len(rows))
    assert started(effects) == ["a"]
    live.effects = effects
    # The sleep and the message are other ones than those of the failed attempt: they get keys of their own.
    effects = live.step("a", 7)
    assert effects.timer is not None
    assert effects.timer[1] == machine.now_us + 3_600_000_000
    assert effects.timer[0].startswith("timer@")
    effects = live.timer()
    (call,) = effects.started
    assert call.key.startswith("notify@")
    # The same call with the same input keeps its outcome: what was released is not released again.
    effects = live.step(call.key, 8)
    assert effects.state is MachineState.DONE
    assert machine.result == "8"
    assert live.replay().state is MachineState.DONE
    assert live.machine.result == "8"


def test_orphaned_outcomes_excuse_only_what_the_failed_attempt_did() -> None:
    live = Live(with_cleanup)
    live.step("begin")
    live.step("a", ok=False)
    live.timer()
    live.step("notify", 1)
    live.step("release", 2)
    take_back(live, "a")
    live.journal.add(Kind.STEP, "stranger", "stranger")
    with pytest.raises(Diverged, match="stranger"):
        live.replay()


def test_a_child_of_a_failed_attempt_may_end_later() -> None:
    async def code(machine: Machine) -> int:
        try:
            await risky(machine, "a")
        except Boom:
            await start(machine)
            raise
        key = await start(machine)
        return int(bytes((await machine.child_end(key)).value))

    live = Live(code)
    live.step("a", ok=False)
    live.step("child", 11)
    take_back(live, "a")
    live.replay()
    live.add(Kind.CHILD, "child", "completed", value=Raw(b"9"))
    # The new attempt asks for the same child: it is there, and it has ended.
    assert live.step("a").state is MachineState.DONE
    assert live.machine.result == 9
    live.replay()
    assert live.machine.result == 9


def test_a_parked_execution_that_was_overtaken_by_a_retry_is_outdated() -> None:
    async def code(machine: Machine) -> None:
        try:
            await risky(machine, "a")
        except Boom:
            await machine.call(Kind.EVENT, "topic", None, "wait")
            raise

    live = Live(code)
    assert live.step("a", ok=False).state is MachineState.SUSPENDED
    parked, seen = live.machine, live.machine.seen
    # Elsewhere the event came, the attempt failed and its failure was taken back.
    live.journal.add(Kind.EVENT, "topic", "topic")
    take_back(live, "a")
    with pytest.raises(Outdated):
        advance(parked, live.journal.rows[seen:], replay=True)
    assert started(live.replay()) == ["a"]


def test_a_step_too_many_is_refused_live_and_in_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.sdk.replay.open_calls.STEPS_MAX", 3)

    async def code(machine: Machine) -> str:
        for _ in range(3):
            await machine.call(Kind.STEP, "s", None, None)
        try:
            await machine.call(Kind.STEP, "s", None, None)
        except Fatal as error:
            return error.message
        return "nothing"

    rows = [Row(n, n, Kind.STEP, 1, "s" if n == 1 else f"s#{n}", "s") for n in (1, 2, 3)]

    def in_pieces(*pieces: list[Row]) -> str:
        machine = Machine(lambda: code(machine), seed="seed")
        for piece in pieces:
            machine.advance(piece)
        return str(machine.result)

    assert {in_pieces(rows[:cut], rows[cut:]) for cut in range(4)} == {in_pieces(rows)}
    assert "may call 3 steps" in in_pieces(rows)


def test_a_parked_execution_goes_on_after_a_retry_that_took_nothing_back() -> None:
    async def code(machine: Machine) -> None:
        await machine.call(Kind.EVENT, "topic", None, "wait")
        await step(machine, "a")

    live = Live(code)
    live.journal.add(Kind.EVENT, "topic", "topic")
    live.journal.add(Kind.RETRIED, ok=False)
    assert started(live.feed(live.journal.rows)) == ["a"]


# --- replaying -----------------------------------------------------------------------------------------------------


def test_the_code_knows_whether_it_has_run_before() -> None:
    log: list[tuple[str, bool]] = []

    async def code(machine: Machine) -> None:
        log.append(("begin", machine.replaying))
        await step(machine, "a")
        log.append(("a", machine.replaying))
        await step(machine, "b")
        log.append(("b", machine.replaying))

    live = Live(code)
    live.step("a")
    live.journal.add(Kind.CLAIMED)
    live.replay()
    live.step("b")
    assert log == [("begin", False), ("a", False), ("begin", True), ("a", False), ("b", False)]


def test_the_time_of_rows_that_are_no_outcomes_is_not_seen_by_code() -> None:
    async def code(machine: Machine) -> list[int]:
        times = [machine.now_us]
        await step(machine, "a")
        return [*times, machine.now_us]

    live = Live(code)
    live.journal.add(Kind.LOST, dt_us=10_000_000)
    live.journal.add(Kind.CLAIMED)
    live.replay()
    live.step("a")
    live.journal.add(Kind.COMPLETED, dt_us=10_000_000)
    first = live.machine.result
    assert first[0] == 1_000_000_000
    live.replay()
    assert live.machine.result == first


# --- size ----------------------------------------------------------------------------------------------------------


def seconds_for(code: Code, answer: Callable[[Journal, Effects], Sequence[Row]]) -> float:
    machine, journal = machine_of(code), Journal()
    gc.collect()
    gc.disable()  # Its full collections walk all of pytest.
    try:
        begin = time.thread_time()
        effects = advance(machine, journal.rows)
        while effects.state is not MachineState.DONE:
            effects = advance(machine, answer(journal, effects))
        return time.thread_time() - begin
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("timeouts", [True, False], ids=["timeouts", "plain"])
def test_time_grows_with_the_work_not_with_its_square(timeouts: bool) -> None:
    waiting: list[str] = []

    def wide(n: int) -> Code:
        async def code(machine: Machine) -> None:
            await asyncio.gather(*(child(machine) for _ in range(n)))

        async def child(machine: Machine) -> None:
            key = await start(machine)
            if timeouts:
                async with asyncio.timeout(1_000):
                    await machine.child_end(key)
            else:
                await machine.child_end(key)

        return code

    def each_its_own_report(journal: Journal, effects: Effects) -> Sequence[Row]:
        waiting.extend(call.key for call in effects.started)
        if waiting:
            key = waiting.pop()
            return [
                journal.add(Kind.CHILD_STARTED, key, "child"),
                journal.add(Kind.CHILD, key, "completed"),
            ]
        return ()

    small = min(seconds_for(wide(250), each_its_own_report) for _ in range(5))
    large = min(seconds_for(wide(4_000), each_its_own_report) for _ in range(3))
    assert large < small * 16 * 5, (small, large)


# --- everything of asyncio -----------------------------------------------------------------------------------------


def test_anyio_cancel_scopes_in_a_group_are_cancelled_in_the_same_order() -> None:
    async def code(machine: Machine) -> list[str]:
        order: list[str] = []

        async def one(name: str) -> None:
            with anyio.CancelScope():
                try:
                    await anyio.sleep_forever()
                except BaseException:
                    order.append(name)
                    raise

        with anyio.move_on_after(1):
            async with anyio.create_task_group() as group:
                for n in range(20):
                    group.start_soon(one, str(n))
        await step(machine, "a")
        return order

    live = Live(code)
    live.timer()
    live.step("a")
    order = live.machine.result
    assert sorted(order, key=int) == [str(n) for n in range(20)]
    others = []
    for _ in range(5):
        live.replay()
        others.append(live.machine.result)
    assert others == [order] * 5
