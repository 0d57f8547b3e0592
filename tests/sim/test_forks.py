"""Lives in which executions are forked, retried and acted on at random moments."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.sim.audit import Violation
from tests.sim.world import simulate

INTERESTING = (
    *("acts asked again", "acts: complete", "acts: fail", "acts: fire", "acts: time_out", "acts: try"),
    *("forks of held", "rows ignored"),
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


def live(first: int, seeds: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(first, first + seeds):
        try:
            counts.update(simulate(seed, forks=True).counts)
        except Violation as violation:
            pytest.fail(
                f"seed {seed}: {violation}\nreplay it: python -m tests.sim --forks --seed {seed}", pytrace=False
            )
    return counts


def test_forks_keep_every_promise() -> None:
    assert live(0, 8)["kept steps"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_forks_of_hundreds_of_seeds_keep_every_promise() -> None:
    counts = live(300_000, 400)
    assert not [what for what in INTERESTING if not counts[what]]


def test_a_seed_replays_exactly() -> None:
    first, again = simulate(1, trace=True, forks=True), simulate(1, trace=True, forks=True)
    assert first.trace == again.trace
