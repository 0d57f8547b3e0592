"""Budgets: limits on what a tree of executions may spend.

A call may go ahead while spent plus reserved amounts are below each limit, in every budget on the way up: at most one
call passes a limit. A reservation that a lost attempt did not settle counts as spent, because the call may have had a
cost.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, ClassVar, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, field

from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.fields import ExecutionId, Int64, KeyName, Name, Time, Uuid
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.base.times import rfc3339

AMOUNT_MAX: Final = 1 << 40
"""The largest amount, in any unit. Sums stay far below 64 bits."""


class OnExceed(StrEnum):
    ASK = "ask"
    """The execution pauses and asks a person for more."""
    FINISH = "finish"
    """The execution ends with the results so far."""
    FAIL = "fail"


class Amounts(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Money is in millionths of a US dollar."""

    usd_micros: int = 0
    tokens: int = 0
    calls: int = 0
    seconds: int = 0
    """Seconds that raise a budget; time passes by itself."""


class BudgetSpec(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Limits; None means unlimited."""

    usd_micros: int | None = None
    """Millionths of a US dollar."""
    tokens: int | None = None
    """Input and output together."""
    calls: int | None = None
    """Model calls."""
    seconds: int | None = None
    """Seconds from the start of the budget, without the time in which the budget waits to be raised."""
    on_exceed: OnExceed = OnExceed.ASK
    usd: Annotated[float, Meta(ge=0)] | None = None
    """US dollars, instead of `usd_micros`."""

    def __post_init__(self) -> None:
        """Raises ValueError for both units of money; msgspec adds the path."""
        if self.usd is not None:
            if self.usd_micros:
                raise ValueError("Give either `usd` or `usd_micros`")
            msgspec.structs.force_setattr(self, "usd_micros", usd_micros(self.usd))
            msgspec.structs.force_setattr(self, "usd", None)


class StoredBudget(Struct, frozen=True, omit_defaults=True):
    """`reserved` is for calls under way, or lost before they settled."""

    execution_id: str
    """The execution that holds the budget, or the id of a shared budget's balance."""
    limits: BudgetSpec
    spent: Amounts
    reserved: Amounts
    opened_at_us: int
    """When the budget's seconds began. A pause moves this time later."""
    paused_at_us: int | None
    """When an execution began to wait for more."""
    raises: int
    """The number of the last change in the budget's topic, or 0."""
    asking_id: str | None
    """The execution that asks for more; all others wait for the answer."""
    key: str | None = None
    """A balance's session, user or tag value; empty for a project's balance."""
    shared_id: str | None = None
    name: str | None = None
    """A balance's shared budget."""
    of: str = ""
    """A balance's key in words."""
    until_us: int | None = None
    """When a balance's day ends."""

    @property
    def title(self) -> str:
        return "The budget" if self.name is None else f"The budget {self.name!r}{self.of}"

    def used_up(self, now_us: int, *, without: Amounts | None = None) -> list[str]:
        """Name the limits reached. `without` is the part of `reserved` that may yet be released."""
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
        return (self.paused_at_us or now_us) - self.opened_at_us

    def state(self, now_us: int) -> "BudgetState":
        limits = self.limits
        usd_micros, tokens, calls = (
            BudgetAmount(getattr(self.spent, name), getattr(self.reserved, name), getattr(limits, name))
            for name in ("usd_micros", "tokens", "calls")
        )
        elapsed = 0 if self.name is not None else max(0, self.elapsed_us(now_us)) // 1_000_000
        state = BudgetState(
            execution_id=self.execution_id,
            usd_micros=usd_micros,
            tokens=tokens,
            calls=calls,
            seconds=BudgetAmount(spent=elapsed, reserved=0, limit=limits.seconds),
            on_exceed=limits.on_exceed,
            paused_at=None if self.paused_at_us is None else rfc3339(self.paused_at_us),
            asking_execution_id=self.asking_id,
        )
        return msgspec.structs.replace(state, name=self.name, key=self.key, until_us=self.until_us)


class BudgetAmount(Record, frozen=True):
    """`limit` - `spent` - `reserved` is left."""

    spent: Int64
    reserved: Int64
    """The share of calls under way, or lost before they settled."""
    limit: Int64 | None
    """Null: no limit."""

    def __repr__(self) -> str:
        limit = "" if self.limit is None else f", limit={self.limit}"
        return f"BudgetAmount(spent={self.spent}, reserved={self.reserved}{limit})"


class BudgetState(Record, frozen=True):
    """A budget's state, with the amounts of the execution that holds the budget and of its descendants.

    A balance of a shared budget has the amounts of all executions that spend from the balance.
    """

    shown_as: ClassVar[str] = "BudgetResponse"

    execution_id: Uuid
    """The execution that holds the budget, or the id of a shared budget's balance. Raise the budget by this id."""
    usd_micros: BudgetAmount
    tokens: BudgetAmount
    calls: BudgetAmount
    seconds: BudgetAmount
    on_exceed: OnExceed
    paused_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None
    """When an execution began to wait for more."""
    asking_execution_id: Uuid | None
    """The execution that asks for more, in an open question (`GET /api/v1/approvals`)."""
    name: str | None = None
    """The shared budget of a balance."""
    key: str | None = None
    """The session, user or tag value of a balance; empty for a project's."""
    until_us: Time | None = field(default=None, name="until")
    """When the day of a balance ends."""


def topic_of(execution_id: str) -> str:
    return f"budget/{execution_id}"


BALANCES_BELOW: Final = 1 << 96
"""Balances have smaller ids, so they precede executions in lock order."""


def is_balance(id: str) -> bool:
    return UUID(id).int < BALANCES_BELOW


class Verdict(StrEnum):
    GRANTED = "granted"
    UNLIMITED = "unlimited"
    """No execution on the way up holds a budget."""
    BUSY = "busy"
    """Calls under way have reserved the rest. Once they settle, there may be room."""
    EXCEEDED = "exceeded"


class ReserveReply(Record, frozen=True, omit_defaults=True):
    """A refusal names the budget, the limits reached, and whether this execution asks for more."""

    verdict: Verdict
    budget: StoredBudget | None = None
    reached: list[str] = field(default_factory=list)
    asks: bool = False
    is_last: bool = False
    """Granted, but this call reaches a limit of a budget with `on_exceed` `finish`."""


class Settled(Record, frozen=True):
    """False: the reservation was settled before, or is unknown."""

    settled: bool


class BudgetChange(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    usd_micros: int = 0
    tokens: int = 0
    calls: int = 0
    seconds: int = 0
    on_exceed: OnExceed | None = None


def check_budget(spec: BudgetSpec, where: str = "budget") -> BudgetSpec:
    """Raises BadValue for a limit out of bounds, or no limit at all."""
    limits = {name: getattr(spec, name) for name in ("usd_micros", "tokens", "calls", "seconds")}
    for name, limit in limits.items():
        if limit is not None:
            check_amount(limit, f"{where}.{name}")
    if all(limit is None for limit in limits.values()):
        raise BadValue(f"{where}: has no limit; give `usd`, `tokens`, `calls` or `seconds`.")
    return spec


def check_amounts(amounts: Amounts, where: str) -> Amounts:
    for name in ("usd_micros", "tokens", "calls"):
        check_amount(getattr(amounts, name), f"{where}.{name}")
    return amounts


def check_amount(amount: int, path: str) -> int:
    """Raises BadValue for an amount out of bounds."""
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= AMOUNT_MAX:
        raise BadValue(f"{path}: must be 0 to {AMOUNT_MAX:,} and whole, got {amount!r}", {"path": path})
    return amount


def usd_micros(usd: float | Decimal) -> int:
    """Convert to millionths of a US dollar, rounded up: a call never counts as cheaper. Raises BadValue for NaN and
    infinity.

    >>> usd_micros(0.0000015)
    2
    """
    exact = Decimal(str(usd)) * 1_000_000
    if not exact.is_finite():
        raise BadValue(f"usd: must be an amount of money, got {usd!r}")
    return int(exact.to_integral_value("ROUND_CEILING"))


Amount = Annotated[Int64, check_amount]
CheckedAmounts = Annotated[Amounts, check_amounts]

budgets: Final = Noun("Budgets")


@budgets.get("/api/v1/executions/{execution_id}/budget")
class GetBudget(Operation[BudgetState], frozen=True):
    """The budget that an execution spends from.

    An execution without its own budget spends from the nearest ancestor's; 404 if no ancestor has a budget either. For
    the id of a shared budget's balance the answer is the balance.
    """

    execution_id: ExecutionId


@budgets.post(
    "/api/v1/executions/{execution_id}/budget/raise",
    idempotent=True,
    recorded_as="change_budget",
    body="ChangeBudgetRequest",
)
class RaiseBudget(Operation[BudgetState], frozen=True):
    """Add to the limits of the budget that an execution spends from.

    Executions that wait for the budget continue. Adding to the balance of a shared budget needs the role admin.
    """

    execution_id: ExecutionId
    usd_micros: Amount = 0
    tokens: Amount = 0
    calls: Amount = 0
    seconds: Amount = 0
    on_exceed: OnExceed | None = None
    usd: Annotated[float, Meta(ge=0)] | None = None
    """US dollars, instead of `usd_micros`."""

    def check(self) -> None:
        if self.usd is not None and self.usd_micros:
            raise BadValue("body: Give either `usd` or `usd_micros`", {"path": "body"})
        change = self.change
        check_amount(change.usd_micros, "usd_micros")
        if change == BudgetChange():
            raise BadRequest(
                "Nothing is said to change: give `usd_micros`, `tokens`, `calls`, `seconds` or `on_exceed`."
            )

    @property
    def change(self) -> BudgetChange:
        change = msgspec.convert(self, BudgetChange, from_attributes=True)
        return change if self.usd is None else msgspec.structs.replace(change, usd_micros=usd_micros(self.usd))


@budgets.post("/worker/v1/reserve", role=Role.WORK, protocol=True, body="ReserveRequest")
class Reserve(Operation[ReserveReply], frozen=True):
    """Reserve a call's share in every budget on the way up.

    A repeated reservation counts once.
    """

    worker_id: str
    epoch: str
    execution_id: ExecutionId
    attempt: int
    reservation_id: KeyName
    amounts: CheckedAmounts
    budget: Annotated[BudgetSpec, check_budget] | None = None
    """The budget that the execution's own code sets; ignored if the execution has a budget already."""
    unpriced: Name | None = None
    """The model, if its price is unknown. A budget in money then refuses the call."""


@budgets.post("/worker/v1/settle", role=Role.WORK, protocol=True, body="SettleRequest")
class Settle(Operation[Settled], frozen=True):
    """Replace a call's reservation by the amounts that it used.

    Any worker may settle, because the money is spent.
    """

    execution_id: ExecutionId
    reservation_id: KeyName
    amounts: CheckedAmounts
