from __future__ import annotations

from contextlib import suppress
from typing import Final

from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.agents import budgets, shared_budgets
from perdure.wire.agents.budgets import (
    BudgetChange,
    BudgetState,
    GetBudget,
    RaiseBudget,
    Reserve,
    ReserveReply,
    Settle,
    Settled,
)
from perdure.wire.agents.shared_budgets import (
    BalanceList,
    DeleteSharedBudget,
    ListBalances,
    PutSharedBudget,
    SharedBudget,
)
from perdure.wire.base.access import Role
from perdure.wire.base.errors import LeaseLost, NotFound

LOOK_SECONDS: Final = 60.0


class Budgets(Service):
    @serves(Reserve)
    async def reserve(self, scope: Scope, op: Reserve) -> ReserveReply:
        if op.epoch != self.epoch:
            raise LeaseLost("The store was restored or replaced since this worker registered; register again.")
        return await self.write(budgets.reserve(project_id=scope.project_id, request=op, now_us=self.now_us()))

    @serves(Settle)
    async def settle(self, scope: Scope, op: Settle) -> Settled:
        return Settled(await self.write(budgets.settle(project_id=scope.project_id, request=op)))

    @serves(GetBudget)
    async def get(self, scope: Scope, op: GetBudget) -> BudgetState:
        budget = await self.read(budgets.budget_of(project_id=scope.project_id, execution_id=op.execution_id))
        return budget.state(self.now_us())

    @serves(RaiseBudget)
    async def change(self, scope: Scope, op: RaiseBudget) -> BudgetState:
        budget = await self.read(budgets.budget_of(project_id=scope.project_id, execution_id=op.execution_id))
        if budget.shared_id is not None and op.change != BudgetChange(on_exceed=op.on_exceed):
            scope.check_role(Role.ADMIN)  # as its limits have it
        changed = await self.write(
            budgets.change_budget(
                project_id=scope.project_id,
                budget_id=budget.execution_id,
                change=op.change,
                event_id=self.new_id(),
                now_us=self.now_us(),
                idempotency=scope.idempotency,
            )
        )
        return changed.state(self.now_us())

    @serves(ListBalances)
    async def balances(self, scope: Scope, op: ListBalances) -> BalanceList:
        now_us = self.now_us()
        shared, found = await self.scan(
            shared_budgets.balances(
                project_id=scope.project_id, name=op.name, key=op.key, after=op.after, limit=op.limit, now_us=now_us
            )
        )
        next_key = found[-1].key if op.key is None and len(found) == op.limit else None
        return BalanceList(shared, [one.state(now_us) for one in found], next_key)

    @serves(PutSharedBudget)
    async def put(self, scope: Scope, op: PutSharedBudget) -> SharedBudget:
        wanted = op.wanted(self.new_id())
        put = await self.write(shared_budgets.put(project_id=scope.project_id, wanted=wanted))
        await self._wake(scope.project_id, put)
        return put

    @serves(DeleteSharedBudget)
    async def delete(self, scope: Scope, op: DeleteSharedBudget) -> None:
        """Remove the limits first, so a repeat after a crash wakes the remaining executions."""
        shared = await self.write(shared_budgets.unlimit(project_id=scope.project_id, name=op.name))
        await self._wake(scope.project_id, shared)
        while await self.write(shared_budgets.drop_balances(shared_id=shared.id)):
            pass
        await self.write(shared_budgets.delete(project_id=scope.project_id, name=op.name, shared_id=shared.id))

    async def _wake(self, project_id: str, shared: SharedBudget) -> None:
        """Resume the executions that wait for the budget's balances. Executions may pause again under the new limits,
        so each balance has one turn."""
        id = ""
        while ids := await self.read(shared_budgets.paused(shared_id=shared.id, after=id)):
            for id in ids:
                await self._wake_one(project_id, id)

    async def _wake_one(self, project_id: str, id: str) -> None:
        with suppress(NotFound):  # deleted meanwhile
            await self.write(
                budgets.change_budget(
                    project_id=project_id,
                    budget_id=id,
                    change=BudgetChange(),
                    event_id=self.new_id(),
                    now_us=self.now_us(),
                )
            )

    async def look(self) -> float:
        """If the execution that asked no longer waits, another one asks."""
        for project_id, id in await self.scan(budgets.unasked()):
            await self._wake_one(project_id, id)
        return self._core.spread(LOOK_SECONDS)
