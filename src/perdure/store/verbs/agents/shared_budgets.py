"""Shared budgets and balances. Calls reserve in `budgets`."""

from msgspec.structs import asdict, replace

from perdure.store.base.interface import query, record, records, serves, verb
from perdure.store.verbs.base.idempotency import At
from perdure.wire.agents.budgets import StoredBudget
from perdure.wire.agents.shared_budgets import SHARED_MAX, ListSharedBudgets, SharedBudget
from perdure.wire.base.errors import BadRequest, Conflict, NotFound
from perdure.wire.base.operation import Listed

BALANCES_AT_ONCE = 500


@serves(ListSharedBudgets, reads=True)
async def list_shared(at: At, op: ListSharedBudgets) -> Listed[SharedBudget]:
    return Listed(await records(SharedBudget, "list_shared_budgets", at))


@verb(reads=True)
async def balances(
    *, project_id: str, name: str, key: str | None, after: str | None, limit: int, now_us: int
) -> tuple[SharedBudget, list[StoredBudget]]:
    """The present period's balances. Raises NotFound."""
    shared = await _read_shared(project_id, name)
    name, place = ("list_balances", {"after": after}) if key is None else ("read_balance", {"key": key})
    where = {"shared_id": shared.id, "opened_at_us": shared.begin_us(now_us), **place}
    found = await records(StoredBudget, name, limit=limit, **where)
    return shared, [shared.balance(one) for one in found]


@verb(sweep=True)
async def put(*, project_id: str, wanted: SharedBudget) -> SharedBudget:
    """`wanted.id` is for a new budget. Raises Conflict for another `per` or `period`, BadRequest above SHARED_MAX."""
    await query("begin_shared_budget")
    before = await record(SharedBudget, "read_shared_budget", project_id=project_id, name=wanted.name)
    if before is not None and before.counts != wanted.counts:
        raise Conflict(
            f"Shared budget {wanted.name!r} counts {before.counts}. Delete it before it counts {wanted.counts}, or use "
            "another name."
        )
    there = await records(SharedBudget, "list_shared_budgets", project_id=project_id)
    if before is None and len(there) >= SHARED_MAX:
        raise BadRequest(f"The project has {SHARED_MAX} shared budgets, the most; delete one.")
    return await _put(project_id, wanted)


@verb(sweep=True)
async def unlimit(*, project_id: str, name: str) -> SharedBudget:
    """Remove the limits, so that no new call reserves in the budget. Raises NotFound."""
    await query("begin_shared_budget")
    before = await _read_shared(project_id, name)
    return await _put(project_id, replace(before, usd_micros=None, tokens=None, calls=None))


@verb(reads=True)
async def paused(*, shared_id: str, after: str = "") -> list[str]:
    """Balances for which executions wait, by id."""
    found = await query("paused_balances", shared_id=shared_id, after=after, limit=BALANCES_AT_ONCE)
    return [id for (id,) in found]


@verb(sweep=True)
async def drop_balances(*, shared_id: str) -> bool:
    """True if more may be left."""
    dropped = await query("delete_balances", shared_id=shared_id, limit=BALANCES_AT_ONCE)
    return len(dropped) == BALANCES_AT_ONCE


@verb(sweep=True)
async def delete(*, project_id: str, name: str, shared_id: str) -> None:
    """Delete the budget, and balances skipped by `drop_balances` because they were locked."""
    await query("begin_shared_budget")
    await query("delete_balances", shared_id=shared_id, limit=BALANCES_AT_ONCE)
    await query("delete_shared_budget", project_id=project_id, name=name)


async def _read_shared(project_id: str, name: str) -> SharedBudget:
    found = await record(SharedBudget, "read_shared_budget", project_id=project_id, name=name)
    if found is None:
        raise NotFound(f"Shared budget {name!r} does not exist; `perdure budget ls` lists them.")
    return found


async def _put(project_id: str, wanted: SharedBudget) -> SharedBudget:
    put = await record(SharedBudget, "put_shared_budget", project_id=project_id, **asdict(wanted))
    assert put is not None
    return put
