"""Claim and explanation agree in each state of many lives, and removing the named obstacle starts the run."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.sim.admission import Watched
from tests.sim.audit import Violation
from tests.sim.mutants import changed
from tests.sim.world import Mutant

from perdure.wire.runs.admission import Rule

SEEDS, SEEDS_SLOW = 8, 60
STATES, STATES_SLOW = 1_000, 10_000
NOT_HERE = {Rule.TURN, Rule.DEPLOYMENT}
"""Scripts have no sessions, and workers register before scripts start: tests/store/insight/test_why_queued.py."""


def live(first: int, seeds: int, states: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + seeds):
        world = Watched(seed)
        try:
            world.run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}", pytrace=False)
        counts.update(world.watch.counts)
    assert counts["states"] >= states, counts
    never = [rule for rule in Rule if not counts[f"rule {rule}"] and rule not in NOT_HERE]
    assert not never, f"no state was held back by {never}: {counts}"
    assert not [rule for rule in Rule if not counts[f"removed {rule}"] and rule not in NOT_HERE], counts


def test_the_claim_and_the_explanation_agree() -> None:
    live(0, SEEDS, STATES)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_claim_and_the_explanation_agree_in_ten_thousand_states() -> None:
    live(1_000, SEEDS_SLOW, STATES_SLOW)


@pytest.mark.parametrize(
    ("query", "old", "new"),
    [
        ("verdicts", "python IS NULL", "1"),
        ("verdicts", "due_at_us IS NULL", "1"),
        ("verdicts", "needs_protocol IS NULL", "1"),
        ("claim_executions", "python IS NULL", "1"),
        ("claim_limited", "needs_protocol IS NULL", "1"),
        ("verdicts", "gate <= 1", "1"),
        ("verdicts", "z.kind = 'deployment'", "1 = 0"),
        ("claim_executions", "z.kind = 'workflow'", "1 = 0"),
        ("claim_executions", "z.kind = 'queue'", "1 = 0"),
        ("claim_limited", "z.kind = 'key'", "1 = 0"),
        ("ready_before", "SELECT COUNT(*)", "SELECT 0 * COUNT(*)"),
        ("ready_beside_group", "SELECT COUNT(*)", "SELECT 0 * COUNT(*)"),
    ],
)
def test_a_rule_that_only_one_of_them_follows_is_noticed(query: str, old: str, new: str) -> None:
    mutant = Mutant("one rule less", changed(query, (old, new)))
    with pytest.raises(Violation):
        for seed in range(40):
            Watched(seed, mutant).run()
