"""Plain asyncio replays: the same journal gives the same outcome, and no recorded body runs again.

Random programs (programs.py) in a random world (fake_server.py): every order of completion, every prefix of the
journal, any chunks, crashes anywhere, a cancel anywhere, failed attempts with what they leave behind. The mutants at
the end break one thing each that makes it work, and must be caught.
"""

import asyncio
import random
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.sdk.fake_server import Broken, World
from tests.sdk.programs import Op, program_of, programs

from perdure.sdk.replay.calls import DurableCall
from perdure.sdk.replay.handles import InnerTask
from perdure.sdk.replay.inner_loop import InnerLoop
from perdure.sdk.replay.machine import Machine
from perdure.wire.runs.executions import Row

FAST = settings(max_examples=100, suppress_health_check=list(HealthCheck), derandomize=True)
HUNT = settings(FAST, max_examples=1_000, phases=(Phase.generate,), report_multiple_bugs=False, database=None)
SLOW = settings(FAST, max_examples=200, derandomize=False)
seeds = st.integers(0, 2**32)

PLAIN: dict[str, Any] = {}
CANCELLED: dict[str, Any] = {"cancel": 0.15}
RETRIED: dict[str, Any] = {"tries": 4}


def live_and_forks(op: Op, seed: int, options: dict[str, Any], most: int) -> Counter[str]:
    world = World(program_of(op), random.Random(seed), **options)
    world.run()
    world.check_forks(most)
    return world.events


@pytest.mark.parametrize("options", [PLAIN, CANCELLED, RETRIED], ids=["plain", "cancelled", "retried"])
def test_a_fork_at_any_row_is_a_run_whose_first_outcomes_were_given(options: dict[str, Any]) -> None:
    happened: Counter[str] = Counter()

    @FAST
    @given(programs(risky="tries" in options), seeds)
    def check(op: Op, seed: int) -> None:
        happened.update(live_and_forks(op, seed, options, 2))

    check()
    wanted = {"open child"} | ({"taken back later"} if "tries" in options else set())
    assert all(happened[what] >= 3 for what in wanted), happened


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("options", [PLAIN, CANCELLED, RETRIED], ids=["plain", "cancelled", "retried"])
def test_a_fork_at_any_row_is_a_run_at_length(options: dict[str, Any]) -> None:
    @SLOW
    @given(programs(30, risky="tries" in options), seeds)
    def check(op: Op, seed: int) -> None:
        live_and_forks(op, seed, options, 5)

    check()


def live_and_replay(op: Op, seed: int, options: dict[str, Any]) -> Counter[str]:
    world = World(program_of(op), random.Random(seed), **options)
    world.run()
    world.check_replays()
    return world.events


@pytest.mark.parametrize("options", [PLAIN, CANCELLED, RETRIED], ids=["plain", "cancelled", "retried"])
def test_the_same_journal_gives_the_same_outcome(options: dict[str, Any]) -> None:
    happened: Counter[str] = Counter()

    @FAST
    @given(programs(risky="tries" in options), seeds)
    def check(op: Op, seed: int) -> None:
        happened.update(live_and_replay(op, seed, options))

    check()
    # The world must have been as rough as it claims to be.
    wanted = {"answer", "late", "timer", "child", "crash", "failed try"}
    wanted |= {"cancel"} if "cancel" in options else set()
    wanted |= {"retry", "orphaned", "several"} if "tries" in options else set()
    assert all(happened[what] >= 3 for what in wanted), happened


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("options", [PLAIN, CANCELLED, RETRIED], ids=["plain", "cancelled", "retried"])
def test_the_same_journal_gives_the_same_outcome_at_length(options: dict[str, Any]) -> None:
    @SLOW
    @given(programs(30, risky="tries" in options), seeds)
    def check(op: Op, seed: int) -> None:
        live_and_replay(op, seed, options)

    check()


SWALLOWED = Op("swallow", (Op("event"),))
"""A worker of a queue that swallows its cancel keeps waiting for work, and the task that awaits the worker is stuck."""


@pytest.mark.parametrize(
    "op",
    [
        Op("queue", (SWALLOWED, Op("child"))),  # then a row comes that wakes nobody
        Op("timeout", (Op("queue", (SWALLOWED, Op("step"))),), 1),  # then a cancel comes
    ],
    ids=["for ever", "until a cancel"],
)
def test_a_run_that_is_stuck_between_two_rows_of_one_report_is_so_in_a_replay(op: Op) -> None:
    for seed in range(100):
        live_and_replay(op, seed, CANCELLED)


# --- mutants -------------------------------------------------------------------------------------------------------


def address_hashed_tasks(patch: pytest.MonkeyPatch) -> None:
    """Give tasks hashes that differ between processes, like addresses."""
    salts: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()

    def address(task: InnerTask) -> int:
        return hash((task._number, salts.setdefault(task._loop, random.random())))

    patch.setattr(InnerTask, "__hash__", address)


def stdlib_as_completed(patch: pytest.MonkeyPatch) -> None:
    in_order = vars(asyncio.tasks)["_perdure_as_completed"]
    stdlib = dict(zip(in_order.__code__.co_freevars, in_order.__closure__, strict=True))["stdlib"].cell_contents
    # Its set of coroutines is in the order of their addresses, which is any.
    patch.setitem(
        stdlib.__globals__, "set", lambda items=(): random.sample(list(items), len(list(items))) if items else set()
    )
    patch.setitem(vars(asyncio.tasks), "_perdure_as_completed", stdlib)


def all_rows_at_once(patch: pytest.MonkeyPatch) -> None:
    deliver_next = Machine._deliver_next

    def deliver_all(machine: Machine) -> bool:
        delivered = False
        while deliver_next(machine):
            delivered = True
        return delivered

    patch.setattr(Machine, "_deliver_next", deliver_all)


def settled_after_three_passes(patch: pytest.MonkeyPatch) -> None:
    pump = InnerLoop.pump

    def three_passes(loop: InnerLoop, budget: int) -> int:
        for _ in range(3):
            if loop.ready:
                pump(loop, len(loop.ready))
        return budget

    patch.setattr(InnerLoop, "pump", three_passes)
    patch.setattr(InnerLoop, "is_settled", True)


def late_outcomes_not_ignored(patch: pytest.MonkeyPatch) -> None:
    give_up = Machine.give_up

    def forget(machine: Machine, call: DurableCall) -> None:
        give_up(machine, call)
        machine._given_up.pop(call.key, None)

    patch.setattr(Machine, "give_up", forget)


def starting_while_replaying(patch: pytest.MonkeyPatch) -> None:
    settle = Machine._settle

    def eager(machine: Machine) -> Any:
        machine._more = False
        return settle(machine)

    patch.setattr(Machine, "_settle", eager)


def time_of_the_wall(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(InnerLoop, "time", lambda loop: loop.now_us / 1e6 + random.random())


def random_without_seed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Machine, "random", lambda machine: random.Random())


def late_outcomes_reported_as_open(patch: pytest.MonkeyPatch) -> None:
    def take_all(machine: Machine) -> Any:
        abandoned, machine._abandoned = machine._abandoned, []
        return abandoned

    patch.setattr(Machine, "_take_abandoned", take_all)


def orphaned_outcomes_diverge(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Machine, "_is_excused", lambda machine, row: False)


def orphaned_timers_kept_for_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Machine, "timer_asked", lambda machine, key: key)


def orphaned_outcomes_forgotten(patch: pytest.MonkeyPatch) -> None:
    def forget(machine: Machine, row: Row, call: DurableCall | None) -> None:
        if not machine._is_excused(row):
            raise machine._diverged(row, call)

    patch.setattr(Machine, "_keep_aside", forget)


MUTANTS: list[tuple[Callable[[pytest.MonkeyPatch], None], dict[str, Any]]] = [
    (address_hashed_tasks, PLAIN),
    (stdlib_as_completed, PLAIN),
    (all_rows_at_once, PLAIN),
    (settled_after_three_passes, PLAIN),
    (late_outcomes_not_ignored, PLAIN),
    (starting_while_replaying, PLAIN),
    (time_of_the_wall, PLAIN),
    (random_without_seed, PLAIN),
    (late_outcomes_reported_as_open, PLAIN),
    (orphaned_outcomes_diverge, RETRIED),
    (orphaned_timers_kept_for_others, RETRIED),
    (orphaned_outcomes_forgotten, RETRIED),
]


@pytest.mark.slow
@pytest.mark.parametrize(("mutate", "options"), MUTANTS, ids=[mutate.__name__ for mutate, _ in MUTANTS])
def test_a_mutant_is_caught(
    mutate: Callable[[pytest.MonkeyPatch], None], options: dict[str, Any], say: Callable[[str], None]
) -> None:
    tried = 0

    @HUNT
    @given(programs(risky="tries" in options), seeds)
    def hunt(op: Op, seed: int) -> None:
        nonlocal tried
        tried += 1
        live_and_replay(op, seed, options)

    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        with pytest.raises(Broken) as caught:
            hunt()
    say(f"mutant {mutate.__name__!r} of the machine caught by {caught.value.check!r} at program {tried}")
