"""Budgets of trees of executions. Callers read and raise them; workers reserve and settle."""

from msgspec import Struct

from perdure.server.routes.claims import HEADERS, check_version
from perdure.server.routes.executions import idempotency
from perdure.server.routing import Call, Routes
from perdure.wire.budgets import BudgetChange, ReserveReply, ReserveRequest, SettleRequest
from perdure.wire.public_budgets import BudgetResponse, ChangeBudgetRequest, budget_response

routes = Routes("Budgets")


@routes.get("/api/v1/executions/{execution_id}/budget")
async def get_budget(call: Call, execution_id: str) -> BudgetResponse:
    """The budget that an execution spends from.

    This is its own budget, or that of the nearest execution above it. 404 if none of them has a budget.
    """
    budget = await call.engine.budgets.get(call.project_id, execution_id)
    return budget_response(budget, call.engine.clock.now_us())


@routes.post("/api/v1/executions/{execution_id}/budget/raise", idempotent=True)
async def raise_budget(call: Call, execution_id: str, body: ChangeBudgetRequest) -> BudgetResponse:
    """Add to the limits of the budget that an execution spends from.

    Executions that wait for the budget go on.
    """
    change = BudgetChange(body.usd_micros, body.tokens, body.calls, body.seconds, body.on_exceed)
    budget = await call.engine.budgets.change(call.project_id, execution_id, change, idempotency=idempotency(call))
    return budget_response(budget, call.engine.clock.now_us())


class Settled(Struct, frozen=True):
    """False: the reservation was settled before, or is not known."""

    settled: bool


@routes.post("/worker/v1/reserve", headers=HEADERS)
async def reserve(call: Call, body: ReserveRequest) -> ReserveReply:
    """Reserve a call's share in every budget on the way up.

    The same reservation again counts once.
    """
    check_version(call)
    return await call.engine.budgets.reserve(call.project_id, body)


@routes.post("/worker/v1/settle", headers=HEADERS)
async def settle(call: Call, body: SettleRequest) -> Settled:
    """Replace a call's reservation by the amounts that it used."""
    check_version(call)
    return Settled(await call.engine.budgets.settle(call.project_id, body))
