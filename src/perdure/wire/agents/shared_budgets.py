"""Shared budgets: limits that the executions of a session, a user, a tag's value or a project spend from together.

Each session, user or value has a *balance* of its own, per day if the budget has that period. The root of a tree says
which balances the calls of the tree are charged to.
"""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, ClassVar, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from perdure.wire.agents.budgets import (
    BALANCES_BELOW,
    Amount,
    BudgetSpec,
    BudgetState,
    OnExceed,
    StoredBudget,
    check_amount,
    usd_micros,
)
from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import Int64, KeyName, Name, Uuid, between
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.base.records import MaybeRaw

DAY_US: Final = 86_400_000_000
SHARED_MAX: Final = 20
"""Shared budgets in a project. Each call may reserve in all of them."""
_TAG: Final = "tag:"


class Period(StrEnum):
    DAY = "day"
    """A day in UTC."""


class SharedBudget(Record, frozen=True):
    id: Uuid
    name: str
    per: str
    """The holder of a balance: `project`, `session`, `user`, or `tag:NAME` for each value of a tag."""
    period: Period | None
    """Null: the balances never restart."""
    on_exceed: OnExceed
    usd_micros: Int64 | None
    """Null: unlimited."""
    tokens: Int64 | None
    calls: Int64 | None

    @property
    def counts(self) -> str:
        """Say the subject in words. A budget with another subject needs other balances."""
        return f"per {self.per}" if self.period is None else f"per {self.per} and {self.period}"

    @property
    def is_limited(self) -> bool:
        return (self.usd_micros, self.tokens, self.calls) != (None, None, None)

    def begin_us(self, now_us: int) -> int | None:
        """Return when the present period began; None without a period."""
        return None if self.period is None else now_us // DAY_US * DAY_US

    def balance_id(self, key: str, now_us: int) -> str:
        text = f"{self.id}/{self.begin_us(now_us) or 0}/{key}"
        number = int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest())
        return str(UUID(int=number % BALANCES_BELOW))

    def balance(self, stored: StoredBudget) -> StoredBudget:
        """Add the shared limits to the stored balance, whose own limits are the raises."""
        key, raised = stored.key or "", stored.limits
        sums = {
            name: None if (most := getattr(self, name)) is None else most + getattr(raised, name)
            for name in ("usd_micros", "tokens", "calls")
        }
        decided = self.on_exceed if raised.on_exceed is OnExceed.ASK else raised.on_exceed
        what = f"tag {self.per.removeprefix(_TAG)!r}" if self.per.startswith(_TAG) else self.per
        return replace(
            stored,
            limits=BudgetSpec(**sums, on_exceed=decided),
            name=self.name,
            of="" if self.per == "project" else f" of {what} {key!r}",
            until_us=None if self.period is None else stored.opened_at_us + DAY_US,
        )


class Payer(Struct, frozen=True):
    """The root of a tree, which pays for the tree's calls."""

    session_id: str
    user_id: str | None
    tags: MaybeRaw

    def key(self, per: str) -> str | None:
        """Return the balance's key in a budget per `per`. None: the budget does not cover the tree.

        >>> Payer("s", None, msgspec.Raw(b'{"shop":"berlin"}')).key("tag:shop")
        'berlin'
        """
        if per.startswith(_TAG):
            tags: Mapping[str, str] = {} if self.tags is None else msgspec.json.decode(self.tags)
            return tags.get(per.removeprefix(_TAG))
        return {"project": "", "session": self.session_id, "user": self.user_id}[per]


class BalanceList(Record, frozen=True):
    shown_as: ClassVar[str] = "BalancesResponse"

    budget: SharedBudget
    balances: list[BudgetState]
    """Balances of the present period, by key."""
    next_key: str | None
    """`after` of the next page; null at the end."""


def check_per(per: str, where: str) -> str:
    if per not in ("project", "session", "user") and not (per.startswith(_TAG) and per != _TAG):
        raise BadValue(f"{where}: must be `project`, `session`, `user` or `tag:NAME`, got {per!r}", {"path": where})
    return per


shared_budgets: Final = Noun("Budgets")


@shared_budgets.get("/api/v1/budgets", under="budgets", reply="SharedBudgetsResponse")
class ListSharedBudgets(Operation[Listed[SharedBudget]], frozen=True):
    """Shared budgets of the project, by name."""


@shared_budgets.put("/api/v1/budgets/{name}", role=Role.ADMIN)
class PutSharedBudget(Operation[SharedBudget], frozen=True):
    """Create a shared budget, or change its limits and `on_exceed`.

    After the answer every model call reserves by the new limits, and executions that waited for the budget continue. A
    running execution may notice a new budget only when a worker next takes the execution. 409 for another `per` or
    `period` than before.
    """

    name: Name
    per: Annotated[KeyName, check_per]
    """The holder of a balance: `project`, `session`, `user`, or `tag:NAME` for each value of a tag."""
    period: Period | None = None
    """`day` starts new balances each day in UTC."""
    usd_micros: Amount | None = None
    """Millionths of a US dollar."""
    tokens: Amount | None = None
    """Input and output together."""
    calls: Amount | None = None
    """Calls to models."""
    on_exceed: OnExceed = OnExceed.ASK
    """`ask` pauses the executions until a person raises the balance or the day ends."""
    usd: Annotated[float, Meta(ge=0)] | None = None
    """US dollars, instead of `usd_micros`."""

    def check(self) -> None:
        if self.usd is not None and self.usd_micros:
            raise BadValue("body: Give either `usd` or `usd_micros`", {"path": "body"})
        wanted = self.wanted("")
        if not wanted.is_limited:
            raise BadValue("body: has no limit; give `usd`, `tokens` or `calls`.", {"path": "body"})
        check_amount(wanted.usd_micros or 0, "usd")

    def wanted(self, id: str) -> SharedBudget:
        fields = asdict(self)
        usd = fields.pop("usd")
        if usd is not None:
            fields["usd_micros"] = usd_micros(usd)
        return SharedBudget(id=id, **fields)


@shared_budgets.delete("/api/v1/budgets/{name}", role=Role.ADMIN)
class DeleteSharedBudget(Operation[None], frozen=True):
    """Delete a shared budget with its balances. Executions that waited for the budget continue."""

    name: Name


@shared_budgets.get("/api/v1/budgets/{name}/balances")
class ListBalances(Operation[BalanceList], frozen=True):
    """A shared budget with its balances of the present period.

    A session, user or value has a balance once it has called a model.
    """

    name: Name
    key: KeyName | None = None
    """Return only the balance of this session, user or value."""
    after: str | None = None
    """`next_key` of the page before."""
    limit: Annotated[int, between(1, 1_000)] = 100
