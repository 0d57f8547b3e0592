"""Shared budgets: many trees spend from one balance, by session, user, tag or project, each day or for good."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.store.agents.test_budgets import (
    budget_of,
    change,
    reserve,
    reserve_beside,
    reserving,
    servers_of,
    settle,
    verdict,
)
from tests.store.world import PROJECT, SECOND, World, child

from perdure.store.verbs import retention
from perdure.store.verbs.agents import budgets, shared_budgets
from perdure.wire.agents.budgets import (
    Amounts,
    BudgetChange,
    BudgetSpec,
    OnExceed,
    ReserveReply,
    Settle,
    StoredBudget,
    Verdict,
    is_balance,
)
from perdure.wire.agents.shared_budgets import DAY_US, SHARED_MAX, ListSharedBudgets, Period, SharedBudget
from perdure.wire.base.errors import BadRequest, Conflict, NotFound
from perdure.wire.base.operation import Listed

GRANTED, BUSY, EXCEEDED, UNLIMITED = Verdict.GRANTED, Verdict.BUSY, Verdict.EXCEEDED, Verdict.UNLIMITED


async def share(world: World, name: str, per: str, **fields: Any) -> SharedBudget:
    fields = {"period": None, "on_exceed": OnExceed.ASK, "usd_micros": None, "tokens": None, "calls": None} | fields
    wanted = SharedBudget(world.new_id(), name, per, **fields)
    return await world.store.write(shared_budgets.put(project_id=PROJECT, wanted=wanted))


async def balances(world: World, name: str, **fields: Any) -> dict[str | None, StoredBudget]:
    where: dict[str, Any] = {"key": None, "after": None, "limit": 100, "now_us": world.now_us} | fields
    _, found = await world.store.read(shared_budgets.balances(project_id=PROJECT, name=name, **where))
    return {one.key: one for one in found}


async def spend(world: World, id: str, name: str, **amounts: int) -> Verdict:
    """Reserve a call, and settle a granted call."""
    granted = await verdict(world, id, name, **amounts)
    if granted is GRANTED:
        await settle(world, id, name, **amounts)
    return granted


async def test_each_session_user_and_value_has_its_own_balance(world: World) -> None:
    await world.register()
    await share(world, "sessions", "session", calls=2)
    await share(world, "users", "user", tokens=100)
    await share(world, "shops", "tag:shop", calls=3)
    ann = await world.running(session_id="s1", user_id="ann", tags={"shop": "berlin"})
    same = await world.running(session_id="s1", tags={"shop": "rome"})
    bob = await world.running(user_id="bob", tags={"shop": "berlin"})
    assert [await spend(world, ann, "a", tokens=60), await spend(world, same, "b")] == [GRANTED, GRANTED]
    refused = await reserve(world, same, "c")
    assert (refused.verdict, refused.reached, refused.asks) == (EXCEEDED, ["calls"], True)
    assert refused.budget is not None and is_balance(refused.budget.execution_id)
    assert refused.budget.title == "The budget 'sessions' of session 's1'"
    assert [await spend(world, bob, n, tokens=60) for n in "de"] == [GRANTED, GRANTED]
    assert await spend(world, bob, "f") is EXCEEDED
    assert {key: one.spent.tokens for key, one in (await balances(world, "users")).items()} == {"ann": 60, "bob": 120}
    assert {key: one.spent.calls for key, one in (await balances(world, "shops")).items()} == {"berlin": 3, "rome": 1}
    assert {*await balances(world, "sessions")} == {"s1", bob}, "without a session it is one of its own"
    assert [*await balances(world, "users", key="bob")] == ["bob"]
    assert [*await balances(world, "users", after="ann", limit=1)] == ["bob"]


async def test_what_a_budget_does_not_cover_is_free_of_it(world: World) -> None:
    await world.register()
    await share(world, "users", "user", calls=0)
    plain = await world.running(tags={"user": "ann"})
    assert await verdict(world, plain, "a") is UNLIMITED
    assert await balances(world, "users") == {}


async def test_children_and_forks_spend_as_their_roots_do(world: World) -> None:
    await world.register(protocol=2)
    await share(world, "users", "user", calls=3)
    root = await world.running(user_id="ann", budget=BudgetSpec(calls=9))
    await world.report(root, [child("c", user_id="other", session_id="other")])
    [below] = await world.claim_ids()
    await world.acknowledge(below)
    assert [await spend(world, root, "a"), await spend(world, below, "b")] == [GRANTED, GRANTED]
    await world.finish(below)
    await world.finish(root)
    fork = await world.fork(root)
    assert await world.claim_ids() == [fork.execution_id]
    await world.acknowledge(fork.execution_id)
    assert await spend(world, fork.execution_id, "c") is GRANTED
    refused = await reserve(world, fork.execution_id, "d")
    assert refused.budget is not None and refused.budget.key == "ann"
    assert {key: one.spent.calls for key, one in (await balances(world, "users")).items()} == {"ann": 3}
    assert (await budget_of(world, fork.execution_id)).spent.calls == 3, "its own counts, too: two copied, one made"


async def test_a_call_is_charged_to_the_run_and_to_every_shared_budget_or_to_none(world: World) -> None:
    await world.register()
    await share(world, "all", "project", calls=9)
    await share(world, "users", "user", calls=1, on_exceed=OnExceed.FAIL)
    id = await world.running(user_id="ann", budget=BudgetSpec(tokens=100))
    assert await verdict(world, id, "a", tokens=10) is GRANTED
    assert await verdict(world, id, "a", tokens=10) is GRANTED, "the same again"
    assert await verdict(world, id, "b", tokens=10) is BUSY
    counted = [(await balances(world, name))[key] for name, key in (("all", ""), ("users", "ann"))]
    assert [one.reserved for one in [*counted, await budget_of(world, id)]] == [Amounts(0, 10, 1)] * 3
    assert await settle(world, id, "a", tokens=4)
    refused = await reserve(world, id, "b", tokens=10)
    assert (refused.verdict, refused.asks) == (EXCEEDED, False), "it fails instead"
    counted = [(await balances(world, name))[key] for name, key in (("all", ""), ("users", "ann"))]
    for one in [*counted, await budget_of(world, id)]:
        assert (one.spent, one.reserved) == (Amounts(0, 4, 1), Amounts())


async def test_a_day_ends_at_midnight_in_utc(world: World) -> None:
    await world.register()
    await share(world, "daily", "project", period=Period.DAY, calls=1, on_exceed=OnExceed.FINISH)
    before_us = DAY_US - world.now_us % DAY_US
    id = await world.running()
    world.advance(before_us // SECOND - 1)
    first = await reserve(world, id, "a")
    assert first.is_last
    refused = await reserve(world, id, "b")
    assert refused.verdict is BUSY and refused.budget is not None
    assert refused.budget.until_us is not None and 0 < refused.budget.until_us - world.now_us <= 2 * SECOND
    world.advance(2)
    assert await balances(world, "daily") == {}
    assert await verdict(world, id, "b") is GRANTED
    assert await settle(world, id, "a", tokens=7), "to the day on which it was reserved"
    [today] = (await balances(world, "daily")).values()
    assert (today.spent.calls, today.reserved.calls) == (0, 1)
    [yesterday] = (await balances(world, "daily", now_us=world.now_us - DAY_US)).values()
    assert (yesterday.spent, yesterday.until_us) == (Amounts(0, 7, 1), refused.budget.until_us)
    for day in range(1, 4):
        world.advance(DAY_US // SECOND)
        assert await spend(world, id, f"day {day}") is GRANTED


async def test_changed_limits_count_at_once_and_what_a_raise_added_stays(world: World) -> None:
    await world.register()
    first = await share(world, "users", "user", calls=1)
    id = await world.running(user_id="ann")
    assert await spend(world, id, "a") is GRANTED
    refused = await reserve(world, id, "b")
    assert refused.budget is not None and refused.asks
    balance_id = refused.budget.execution_id
    assert await world.store.read(shared_budgets.paused(shared_id=first.id)) == [balance_id]
    with pytest.raises(BadRequest, match="The budget 'users' has no limit of 'tokens'"):
        await change(world, balance_id, BudgetChange(tokens=1))
    raised = await change(world, balance_id, BudgetChange(calls=1))
    assert (raised.limits.calls, raised.paused_at_us, raised.raises) == (2, None, 1)
    assert await spend(world, id, "b") is GRANTED
    changed = await share(world, "users", "user", calls=4, tokens=50)
    assert (changed.id, changed.calls) == (first.id, 4)
    assert (await balances(world, "users"))["ann"].limits == BudgetSpec(calls=5, tokens=50)
    assert await spend(world, id, "c", tokens=50) is GRANTED
    assert (await reserve(world, id, "d")).reached == ["tokens"]
    await change(world, balance_id, BudgetChange(on_exceed=OnExceed.FINISH))
    assert not (await reserve(world, id, "d")).asks, "a person has rejected it"
    assert (await budget_of(world, balance_id)).spent.calls == 3


async def test_a_budget_keeps_what_it_counts_and_a_project_has_few(world: World) -> None:
    await share(world, "one", "user", calls=1)
    for per, period in (("session", None), ("user", Period.DAY)):
        with pytest.raises(Conflict, match="'one' counts per user"):
            await share(world, "one", per, period=period, calls=1)
    for n in range(1, SHARED_MAX):
        await share(world, f"{n}", "user", calls=1)
    with pytest.raises(BadRequest, match="20 shared budgets, the most"):
        await share(world, "more", "user", calls=1)
    await share(world, "one", "user", calls=2)
    with pytest.raises(NotFound, match="Shared budget 'no' does not exist"):
        await balances(world, "no")


async def test_money_without_a_price_names_the_shared_budget(world: World) -> None:
    await world.register()
    await share(world, "users", "user", usd_micros=5)
    id = await world.running(user_id="ann")
    with pytest.raises(BadRequest, match="The budget 'users' is in US dollars, and no price is known of 'm'"):
        await reserve(world, id, "a", unpriced="m")
    assert await balances(world, "users") == {}
    other = await world.running(user_id=None)
    assert await verdict(world, other, "a", unpriced="m") is UNLIMITED


async def test_a_claim_says_that_there_are_shared_budgets(world: World) -> None:
    await world.register()
    await share(world, "users", "user", calls=1)
    await world.start()
    [claimed] = await world.claim()
    assert claimed.budgeted
    await world.acknowledge(claimed.id)
    await world.report(claimed.id, [child("c")])
    [below] = await world.claim()
    assert below.budgeted


async def test_many_trees_at_once_pass_a_limit_by_one_call_at_most(world: World, database: str) -> None:
    """Two shared budgets and the run's budget, in the same groups, on PostgreSQL by way of two servers."""
    await world.register()
    await share(world, "all", "project", period=Period.DAY, usd_micros=1_000)
    await share(world, "users", "user", usd_micros=700)
    ids = []
    for start in range(100):
        fields: dict[str, Any] = {"user_id": f"user {start % 2}", "budget": BudgetSpec(calls=5)}
        ids.append(await world.start(**fields))
    assert sorted(await world.claim_ids()) == sorted(ids)
    for id in ids:
        await world.acknowledge(id)
    async with servers_of(world, database) as stores:
        granted = await reserve_beside(world, stores, ids, in_turn=3)
        settling = [Settle(ids[n], f"call {n}", Amounts(20, 0, 1)) for n in granted]
        again = [reserving(world, id, f"more {n}", usd_micros=50) for n, id in enumerate(ids)]
        done = await asyncio.gather(
            *(
                stores[n % len(stores)].write(budgets.settle(project_id=PROJECT, request=request))
                for n, request in enumerate(settling)
            ),
            *(stores[n // 2 % len(stores)].write(verb) for n, verb in enumerate(again)),
        )
    assert all(done)
    more = [reply for reply in done if isinstance(reply, ReserveReply) and reply.verdict is GRANTED]
    [whole] = (await balances(world, "all")).values()
    assert whole.spent == Amounts(300, 0, 15) and whole.reserved == Amounts(50 * len(more), 0, len(more))
    assert whole.reserved.usd_micros <= 750
    by_user = (await balances(world, "users")).values()
    assert sum(one.reserved.usd_micros for one in by_user) == whole.reserved.usd_micros
    assert all(one.reserved.usd_micros + one.spent.usd_micros < 700 + 70 for one in by_user)


async def test_a_deleted_budget_lets_go_of_all_that_waits(world: World) -> None:
    await world.register()
    made = await share(world, "users", "user", calls=0)
    id = await world.running(user_id="ann")
    assert (await reserve(world, id, "a")).asks
    unlimited = await world.store.write(shared_budgets.unlimit(project_id=PROJECT, name="users"))
    assert await verdict(world, id, "a") is UNLIMITED
    assert await world.store.read(shared_budgets.paused(shared_id=unlimited.id)) != []
    assert not await world.store.write(shared_budgets.drop_balances(shared_id=made.id))
    await world.store.write(shared_budgets.delete(project_id=PROJECT, name="users", shared_id=made.id))
    assert await world.store.read(shared_budgets.list_shared(world.at(), ListSharedBudgets())) == Listed([])
    with pytest.raises(NotFound):
        await world.store.write(shared_budgets.unlimit(project_id=PROJECT, name="users"))
    await share(world, "users", "user", calls=1)
    assert await spend(world, id, "b") is GRANTED, "a new one of that name begins at zero"


async def prune(world: World, days: int = 1) -> None:
    fields: dict[str, Any] = {"idempotency_before_us": 0, "now_us": world.now_us, "limit": 100}
    await world.store.write(retention.prune(after=("", ""), finished_before_us=world.now_us - days * DAY_US, **fields))


async def test_retention_drops_past_days_and_idle_sessions_only(world: World) -> None:
    await world.register()
    await share(world, "daily", "user", period=Period.DAY, calls=9)
    await share(world, "sessions", "session", calls=9)
    await share(world, "users", "user", calls=9)
    await share(world, "asking", "session", calls=1)
    await share(world, "asked", "user", period=Period.DAY, calls=1)
    id = await world.running(user_id="ann", session_id="s")
    begin_us = world.now_us
    await spend(world, id, "a")
    for _ in range(2):  # each that is used up pauses what asks
        assert (await reserve(world, id, "b")).asks
        await share(world, "asking", "session", calls=2)
    assert (await balances(world, "asked"))["ann"].paused_at_us is not None
    await share(world, "asking", "session", calls=1)
    world.advance(3 * DAY_US // SECOND)
    assert (await reserve(world, id, "b")).asks
    await prune(world)
    assert [await balances(world, name, now_us=begin_us) for name in ("daily", "asked")] == [{}, {}]
    assert await balances(world, "sessions") == {}
    assert [*await balances(world, "users")] == ["ann"], "it counts for good"
    assert [*await balances(world, "asking")] == ["s"], "something waits for it"


@pytest.mark.parametrize("days", [0, 1])
async def test_retention_counts_from_the_end_of_the_day_of_the_last_call(world: World, days: int) -> None:
    await world.register()
    await share(world, "sessions", "session", calls=9)
    id = await world.running(session_id="s")
    world.advance((DAY_US - world.now_us % DAY_US) // SECOND - 1)
    await spend(world, id, "a")
    await prune(world, days)
    world.advance(days * DAY_US // SECOND)
    await prune(world, days)
    assert [*await balances(world, "sessions")] == ["s"]
    world.advance(2)
    await prune(world, days)
    assert await balances(world, "sessions") == {}


async def test_retention_leaves_balances_of_calls_under_way(world: World) -> None:
    await world.register()
    await share(world, "sessions", "session", calls=9)
    id = await world.running(session_id="s")
    assert await verdict(world, id, "a") is GRANTED
    world.advance(2 * DAY_US // SECOND)
    await prune(world)
    assert await spend(world, id, "b") is GRANTED
    assert await settle(world, id, "a")
    [one] = (await balances(world, "sessions")).values()
    assert (one.spent.calls, one.reserved.calls) == (2, 0)


async def test_an_erased_user_or_session_leaves_no_balance(world: World) -> None:
    await world.register()
    await share(world, "users", "user", calls=9)
    await share(world, "daily", "user", period=Period.DAY, calls=9)
    await share(world, "sessions", "session", calls=9)
    id = await world.running(user_id="ann", session_id="s")
    await spend(world, id, "a")
    erase: dict[str, Any] = {"project_id": PROJECT, "limit": 100}
    assert await world.store.write(retention.erase(user_id="ann", session_id=None, **erase)) == (0, 1)
    assert [*await balances(world, "users")] == ["ann"], "it is still open"
    await world.finish(id)
    assert await world.store.write(retention.erase(user_id="ann", session_id=None, **erase)) == (1, 0)
    assert [await balances(world, name) for name in ("users", "daily")] == [{}, {}]
    assert [*await balances(world, "sessions")] == ["s"]
    await world.store.write(retention.erase(user_id=None, session_id="s", **erase))
    assert await balances(world, "sessions") == {}
