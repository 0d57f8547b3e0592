"""Take a guard out and the simulation must notice: what no seed can tell apart is no guard."""

from collections.abc import Callable

import pytest
from tests.sim.audit import Violation
from tests.sim.mutants import MUTANTS
from tests.sim.world import Mutant, simulate

SEEDS_MAX = 1_000
RARE = {
    "act: a late outcome is recorded all the same",
    "cancel: no end of grace",
    "cancel: spares children",
    "complete: any attempt of any worker",
    "deliver: to the final too",
    "fail: any attempt of any worker",
    "fork: consumed events are taken again",
    "fork: old workers get it",
    "limits: nobody counts the queue",
    "poison: progress does not count",
    "report: any attempt of the holder",
    "timers: none is due",
    "worker: asks on under an id that was answered",
    "worker: keeps what it does not know",
    "worker: lease counts from the answer",
    "worker: reports a timer twice",
    "worker: takes what an earlier registration was handed",
}
"""It takes many seeds, or some seconds, until these are caught: part of the full suite."""


@pytest.mark.parametrize(
    "mutant",
    [pytest.param(one, id=name, marks=[pytest.mark.slow] if name in RARE else []) for name, one in MUTANTS.items()],
)
def test_every_guard_is_missed(mutant: Mutant, say: Callable[[str], None]) -> None:
    for seed in range(SEEDS_MAX):
        try:
            simulate(seed, mutant)
        except Violation as violation:
            say(f"mutant {mutant.name!r} caught by {violation.promise!r} after {seed + 1} seeds")
            return
    pytest.fail(f"mutant {mutant.name!r} survived {SEEDS_MAX} seeds", pytrace=False)
