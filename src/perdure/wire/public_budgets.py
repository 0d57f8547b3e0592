"""The public API's structs of budgets (see `wire/public.py`). Money is in millionths of a US dollar."""

from typing import Annotated

from msgspec import Meta, Struct

from perdure.wire.budgets import OnExceed, StoredBudget, take_dollars
from perdure.wire.public import Int64, Time, Uuid, rfc3339


class BudgetAmount(Struct, frozen=True):
    """One limit of a budget. The rest is `limit` - `spent` - `reserved`."""

    spent: Int64
    reserved: Int64
    """For calls that are under way, or were lost before they settled."""
    limit: Int64 | None
    """Null: no limit."""


class BudgetResponse(Struct, frozen=True):
    """A budget: its limits, and what the execution that holds it and all below have spent."""

    execution_id: Uuid
    """The execution that holds it."""
    usd_micros: BudgetAmount
    tokens: BudgetAmount
    calls: BudgetAmount
    seconds: BudgetAmount
    on_exceed: str
    """`ask`, `finish` or `fail`."""
    paused_at: Time | None
    """When an execution began to wait for more."""
    asking_execution_id: Uuid | None
    """The execution that asks for more; its question waits for an answer (`GET /api/v1/approvals`)."""


class ChangeBudgetRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Amounts to add to the limits. Any change resumes the executions that wait."""

    usd_micros: Int64 = 0
    tokens: Int64 = 0
    calls: Int64 = 0
    seconds: Int64 = 0
    on_exceed: OnExceed | None = None
    """The policy for when the budget is used up: `ask`, `finish` or `fail`."""
    usd: Annotated[float, Meta(ge=0)] | None = None
    """In US dollars, instead of `usd_micros`."""

    def __post_init__(self) -> None:
        take_dollars(self)


def budget_response(budget: StoredBudget, now_us: int) -> BudgetResponse:
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
