"""Budgets: a tree of executions spends from one row, whoever is asked and whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.databases import POSTGRES
from tests.store.world import PROJECT, SECOND, World, child, event_wait

from perdure.store.base.interface import Store, Verb, query, verb
from perdure.store.open import open_store
from perdure.store.verbs import retention
from perdure.store.verbs.agents import budgets
from perdure.store.verbs.base.idempotency import Idempotency
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
from perdure.wire.base.errors import BadRequest, KeyReused, LeaseLost, NotFound
from perdure.wire.base.status import Phase

GRANTED, BUSY, EXCEEDED, UNLIMITED = Verdict.GRANTED, Verdict.BUSY, Verdict.EXCEEDED, Verdict.UNLIMITED


def reserving(world: World, id: str, name: str, **fields: Any) -> Verb[ReserveReply]:
    amounts = Amounts(fields.pop("usd_micros", 0), fields.pop("tokens", 0), fields.pop("calls", 1))
    fields = {"attempt": 1, "worker_id": "w", "epoch": "", **fields}
    request = Reserve(execution_id=id, reservation_id=name, amounts=amounts, **fields)
    return budgets.reserve(project_id=PROJECT, request=request, now_us=world.now_us)


async def reserve(world: World, id: str, name: str, **fields: Any) -> ReserveReply:
    return await world.store.write(reserving(world, id, name, **fields))


@asynccontextmanager
async def servers_of(world: World, database: str) -> AsyncIterator[list[Store]]:
    """Two stores on PostgreSQL."""
    if not database.startswith(POSTGRES):
        yield [world.store]
        return
    other = await open_store(database)
    try:
        yield [world.store, other]
    finally:
        await other.close()


async def reserve_beside(world: World, stores: Sequence[Store], ids: Sequence[str], in_turn: int = 1) -> list[int]:
    """Each id reserves 70 of 1,000, `in_turn` by way of one store. Returns the numbers of granted calls."""
    verbs = [reserving(world, id, f"call {n}", usd_micros=70) for n, id in enumerate(ids)]
    replies = await asyncio.gather(*(stores[n // in_turn % len(stores)].write(verb) for n, verb in enumerate(verbs)))
    granted = [n for n, reply in enumerate(replies) if reply.verdict is GRANTED]
    assert len(granted) == 15, "15 × 70 is the first that reaches 1,000"
    assert {reply.verdict for reply in replies} == {GRANTED, BUSY}
    return granted


async def verdict(world: World, id: str, name: str, **fields: Any) -> Verdict:
    return (await reserve(world, id, name, **fields)).verdict


async def settle(world: World, id: str, name: str, usd_micros: int = 0, tokens: int = 0, calls: int = 1) -> bool:
    request = Settle(id, name, Amounts(usd_micros, tokens, calls))
    return await world.store.write(budgets.settle(project_id=PROJECT, request=request))


async def change(
    world: World, id: str, change: BudgetChange, idempotency: Idempotency | None = None, project: str = PROJECT
) -> StoredBudget:
    return await world.store.write(
        budgets.change_budget(
            project_id=project,
            budget_id=id,
            change=change,
            event_id=world.new_id(),
            now_us=world.now_us,
            idempotency=idempotency,
        )
    )


async def budget_of(world: World, id: str, project: str = PROJECT) -> StoredBudget:
    return await world.store.read(budgets.budget_of(project_id=project, execution_id=id))


async def spender(world: World, spec: BudgetSpec | None) -> str:
    await world.register()
    return await world.running(budget=spec)


async def children(world: World, parent: str, amount: int) -> list[str]:
    """Start `amount` children and acknowledge each."""
    await world.report(parent, [child(f"c{n}") for n in range(amount)])
    ids = await world.claim_ids()
    for id in ids:
        await world.acknowledge(id)
    assert len(ids) == amount
    return ids


async def test_without_a_budget_nothing_is_counted(world: World) -> None:
    id = await spender(world, None)
    assert await verdict(world, id, "a") is UNLIMITED
    assert not await settle(world, id, "a")
    with pytest.raises(NotFound, match="nothing above it has one"):
        await budget_of(world, id)


async def test_what_is_reserved_and_spent_is_counted_once(world: World) -> None:
    id = await spender(world, BudgetSpec(usd_micros=100, tokens=50))
    for _ in range(2):  # the reply to the first was lost
        assert await verdict(world, id, "a", usd_micros=30, tokens=20) is GRANTED
    assert (await budget_of(world, id)).reserved == Amounts(30, 20, 1)
    assert await settle(world, id, "a", usd_micros=10, tokens=5)
    assert not await settle(world, id, "a", usd_micros=10, tokens=5)
    assert await verdict(world, id, "a", usd_micros=30, tokens=20) is GRANTED, "a copy that comes late"
    found = await budget_of(world, id)
    assert (found.spent, found.reserved) == (Amounts(10, 5, 1), Amounts())
    assert not await settle(world, id, "unknown")


async def test_a_limit_is_passed_by_one_reserved_call_at_most(world: World) -> None:
    id = await spender(world, BudgetSpec(tokens=100))
    assert [await verdict(world, id, f"{n}", tokens=60) for n in range(4)] == [GRANTED, GRANTED, BUSY, BUSY]
    assert await settle(world, id, "0", tokens=10)
    assert await verdict(world, id, "2", tokens=60) is GRANTED, "10 are spent and 60 reserved"
    assert await settle(world, id, "1", tokens=60)
    assert await settle(world, id, "2", tokens=60)
    refused = await reserve(world, id, "3", tokens=60)
    assert (refused.verdict, refused.reached, refused.asks) == (EXCEEDED, ["tokens"], True)
    assert refused.budget is not None and refused.budget.spent.tokens == 130


async def test_the_last_call_of_a_budget_to_be_finished_with_is_told_so(world: World) -> None:
    id = await spender(world, BudgetSpec(tokens=100, on_exceed=OnExceed.FINISH))
    replies = [await reserve(world, id, f"{n}", tokens=60) for n in (0, 1, 1)]
    assert [reply.verdict for reply in replies] == [GRANTED] * 3
    assert not any(reply.is_last for reply in replies), "what the first has reserved may come back"
    await settle(world, id, "0", tokens=50)
    assert (await reserve(world, id, "1", tokens=60)).is_last, "the same again: by now nothing comes back"
    await settle(world, id, "1", tokens=30)
    assert (await reserve(world, id, "2", tokens=20)).is_last
    asking = await world.running(budget=BudgetSpec(calls=1))
    assert not (await reserve(world, asking, "0")).is_last, "somebody may raise it"


async def test_a_hundred_children_at_once_pass_it_by_one_call_at_most(world: World, database: str) -> None:
    """The children reserve in the same groups, on PostgreSQL by way of two servers."""
    root = await spender(world, BudgetSpec(usd_micros=1_000))
    ids = await children(world, root, 100)
    async with servers_of(world, database) as stores:
        granted = await reserve_beside(world, stores, ids)
        assert (await budget_of(world, ids[0])).reserved.usd_micros == 1_050
        settling = [Settle(ids[n], f"call {n}", Amounts(20, 0, 1)) for n in granted]
        done = await asyncio.gather(
            *(
                stores[n % len(stores)].write(budgets.settle(project_id=PROJECT, request=request))
                for n, request in enumerate(settling)
            )
        )
    assert all(done)
    found = await budget_of(world, root)
    assert (found.spent, found.reserved) == (Amounts(300, 0, 15), Amounts())


async def test_what_a_lost_attempt_reserved_counts_as_spent(world: World) -> None:
    id = await spender(world, BudgetSpec(tokens=100))
    assert await verdict(world, id, "a", tokens=100) is GRANTED
    assert await verdict(world, id, "b", tokens=100) is BUSY
    await world.lose()
    await world.register("w2")
    assert await world.claim_ids("w2") == [id]
    second: dict[str, Any] = {"attempt": 2, "worker_id": "w2", "tokens": 1}
    refused = await reserve(world, id, "c", **second)
    assert (refused.verdict, refused.reached) == (EXCEEDED, ["tokens"]), "nobody knows whether the call was made"
    with pytest.raises(LeaseLost):
        await reserve(world, id, "d", tokens=1)
    assert await settle(world, id, "a", tokens=3), "it was, and whoever made it says what it took"
    assert await verdict(world, id, "c", **second) is GRANTED
    assert (await budget_of(world, id)).spent == Amounts(0, 3, 1)


async def test_a_call_is_charged_to_every_budget_above(world: World) -> None:
    root = await spender(world, BudgetSpec(calls=3))
    [middle] = await children(world, root, 1)
    own = BudgetSpec(calls=1, on_exceed=OnExceed.FAIL)
    assert await verdict(world, middle, "a", budget=own) is GRANTED
    assert await settle(world, middle, "a")
    refused = await reserve(world, middle, "b", budget=own)
    assert refused.verdict is EXCEEDED and refused.budget is not None
    assert (refused.budget.execution_id, refused.budget.limits) == (middle, own)
    assert not refused.asks, "it fails instead"
    for name in ("c", "d"):
        assert await verdict(world, root, name) is GRANTED
    refused = await reserve(world, root, "e")
    assert refused.verdict is BUSY and refused.budget is not None and refused.budget.execution_id == root
    assert (await budget_of(world, middle)).execution_id == middle, "the nearest"
    assert (await budget_of(world, root)).spent.calls == 1


async def test_a_budget_that_was_given_at_the_start_stands(world: World) -> None:
    id = await spender(world, BudgetSpec(calls=1))
    assert await verdict(world, id, "a", budget=BudgetSpec(calls=100)) is GRANTED
    assert (await budget_of(world, id)).limits.calls == 1


async def test_a_budget_in_money_takes_nothing_without_a_price(world: World) -> None:
    id = await spender(world, BudgetSpec(tokens=9))
    assert await verdict(world, id, "a", unpriced="some-model") is GRANTED
    [below] = await children(world, id, 1)
    with pytest.raises(BadRequest, match="no price is known of 'some-model'"):
        await reserve(world, below, "a", unpriced="some-model", budget=BudgetSpec(usd_micros=1))
    assert (await budget_of(world, below)).execution_id == id, "none was given"
    assert await verdict(world, below, "b", budget=BudgetSpec(usd_micros=1)) is GRANTED
    with pytest.raises(BadRequest):
        await reserve(world, below, "c", unpriced="some-model")


async def test_one_asks_and_all_go_on_when_it_is_raised(world: World) -> None:
    root = await spender(world, BudgetSpec(calls=1))
    asking, other = await children(world, root, 2)
    assert await verdict(world, asking, "a") is GRANTED
    await settle(world, asking, "a")
    first = await reserve(world, asking, "b")
    assert (first.verdict, first.asks) == (EXCEEDED, True)
    second = await reserve(world, other, "b")
    assert (second.verdict, second.asks) == (EXCEEDED, False)
    assert (await reserve(world, asking, "c")).asks, "it may ask again"
    world.advance(5)
    for id in (asking, other):
        waits = event_wait("budget", topic_of(root), after=first.budget.raises if first.budget else None)
        assert (await world.wait_for(id, waits)).ended
    changed = await change(world, root, BudgetChange(calls=2))
    assert (changed.limits.calls, changed.asking_id, changed.raises) == (3, None, 1)
    assert sorted(await world.claim_ids()) == sorted([asking, other])
    again: dict[str, Any] = {"attempt": 2}
    assert [await verdict(world, asking, n, **again) for n in "de"] == [GRANTED, GRANTED]
    late = event_wait("late", topic_of(root), after=0)
    assert (await world.report(root, [late])).rows, "whoever looks after the change finds it"


async def test_whoever_asked_and_ended_is_followed_by_the_next(world: World) -> None:
    root = await spender(world, BudgetSpec(calls=0))
    asking, other = await children(world, root, 2)
    assert (await reserve(world, asking, "a")).asks
    assert not (await reserve(world, other, "a")).asks
    await world.finish(asking)
    assert (await reserve(world, other, "a")).asks
    assert (await budget_of(world, root)).asking_id == other


async def test_time_runs_but_not_while_it_is_asked_for(world: World) -> None:
    id = await spender(world, BudgetSpec(seconds=60))
    await world.live(59, "w")
    assert await verdict(world, id, "a") is GRANTED
    await world.live(1, "w")
    refused = await reserve(world, id, "b")
    assert (refused.verdict, refused.reached) == (EXCEEDED, ["seconds"])
    await world.live(1_000, "w")
    assert (await budget_of(world, id)).elapsed_us(world.now_us) == 60 * SECOND
    await change(world, id, BudgetChange(seconds=10))
    await world.live(9, "w")
    assert await verdict(world, id, "c") is GRANTED
    await world.live(1, "w")
    assert await verdict(world, id, "d") is EXCEEDED


async def test_a_change_is_made_once_and_only_where_it_can_be(world: World) -> None:
    id = await spender(world, BudgetSpec(calls=1))
    same = Idempotency("raise", "k", "hash")
    first = await change(world, id, BudgetChange(calls=2), same)
    assert await change(world, id, BudgetChange(calls=2), same) == first
    assert (await budget_of(world, id)).limits.calls == 3
    with pytest.raises(KeyReused):
        await change(world, id, BudgetChange(calls=2), Idempotency("raise", "k", "another"))
    with pytest.raises(BadRequest, match="no limit of 'tokens'"):
        await change(world, id, BudgetChange(tokens=1))
    changed = await change(world, id, BudgetChange(on_exceed=OnExceed.FINISH))
    assert (changed.limits.on_exceed, changed.limits.calls) == (OnExceed.FINISH, 3)
    with pytest.raises(NotFound):
        await change(world, world.new_id(), BudgetChange(calls=1))


async def test_another_projects_budget_is_not_there(world: World) -> None:
    id = await spender(world, BudgetSpec(calls=1))
    with pytest.raises(NotFound):
        await budget_of(world, id, "other")
    with pytest.raises(NotFound):
        await change(world, id, BudgetChange(calls=1), project="other")
    await verdict(world, id, "a")
    foreign = Settle(id, "a", Amounts())
    assert not await world.store.write(budgets.settle(project_id="other", request=foreign))
    assert (await budget_of(world, id)).reserved.calls == 1


async def test_it_goes_with_its_execution(world: World) -> None:
    id = await spender(world, BudgetSpec(calls=9))
    await verdict(world, id, "a")
    await world.finish(id)
    await world.store.write(retention.delete(project_id=PROJECT, execution_id=id))
    assert await world.store.read(_left(id=id)) == []


@verb(reads=True)
async def _left(*, id: str) -> list[Any]:
    reservations = await query("any_reservation", execution_id=id, id="a")
    return [*reservations, *await query("read_budget", project_id=PROJECT, id=id)]


async def test_a_claim_says_whether_there_may_be_a_budget(world: World) -> None:
    await world.register()
    await world.start()
    await world.start(budget=BudgetSpec(calls=1))
    plain, budgeted = await world.claim(capacity=2)
    assert (plain.budgeted, budgeted.budgeted) == (False, True)
    await world.acknowledge(budgeted.id)
    await world.report(budgeted.id, [child("c")])
    [below] = await world.claim()
    assert below.budgeted
    assert await world.phase(below.id) is Phase.RUNNING
