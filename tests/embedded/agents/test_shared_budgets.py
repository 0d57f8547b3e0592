"""Shared budgets in whole: runs that wait for a person, a raise, another day, or the end of the budget."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from tests.embedded.agents.test_budgets import app, asks, call, calls, finishes, questions, talk
from tests.embedded.house import House, pass_time, reaches
from tests.kit.polling import until

from perdure.embedded import Embedded
from perdure.engine.base.clock import ManualClock
from perdure.engine.base.service import Scope
from perdure.sdk.base.errors import ExecutionFailed
from perdure.sdk.budgets import admitted, reserve
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.start_options import Budget
from perdure.sdk.workflows.workflow import Registry
from perdure.store.base.interface import Verb
from perdure.wire.agents.shared_budgets import DAY_US, ListBalances
from perdure.wire.base.errors import BadValue, Conflict, NotFound
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListFilters


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    calls.clear()


async def spent(p: Embedded, name: str) -> dict[str | None, int]:
    return {one.key: one.calls.spent for one in await p.budgets.balances(name)}


async def waiting(p: Embedded, amount: int) -> bool:
    return len((await p.list(ListFilters(phases=["waiting"]))).executions) == amount


async def test_the_runs_of_a_session_spend_from_one_balance_and_go_on_together(house: House) -> None:
    async with house.open(app) as p:
        await p.budgets.put("sessions", per="session", calls=3)
        first, second, other = [
            await p.start(talk, 2, session_id=session, budget=Budget(calls=9)) for session in ("s", "s", "t")
        ]
        assert await other.result() == ["call 0", "call 1"]
        await until(lambda: waiting(p, 1))
        [question] = await questions(p)
        assert b"The budget 'sessions' of session 's' is used up" in bytes(question.data)
        assert b"3 of 3 calls. Approve to raise it for all that spend from it" in bytes(question.data)
        assert await spent(p, "sessions") == {"s": 3, "t": 2}
        [balance] = await p.budgets.balances("sessions", key="s")
        assert "limit=3" in repr(balance) and "None" not in repr([balance.usd_micros, balance.tokens, balance.seconds])
        assert balance.seconds.spent == 0, "a balance has no limit of time"
        page = await p.engine.serve(Scope(await p.engine.projects.default()), ListBalances("sessions", "s", limit=1))
        assert len(page.balances) == 1 and page.next_key is None
        raised = await p.raise_budget(balance.execution_id, calls=1)
        assert (raised.calls.limit, raised.name, raised.key, raised.until_us) == (4, "sessions", "s", None)
        assert [len(await one.result()) for one in (first, second)] == [2, 2]
        assert (await p.budget(first.id)).calls.spent == 2, "and from its own"
        assert (await p.budget(balance.execution_id)).calls.spent == 4


async def test_new_limits_and_a_deleted_budget_resume_what_waits(house: House) -> None:
    async with house.open(app) as p:
        await p.budgets.put("users", per="user", calls=0)
        ann, bob = [await p.start(talk, 1, user_id=name) for name in ("ann", "bob")]
        await until(lambda: waiting(p, 2))
        assert len(await questions(p)) == 2, "each balance asks"
        await p.budgets.put("users", per="user", calls=1)
        assert [await one.result() for one in (ann, bob)] == [["call 0"], ["call 0"]]
        again = await p.start(talk, 2, user_id="ann")
        await reaches(again, Phase.WAITING)
        await p.budgets.delete("users")
        assert len(await again.result()) == 2
        assert await questions(p) == [] and await p.budgets.list() == []
        with pytest.raises(NotFound):
            await p.budgets.delete("users")


async def test_limits_that_are_still_too_low_wake_each_waiting_run_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All executions wait again before the next balance has its turn."""
    async with house.open(app) as p:
        await p.budgets.put("users", per="user", calls=0)
        for name in ("ann", "bob"):
            await p.start(talk, 1, user_id=name)
        await until(lambda: waiting(p, 2))
        woken: list[str] = []
        write = p.engine.store.write

        async def until_all_wait(verb: Verb[Any]) -> Any:
            done = await write(verb)
            if verb.name == "change_budget":
                woken.append(verb.values["budget_id"])
                assert len(woken) <= 2
                await until(lambda: waiting(p, 2))
            return done

        monkeypatch.setattr(p.engine.store, "write", until_all_wait)
        await p.budgets.put("users", per="user", calls=0)
        assert len({*woken}) == 2


async def test_another_run_asks_once_the_one_that_asked_is_over(house: House) -> None:
    async with house.open(app) as p:
        await p.budgets.put("users", per="user", calls=0)
        runs = [await p.start(talk, 1, user_id="ann") for _ in range(3)]
        await until(lambda: waiting(p, 3))
        [first] = await questions(p)
        await p.handle(first.execution_id).cancel()
        p.engine.notifier.notify(("loop", "budgets"))
        await until(lambda: _asks(p))
        await until(lambda: waiting(p, 2))
        [second] = await questions(p)
        assert second.execution_id != first.execution_id
        await p.handle(second.execution_id).resume(second.step_key, {"approved": True, "calls": 2})
        left = [await one.result() for one in runs if one.id != first.execution_id]
        assert left == [["call 0"], ["call 0"]]


async def test_a_run_that_goes_on_after_a_wait_notices_a_new_budget(house: House) -> None:
    registry = Registry()

    @registry.workflow
    async def waits(ctx: Context) -> None:
        for name in ("before", "after"):
            await admitted(ctx, partial(ctx.step, "call", call, name))
            await ctx.wait_for_event("go")

    async with house.open(registry) as p:
        await p.budgets.put("shops", per="tag:shop", calls=0)
        handle = await p.start(waits)
        await reaches(handle, Phase.WAITING)
        await p.budgets.put("all", per="project", calls=0)
        await p.publish("go", None)
        await until(lambda: _asks(p))
        assert calls == ["before"]


async def _asks(p: Embedded) -> bool:
    return len(await questions(p)) == 1 or len(calls) > 1


async def test_a_day_that_is_used_up_is_waited_for_without_a_worker(house: House) -> None:
    clock = ManualClock()
    async with house.open(app, clock=clock) as p:
        await p.budgets.put("daily", per="tag:shop", period="day", calls=1)
        first = await p.start(talk, 2, tags={"shop": "berlin"})
        await until(lambda: len(calls) == 1)
        other = await p.start(talk, 1, tags={"shop": "berlin"})
        await until(lambda: waiting(p, 2))
        await until(lambda: p.worker.running == 0)
        assert len(await questions(p)) == 1 and len(calls) == 1
        [asking] = await questions(p)
        assert b"It counts anew from" in bytes(asking.data)
        why = await p.why(first.id)
        assert "more of shared budget 00000000-" in why.sentence
        assert any(one.startswith("perdure budget raise 00000000-") for one in why.commands)
        left = (DAY_US - clock.now_us() % DAY_US) // 1_000_000
        await pass_time(p, clock, left - 60)
        assert len(calls) == 1
        await pass_time(p, clock, 120)
        await until(lambda: len(calls) == 2)
        await until(lambda: waiting(p, 1))
        await until(lambda: p.worker.running == 0)
        await pass_time(p, clock, 86_401)
        assert [len(await one.result()) for one in (first, other)] == [2, 1]
        assert len(calls) == 3, "one a day"
        assert await questions(p) == []


async def test_its_end_is_the_outcome_of_runs_that_do_not_ask(house: House) -> None:
    async with house.open(app, clock=ManualClock()) as p:  # no day ends meanwhile
        await p.budgets.put("users", per="user", period="day", calls=1, on_exceed="fail")
        failing = await p.start(talk, 2, user_id="ann")
        with pytest.raises(
            ExecutionFailed, match="The budget 'users' of user 'ann' is used up: 1 of 1 calls"
        ) as failed:
            await failing.result()
        assert failed.value.type == "BudgetExceeded"
        assert "`perdure budget raise 00000000-" in str(failed.value) and "00:00 UTC" in str(failed.value)
        await p.budgets.put("users", per="user", period="day", calls=1, on_exceed="finish")
        finishing = await p.start(finishes, 3, user_id="bob")
        assert "1 calls: The budget 'users' of user 'bob' is used up" in await finishing.result()
        await p.budgets.put("users", per="user", period="day", calls=1)
        rejecting = await p.start(finishes, 3, user_id="cid")
        question = await asks(p, rejecting)
        await rejecting.resume(question.step_key, {"approved": False})
        assert "1 calls: The budget 'users' of user 'cid'" in await rejecting.result()


async def test_the_answer_raises_the_balance_that_asked(house: House) -> None:
    async with house.open(app) as p:
        await p.budgets.put("all", per="project", calls=1)
        handle = await p.start(talk, 2)
        question = await asks(p, handle)
        await handle.resume(question.step_key, {"approved": True, "calls": 5})
        assert len(await handle.result()) == 2
        [balance] = await p.budgets.balances("all")
        assert (balance.key, balance.calls.limit, balance.calls.spent) == ("", 6, 2)


async def test_impossible_ones_are_refused(house: House) -> None:
    async with house.open(app) as p:
        for fields, says in (
            ({"per": "shop", "calls": 1}, "must be `project`, `session`, `user` or `tag:NAME`"),
            ({"per": "tag:", "calls": 1}, "tag:NAME"),
            ({"per": "user"}, "has no limit; give `usd`, `tokens` or `calls`"),
            ({"per": "user", "calls": -1}, "must be 0 to"),
        ):
            with pytest.raises(BadValue, match=says):
                await p.budgets.put("x", **fields)
        await p.budgets.put("x", per="user", usd=0.5)
        with pytest.raises(Conflict):
            await p.budgets.put("x", per="session", usd=0.5)
        [made] = await p.budgets.list()
        assert (made.name, made.per, made.usd_micros, made.tokens) == ("x", "user", 500_000, None)


async def test_children_spend_for_their_root(house: House) -> None:
    registry = Registry()

    async def call() -> None:
        await (await reserve(tokens=1)).settle(tokens=1)

    @registry.workflow
    async def below(ctx: Context, n: int) -> None:
        await admitted(ctx, partial(ctx.step, "call", call))

    @registry.workflow
    async def above(ctx: Context) -> None:
        await ctx.map_children(below, [1, 2, 3])

    async with house.open(registry) as p:
        await p.budgets.put("users", per="user", calls=100)
        await (await p.start(above, user_id="ann")).result()
        assert await spent(p, "users") == {"ann": 3}
