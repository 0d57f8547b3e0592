"""The public API's shapes of budgets (see `wire/public.py`). Money is in millionths of a US dollar."""

from typing import Annotated

from msgspec import Meta, Struct

from perdure.wire.budgets import OnExceed, StoredBudget, take_dollars
from perdure.wire.public import Int64, Time, Uuid, rfc3339


class BudgetAmount(Struct, frozen=True):
    """One of a budget's limits. What is left is the limit without what is spent and reserved."""

    spent: Int64
    reserved: Int64
    """Set aside for calls that are under way, or were lost on their way."""
    limit: Int64 | None
    """Null: there is none."""


class BudgetResponse(Struct, frozen=True):
    """A budget: its limits, and what is spent of it by the execution that holds it and all below."""

    execution_id: Uuid
    """Where it is held."""
    usd_micros: BudgetAmount
    tokens: BudgetAmount
    calls: BudgetAmount
    seconds: BudgetAmount
    on_exceed: str
    """`ask`, `finish` or `fail`."""
    paused_at: Time | None
    """Since when somebody waits for more."""
    asking_execution_id: Uuid | None
    """Whose question it is that waits for an answer (`GET /api/v1/approvals`)."""


class ChangeBudgetRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is added to the limits. Those that wait go on, whatever is changed."""

    usd_micros: Int64 = 0
    tokens: Int64 = 0
    calls: Int64 = 0
    seconds: Int64 = 0
    on_exceed: OnExceed | None = None
    """What shall happen when it is used up: `ask`, `finish` or `fail`."""
    usd: Annotated[float, Meta(ge=0)] | None = None
    """In US dollars, instead of `usd_micros`."""

    def __post_init__(self) -> None:
        take_dollars(self)


def budget_response(budget: StoredBudget, now_us: int) -> BudgetResponse:
    """A budget as the API shows it."""
    b = budget
    usd_micros, tokens, calls = (
        BudgetAmount(getattr(b.spent, name), getattr(b.reserved, name), getattr(b.limits, name))
        for name in ("usd_micros", "tokens", "calls")
    )
    return BudgetResponse(
        b.execution_id,
        usd_micros,
        tokens,
        calls,
        BudgetAmount(max(0, b.elapsed_us(now_us)) // 1_000_000, 0, b.limits.seconds),
        b.limits.on_exceed.value,
        None if b.paused_at_us is None else rfc3339(b.paused_at_us),
        b.asking_id,
    )
