"""Take a guard out and the simulation must notice: what no seed can tell apart is no guard."""

from collections.abc import Callable

import pytest
from tests.sim.audit import Violation
from tests.sim.mutants import MUTANTS
from tests.sim.world import Mutant, simulate

SEEDS_MAX = 3_000


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    "mutant",
    [pytest.param(one, id=name) for name, one in MUTANTS.items()],
)
def test_every_guard_is_missed(mutant: Mutant, say: Callable[[str], None]) -> None:
    for seed in range(SEEDS_MAX):
        try:
            simulate(seed, mutant)
        except Violation as violation:
            say(f"mutant {mutant.name!r} caught by {violation.promise!r} after {seed + 1} seeds")
            return
    pytest.fail(f"mutant {mutant.name!r} survived {SEEDS_MAX} seeds", pytrace=False)
