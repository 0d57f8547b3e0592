"""D0: with the same journal a call gets its own outcome, or the execution is blocked, or the worker told it before."""

import pytest
from tests.sdk.drawn_groups import judge_many

GROUPS = 10_000
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # of blocked executions


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_no_group_of_concurrent_calls_swaps_outcomes_in_silence(strict: bool) -> None:
    found, wrong = judge_many(0, 300, strict=strict)
    assert found["silent"] == 0, wrong
    assert found["without need"] <= 3, wrong
    assert strict or found["told"] > 20
    assert found["blocked"] > 20


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_no_group_of_concurrent_calls_swaps_outcomes_in_silence_at_length(strict: bool) -> None:
    found, wrong = judge_many(1_000_000, GROUPS, strict=strict)
    assert found["silent"] == 0, wrong
    assert found["without need"] <= GROUPS // 100, wrong
