"""When a failed try is repeated."""

import random
from statistics import mean

import pytest

from perdure.wire.base.retry import DELAY_MAX_US, RetryPolicy, delay_us

SECOND = 1_000_000


def test_pauses_grow_up_to_their_ceiling() -> None:
    policy = RetryPolicy(max_attempts=6, initial_seconds=1.0, factor=3.0, max_seconds=20.0, jitter=False)
    assert [delay_us(policy, n, 0.5) for n in range(1, 7)] == [
        1 * SECOND,
        3 * SECOND,
        9 * SECOND,
        *[20 * SECOND] * 2,
        None,
    ]


def test_pauses_are_drawn_evenly_from_nothing_to_their_ceiling() -> None:
    """Full jitter keeps simultaneous failures from coming back together."""
    policy = RetryPolicy(max_attempts=5, initial_seconds=2.0)
    draw = random.Random(7).random
    for failures, ceiling in ((1, 2.0), (2, 4.0), (3, 8.0)):
        drawn = [delay_us(policy, failures, draw()) or 0 for _ in range(2_000)]
        assert 0 <= min(drawn) < 0.01 * ceiling * SECOND
        assert 0.99 * ceiling * SECOND < max(drawn) <= ceiling * SECOND
        assert mean(drawn) == pytest.approx(ceiling / 2 * SECOND, rel=0.05)


def test_what_an_error_asks_for_goes_before_the_policy() -> None:
    policy = RetryPolicy(max_attempts=2)
    assert delay_us(policy, 1, 0.5, 7.25) == 7_250_000
    assert (
        delay_us(policy, 1, 0.5, 0.0) == delay_us(policy, 1, 0.5, -1.0) == delay_us(policy, 1, 0.5, float("nan")) == 0
    )
    assert delay_us(policy, 1, 0.5, 1e300) == DELAY_MAX_US
    assert delay_us(policy, 2, 0.5, 1.0) is None


def test_a_factor_without_end_stays_below_the_ceiling() -> None:
    policy = RetryPolicy(max_attempts=1_000_000, factor=1e9, max_seconds=5.0, jitter=False)
    assert delay_us(policy, 999_999, 0.5) == 5 * SECOND
