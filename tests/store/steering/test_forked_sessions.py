"""Forks of executions with sessions, and of executions with budgets."""

import pytest
from msgspec import json
from tests.store.agents.test_budgets import budget_of, reserve, settle
from tests.store.agents.test_transcripts import append, do, said
from tests.store.runs.test_event_fields import prune
from tests.store.world import PROJECT, World, child, failure, raw, step

from perdure.store.verbs import retention
from perdure.wire.agents.budgets import BudgetSpec, Verdict
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.errors import Conflict, NotFound
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Complete, ReadTranscript, Summarize


async def test_a_fork_keeps_the_version_that_it_reads_again(world: World) -> None:
    await world.register(protocol=2)
    await append(world, "s", 1, 2, 3)
    id = await world.running()
    await do(world, id, ReadTranscript("r", "s"))
    await world.report(id, [step("a", 1)], failure())
    fork_id = (await world.fork(id, from_step="a")).execution_id
    await world.delete(id)
    other = await world.start()
    assert {other, fork_id} == set(await world.claim_ids())
    await do(world, other, Summarize("u", None, "s", 3, raw("so far")))
    await world.finish(other)
    assert await said(world, "s", 3) == [1, 2, 3]  # the fork may still replay
    assert await do(world, fork_id, ReadTranscript("again", "s")) == [
        ("read", True, json.decode((await world.journal(fork_id))[-1].value))
    ]
    await world.finish(fork_id)
    assert await said(world, "s") == ["so far"]
    [read, _] = [row.key for row in await world.journal(fork_id) if row.kind is Kind.TRANSCRIPT]
    assert read == "r"
    with pytest.raises(Conflict, match="Version 3 of the transcript of session 's' is gone"):
        await world.fork(fork_id, from_step="again")


@pytest.mark.parametrize("way", ["erase", "retention"])
async def test_a_fork_stays_whole_when_its_source_goes(world: World, way: str) -> None:
    await world.register(protocol=2)
    await append(world, "s", 1, 2, 3)
    id = await world.running(user_id="u", session_id="s")
    await do(world, id, ReadTranscript("r", "s"))
    await world.report(id, [step("a", 1), step("b", 2)], failure())
    fork_id = (await world.fork(id, from_step="b")).execution_id
    kept = await world.journal(fork_id)
    if way == "erase":
        erased = await world.store.write(retention.erase(project_id=PROJECT, user_id="u", session_id=None, limit=10))
        assert erased == (1, 1)
    else:
        world.advance(10)
        await prune(world, world.now_us)
    with pytest.raises(NotFound):
        await world.get(id)
    assert await world.journal(fork_id) == kept
    [claimed] = await world.claim()
    assert [row.key for row in claimed.rows if row.kind is Kind.STEP] == ["a"]
    assert await said(world, "s", 3) == [1, 2, 3]
    await world.report(fork_id, [step("b", 3)], Complete(raw("done")))


async def test_the_fork_of_a_turn_waits_for_its_turn(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running(session_id="s", on_conflict=OnConflict.QUEUE)
    await do(world, id, ReadTranscript("r", "s"))
    await world.report(id, [step("a", 1)], failure())
    open_ = await world.running(session_id="s", on_conflict=OnConflict.QUEUE)
    retry = (await world.retry(id)).execution_id
    assert (await world.get(retry)).session_id == "s"
    assert await world.claim_ids() == []
    await world.finish(open_)
    assert await world.claim_ids() == [retry]
    await world.report(retry, end=Complete(raw("done")))


async def test_a_fork_spends_from_what_is_left(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running(budget=BudgetSpec(calls=4, seconds=100))
    await reserve(world, id, "one")
    await settle(world, id, "one")
    await reserve(world, id, "lost")
    world.advance(5)
    await world.report(id, [step("a", 1)], failure())
    world.advance(50)
    fork_id = (await world.fork(id, from_step="a")).execution_id
    budget = await budget_of(world, fork_id)
    assert (budget.execution_id, budget.limits.calls, budget.spent.calls, budget.reserved.calls) == (fork_id, 4, 2, 0)
    assert budget.elapsed_us(world.now_us) == 5_000_000
    assert await world.claim_ids() == [fork_id]
    attempt = (await world.get(fork_id)).attempt
    answers = [(await reserve(world, fork_id, name, attempt=attempt)).verdict for name in ("b", "c")]
    assert answers == [Verdict.GRANTED] * 2
    await world.delete(id)
    assert (await budget_of(world, fork_id)).reserved.calls == 2


async def test_a_child_that_is_asked_for_again_has_its_budget(world: World) -> None:
    await world.register(protocol=2)
    id = await world.running()
    await world.report(id, [child("c", budget=BudgetSpec(calls=7))])
    [old] = await world.claim()
    await world.report(id, [step("a", 1)], failure())
    fork_id = (await world.fork(id, from_step="a")).execution_id
    [again] = [row for row in await world.journal(fork_id) if row.kind is Kind.CHILD_STARTED]
    budget = await budget_of(world, json.decode(again.value))
    assert (budget.execution_id != old.id, budget.limits.calls) == (True, 7)
    assert await world.phase(json.decode(again.value)) is Phase.QUEUED
