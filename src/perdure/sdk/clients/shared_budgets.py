from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perdure.sdk.clients.sync_methods import Blocking, blocking
from perdure.sdk.transports.transport import HasTransport
from perdure.wire.agents.budgets import BudgetState, OnExceed, usd_micros
from perdure.wire.agents.shared_budgets import (
    DeleteSharedBudget,
    ListBalances,
    ListSharedBudgets,
    Period,
    PutSharedBudget,
    SharedBudget,
)

if TYPE_CHECKING:
    from decimal import Decimal


class SharedBudgets:
    """The shared budgets of the project."""

    def __init__(self, client: HasTransport) -> None:
        self._client = client

    async def list(self) -> list[SharedBudget]:
        return (await self._client._transport.call(ListSharedBudgets())).items

    async def put(
        self,
        name: str,
        *,
        per: str,
        period: Literal["day"] | None = None,
        usd: float | Decimal | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        on_exceed: Literal["ask", "finish", "fail"] = "ask",
    ) -> SharedBudget:
        """Limit what each `session`, each `user`, each value of `tag:NAME` or the whole `project` may spend.

        With `period="day"` the spending starts at zero each day in UTC. Executions waiting for the budget continue.
        Needs the role `admin`. Raises `BadValue`, `Forbidden`, and `Conflict` for a changed `per` or `period`.

        >>> await client.budgets.put("users", per="user", period="day", usd=5)          # doctest: +SKIP
        """
        op = PutSharedBudget(
            name,
            per,
            period=None if period is None else Period(period),
            usd_micros=None if usd is None else usd_micros(usd),
            tokens=tokens,
            calls=calls,
            on_exceed=OnExceed(on_exceed),
        )
        return await self._client._transport.call(op)

    async def balances(self, name: str, *, key: str | None = None) -> Sequence[BudgetState]:
        """Spending per session, user or value in the present period, or only of `key`. Raises `NotFound`.

        `client.raise_budget(balance.execution_id, usd=5)` raises one balance.
        """
        page = await self._client._transport.call(ListBalances(name, key))
        found = [*page.balances]
        while page.next_key is not None:
            page = await self._client._transport.call(ListBalances(name, key, page.next_key))
            found += page.balances
        return found

    async def delete(self, name: str) -> None:
        """Delete a budget; executions waiting for it continue. Needs the role `admin`. Raises `NotFound`,
        `Forbidden`."""
        await self._client._transport.call(DeleteSharedBudget(name))


class SyncSharedBudgets(Blocking[SharedBudgets]):
    list = blocking(SharedBudgets.list)
    put = blocking(SharedBudgets.put)
    balances = blocking(SharedBudgets.balances)
    delete = blocking(SharedBudgets.delete)
