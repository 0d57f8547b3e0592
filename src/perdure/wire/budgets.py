"""Budgets: what a tree of executions may spend, what each call reserves of it, and what it really took.

A budget is held at one execution and shared by everything below it. Before each call to a model its share is *reserved*
in every budget on the way up; afterwards it is *settled* with what was really used. A call is let go as long as what is
spent and what is reserved have not reached a limit: so the limit is passed by one reserved call at most.

What an attempt reserved and did not settle before it was lost counts as spent: the call may have been made, and nobody
can tell what it cost.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from perdure.wire.errors import BadValue

AMOUNT_MAX: Final = 1 << 40
"""No limit and no amount is larger, in any unit: sums stay far from the end of 64 bits."""


class OnExceed(StrEnum):
    """What happens to whoever wants to spend when there is nothing left."""

    ASK = "ask"
    """It pauses, and somebody is asked for more."""
    FINISH = "finish"
    """It ends with what it has."""
    FAIL = "fail"
    """It fails."""


class Amounts(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is spent, reserved, or added to a budget. Money in millionths of a US dollar."""

    usd_micros: int = 0
    tokens: int = 0
    calls: int = 0
    seconds: int = 0
    """Only of a budget that is raised: time passes by itself."""


class BudgetSpec(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The limits of a budget. None: no limit of that kind."""

    usd_micros: int | None = None
    """In millionths of a US dollar."""
    tokens: int | None = None
    """Input and output together."""
    calls: int | None = None
    """Calls to models."""
    seconds: int | None = None
    """From when the budget is given; the time in which it waits for somebody to raise it does not count."""
    on_exceed: OnExceed = OnExceed.ASK
    usd: Annotated[float, Meta(ge=0)] | None = None
    """In US dollars, instead of `usd_micros`."""

    def __post_init__(self) -> None:
        take_dollars(self)


class StoredBudget(Struct, frozen=True):
    """A budget as stored. `reserved` is what calls under way, or lost on their way, have set aside."""

    execution_id: str
    """Where it is held."""
    limits: BudgetSpec
    spent: Amounts
    reserved: Amounts
    opened_at_us: int
    """From here its seconds count; put off by the time it was paused."""
    paused_at_us: int | None
    """Since when somebody waits for more."""
    raises: int
    """The number of the event, in the budget's topic, by which it was changed last; 0: it never was."""
    asking_id: str | None
    """The execution that asks for more; all others wait for what comes of it."""

    def used_up(self, now_us: int, *, without: Amounts | None = None) -> list[str]:
        """The limits that are reached, by name. `without` is what may yet come back of what is reserved."""
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
        """How much of its time has passed."""
        return (self.paused_at_us or now_us) - self.opened_at_us


def topic_of(execution_id: str) -> str:
    """Where those that wait hear that a budget was changed."""
    return f"budget/{execution_id}"


class Verdict(StrEnum):
    """What comes of the wish to spend."""

    GRANTED = "granted"
    UNLIMITED = "unlimited"
    """No budget is held here or above."""
    BUSY = "busy"
    """Calls under way have set the rest aside; once they are settled there may be room."""
    EXCEEDED = "exceeded"


class ReserveRequest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Set `amounts` aside for one call. The same `reservation_id` again is answered again and counts once."""

    worker_id: str
    epoch: str
    execution_id: str
    attempt: int
    reservation_id: str
    amounts: Amounts
    budget: BudgetSpec | None = None
    """The budget that the execution's own code gives it, unless it has one already."""
    unpriced: str | None = None
    """What is called, where nobody knows what it costs: a budget in money refuses that."""


class ReserveReply(Struct, frozen=True, omit_defaults=True):
    """The verdict; and of a refusal the budget, which of its limits are reached, and who asks for more."""

    verdict: Verdict
    budget: StoredBudget | None = None
    reached: list[str] = []
    asks: bool = False
    """Whether it is this execution that asks."""
    is_last: bool = False
    """Granted, but with this call a limit is reached of a budget that is to be finished with."""


class SettleRequest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Put what a call really took in the place of what was reserved for it. Whoever says so: the money is gone."""

    execution_id: str
    reservation_id: str
    amounts: Amounts


class BudgetChange(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is added to the limits of a budget, or what shall happen when it is used up."""

    usd_micros: int = 0
    tokens: int = 0
    calls: int = 0
    seconds: int = 0
    on_exceed: OnExceed | None = None

    @property
    def changes(self) -> bool:
        """Whether it says anything."""
        return bool(self.usd_micros or self.tokens or self.calls or self.seconds or self.on_exceed is not None)


def check_budget(spec: BudgetSpec, where: str = "budget.") -> None:
    """Refuse limits that nobody can keep. Raises BadValue."""
    limits = {name: getattr(spec, name) for name in ("usd_micros", "tokens", "calls", "seconds")}
    for name, limit in limits.items():
        if limit is not None:
            check_amount(limit, where + name)
    if all(limit is None for limit in limits.values()):
        raise BadValue(f"{where.rstrip('.')}: has no limit; give `usd`, `tokens`, `calls` or `seconds`.")


def check_amounts(amounts: Amounts, where: str = "amounts.") -> None:
    """Refuse what nothing can cost. Raises BadValue."""
    for name in ("usd_micros", "tokens", "calls"):
        check_amount(getattr(amounts, name), where + name)


def check_amount(amount: int, path: str) -> None:
    """Refuse an amount out of bounds. Raises BadValue."""
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= AMOUNT_MAX:
        raise BadValue(f"{path}: must be 0 to {AMOUNT_MAX:,} and whole, got {amount!r}", {"path": path})


def usd_micros(usd: float | Decimal) -> int:
    """Money in millionths of a US dollar, rounded up: a call is never thought cheaper than it is. Raises BadValue for
    what is no amount.

    >>> usd_micros(0.0000015)
    2
    """
    exact = Decimal(str(usd)) * 1_000_000
    if not exact.is_finite():
        raise BadValue(f"usd: must be an amount of money, got {usd!r}")
    return int(exact.to_integral_value("ROUND_CEILING"))


def take_dollars(request: Struct) -> None:
    """Turn a request's `usd` into its `usd_micros`. Raises ValueError for both, which msgspec tells with the path."""
    usd: float | None = request.usd  # type: ignore[attr-defined]  # of requests that have both fields
    if usd is None:
        return
    if request.usd_micros:  # type: ignore[attr-defined]  # as above
        raise ValueError("Give either `usd` or `usd_micros`")
    msgspec.structs.force_setattr(request, "usd_micros", usd_micros(usd))
    msgspec.structs.force_setattr(request, "usd", None)
