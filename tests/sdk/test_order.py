"""Tasks that are created in another order than recorded: no call ever gets another one's outcome without a word.

Each program runs live with its tasks in one order. It then crashes after each row, is replayed with its tasks in every
other order, as if they came from a set, and goes on to its end.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import anyio
import msgspec
import pytest
from msgspec import Raw
from tests.sdk.fake_server import Journal, advance

from perdure.sdk.base.errors import Diverged, Misplaced
from perdure.sdk.payloads.fingerprints import fingerprint_of_captured
from perdure.sdk.replay.calls import DurableCall, Effects, MachineState
from perdure.sdk.replay.machine import Machine
from perdure.sdk.workflows.events import event_call
from perdure.wire.base.records import Kind, fingerprint_of_timer

Got = list[tuple[str, str]]
Code = Callable[[Machine, Sequence[str], Got], Awaitable[Any]]
ITEMS = ("a", "b", "c")


async def fetch(machine: Machine, got: Got, item: str, name: str = "fetch", told: str = "") -> str:
    row = await machine.call(Kind.STEP, name, f"{name}({item}{told})", None)
    value: str = msgspec.json.decode(row.value)
    got.append((f"{name}({item}{told})", value))
    return value


class Run(NamedTuple):
    got: Got
    journal: Journal
    machine: Machine
    again: list[str]
    """Started steps whose outcome was recorded before."""


def run(
    code: Code, order: Sequence[str], journal: Journal | None = None, *, page: int = 100, strict: bool = False
) -> Run:
    """Run `code` with its tasks in this order over a journal, and on to the end."""
    journal = journal or Journal()
    got: Got = []
    machine = Machine(lambda: code(machine, order, got), seed="seed", strict=strict)  # type: ignore[arg-type, return-value]  # async def
    known = {(row.name, row.fingerprint) for row in journal.rows if row.kind is Kind.STEP and row.fingerprint}
    rows = list(journal.rows)
    again: list[str] = []
    while True:
        for at in range(0, len(rows), page):
            effects = advance(machine, rows[at : at + page], more=at + page < len(rows))
        again += [call.key for call in effects.started if call.kind is Kind.STEP and _what(call) in known]
        if effects.state is MachineState.DONE:
            return Run(got, journal, machine, again)
        rows = [_next_row(journal, machine, effects)]


def _what(call: DurableCall) -> tuple[str | None, str | None]:
    return call.name, call.fingerprint


def _next_row(journal: Journal, machine: Machine, effects: Effects) -> Any:
    """The outcome of the oldest open call, or else the next timer. The value of a step names the step's input."""
    steps = [call for call in machine.outstanding() if call.kind is not Kind.EVENT]
    if steps:
        nonce = len(journal.rows) if steps[0].name == "token" else None
        value = steps[0].fingerprint if nonce is None else f"token {nonce}"
        return journal.answer(steps[0], Raw(msgspec.json.encode(value)))
    events = machine.outstanding()
    if events:
        return journal.answer(events[0], Raw(msgspec.json.encode(events[0].fingerprint)))
    assert effects.timer is not None
    key, due_us = effects.timer
    return journal.add(
        Kind.TIMER, key, fingerprint=fingerprint_of_timer(due_us), dt_us=max(1, due_us - journal.rows[-1].at_us)
    )


def verdicts(code: Code, page: int = 100) -> dict[str, int]:
    """How the replays in other orders end, at every crash point: right, diverged, or with inputs that are marked."""
    whole = run(code, ITEMS)
    assert whole.machine.error is None
    found = {"right": 0, "diverged": 0, "marked": 0}
    for until in range(1, len(whole.journal.rows) + 1):
        for order in itertools.permutations(ITEMS):
            try:
                replayed = run(code, order, Journal(*whole.journal.rows[:until]), page=page)
            except Diverged as error:
                assert order != ITEMS, error
                found["diverged"] += 1
                continue
            if replayed.machine.changed_inputs is not None:
                assert order != ITEMS
                found["marked"] += 1
                continue
            found["right"] += 1
            assert replayed.machine.error is None
            assert all(asked == value for asked, value in replayed.got), (order, until, replayed.got)
            assert replayed.again == [], (order, until)
    return found


def gathered(one: Callable[[Machine, Got, str], Awaitable[Any]]) -> Code:
    async def code(machine: Machine, order: Sequence[str], got: Got) -> None:
        await asyncio.gather(*[one(machine, got, item) for item in order])

    return code


async def one_step(machine: Machine, got: Got, item: str) -> None:
    await fetch(machine, got, item)


async def two_steps(machine: Machine, got: Got, item: str) -> None:
    await fetch(machine, got, item)
    await fetch(machine, got, item, "store")


async def same_sleep(machine: Machine, got: Got, item: str) -> None:
    await asyncio.sleep(1)
    await two_steps(machine, got, item)


async def own_sleep(machine: Machine, got: Got, item: str) -> None:
    await asyncio.sleep(1 + ITEMS.index(item))
    await two_steps(machine, got, item)


async def own_name(machine: Machine, got: Got, item: str) -> None:
    await fetch(machine, got, item, f"fetch-{item}")
    await two_steps(machine, got, item)


async def kept_for_later(machine: Machine, got: Got, item: str) -> None:
    later = fetch(machine, got, item, "later")
    call = machine.new_call(
        Kind.STEP, "held", f"held({item})", None
    )  # its key is given before the task's number changes
    await fetch(machine, got, item)
    row = await machine.wait(call)
    got.append((f"held({item})", msgspec.json.decode(row.value)))
    await later


async def within_a_time(machine: Machine, got: Got, item: str) -> None:
    async with asyncio.timeout(60):
        await two_steps(machine, got, item)


async def nested(machine: Machine, got: Got, item: str) -> None:
    order = [f"{item}{other}" for other in (ITEMS if item == "a" else ITEMS[::-1])]
    await asyncio.gather(*[two_steps(machine, got, other) for other in order])


async def event(machine: Machine, got: Got, item: str) -> None:
    row = await machine.call(Kind.EVENT, "orders", f"orders({item})", None)
    got.append((f"orders({item})", msgspec.json.decode(row.value)))
    await fetch(machine, got, item)


async def captured(machine: Machine, got: Got, item: str) -> None:
    """A step without arguments that captures its item."""
    print_ = fingerprint_of_captured(lambda: item)
    row = await machine.call(Kind.STEP, "brought", print_, None)
    assert msgspec.json.decode(row.value) == print_
    await two_steps(machine, got, item)


@pytest.mark.parametrize("page", [100, 3])
@pytest.mark.parametrize(
    "one",
    [one_step, two_steps, same_sleep, own_sleep, own_name, kept_for_later, within_a_time, nested, event, captured],
    ids=lambda one: one.__name__,
)
def test_tasks_in_another_order_get_their_own_outcomes(one: Any, page: int) -> None:
    found = verdicts(gathered(one), page)
    assert found["right"] > 0
    assert found["diverged"] == found["marked"] == 0


async def token_first(machine: Machine, got: Got, item: str) -> None:
    """Indistinguishable tasks get different values, and go on with these values."""
    row = await machine.call(Kind.STEP, "token", None, None)
    token: str = msgspec.json.decode(row.value)
    await fetch(machine, got, item, told=token)
    await fetch(machine, got, item, "store", told=token)


def few_at_a_time() -> Code:
    async def code(machine: Machine, order: Sequence[str], got: Got) -> None:
        room = asyncio.Semaphore(2)

        async def one(item: str) -> None:
            async with room:
                await two_steps(machine, got, item)

        await asyncio.gather(*[one(item) for item in order])

    return code


@pytest.mark.parametrize(
    "code",
    [gathered(token_first), few_at_a_time()],
    ids=["token_first", "few_at_a_time"],
)
def test_tasks_that_cannot_be_told_apart_diverge(code: Code) -> None:
    found = verdicts(code)
    assert found["marked"] == 0
    assert found["diverged"] > 0


async def in_a_group(machine: Machine, order: Sequence[str], got: Got) -> None:
    async with asyncio.TaskGroup() as group:
        for item in order:
            group.create_task(two_steps(machine, got, item))


async def in_anyio(machine: Machine, order: Sequence[str], got: Got) -> None:
    async with anyio.create_task_group() as group:
        for item in order:
            group.start_soon(two_steps, machine, got, item)


async def waited_for(machine: Machine, order: Sequence[str], got: Got) -> None:
    open_tasks = {asyncio.create_task(two_steps(machine, got, item)) for item in order}
    while open_tasks:
        _, open_tasks = await asyncio.wait(open_tasks, return_when=asyncio.FIRST_COMPLETED)


async def as_completed(machine: Machine, order: Sequence[str], got: Got) -> None:
    for each in asyncio.as_completed([two_steps(machine, got, item) for item in order]):
        await each


async def steps_themselves(machine: Machine, order: Sequence[str], got: Got) -> None:
    calls = [machine.call(Kind.STEP, "fetch", f"fetch({item})", None) for item in order]
    rows = await asyncio.gather(*calls)
    got += [(f"fetch({item})", msgspec.json.decode(row.value)) for item, row in zip(order, rows, strict=True)]


@pytest.mark.parametrize(
    "code", [in_a_group, in_anyio, waited_for, as_completed, steps_themselves], ids=lambda code: code.__name__
)
def test_it_does_not_matter_how_the_tasks_are_created(code: Code) -> None:
    found = verdicts(code)
    assert found["right"] > 0
    assert found["diverged"] == found["marked"] == 0


async def one_after_the_other(machine: Machine, order: Sequence[str], got: Got) -> None:
    for item in order:
        await two_steps(machine, got, item)


def test_a_loop_in_another_order_diverges() -> None:
    found = verdicts(one_after_the_other)
    assert found["diverged"] > 0
    assert found["marked"] == 0


async def captures_and_goes_on(machine: Machine, order: Sequence[str], got: Got) -> None:
    where = order[0]
    await asyncio.gather(
        machine.call(Kind.STEP, "pack", fingerprint_of_captured(lambda: where), None), one_step(machine, got, "a")
    )


@pytest.mark.parametrize("strict", [False, True])
def test_captured_values_may_change(strict: bool) -> None:
    journal = run(captures_and_goes_on, ["/run/1"]).journal
    replayed = run(captures_and_goes_on, ["/run/2"], journal, strict=strict)
    assert replayed.machine.error is None
    assert replayed.machine.changed_inputs is not None
    assert replayed.machine.changed_inputs.keys == []


async def edited(machine: Machine, order: Sequence[str], got: Got) -> None:
    await fetch(machine, got, order[0])
    await fetch(machine, got, "x", "store")


def test_an_input_that_was_edited_is_marked_only() -> None:
    journal = run(edited, ITEMS).journal
    replayed = run(edited, ("edited",), journal)
    assert replayed.machine.changed_inputs is not None
    assert replayed.machine.changed_inputs.keys == ["fetch"]


def test_a_divergence_of_tasks_names_both_sides_and_says_what_to_do() -> None:
    journal = run(gathered(token_first), ITEMS).journal
    with pytest.raises(Diverged, match=r"row \d+ is step '1/fetch'.*from a list, not from a set"):
        run(gathered(token_first), ITEMS[::-1], journal)


async def naps(machine: Machine, seconds: Sequence[str], got: Got) -> None:
    await asyncio.sleep(float(seconds[0]))
    await fetch(machine, got, "a")


def test_a_timer_does_not_take_the_row_of_another_due_time() -> None:
    journal = run(naps, ["60"]).journal
    says = r"asks for timer 'timer' with another due time \(.* instead of .*\).* neither from a clock nor from random"
    with pytest.raises(Diverged, match=says) as diverged:
        run(naps, ["61"], journal)
    assert "from a set" not in str(diverged.value)


async def drawn(machine: Machine, order: Sequence[str], got: Got) -> None:
    async def one(item: str) -> None:
        machine.uuid()
        await fetch(machine, got, item)

    await asyncio.gather(*map(one, order))


def test_tasks_that_draw_ids_in_another_order_are_told_of_it() -> None:
    journal = run(drawn, ITEMS).journal
    assert run(drawn, ITEMS, journal).got == run(drawn, ITEMS).got
    with pytest.raises(Diverged, match=r"numbers of `ctx.uuid\(\)` and `ctx.random` in the order.* not from a set"):
        run(drawn, ITEMS[::-1], journal)


async def a_set_of_coroutines(machine: Machine, order: Sequence[str], got: Got) -> None:
    for each in asyncio.as_completed({asyncio.sleep(1, item) for item in order}):
        got.append(("first", await each))


def test_a_timer_that_woke_the_execution_is_known_by_its_suspension() -> None:
    journal = Journal()
    machine = Machine(lambda: naps(machine, ["60"], []), seed="seed")
    timer = advance(machine, journal.rows).timer
    assert timer is not None
    journal.add(Kind.WAITING, fingerprint=fingerprint_of_timer(timer[1]))
    journal.add(Kind.TIMER, timer[0], dt_us=60_000_000)
    assert run(naps, ["60"], Journal(*journal.rows)).machine.error is None
    with pytest.raises(Diverged, match="another due time"):
        run(naps, ["61"], Journal(*journal.rows))


def test_as_completed_refuses_a_set_of_coroutines() -> None:
    result = run(a_set_of_coroutines, ITEMS)
    assert isinstance(result.machine.error, Misplaced)
    assert "a list" in str(result.machine.error)


async def a_set_of_tasks(machine: Machine, order: Sequence[str], got: Got) -> None:
    tasks = {asyncio.create_task(asyncio.sleep(1, item)) for item in order}
    async for value in _values(tasks):
        got.append(("first", value))


async def _values(tasks: Any) -> AsyncIterator[str]:
    for each in asyncio.as_completed(tasks):
        yield await each


def test_as_completed_takes_a_set_of_tasks() -> None:
    assert run(a_set_of_tasks, ITEMS).got == [("first", item) for item in ITEMS]


async def one_is_cancelled(machine: Machine, order: Sequence[str], got: Got) -> None:
    decision = asyncio.create_task(fetch(machine, got, "x", "decide"))
    await asyncio.sleep(0)
    tasks = {item: asyncio.create_task(two_steps(machine, got, item)) for item in order}
    await decision
    tasks["c"].cancel()
    await asyncio.wait(tasks.values())


async def one_wait_is_cancelled(machine: Machine, order: Sequence[str], got: Got) -> None:
    decision = asyncio.create_task(fetch(machine, got, "x", "decide"))
    await asyncio.sleep(0)
    tasks = {item: asyncio.create_task(event(machine, got, item)) for item in order}
    await decision
    tasks["c"].cancel()
    await asyncio.wait(tasks.values())
    await event(machine, got, "c")  # takes the late event of its own kind only


async def one_sleep_is_cancelled(machine: Machine, order: Sequence[str], got: Got) -> None:
    decision = asyncio.create_task(fetch(machine, got, "x", "decide"))
    await asyncio.sleep(0)
    tasks = {item: asyncio.create_task(own_sleep(machine, got, item)) for item in order}
    await decision
    tasks["c"].cancel()
    await asyncio.wait(tasks.values())


async def one_time_out_is_left(machine: Machine, order: Sequence[str], got: Got) -> None:
    """The timer that a task has left must not be taken for the timer of the task that changes places."""
    decision = asyncio.create_task(fetch(machine, got, "x", "decide"))
    await asyncio.sleep(0)
    gate = asyncio.Event()

    async def one(item: str) -> None:
        try:
            async with asyncio.timeout(30 if item == "a" else 60):
                await (gate.wait() if item == "a" else asyncio.Event().wait())
        except TimeoutError:
            pass
        await fetch(machine, got, item)

    tasks = [asyncio.create_task(one(item)) for item in order]
    await decision
    gate.set()
    await asyncio.gather(*tasks)


async def within_a_name(machine: Machine, order: Sequence[str], got: Got) -> None:
    """Tasks change places while one of the tasks is in a named scope."""

    async def one(item: str) -> None:
        if item != "a":
            with machine.loop.within(f"model:{item}"):
                await fetch(machine, got, item, "ask")
        await two_steps(machine, got, item)

    await asyncio.gather(*[one(item) for item in order])


async def named_with_a_slash(machine: Machine, order: Sequence[str], got: Got) -> None:
    calls = [machine.call(Kind.EVENT, "orders/", f"orders({item})", None) for item in order]
    rows = await asyncio.gather(*calls)
    got += [(f"orders({item})", msgspec.json.decode(row.value)) for item, row in zip(order, rows, strict=True)]


@pytest.mark.parametrize("page", [100, 3])
@pytest.mark.parametrize(
    "code",
    [
        one_is_cancelled,
        one_wait_is_cancelled,
        one_sleep_is_cancelled,
        one_time_out_is_left,
        within_a_name,
        named_with_a_slash,
    ],
    ids=lambda code: code.__name__,
)
def test_tasks_change_places_when_some_are_cancelled_or_named(code: Code, page: int) -> None:
    found = verdicts(code, page)
    assert found["right"] > 0
    assert found["diverged"] == found["marked"] == 0


async def a_child_comes_later(machine: Machine, order: Sequence[str], got: Got) -> None:
    """The tasks that `a` makes come in another order as well, and the second task late."""
    decision = asyncio.create_task(fetch(machine, got, "x", "decide"))
    await asyncio.sleep(0)

    async def one(item: str) -> None:
        parts = [f"{item}1", f"{item}2"] if order[0] == "a" else [f"{item}2", f"{item}1"]
        first = asyncio.create_task(two_steps(machine, got, parts[0]))
        if item == "a" and order[0] != "a":
            await decision
        await asyncio.gather(first, two_steps(machine, got, parts[1]))

    await asyncio.gather(decision, *[one(item) for item in order])


def test_a_task_does_not_take_the_place_of_one_that_is_still_to_be_made() -> None:
    rows = run(a_child_comes_later, ITEMS).journal.rows
    place = next(row for row in rows if row.fingerprint == "fetch(a2)")
    assert place.key is not None
    journal = Journal()
    journal.add(place.kind, place.key, place.name, fingerprint=place.fingerprint, value=place.value)
    with pytest.raises(Diverged):
        run(a_child_comes_later, ITEMS[::-1], journal)


async def latest_events(machine: Machine, order: Sequence[str], got: Got) -> None:
    async def one(item: str) -> None:
        row = await machine.wait(event_call(machine, "orders", {"item": item}, after=None, latest=True, key=None))
        got.append((item, msgspec.json.decode(row.value)))

    await asyncio.gather(*[one(item) for item in order])


def test_waits_for_the_latest_event_are_told_apart() -> None:
    journal = Journal()
    machine = Machine(lambda: latest_events(machine, ITEMS, []), seed="seed")
    calls = advance(machine, journal.rows).started
    for item, call in zip(ITEMS, calls, strict=True):
        journal.answer(call, Raw(msgspec.json.encode(item)))
    for order in itertools.permutations(ITEMS):
        assert sorted(run(latest_events, order, Journal(*journal.rows)).got) == [(item, item) for item in ITEMS]


async def latest_event_again(machine: Machine, order: Sequence[str], got: Got) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await machine.wait(event_call(machine, "orders", None, after=None, latest=True, key=None))
    await machine.wait(event_call(machine, "orders", None, after=None, latest=True, key=None))


def test_a_wait_for_the_latest_event_takes_none_that_met_an_earlier_wait() -> None:
    journal = Journal()
    machine = Machine(lambda: latest_event_again(machine, ITEMS, []), seed="seed")
    effects = advance(machine, journal.rows)
    assert effects.timer is not None
    key, due_us = effects.timer
    timer = journal.add(Kind.TIMER, key, fingerprint=fingerprint_of_timer(due_us), dt_us=1_000_000)
    late = journal.answer(effects.started[0], 1)
    assert advance(machine, [timer, late]).state is MachineState.SUSPENDED
    assert machine.waits() == ["orders#2"]


async def waits_and_naps(machine: Machine, order: Sequence[str], got: Got) -> None:
    async with asyncio.timeout(60):
        await event(machine, got, "a")
    await asyncio.sleep(5)


def test_a_timer_that_an_older_server_recorded_is_not_known_by_a_suspension_that_ended_before() -> None:
    journal = Journal()
    machine = Machine(lambda: waits_and_naps(machine, ITEMS, []), seed="seed")
    effects = advance(machine, journal.rows)
    assert effects.timer is not None
    rows = [
        journal.add(Kind.WAITING, fingerprint=fingerprint_of_timer(effects.timer[1])),
        journal.answer(effects.started[0], 1),
        journal.add(Kind.CLAIMED),
    ]
    (call,) = advance(machine, rows).started
    effects = advance(machine, [journal.answer(call, 1)])
    assert effects.timer is not None
    journal.add(Kind.TIMER, effects.timer[0], dt_us=5_000_000)
    assert run(waits_and_naps, ITEMS, Journal(*journal.rows)).machine.error is None
