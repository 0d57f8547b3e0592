"""Budgets: limits on what a tree of executions may spend, reservations, and settlements.

One execution holds a budget, and everything below it shares the budget. Before each call to a model the worker
*reserves* the call's share in every budget on the way up. Afterwards it *settles* the reservation with the amounts
used. A call may go ahead while spent plus reserved amounts are below each limit: at most one call passes a limit.

If an attempt is lost before it settles, its reservation counts as spent: the call may have had an unknown cost.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from perdure.wire.errors import BadValue

AMOUNT_MAX: Final = 1 << 40
"""The largest limit and amount, in any unit. Sums stay far below 64 bits."""


class OnExceed(StrEnum):
    """The policy for an execution that wants to spend when its budget is used up."""

    ASK = "ask"
    """It pauses, and asks a person for more."""
    FINISH = "finish"
    """It ends with the results that it has."""
    FAIL = "fail"


class Amounts(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Amounts that are spent, reserved, or added to a budget. Money is in millionths of a US dollar."""

    usd_micros: int = 0
    tokens: int = 0
    calls: int = 0
    seconds: int = 0
    """Only to raise a budget: time passes by itself."""


class BudgetSpec(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The limits of a budget. None means no limit of that kind."""

    usd_micros: int | None = None
    """In millionths of a US dollar."""
    tokens: int | None = None
    """Input and output together."""
    calls: int | None = None
    """Calls to models."""
    seconds: int | None = None
    """Counted from when the budget is given, without the time in which the budget waits to be raised."""
    on_exceed: OnExceed = OnExceed.ASK
    usd: Annotated[float, Meta(ge=0)] | None = None
    """In US dollars, instead of `usd_micros`."""

    def __post_init__(self) -> None:
        take_dollars(self)


class StoredBudget(Struct, frozen=True):
    """A budget as stored. `reserved` is for calls that are under way or were lost before they settled."""

    execution_id: str
    """The execution that holds it."""
    limits: BudgetSpec
    spent: Amounts
    reserved: Amounts
    opened_at_us: int
    """Its seconds count from here. A pause moves it later."""
    paused_at_us: int | None
    """When an execution began to wait for more."""
    raises: int
    """The number of the event, in the budget's topic, of the last change; 0 if it never changed."""
    asking_id: str | None
    """The execution that asks for more; all others wait for the answer."""

    def used_up(self, now_us: int, *, without: Amounts | None = None) -> list[str]:
        """The limits that are reached. `without` is the part of `reserved` that may yet come back."""
        back = without or Amounts()
        reached = [
            name
            for name in ("usd_micros", "tokens", "calls")
            if (limit := getattr(self.limits, name)) is not None
            and getattr(self.spent, name) + getattr(self.reserved, name) - getattr(back, name) >= limit
        ]
        if self.limits.seconds is not None and self.elapsed_us(now_us) >= self.limits.seconds * 1_000_000:
            reached.append("seconds")
        return reached

    def elapsed_us(self, now_us: int) -> int:
        """The time that counts against `seconds`."""
        return (self.paused_at_us or now_us) - self.opened_at_us


def topic_of(execution_id: str) -> str:
    """The topic that notifies waiting executions of a change."""
    return f"budget/{execution_id}"


class Verdict(StrEnum):
    """The answer to a reservation."""

    GRANTED = "granted"
    UNLIMITED = "unlimited"
    """Neither the execution nor one above it holds a budget."""
    BUSY = "busy"
    """Calls under way have reserved the rest; there may be room once they settle."""
    EXCEEDED = "exceeded"


class ReserveRequest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Reserve `amounts` for one call. The same `reservation_id` again is answered again and counts once."""

    worker_id: str
    epoch: str
    execution_id: str
    attempt: int
    reservation_id: str
    amounts: Amounts
    budget: BudgetSpec | None = None
    """The budget that the execution's own code gives it. Ignored if it has one already."""
    unpriced: str | None = None
    """The name of the model, if its price is unknown. A budget in money then refuses the call."""


class ReserveReply(Struct, frozen=True, omit_defaults=True):
    """The verdict. A refusal has the budget, its limits that are reached, and whether this execution asks for more."""

    verdict: Verdict
    budget: StoredBudget | None = None
    reached: list[str] = []
    asks: bool = False
    """Whether this execution is the one that asks for more."""
    is_last: bool = False
    """Granted, but this call reaches a limit of a budget with `on_exceed` `finish`."""


class SettleRequest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Replace a reservation by the amounts that the call used. Any worker may send this: the money is spent."""

    execution_id: str
    reservation_id: str
    amounts: Amounts


class BudgetChange(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Amounts to add to the limits of a budget, or a new `on_exceed`."""

    usd_micros: int = 0
    tokens: int = 0
    calls: int = 0
    seconds: int = 0
    on_exceed: OnExceed | None = None

    @property
    def changes(self) -> bool:
        return bool(self.usd_micros or self.tokens or self.calls or self.seconds or self.on_exceed is not None)


def check_budget(spec: BudgetSpec, where: str = "budget.") -> None:
    """Raises BadValue for a limit out of bounds, and for a budget without limits."""
    limits = {name: getattr(spec, name) for name in ("usd_micros", "tokens", "calls", "seconds")}
    for name, limit in limits.items():
        if limit is not None:
            check_amount(limit, where + name)
    if all(limit is None for limit in limits.values()):
        raise BadValue(f"{where.rstrip('.')}: has no limit; give `usd`, `tokens`, `calls` or `seconds`.")


def check_amounts(amounts: Amounts, where: str = "amounts.") -> None:
    """Raises BadValue for an amount out of bounds."""
    for name in ("usd_micros", "tokens", "calls"):
        check_amount(getattr(amounts, name), where + name)


def check_amount(amount: int, path: str) -> None:
    """Raises BadValue for an amount out of bounds."""
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= AMOUNT_MAX:
        raise BadValue(f"{path}: must be 0 to {AMOUNT_MAX:,} and whole, got {amount!r}", {"path": path})


def usd_micros(usd: float | Decimal) -> int:
    """Money in millionths of a US dollar, rounded up so that a call never counts as cheaper than it is. Raises BadValue
    for NaN and infinity.

    >>> usd_micros(0.0000015)
    2
    """
    exact = Decimal(str(usd)) * 1_000_000
    if not exact.is_finite():
        raise BadValue(f"usd: must be an amount of money, got {usd!r}")
    return int(exact.to_integral_value("ROUND_CEILING"))


def take_dollars(request: Struct) -> None:
    """Turn a request's `usd` into its `usd_micros`. Raises ValueError for both; msgspec adds the path."""
    usd: float | None = request.usd  # type: ignore[attr-defined]  # requests have both fields
    if usd is None:
        return
    if request.usd_micros:  # type: ignore[attr-defined]  # as above
        raise ValueError("Give either `usd` or `usd_micros`")
    msgspec.structs.force_setattr(request, "usd_micros", usd_micros(usd))
    msgspec.structs.force_setattr(request, "usd", None)
