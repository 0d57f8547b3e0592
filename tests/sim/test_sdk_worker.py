"""The same lives, with the SDK's own worker, runner and machine in the place of the model."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.sim.audit import Violation
from tests.sim.world import simulate

INTERESTING = (
    "bodies begun again",
    "child ended while its parent was queued",
    "early answers taken",
    "ends put off until the code has seen all",
    "ends together with a step",
    "failures taken back",
    "killed: chance",
    "killed: poison",
    "lost replies acted on: claim",
    "lost replies acted on: report",
    "partitions",
    "phase cancelled",
    "poisoned",
    "registrations reaped",
    "repeats answered",
    "rows timer",
    "server restarts",
    "stale rejections",
    "waits met at once",
    "waits met later",
)


def live(first: int, seeds: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + seeds):
        try:
            counts.update(simulate(seed, sdk=True).counts)
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}\nreplay it: python -m tests.sim --sdk --seed {seed}", pytrace=False)
    assert not [what for what in INTERESTING if not counts[what]]


def test_every_seed_keeps_every_promise() -> None:
    live(0, 50)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("first", range(200_000, 201_000, 500))
def test_a_thousand_seeds_keep_every_promise(first: int) -> None:
    live(first, 500)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("first", range(201_000, 204_000, 500))
def test_four_thousand_seeds_keep_every_promise(first: int) -> None:
    live(first, 500)


def test_a_seed_replays_exactly() -> None:
    first, again = simulate(1, trace=True, sdk=True), simulate(1, trace=True, sdk=True)
    assert first.trace == again.trace
