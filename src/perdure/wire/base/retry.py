"""Retries: the policy, and a pure function for the delay."""

from msgspec import Struct


class RetryPolicy(Struct, frozen=True, omit_defaults=True):
    """How often and how late a failed step or workflow is tried again.

    `max_attempts` counts the first try. The delay before try n+1 is drawn evenly from 0 to `initial_seconds * factor **
    (n - 1)`, at most `max_seconds` (full jitter, so that callers do not come back together).

    >>> RetryPolicy(max_attempts=5, initial_seconds=0.5)
    RetryPolicy(max_attempts=5, initial_seconds=0.5, factor=2.0, max_seconds=300.0, jitter=True)
    """

    max_attempts: int = 1
    initial_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 300.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 1_000_000:
            raise ValueError(
                f"RetryPolicy.max_attempts must be 1 to 1,000,000 (the first try counts), got {self.max_attempts!r}."
            )
        for name in ("initial_seconds", "factor", "max_seconds"):
            value = getattr(self, name)
            if not 0 <= value <= 1e9:  # also false for NaN
                raise ValueError(f"RetryPolicy.{name} must be 0 to 1e9, got {value!r}.")


DELAY_MAX_US = 366 * 86_400 * 1_000_000


def delay_us(policy: RetryPolicy, failures: int, random: float, asked_seconds: float | None = None) -> int | None:
    """Microseconds until the next try; None if no try is left.

    `random` is a number from 0 to 1. `asked_seconds` is the error's own delay (Retry-After), which replaces the
    computed delay and is clamped to 0 … 366 days.
    """
    if failures >= policy.max_attempts:
        return None
    if asked_seconds is not None:
        if not asked_seconds > 0:  # zero, negative or NaN: at once
            return 0
        return min(int(min(asked_seconds, 1e9) * 1_000_000), DELAY_MAX_US)
    try:
        ceiling = min(policy.initial_seconds * policy.factor ** (failures - 1), policy.max_seconds)
    except OverflowError:  # the cap was reached long before
        ceiling = policy.max_seconds
    return int(ceiling * (random if policy.jitter else 1.0) * 1_000_000)
