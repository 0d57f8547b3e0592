"""Lives in which executions are forked, retried and acted on at random moments; only the SDK's workers hold."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.sim.audit import Violation
from tests.sim.world import simulate

ACTS = (
    *("acts asked again", "acts: complete", "acts: fail", "acts: fire", "acts: time_out", "acts: try"),
    *("forks of held", "rows ignored"),
)
INTERESTING = (
    "forks asked again",
    "forks of cancelled",
    "forks of completed",
    "forks of queued",
    "forks of running",
    "forks of waiting",
    "kept steps",
    "refused: second retries",
    "retries of cancelled",
    "retries of completed",
)


def live(first: int, seeds: int, *, sdk: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(first, first + seeds):
        try:
            counts.update(simulate(seed, sdk=sdk, forks=True).counts)
        except Violation as violation:
            how = f"python -m tests.sim --forks {'--sdk ' if sdk else ''}--seed {seed}"
            pytest.fail(f"seed {seed}: {violation}\nreplay it: {how}", pytrace=False)
    return counts


@pytest.mark.parametrize("sdk", [False, True], ids=["model", "sdk"])
def test_forks_keep_every_promise(sdk: bool) -> None:
    assert live(0, 4, sdk=sdk)["kept steps"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sdk", [False, True], ids=["model", "sdk"])
def test_forks_of_hundreds_of_seeds_keep_every_promise(sdk: bool) -> None:
    counts = live(300_000, 400, sdk=sdk)
    assert not [what for what in (*INTERESTING, *(ACTS if sdk else ())) if not counts[what]]


def test_a_seed_replays_exactly() -> None:
    first, again = simulate(1, trace=True, forks=True), simulate(1, trace=True, forks=True)
    assert first.trace == again.trace
