"""Forks and retries: what is kept, what runs again, and what is refused."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from msgspec import json
from tests.store.pushing import PushWorld
from tests.store.world import World, answer_wait, child, event_wait, failure, raw, step

from perdure.store.verbs.runs.queries import journal as _journal  # noqa: F401
from perdure.store.verbs.steering import forks
from perdure.wire.agents.budgets import Amounts, BudgetSpec, ReserveReply, StoredBudget, Verdict, topic_of
from perdure.wire.base.errors import BadValue, Conflict, LaterOutcomes, NotFound, TooLarge
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Claimed, Complete, Fail, StartChild, StartItem, StepDone
from perdure.wire.steering.acts import Action

BLAMED = Fail("step 'c' failed", raw({"type": "StepFailed", "message": "no", "steps": ["c"]}))


def _blamed(later: dict[str, str | None]) -> Fail:
    return Fail("no", raw({"type": "StepFailed", "message": "no", "steps": ["c"], "later": later}))


@pytest.fixture
async def world(world: World) -> World:
    await world.register(protocol=2)
    return world


async def _failed(world: World, **fields: Any) -> str:
    """Steps a and b, then c fails and ends the run."""
    id = await world.running(**fields)
    await world.report(id, [step("a", 1), step("b", 2)])
    await world.report(id, [step("c", {"type": "ValueError", "message": "no"}, ok=False)], BLAMED)
    assert await world.phase(id) is Phase.FAILED
    return id


async def _claimed(world: World, id: str) -> Claimed:
    [claimed] = [one for one in await world.claim(capacity=10) if one.id == id]
    return claimed


def _outcomes(claimed: Claimed) -> list[tuple[str, str | None, object]]:
    return [
        (row.kind.value, row.key, json.decode(row.value)) for row in claimed.rows if row.kind in (Kind.STEP, Kind.EVENT)
    ]


# --- what is kept -----------------------------------------------------------------------------------------------------


async def test_a_fork_keeps_what_came_before_its_step(world: World) -> None:
    id = await _failed(world, key="order", user_id="u", tags={"a": "b"}, priority=3)
    before = await world.everything(id)
    made = await world.fork(id, from_step="b", note="why not")
    assert await world.everything(id) == before
    fork = await world.get(made.execution_id)
    assert (fork.forked_from, fork.forked_at_step, fork.key, fork.retried_as) == (id, "b", None, None)
    assert (fork.user_id, json.decode(fork.tags or b""), fork.session_id) == ("u", {"a": "b"}, id)
    assert made.kept_rows == 2
    claimed = await _claimed(world, made.execution_id)
    assert [row.kind for row in claimed.rows] == [Kind.CLAIMED, Kind.STEP, Kind.FORKED, Kind.CLAIMED]
    assert claimed.rows[:2] == before[1][:2]
    assert (claimed.attempt, claimed.seed_id, claimed.keys_id) == (2, id, id)
    await world.report(claimed.id, [step("b", 3)], Complete(raw("done")))


async def test_a_fork_from_the_start_keeps_nothing(world: World) -> None:
    id = await _failed(world)
    made = await world.fork(id)
    assert (made.kept_rows, made.forked_at_step) == (0, None)
    claimed = await _claimed(world, made.execution_id)
    assert [row.kind for row in claimed.rows] == [Kind.FORKED, Kind.CLAIMED]
    assert (claimed.attempt, claimed.keys_id) == (1, id)


async def test_fresh_keys_are_keys_of_its_own(world: World) -> None:
    id = await _failed(world)
    for fields, seed in (({}, None), ({"from_step": "b"}, id)):
        claimed = await _claimed(world, (await world.fork(id, fresh_keys=True, **fields)).execution_id)
        assert (claimed.seed_id, claimed.keys_id) == (seed, None)


async def test_a_fork_of_a_fork_has_the_seed_and_the_keys_of_the_first(world: World) -> None:
    id = await _failed(world)
    first = await world.fork(id, from_step="c")
    claimed = await _claimed(world, first.execution_id)
    await world.report(first.execution_id, [step("c", 3), step("d", 4)], Complete(raw("done")))
    second = await world.fork(first.execution_id, from_step="d")
    for one in (id, first.execution_id):
        await world.delete(one)
    claimed = await _claimed(world, second.execution_id)
    assert (claimed.seed_id, claimed.keys_id) == (id, id)
    assert _outcomes(claimed) == [("step", "a", 1), ("step", "b", 2), ("step", "c", 3)]
    assert [row.kind for row in claimed.rows].count(Kind.FORKED) == 2


async def test_an_open_execution_can_be_forked(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("a", 1), step("b", 2)])
    claimed = await _claimed(world, (await world.fork(id, from_step="b")).execution_id)
    assert _outcomes(claimed) == [("step", "a", 1)]
    await world.report(id, [step("c", 3)], Complete(raw("done")))


async def test_an_edit_replaces_an_outcome(world: World) -> None:
    id = await _failed(world)
    made = await world.fork(id, steps={"a": {"new": 1}})
    assert (made.kept_rows, made.forked_at_step) == (2, None)
    assert _outcomes(await _claimed(world, made.execution_id)) == [("step", "a", {"new": 1})]
    made = await world.fork(id, steps={"c": "by hand"})
    assert _outcomes(await _claimed(world, made.execution_id))[2:] == [("step", "c", "by hand")]


async def test_an_outcome_that_was_given_by_hand_is_edited(world: World) -> None:
    """The row of an edited outcome shows its editor."""
    id = await world.running()
    await world.wait_for(id, event_wait("e", "topic"))
    await world.act(id, Action.TIME_OUT, "e")
    await world.claim()
    await world.report(id, [step("a", 1)], failure())
    first = await world.fork(id, steps={"e": 5})
    [event] = await world.outcomes(first.execution_id, Kind.EVENT)
    assert isinstance(event, dict)
    assert (event["data"], event["topic"], event["sequence_id"]) == (5, "topic", 0)
    second = await world.fork(first.execution_id, steps={"e": 6})
    [event] = await world.outcomes(second.execution_id, Kind.EVENT)
    assert isinstance(event, dict) and event["data"] == 6
    assert [act.action for act in await world.acts(second.execution_id)] == ["edit", "fork"]


async def test_a_fork_without_a_conversation_gets_none(world: World) -> None:
    """The fork's agents would read the transcript of the source's own session, or of the parent's."""
    id = await _failed(world)
    fork_id = (await world.fork(id)).execution_id
    assert (await world.get(fork_id)).session_id == id
    for source_id in (id, fork_id):
        fresh = await world.get((await world.fork(source_id, fresh_keys=True)).execution_id)
        assert fresh.session_id == fresh.id
    parent_id = await world.running(session_id="s")
    child_id = await _child_of(world, parent_id)
    await world.report(child_id, [step("a", 1)], failure())
    for made in (await world.fork(child_id, from_step="a"), await world.retry(child_id)):
        assert (await world.get(made.execution_id)).session_id == child_id
    assert (await world.get((await world.fork(parent_id)).execution_id)).session_id == "s"


async def test_a_consumed_event_and_an_answer_are_kept(world: World) -> None:
    id = await world.running()
    await world.wait_for(id, event_wait("e", "topic"))
    await world.publish("topic", "first")
    [claimed] = await world.claim()
    await world.wait_for(id, answer_wait("q"))
    await world.resume(id, "q", "yes")
    await world.claim()
    await world.report(id, [step("a", 1)], failure())
    fork_id = (await world.fork(id, from_step="a")).execution_id
    await world.delete(id)
    claimed = await _claimed(world, fork_id)
    assert [row.kind for row in claimed.rows if row.key in ("e", "q")] == [Kind.EVENT, Kind.RESUME]
    edited = await world.fork(fork_id, steps={"e": "another", "q": "no"})
    event, answer = [
        json.decode(row.value) for row in await world.journal(edited.execution_id) if row.key in ("e", "q")
    ]
    assert (event["data"], event["topic"], answer) == ("another", "topic", "no")
    await world.wait_for(fork_id, event_wait("again", "topic"))
    assert await world.phase(fork_id) is Phase.WAITING  # it does not take the same event twice
    await world.publish("topic", "second")
    assert _outcomes(await _claimed(world, fork_id))[-1][:2] == ("event", "again")


async def test_a_dropped_event_is_taken_again(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("a", 1)])
    await world.wait_for(id, event_wait("e", "topic"))
    await world.publish("topic", "first")
    await world.claim()
    await world.report(id, end=failure())
    world.advance(1)
    fork_id = (await world.fork(id, from_step="e")).execution_id
    await _claimed(world, fork_id)
    reply = await world.wait_for(fork_id, event_wait("e", "topic"))
    assert [(row.kind, row.key) for row in reply.rows] == [(Kind.EVENT, "e")]


async def test_a_long_execution_is_forked_by_as_many_statements_as_a_short_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counting(ask: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **values: Any) -> Any:
            asked.append(next(one for one in given if isinstance(one, str)))
            return ask(*given, **values)

        return counted

    for name in ("query", "query_many", "record", "records", "value"):
        monkeypatch.setattr(forks, name, counting(getattr(forks, name)))
    of_one: list[list[str]] = []
    for rows in (1, 1_000):
        id = await world.running()
        await world.report(id, [step(f"step-{n}", "x" * 80) for n in range(rows + 1)])
        asked.clear()
        assert (await world.fork(id, from_step=f"step-{rows}")).kept_rows == rows + 1
        of_one.append(list(asked))
    assert of_one[0] == of_one[1]
    assert "copy_journal" in of_one[0]


# --- children ---------------------------------------------------------------------------------------------------------


async def _child_of(world: World, id: str, key: str = "child") -> str:
    reply = await world.report(id, [child(key)])
    [started] = [row for row in reply.rows if row.kind is Kind.CHILD_STARTED]
    child_id: str = json.decode(started.value)
    assert child_id in await world.claim_ids()
    return child_id


async def test_an_ended_child_is_kept_and_an_open_one_asked_for_again(world: World) -> None:
    id = await world.running()
    done, open_ = await _child_of(world, id, "done"), await _child_of(world, id, "open")
    await world.finish(done)
    await world.report(id, [step("a", 1)], failure())
    made = await world.fork(id, from_step="a")
    rows = {
        row.key: json.decode(row.value)
        for row in await world.journal(made.execution_id)
        if row.kind is Kind.CHILD_STARTED
    }
    assert rows["done"] == done
    assert rows["open"] != open_
    again = await world.get(rows["open"])
    assert (again.parent_execution_id, again.root_execution_id, again.step_key) == (
        made.execution_id,
        made.execution_id,
        "open",
    )
    claimed = {one.id: one for one in await world.claim(capacity=10)}
    assert (claimed[again.id].keys_id, claimed[again.id].seed_id) == (open_, open_)
    await world.finish(open_)  # the source is over, and the fork has a child of its own
    assert "child" not in [row.kind for row in await world.journal(made.execution_id) if row.key == "open"]
    await world.finish(again.id)
    assert (await world.journal(made.execution_id))[-1].kind is Kind.CHILD


async def test_a_retry_asks_for_the_child_that_failed(world: World) -> None:
    id = await world.running()
    failed, good = await _child_of(world, id, "bad"), await _child_of(world, id, "good")
    await world.report(failed, end=failure())
    await world.finish(good, result="good")
    await world.report(id, end=Fail("no", raw({"type": "ChildFailed", "message": "no", "children": ["bad"]})))
    made = await world.retry(id)
    assert made.forked_at_step == "bad"
    rows = await world.journal(made.execution_id)
    kinds = [(row.kind, row.key) for row in rows[-4:]]
    assert kinds == [(Kind.STEP_FAILED, "bad"), (Kind.CHILD, "good"), (Kind.FORKED, "bad"), (Kind.RETRIED, None)]
    assert json.decode(rows[-3].value) == "good"
    [again] = [json.decode(row.value) for row in rows if row.kind is Kind.CHILD_STARTED and row.key == "bad"]
    assert again != failed
    assert (await world.get(again)).parent_execution_id == made.execution_id


async def test_a_child_that_is_started_again_has_the_keys_of_the_first(world: World) -> None:
    """A child below keeps its keys as well, though the first holds the readable key."""
    id = await world.running()
    await world.report(id, [StartChild("child", None, StartItem("wf", key="k"))])
    [first] = await world.claim()
    grandchild = await _child_of(world, first.id, "below")
    await world.finish(grandchild)
    await world.finish(first.id)
    await world.report(id, [step("a", 1)], failure())
    fork = await _claimed(world, (await world.fork(id, from_step="child")).execution_id)
    reply = await world.report(fork.id, [StartChild("child", None, StartItem("wf", key="k")), child("another")])
    assert [row.ok for row in reply.rows] == [True, True]
    again, another = sorted(await world.claim(capacity=10), key=lambda one: one.keys_id != first.id)
    assert (again.keys_id, again.seed_id, again.key) == (first.id, first.id, None)
    assert another.keys_id not in (None, another.id)
    await world.report(again.id, [child("below")])
    [below] = await world.claim()
    assert (below.keys_id, below.parent_execution_id) == (grandchild, again.id)
    fresh = await _claimed(world, (await world.fork(id, from_step="child", fresh_keys=True)).execution_id)
    reply = await world.report(fresh.id, [StartChild("child", None, StartItem("wf", key="k"))])
    assert reply.rows[0].ok
    assert [(one.keys_id, one.key) for one in await world.claim(capacity=10)] == [(None, None)]


async def test_a_child_that_the_source_did_not_come_to_has_the_same_keys_in_all_forks(world: World) -> None:
    """Neither a retry without the child nor a restart of its parent changes the keys."""
    id = await world.running()
    first = await _child_of(world, id, "first")
    await world.report(first, end=failure())
    await world.report(id, end=failure())
    keys: list[str | None] = []
    for comes_to_it in (True, False, True):
        id = (await _claimed(world, (await world.retry(id)).execution_id)).id
        if comes_to_it:
            await world.report(id, [child("first"), StartChild("new", None, StartItem("wf", key="new"))])
            again, new = sorted(await world.claim(capacity=10), key=lambda one: one.keys_id != first)
            await world.report(again.id, [child("below")])
            [below] = await world.claim(capacity=10)
            keys += [again.keys_id, new.keys_id, below.keys_id]
        await world.report(id, end=failure())
    assert keys[:3] == keys[3:]
    assert None not in keys and len(set(keys)) == 3


async def test_the_child_of_a_fork_may_be_served_by_push_workers(world: World, pushes: PushWorld) -> None:
    id = await world.running()
    worker = await pushes.register()
    await world.report(id, [child("c", deployment_id="p")])
    await world.report(id, [step("a", 1)], failure())
    for from_step in ("c", "a"):
        fork = await _claimed(world, (await world.fork(id, from_step=from_step, deployment_id="d")).execution_id)
        if from_step == "c":
            await world.report(fork.id, [child("c", deployment_id="p")])
        claimed = [one.claimed.parent_execution_id for one in await pushes.claim(worker)]
        assert fork.id in claimed


async def test_a_fork_starts_so_many_children_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await world.running()
    await world.report(id, [step("a", 1), child("b"), child("c")])
    await world.report(id, [step("d", 1)], failure())
    monkeypatch.setattr(forks, "CHILDREN_MAX", 1)
    with pytest.raises(TooLarge, match=r"2 children were open there, .* at most 1 .* such as 'b'"):
        await world.fork(id, from_step="d")
    assert (await world.fork(id, from_step="c")).kept_rows == 3


# --- retry ------------------------------------------------------------------------------------------------------------


async def test_a_retry_runs_the_failed_step_again_and_takes_the_key(world: World) -> None:
    id = await _failed(world, key="order")
    made = await world.retry(id)
    assert (made.forked_from, made.forked_at_step) == (id, "c")
    source, fork = await world.get(id), await world.get(made.execution_id)
    assert (source.retried_as, source.key) == (fork.id, "order")
    assert (fork.forked_from, fork.key) == (id, "order")
    assert await world.start(key="order") == fork.id
    claimed = await _claimed(world, fork.id)
    kinds = [row.kind.value for row in claimed.rows]
    assert kinds == ["claimed", "step", "step", "step_failed", "forked", "retried", "claimed"]
    assert json.decode(claimed.rows[-2].value) == [4]


async def test_steps_that_ended_beside_the_failure_are_not_run_again(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("c", "no", ok=False), step("beside", 1)], _blamed({}))
    assert _outcomes(await _claimed(world, (await world.retry(id)).execution_id)) == [("step", "beside", 1)]


async def test_an_older_workers_outcomes_after_the_failure_wait_for_a_decision(world: World) -> None:
    """The failure of an older worker does not say which calls came later, so the order of the rows decides."""
    id = await world.running()
    await world.report(id, [step("a", 1), step("c", "no", ok=False), step("refund", 2)], BLAMED)
    with pytest.raises(LaterOutcomes) as refused:
        await world.retry(id)
    assert refused.value.details == {"execution_id": id, "later": ["refund"]}
    assert (await world.get(id)).retried_as is None
    made = await world.retry(id, redo_later=True)
    assert _outcomes(await _claimed(world, made.execution_id)) == [("step", "a", 1)]


async def test_outcomes_after_the_failure_are_kept_or_dropped_one_by_one(world: World) -> None:
    async def failed() -> str:
        id = await world.running()
        entries = [step("c", "no", ok=False), step("refund", 1), step("unlock", 2), step("beside", 3), step("told", 4)]
        await world.report(id, entries, _blamed({"refund": None, "unlock": "redo", "told": "keep", "gone": None}))
        return id

    kept = await world.retry(await failed(), keep_later=True)
    assert _outcomes(await _claimed(world, kept.execution_id)) == [
        ("step", "refund", 1),
        ("step", "beside", 3),
        ("step", "told", 4),
    ]
    redone = await world.retry(await failed(), redo_later=True)
    assert _outcomes(await _claimed(world, redone.execution_id)) == [("step", "beside", 3), ("step", "told", 4)]
    marked = [row.key for row in await world.journal(redone.execution_id) if row.kind is Kind.IGNORED]
    assert marked == ["refund", "unlock"]


async def test_no_retry_keeps_an_undecided_outcome_unasked(world: World) -> None:
    """Drawn journals: steps before, beside and after the failure, with or without the worker's word."""
    fate = Random(29)
    for _ in range(40):
        id = await world.running()
        before, after = (fate.sample(["a", "b", "ü" * 90, "\u202eabc", "e", "f"], fate.randint(0, 6)) for _ in "12")
        rows = [step(f"{key}:1", 1) for key in before]
        rows += [step("c", "no", ok=False), *(step(f"{key}:2", 2, ok=fate.random() < 0.8) for key in after)]
        said = {f"{key}:2": fate.choice([None, "keep", "redo"]) for key in after if fate.random() < 0.7}
        told = None if fate.random() < 0.2 else said
        await world.report(id, rows, BLAMED if told is None else _blamed(told))
        undecided = [f"{key}:2" for key in after if told is None or told.get(f"{key}:2", "") is None]
        how = fate.choice(["", "keep_later", "redo_later"])
        options = {how: True} if how else {}
        if undecided and not how:
            with pytest.raises(LaterOutcomes) as refused:
                await world.retry(id)
            assert refused.value.keys == undecided
            continue
        made = await world.retry(id, **options)
        kept = [row.key for row in await world.journal(made.execution_id) if row.kind is Kind.STEP]
        dropped = {key for key, on_retry in (told or {}).items() if on_retry == "redo"}
        dropped |= set(undecided) if how == "redo_later" else set()
        assert kept == [f"{key}:1" for key in before] + [f"{key}:2" for key in after if f"{key}:2" not in dropped]


async def test_a_child_that_was_started_after_the_failure_is_dropped_with_its_end(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("c", "no", ok=False)])
    ended, _ = await _child_of(world, id, "refund"), await _child_of(world, id, "letter")
    await world.finish(ended, result="refunded")
    await world.report(id, end=_blamed({"refund": None, "letter": None}))
    made = await world.retry(id, redo_later=True)
    assert [row.kind for row in await world.journal(made.execution_id) if row.kind is Kind.CHILD] == []
    assert [one.id for one in await world.claim(capacity=10)] == [made.execution_id]


async def test_a_retry_of_what_the_code_broke_starts_anew(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("a", 1)], failure())
    made = await world.retry(id)
    assert (made.kept_rows, made.forked_at_step) == (0, None)
    again = await world.fork(id, from_step="a")
    assert again.kept_rows == 1


async def test_a_retry_from_the_end_keeps_all(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("a", 1)], failure())
    assert _outcomes(await _claimed(world, (await world.retry(id, from_end=True)).execution_id)) == [("step", "a", 1)]


async def test_a_failure_that_an_older_worker_did_not_explain_runs_its_last_failed_step_again(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("a", 1), step("c", "no", ok=False)], failure())
    made = await world.retry(id)
    assert made.forked_at_step == "c"
    assert _outcomes(await _claimed(world, made.execution_id)) == [("step", "a", 1)]


async def test_a_cancelled_execution_goes_on_where_it_was(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("a", 1)])
    await world.cancel(id)
    await world.report(id, [step("cleaned", 1)])
    await world.lose()
    assert await world.phase(id) is Phase.CANCELLED
    await world.register(protocol=2)
    with pytest.raises(Conflict, match="before the cancel"):
        await world.fork(id, from_step="cleaned")
    assert _outcomes(await _claimed(world, (await world.retry(id)).execution_id)) == [("step", "a", 1)]


async def test_a_call_that_waits_for_a_budget_runs_again(world: World) -> None:
    """A fork keeps the refusal of an earlier wait, and a refusal handled by the code."""

    def refused(key: str, budget: str, raises: int) -> StepDone:
        limits = BudgetSpec(calls=1)
        told = StoredBudget(budget, limits, Amounts(calls=1), Amounts(), 0, None, raises, None)
        reply = ReserveReply(Verdict.EXCEEDED, told, ["calls"], asks=True)
        error = {"type": "BudgetExceeded", "message": "used up", "details": json.decode(json.encode(reply))}
        return step(key, error, ok=False)

    id, other = await world.running(), world.new_id()
    handled = [refused("handled", other, 0), step("failed", {"type": "ValueError", "message": "no"}, ok=False)]
    await world.report(id, [*handled, refused("first", id, 0)])
    await world.wait_for(id, event_wait("e", topic_of(id), after=0))
    await world.publish(topic_of(id), None)
    await world.claim()
    await world.report(id, [refused("a", id, 1), step("beside", 1), refused("b", id, 1)])
    world.advance(1)
    await world.wait_for(id, event_wait("e#2", topic_of(id), after=1))
    world.advance(1)
    await world.cancel(id)
    fork, retry = await world.fork(id, from_step="b"), await world.retry(id)
    assert (fork.forked_at_step, retry.forked_at_step) == ("b", "a")
    for made, again in ((fork, ["a"]), (retry, ["a", "b"])):
        rows = await world.journal(made.execution_id)
        assert [row.key for row in rows if row.kind is Kind.STEP_FAILED] == again
        assert [row.key for row in rows if row.kind is Kind.STEP][:3] == ["handled", "failed", "first"]
        [back] = [json.decode(row.value) for row in rows if row.kind is Kind.RETRIED]
        assert back == [row.seq for row in rows if row.kind is Kind.STEP_FAILED]


async def test_of_two_retries_one_wins(world: World) -> None:
    id = await _failed(world, key="order")
    made = await world.retry(id)
    with pytest.raises(Conflict, match=made.execution_id):
        await world.retry(id)
    await world.cancel(made.execution_id)
    await world.delete(made.execution_id)
    other = await world.start(key="order", payload=raw(1))
    again = await world.get((await world.retry(id)).execution_id)
    assert (again.key, (await world.get(other)).key) == (None, "order")


async def test_a_fork_keeps_the_failures_that_were_taken_back_later(world: World) -> None:
    """The later outcomes need the failures' calls."""
    id = await world.running()
    await world.report(id, [step("c", "no", ok=False), step("beside", 1)], failure(retry_delay_us=0, take_back=["c"]))
    [_] = await world.claim()
    await world.report(id, [step("c", 2), step("d", 3)], Complete(raw("done")))
    made = await world.fork(id, from_step="c")
    assert made.kept_rows == 1
    made = await world.fork(id, from_step="beside")
    rows = await world.journal(made.execution_id)
    assert [row.kind.value for row in rows] == ["claimed", "step_failed", "forked", "retried"]
    assert json.decode(rows[-1].value) == [2]


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_bad_forks_are_refused(world: World) -> None:
    id = await _failed(world, key="order")
    running = await world.running()
    await world.report(running, [step("a", 1)])
    for fields, error, words in (
        ({"from_step": "x"}, NotFound, "has no step 'x'. Its newest steps: c, b, a."),
        ({"from_step": "b", "steps": {"c": 1}}, BadValue, "edits.steps.c: it comes at or after 'b', so it runs again"),
        ({"steps": {"x": 1}}, BadValue, "edits.steps.x: execution .* has no outcome of it. Its newest steps: c, b, a."),
        ({"key": "order"}, Conflict, "Key 'order' of workflow 'wf' belongs to execution"),
        ({"deployment_id": "none"}, NotFound, "Deployment 'none' does not exist"),
    ):
        with pytest.raises(error, match=words):
            await world.fork(id, **fields)
    with pytest.raises(Conflict, match="is not at step 'x' yet; its last step is 'a'"):
        await world.fork(running, from_step="x")
    with pytest.raises(Conflict, match="Cancel it before you retry it, or fork it"):
        await world.retry(running)
    with pytest.raises(NotFound):
        await world.retry(world.new_id())
    with pytest.raises(BadValue, match="either"):
        await world.retry(id, from_end=True, from_step="a")
    assert (await world.get(id)).retried_as is None


async def test_a_child_that_was_deleted_cannot_be_asked_for_again(world: World) -> None:
    id = await world.running()
    open_ = await _child_of(world, id, "open")
    await world.report(id, [step("a", 1)], failure())
    await world.finish(open_)
    await world.delete(open_)
    with pytest.raises(Conflict, match="Fork from 'open', which started it"):
        await world.fork(id, from_step="a")
    assert (await world.fork(id, from_step="open")).kept_rows == 1


async def test_executions_of_push_workers_run_again_from_the_start(pushes: PushWorld, worker: str) -> None:
    """A push worker keeps its steps under the execution's id, so a fork cannot copy the steps."""
    id = await pushes.running(worker)
    await pushes.save(id, "a", 1)
    await pushes.fail(id, worker, retryable=False)
    with pytest.raises(Conflict, match="fork from the start"):
        await pushes.world.fork(id, from_step="a", deployment_id="p")
    made = await pushes.world.retry(id, deployment_id="p")
    assert made.kept_rows == 0
    [again] = await pushes.claim(worker)
    assert again.claimed.id == made.execution_id
    await pushes.complete(made.execution_id, worker)
