"""Budgets. All spenders lock the budget's row. Lock order: topics, executions, balances, budgets from the root down."""

import logging
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from perdure.store.base.executions import unknown_execution
from perdure.store.base.interface import query, query_many, record, records, verb
from perdure.store.verbs.base.idempotency import Idempotency, recall, remember
from perdure.store.verbs.runs.events import publish_events
from perdure.wire.agents.budgets import (
    Amounts,
    BudgetChange,
    BudgetSpec,
    OnExceed,
    Reserve,
    ReserveReply,
    Settle,
    StoredBudget,
    Verdict,
    topic_of,
)
from perdure.wire.agents.shared_budgets import DAY_US, Payer, SharedBudget
from perdure.wire.base.errors import BadRequest, LeaseLost, NotFound
from perdure.wire.base.status import FINAL, LEASED, Phase
from perdure.wire.runs.requests import EventItem

FLAGGED_TIMES: Final = 100
"""A settlement above its reservation times this factor is logged."""

logger = logging.getLogger("perdure.budgets")

UNASKED_AT_ONCE = 500


class Reserved(Struct, frozen=True):
    """Amounts returned to a budget by a settlement."""

    id: str
    usd_micros_back: int
    tokens_back: int
    calls_back: int


@verb(locks="execution=request.execution_id reservation=request.reservation_id")
async def reserve(*, project_id: str, request: Reserve, now_us: int) -> ReserveReply:
    """Reserve a call's share in every budget on the way up, or name the exhausted one. Raises LeaseLost, NotFound,
    BadRequest."""
    execution_id = request.execution_id
    spender = await query("read_spender", project_id=project_id, id=execution_id)
    if not spender:
        raise unknown_execution(execution_id)
    [(phase, *holder, root_id)] = spender
    if phase not in LEASED or holder != [request.attempt, request.worker_id]:
        raise LeaseLost(
            f"Attempt {request.attempt} of execution {execution_id!r} no longer holds it; stop working on it."
        )
    above = [id for (id,) in await query("budgets_above", project_id=project_id, id=execution_id)]
    charged = await _charged(project_id, root_id, now_us)
    for _, shared, _ in charged:
        _check_price(f"The budget {shared.name!r}", shared.usd_micros, request.unpriced)
    budgets = [await _lock_balance(project_id, one, now_us) for one in charged]
    budgets += [await _lock(project_id, id) for id in above]
    own = request.budget if execution_id not in above else None
    for limits in [*(budget.limits for budget in budgets), *([] if own is None else [own])]:
        _check_price("The budget", limits.usd_micros, request.unpriced)
    if own is not None:
        await give_budget(project_id, execution_id, root_id, own, now_us)
        budgets.append(await _lock(project_id, execution_id))
    if not budgets:
        return ReserveReply(Verdict.UNLIMITED)
    amounts = request.amounts
    if await query("any_reservation", execution_id=execution_id, id=request.reservation_id):
        return ReserveReply(Verdict.GRANTED, is_last=await _is_last(budgets, amounts, now_us))
    for budget in budgets:
        if budget.used_up(now_us):
            return await _refuse(project_id, execution_id, budget, now_us)
    is_last = await _is_last(budgets, amounts, now_us)
    counted = _counted(amounts)
    same = {
        "execution_id": execution_id,
        "id": request.reservation_id,
        "project_id": project_id,
        "attempt": request.attempt,
        "now_us": now_us,
        **counted,
    }
    await query_many("insert_reservation", [{"budget_id": budget.execution_id, **same} for budget in budgets])
    day_us = now_us // DAY_US * DAY_US
    for budget in budgets:
        await query("reserve_budget", project_id=project_id, id=budget.execution_id, day_us=day_us, **counted)
    return ReserveReply(Verdict.GRANTED, is_last=is_last)


async def give_budget(project_id: str, execution_id: str, root_id: str, spec: BudgetSpec, now_us: int) -> None:
    place = {"execution_id": execution_id, "project_id": project_id, "root_id": root_id}
    await query("insert_budget", spec, now_us=now_us, **place)


def _check_price(title: str, usd_micros: int | None, unpriced: str | None) -> None:
    if usd_micros is not None and unpriced is not None:
        raise BadRequest(f"{title} is in US dollars, and no price is known of {unpriced!r}: give one, or limit tokens.")


async def _charged(project_id: str, root_id: str, now_us: int) -> list[tuple[str, SharedBudget, str]]:
    """List the balances charged by a tree, in lock order: id, budget and key. Mostly empty."""
    shared = [
        one for one in await records(SharedBudget, "list_shared_budgets", project_id=project_id) if one.is_limited
    ]
    payer = await record(Payer, "read_payer", project_id=project_id, id=root_id) if shared else None
    if payer is None:
        return []
    keys = [(one, key) for one in shared if (key := payer.key(one.per)) is not None]
    return sorted(((one.balance_id(key, now_us), one, key) for one, key in keys), key=itemgetter(0))


async def _lock_balance(project_id: str, charged: tuple[str, SharedBudget, str], now_us: int) -> StoredBudget:
    id, shared, key = charged
    while (found := await record(StoredBudget, "lock_budget", project_id=project_id, id=id)) is None:
        begin_us, day_us = shared.begin_us(now_us), now_us // DAY_US * DAY_US
        await query(
            "insert_balance",
            id=id,
            project_id=project_id,
            shared_id=shared.id,
            key=key,
            opened_at_us=now_us if begin_us is None else begin_us,
            used_at_us=day_us if shared.period is not None or shared.per == "session" else None,
        )
    return shared.balance(found)


async def _lock(project_id: str, budget_id: str) -> StoredBudget:
    [budget] = await records(StoredBudget, "lock_budget", project_id=project_id, id=budget_id)
    return budget


async def _refuse(project_id: str, execution_id: str, budget: StoredBudget, now_us: int) -> ReserveReply:
    """A budget is exhausted: for good, or until calls in progress are settled."""
    [live] = await records(Amounts, "live_reservations", id=budget.execution_id)
    reached = budget.used_up(now_us, without=live)
    if not reached:
        return ReserveReply(Verdict.BUSY, budget)
    if budget.limits.on_exceed is not OnExceed.ASK:
        return ReserveReply(Verdict.EXCEEDED, budget, reached)
    asks = budget.asking_id in (None, execution_id) or await _is_over(project_id, budget.asking_id)
    if asks:
        await query(
            "pause_budget", project_id=project_id, id=budget.execution_id, asking_id=execution_id, now_us=now_us
        )
    return ReserveReply(Verdict.EXCEEDED, budget, reached, asks)


async def _is_over(project_id: str, execution_id: str | None) -> bool:
    for phase, *_ in await query("read_state", project_id=project_id, id=execution_id):
        return Phase(phase) in FINAL
    return True


async def _is_last(budgets: Sequence[StoredBudget], amounts: Amounts, now_us: int) -> bool:
    """Whether a call reaches the limit of a budget with `finish`, regardless of refunds by other calls."""
    for budget in budgets:
        if budget.limits.on_exceed is OnExceed.FINISH and budget.used_up(now_us, without=_less(Amounts(), amounts)):
            [live] = await records(Amounts, "live_reservations", id=budget.execution_id)
            if budget.used_up(now_us, without=_less(live, amounts)):
                return True
    return False


@verb(locks="reservation=request.reservation_id")
async def settle(*, project_id: str, request: Settle) -> bool:
    """False: the reservation was settled before, or is unknown."""
    key = {"execution_id": request.execution_id, "id": request.reservation_id}
    settled = await records(Reserved, "settle_reservation", project_id=project_id, **key)
    if not settled:
        return False
    took = _counted(request.amounts)
    await query("note_settled", **key, **took)
    back = settled[0]
    if 0 < back.usd_micros_back * FLAGGED_TIMES < took["usd_micros"]:  # it counts all the same: the money is spent
        logger.warning(
            "Reservation %r of execution %s held %d µ$ and was settled with %d. Check the worker and its prices.",
            *(request.reservation_id, request.execution_id, back.usd_micros_back, took["usd_micros"]),
        )
    for reserved in sorted(settled, key=lambda one: one.id):
        await query("settle_budget", reserved, project_id=project_id, **took)
    return True


@verb(locks=lambda arguments: [("topic", topic_of(arguments["budget_id"]))])
async def change_budget(
    *,
    project_id: str,
    budget_id: str,
    change: BudgetChange,
    event_id: str,
    now_us: int,
    idempotency: Idempotency | None = None,
) -> StoredBudget:
    """Raise a budget's limits, and wake the executions waiting for the budget. Raises NotFound, BadRequest."""
    first = await recall(project_id, idempotency)
    if first is not None:
        return msgspec.json.decode(first, type=StoredBudget)
    budget = await _read_budget(project_id, budget_id)
    for name in ("usd_micros", "tokens", "calls", "seconds"):
        if getattr(change, name) and getattr(budget.limits, name) is None:
            of = f"of execution {budget_id!r}" if budget.name is None else repr(budget.name)
            raise BadRequest(f"The budget {of} has no limit of {name!r} that could be raised.")
    event = EventItem(Raw(msgspec.json.encode(change)), "budget_changed")
    [number] = await publish_events(project_id, topic_of(budget_id), [event], [event_id], now_us)
    values: dict[str, Any] = {**_counted(change), "seconds": change.seconds, "number": number, "now_us": now_us}
    on_exceed = None if change.on_exceed is None else change.on_exceed.value
    [changed] = await records(
        StoredBudget, "raise_budget", project_id=project_id, id=budget_id, on_exceed=on_exceed, **values
    )
    changed = await _whole(project_id, changed)
    await remember(project_id, idempotency, msgspec.json.encode(changed), now_us)
    return changed


@verb(reads=True)
async def budget_of(*, project_id: str, execution_id: str) -> StoredBudget:
    """The budget charged by an execution: its own, or the nearest ancestor's. Also finds a balance by id. Raises
    NotFound."""
    above = [id for (id,) in await query("budgets_above", project_id=project_id, id=execution_id)]
    if not above:
        balance = await record(StoredBudget, "read_budget", project_id=project_id, id=execution_id)
        if balance is not None:
            return await _whole(project_id, balance)
        if not await query("read_state", project_id=project_id, id=execution_id):
            raise unknown_execution(execution_id)
        raise NotFound(f"Execution {execution_id!r} has no budget, and nothing above it has one.")
    return await _read_budget(project_id, above[-1])


@verb(reads=True)
async def unasked() -> Sequence[tuple[str, str]]:
    """Paused budgets with projects, if the asking execution no longer waits."""
    return await query("unasked_budgets", limit=UNASKED_AT_ONCE)


async def _read_budget(project_id: str, budget_id: str) -> StoredBudget:
    budget = await record(StoredBudget, "read_budget", project_id=project_id, id=budget_id)
    if budget is None:
        raise NotFound(f"Execution {budget_id!r} holds no budget.")
    return await _whole(project_id, budget)


async def _whole(project_id: str, budget: StoredBudget) -> StoredBudget:
    """A balance with the limits of its shared budget."""
    if budget.key is not None:
        for shared in await records(SharedBudget, "list_shared_budgets", project_id=project_id):
            if shared.id == budget.shared_id:
                return shared.balance(budget)
    return budget


def _counted(amounts: Amounts | BudgetChange) -> dict[str, int]:
    return {"usd_micros": amounts.usd_micros, "tokens": amounts.tokens, "calls": amounts.calls}


def _less(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(one.usd_micros - other.usd_micros, one.tokens - other.tokens, one.calls - other.calls)
