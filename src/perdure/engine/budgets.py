"""The service of budgets."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from uuid_utils import uuid7

from perdure.engine.executions import checked_id
from perdure.store.verbs import budgets
from perdure.store.verbs.idempotency import Idempotency
from perdure.wire.budgets import (
    BudgetChange,
    ReserveReply,
    ReserveRequest,
    SettleRequest,
    StoredBudget,
    check_amount,
    check_amounts,
    check_budget,
)
from perdure.wire.codec import KEY_BYTES_MAX, check_name
from perdure.wire.errors import BadRequest, LeaseLost

if TYPE_CHECKING:
    from perdure.engine.engine import Engine


class Budgets:
    """Workers reserve and settle; callers read and change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def reserve(self, project_id: str, request: ReserveRequest) -> ReserveReply:
        """Reserve a call's share. Raises LeaseLost, NotFound, BadRequest, BadValue."""
        engine = self._engine
        if request.epoch != engine.store.epoch:
            raise LeaseLost("The store was restored or replaced since this worker registered; register again.")
        checked_id(request.execution_id)
        check_name(request.reservation_id, where="reservation_id", max_bytes=KEY_BYTES_MAX)
        check_amounts(request.amounts)
        if request.budget is not None:
            check_budget(request.budget)
        if request.unpriced is not None:
            check_name(request.unpriced, where="unpriced")
        return await engine.store.write(
            budgets.reserve(project_id=project_id, request=request, now_us=engine.clock.now_us())
        )

    async def settle(self, project_id: str, request: SettleRequest) -> bool:
        """Replace a reservation by the amounts that the call used. Raises BadValue."""
        checked_id(request.execution_id)
        check_name(request.reservation_id, where="reservation_id", max_bytes=KEY_BYTES_MAX)
        check_amounts(request.amounts)
        return await self._engine.store.write(budgets.settle(project_id=project_id, request=request))

    async def get(self, project_id: str, execution_id: str) -> StoredBudget:
        """The budget that an execution spends from. Raises NotFound."""
        return await self._engine.store.read(
            budgets.budget_of(project_id=project_id, execution_id=checked_id(execution_id))
        )

    async def change(
        self, project_id: str, execution_id: str, change: BudgetChange, *, idempotency: Idempotency | None = None
    ) -> StoredBudget:
        """Change the budget that an execution spends from, and resume its waiters. Raises NotFound, BadRequest."""
        for name in ("usd_micros", "tokens", "calls", "seconds"):
            check_amount(getattr(change, name), name)
        if not change.changes:
            raise BadRequest(
                "Nothing is said to change: give `usd_micros`, `tokens`, `calls`, `seconds` or `on_exceed`."
            )
        budget = await self.get(project_id, execution_id)
        return await self._engine.store.write(
            budgets.change_budget(
                project_id=project_id,
                budget_id=budget.execution_id,
                change=change,
                event_id=str(uuid7()),
                now_us=self._engine.clock.now_us(),
                idempotency=idempotency,
            )
        )


def once(key: str, change: BudgetChange) -> Idempotency:
    """The idempotency of a change that a worker in this process makes under `key`."""
    return Idempotency("change_budget", key, hashlib.sha256(msgspec.json.encode(change)).hexdigest())
