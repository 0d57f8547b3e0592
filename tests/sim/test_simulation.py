"""Many small lives of the whole system, each from one seed, full of what can go wrong, and the promises held up."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.sim.audit import Violation
from tests.sim.world import simulate

ROOT = Path(__file__).resolve().parents[2]

FAST, SLOW = 100, 1_000
"""Seeds per test."""
COUNTED = 250

INTERESTING = {
    "acknowledged first": 100,
    "bodies begun again": 250,
    "claims answered again": 20,
    "child ended while its parent was queued": 50,
    "child ended while its parent was running": 10,
    "deliveries lost": 50,
    "drained": 15,
    "early answers taken": 20,
    "ends put off until the code has seen all": 50,
    "ends together with a step": 100,
    "failures taken back": 50,
    "failures taken back together": 50,
    "killed: chance": 30,
    "killed: poison": 50,
    "lost replies acted on: claim": 20,
    "lost replies acted on: publish": 20,
    "lost replies acted on: register": 20,
    "lost replies acted on: report": 50,
    "lost replies acted on: start": 20,
    "parked and continued": 50,
    "partitions": 20,
    "phase blocked": 10,
    "phase cancelled": 30,
    "phase cancelling": 20,
    "phase completed": 250,
    "phase failed": 30,
    "poisoned": 10,
    "queued behind a limit": 20,
    "registrations lost": 30,
    "registrations reaped": 100,
    "repeats answered": 50,
    "rows released": 20,
    "rows retried": 50,
    "rows timer": 100,
    "rows unblocked": 10,
    "server restarts": 15,
    "stale rejections": 50,
    "starts asked again": 50,
    "steps held back": 15,
    "suspended between tries": 20,
    "suspends refused": 50,
    "waits given up": 20,
    "waits met at once": 50,
    "waits met later": 100,
    "waits met while queued": 3,
    "waits met while running": 50,
    "zombies": 5,
}
"""The least counts of events over all seeds (COUNTED): a calm run proves nothing."""


def live(first: int, seeds: int) -> None:
    """Run seeds; all promises hold, and enough went wrong."""
    counts: Counter[str] = Counter()
    began = time.perf_counter()
    for seed in range(first, first + seeds):
        try:
            counts.update(simulate(seed).counts)
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}\nreplay it: python -m tests.sim --seed {seed}", pytrace=False)
    seconds = time.perf_counter() - began
    sys.stdout.write(f"{seeds} seeds from {first}: {seeds / seconds:.1f} a second\n")
    rare = {
        what: (counts[what], least) for what, least in INTERESTING.items() if counts[what] < least * seeds / COUNTED
    }
    assert not rare, f"happened too rarely (times, at least): {rare}"


def test_every_seed_keeps_every_promise() -> None:
    live(0, FAST)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(100_000, 102_000, SLOW))
def test_two_thousand_seeds_keep_every_promise(first: int) -> None:
    live(first, SLOW)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(102_000, 110_000, SLOW))
def test_ten_thousand_seeds_keep_every_promise(first: int) -> None:
    live(first, SLOW)


@pytest.mark.parametrize("seed", [1, 17, 42])
def test_a_seed_replays_exactly(seed: int) -> None:
    first, again = simulate(seed, trace=True), simulate(seed, trace=True)
    assert len(first.trace) > 100
    assert first.trace == again.trace
    assert first.counts == again.counts


def test_a_seed_replays_exactly_in_another_process() -> None:
    program = (
        "import hashlib; from tests.sim.world import simulate\n"
        "print(hashlib.sha256(repr([simulate(seed, trace=True).trace for seed in range(5)]).encode()).hexdigest())"
    )
    here = hashlib.sha256(repr([simulate(seed, trace=True).trace for seed in range(5)]).encode()).hexdigest()
    for salt in ("1", "2"):  # sets of strings iterate in another order
        found = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == here


def test_different_seeds_live_different_lives() -> None:
    assert len({repr(simulate(seed, trace=True).trace) for seed in range(10)}) == 10
