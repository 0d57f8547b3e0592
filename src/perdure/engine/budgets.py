"""The service of budgets."""

from __future__ import annotations

from perdure.engine.service import Scope, Service, serves
from perdure.store.verbs import budgets
from perdure.wire.budgets import BudgetState, GetBudget, RaiseBudget, Reserve, ReserveReply, Settle, Settled
from perdure.wire.errors import LeaseLost


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
        """Also resume the executions that wait for the budget."""
        budget = await self.read(budgets.budget_of(project_id=scope.project_id, execution_id=op.execution_id))
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
