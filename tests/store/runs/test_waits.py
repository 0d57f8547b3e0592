"""Waits wake (I5): events, answers and children, before, while and after somebody waits for them."""

import itertools
from json import loads

import pytest
from msgspec import Raw, json
from tests.store.world import (
    BLOCK,
    PROJECT,
    RELEASE,
    SECOND,
    World,
    answer_wait,
    child,
    event_wait,
    failure,
    raw,
    step,
)

from perdure.store.base.interface import Changed, Ready
from perdure.store.verbs.runs import waits
from perdure.wire.agents.approvals import AnswerState
from perdure.wire.base.errors import Conflict, NotFound
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Answer, CloseWait, Complete, End, ItemReply, StartChild, StartItem, Suspend
from perdure.wire.runs.waits import PendingWaits

LOSING = [f"loses {n}" for n in range(5)]


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register()


async def events_of(world: World, id: str) -> list[object]:
    """The data of the events that an execution took, in order."""
    rows = [row for row in await world.journal(id) if row.kind is Kind.EVENT]
    return [json.decode(row.value)["data"] for row in rows]


# --- an event or an answer meets its wait in every order ---------------------------------------------------------


@pytest.mark.parametrize("order", ["before", "while running", "while waiting", "with the wait", "blocked", "queued"])
@pytest.mark.parametrize("what", ["event", "answer"])
async def test_whatever_comes_first_nothing_is_missed(world: World, what: str, order: str) -> None:
    wait = event_wait("k", "topic") if what == "event" else answer_wait("k")
    kind = Kind.EVENT if what == "event" else Kind.RESUME

    async def come(id: str) -> None:
        if what == "event":
            await world.publish("topic", 7)
        else:
            await world.resume(id, "k", 7)

    id = await world.running()
    if order == "before":
        await come(id)
        reply = await world.report(id, [wait])
        assert [row.kind for row in reply.rows] == [kind]
    elif order == "with the wait":
        await come(id)
        reply = await world.wait_for(id, wait)
        assert not reply.ended and [row.kind for row in reply.rows] == [kind]
    elif order == "while running":
        await world.report(id, [wait])
        await come(id)
        assert Changed("w", id) in world.hints
        assert [row.kind for row in (await world.acknowledge(id, seen=1)).rows] == [kind]
    elif order == "while waiting":
        assert (await world.wait_for(id, wait)).ended
        await come(id)
        assert await world.phase(id) is Phase.QUEUED
        assert Ready(PROJECT, "d") in world.hints
        assert (await world.claim())[0].rows[-2].kind is kind
    elif order == "blocked":
        await world.report(id, [wait], BLOCK)
        await come(id)
        assert await world.phase(id) is Phase.BLOCKED
    else:
        await world.report(id, [wait], failure(retry_delay_us=3600 * SECOND))
        due = (await world.get(id)).due_at_us
        await come(id)
        assert await world.phase(id) is Phase.QUEUED
        assert (await world.get(id)).due_at_us == due  # an outcome does not shorten a delay

    rows = [row for row in await world.journal(id) if row.kind is kind]
    assert len(rows) == 1 and rows[0].key == "k"
    value = json.decode(rows[0].value)
    assert value == 7 if what == "answer" else (value["data"], value["sequence_id"], value["topic"]) == (7, 1, "topic")


async def test_the_first_answer_stands(world: World) -> None:
    id = await world.running()
    await world.resume(id, "early", 1)
    with pytest.raises(Conflict, match=r"answered by 'a program' at 2025-.*; the first answer stands"):
        await world.resume(id, "early", 2)
    await world.report(id, [answer_wait("early"), answer_wait("k")])
    await world.resume(id, "k", 1)
    with pytest.raises(Conflict, match="answered by 'a program'"):
        await world.resume(id, "k", 2)
    assert await world.outcomes(id, Kind.RESUME) == [1, 1]


async def test_the_same_answer_again_changes_nothing_and_is_no_conflict(world: World) -> None:
    """The reply to the first may have been lost; meanwhile the code may ask, go on, or end."""
    id = await world.running()
    assert (await world.resume(id, "early", {"yes": True})).state is AnswerState.EARLY
    assert (await world.resume(id, "early", {"yes": True})).state is AnswerState.EARLY
    await world.report(id, [answer_wait("early"), answer_wait("k")])
    await world.resume(id, "early", {"yes": True})
    first = await world.resume(id, "k", [1])
    assert first.state is AnswerState.ANSWERED and first.answered_by is not None
    before = await world.journal(id)
    assert await world.resume(id, "k", [1]) == first
    assert await world.journal(id) == before
    assert await world.outcomes(id, Kind.RESUME) == [{"yes": True}, [1]]
    await world.resume(id, "unasked", 1)
    await world.finish(id)
    for key, data in (("early", {"yes": True}), ("k", [1]), ("unasked", 1)):
        await world.resume(id, key, data)
        with pytest.raises(Conflict, match=r"completed already.* was answered by 'a program' at"):
            await world.resume(id, key, "another")
    with pytest.raises(Conflict, match=r"completed already and takes no answers. No step has asked for it"):
        await world.resume(id, "never asked", 1)


async def test_early_answers_are_bounded_by_execution(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "EARLY_MAX", 3)
    id, other = await world.running(), await world.running()
    for n in range(3):
        await world.resume(id, f"k{n}", n)
    with pytest.raises(Conflict, match=f"{id}' holds 3 early answers.*step key 'k3'"):
        await world.resume(id, "k3", 3)
    await world.resume(id, "k0", 0)  # the same again keeps nothing new
    await world.resume(other, "k3", 3)
    await world.report(id, [answer_wait("k0"), answer_wait("asked")])
    await world.resume(id, "asked", "at once")  # what is asked for is always taken
    await world.resume(id, "k3", 3)
    with pytest.raises(Conflict, match="early answers"):
        await world.resume(id, "k4", 4)
    assert await world.outcomes(id, Kind.RESUME) == [0, "at once"]


async def test_an_answer_is_not_taken_for_an_event_that_says_the_same(world: World) -> None:
    id = await world.running()
    await world.report(id, [event_wait("e", "topic")])
    await world.publish("topic", 1)
    with pytest.raises(Conflict, match="waited for an event, and goes on"):
        await world.resume(id, "e", 1)


async def test_answers_to_what_takes_none_are_refused(world: World) -> None:
    with pytest.raises(NotFound):
        await world.resume(world.new_id(), "k")
    id = await world.running()
    await world.report(id, [event_wait("e", "topic"), answer_wait("closed")])
    with pytest.raises(Conflict, match="waits for an event of topic 'topic'"):
        await world.resume(id, "e")
    await world.report(id, [CloseWait("closed")])
    with pytest.raises(Conflict, match="no longer waits"):
        await world.resume(id, "closed")
    await world.finish(id)
    with pytest.raises(Conflict, match="completed already"):
        await world.resume(id, "k")


async def test_an_early_answer_is_not_taken_for_an_event(world: World) -> None:
    """Somebody answered under a key whose code turns out to wait for an event."""
    id = await world.running()
    await world.resume(id, "k", "for nobody")
    assert (await world.wait_for(id, event_wait("k", "topic"))).ended
    await world.publish("topic", 1)
    assert await events_of(world, id) == [1]
    assert await world.outcomes(id, Kind.RESUME) == []


async def test_an_answer_from_another_execution_is_recorded_on_both_sides(world: World) -> None:
    one, other = await world.running(), await world.running()
    await world.wait_for(one, answer_wait("k"))
    reply = await world.report(other, [Answer("a", None, one, "k", raw("hello"))])
    assert reply.rows[0].ok
    assert await world.phase(one) is Phase.QUEUED
    assert await world.outcomes(one, Kind.RESUME) == ["hello"]
    with pytest.raises(Conflict, match=f"answered by 'execution {other}'"):
        await world.resume(one, "k", "from outside")
    assert await world.kinds(other) == ["claimed", "sent"]
    reply = await world.report(other, [Answer("b", None, one, "k", raw("again"))])
    assert not reply.rows[0].ok


async def test_a_wait_that_was_given_up_takes_nothing(world: World) -> None:
    id = await world.running()
    await world.report(id, [event_wait("k", "topic")])
    await world.report(id, [CloseWait("k")])
    await world.publish("topic", 1)
    assert await events_of(world, id) == []
    reply = await world.report(id, [event_wait("k2", "topic")])
    assert len(reply.rows) == 1


async def test_a_wait_that_is_opened_again_begins_where_it_began(world: World) -> None:
    """A lost attempt left the wait open, and the next suspend closed it. The reopened wait must keep the events in
    between."""
    id = await world.running()
    await world.publish("topic", "too old")
    await world.report(id, [event_wait("k", "topic", latest=True)])
    await world.report(id, [CloseWait("k")])
    await world.publish("topic", "meanwhile")
    reply = await world.report(id, [event_wait("k", "topic", latest=True)])
    assert json.decode(reply.rows[0].value)["data"] == "meanwhile"


async def test_open_waits_are_listed_with_what_they_show(world: World) -> None:
    id = await world.running()
    await world.report(id, [answer_wait("k"), event_wait("e", "topic", match={"a": raw(1)})])
    found = (await world.waits(id)).waits
    assert [(one.key, one.topic, one.match) for one in found] == [("e", "topic", raw({"a": 1})), ("k", None, None)]
    with pytest.raises(NotFound):
        await world.waits(id, "another")
    await world.finish(id)
    assert await world.waits(id) == PendingWaits([])


# --- which event ------------------------------------------------------------------------------------------------------


async def test_an_execution_takes_each_event_once_and_in_order(world: World) -> None:
    await world.publish("topic", "before its time")
    world.advance(1)
    id = await world.running()
    await world.publish("topic", 1, 2)
    for n in range(2):
        await world.report(id, [event_wait(f"k{n}", "topic")])
    assert (await world.wait_for(id, event_wait("k2", "topic"))).ended
    await world.publish("topic", 3, 4)
    await world.claim()
    await world.report(id, [event_wait("k3", "topic")])
    assert await events_of(world, id) == [1, 2, 3, 4]


async def test_one_event_meets_one_wait_of_an_execution_and_every_execution(world: World) -> None:
    one, other = await world.running(), await world.running()
    await world.report(one, [event_wait("a", "topic"), event_wait("b", "topic")])
    await world.wait_for(other, event_wait("a", "topic"))
    await world.publish("topic", 1)
    assert await events_of(world, one) == [1]
    assert await events_of(world, other) == [1]
    await world.publish("topic", 2)
    assert await events_of(world, one) == [1, 2]


@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
async def test_match_skips_what_does_not_fit_and_leaves_it_for_others(world: World, early: bool) -> None:
    id = await world.running()
    wait = event_wait("k", "topic", match={"n": raw(1), "deep": raw({"a": [1, None]})})
    fitting = {"n": 1, "deep": {"a": [1, None]}, "more": "x"}
    others = [{"n": True, "deep": {"a": [1, None]}}, {"n": 1}, [1], "n", {"n": 1, "deep": {"a": [1]}}, {"n": 1.5}]
    if early:
        await world.publish("topic", *others, fitting)
        await world.report(id, [wait])
    else:
        await world.report(id, [wait])
        await world.publish("topic", *others, fitting)
    assert await events_of(world, id) == [fitting]
    await world.report(id, [event_wait("rest", "topic")])
    assert (await events_of(world, id))[1] == others[0]


@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
async def test_what_a_match_asks_for_is_found_in_whatever_an_event_holds(world: World, early: bool) -> None:
    id = await world.running()
    wait = event_wait("k", "topic", match={"n": raw(1.0), 'ä"\n': raw([2**70])})
    fitting = ' \n{"n":2,"\\u00e4\\"\\n":[1180591620717411303424],"n":10e-1}'
    others = ["null", "[1]", '"{}"', "{}", '{"n":1}', '{"n":1,"\u00e4\\"\\n":[1.18059162071742e21]}', '{"n":true}']
    publish = world.publish("topic", *(Raw(text.encode()) for text in [*others, fitting]))
    if early:
        await publish
        await world.report(id, [wait])
    else:
        await world.report(id, [wait])
        await publish
    [row] = [row for row in await world.journal(id) if row.kind is Kind.EVENT]
    assert json.decode(row.value)["sequence_id"] == len(others) + 1


async def test_a_large_event_is_not_read_once_for_each_that_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop would stand still, and so would every beat."""
    waiting = [await world.running() for _ in range(20)]
    for n, id in enumerate(waiting):
        await world.wait_for(id, event_wait("k", "topic", match={"n": raw(n)}))
    read: list[int] = []

    def counting(data: bytes) -> object:
        read.append(len(data))
        return loads(data)

    monkeypatch.setattr("json.loads", counting)
    await world.publish("topic", {"n": 7, "much": list(range(10_000))}, {"n": "nobody", "much": list(range(10_000))})
    monkeypatch.undo()
    assert [len(await events_of(world, id)) for id in waiting] == [int(n == 7) for n in range(20)]
    assert sum(read) < 1_000


async def test_an_event_that_was_taken_out_of_turn_is_not_taken_again(world: World) -> None:
    id = await world.running()
    await world.publish("topic", {"n": 1}, {"n": 2}, {"n": 3})
    await world.report(id, [event_wait("second", "topic", match={"n": raw(2)})])
    await world.report(id, [event_wait(f"k{n}", "topic") for n in range(3)])
    await world.publish("topic", {"n": 4})
    assert await events_of(world, id) == [{"n": 2}, {"n": 1}, {"n": 3}, {"n": 4}]


@pytest.mark.parametrize("back_us", [10_000, 2 * 3_600 * SECOND])
async def test_events_after_a_start_are_seen_though_the_clock_went_back(world: World, back_us: int) -> None:
    await world.publish("topic", "before its time")
    world.advance(1)
    id = await world.running()
    world.now_us -= back_us
    await world.publish("topic", "of its lifetime")
    await world.report(id, [event_wait("a", "topic"), event_wait("b", "topic")])
    assert await events_of(world, id) == ["of its lifetime"]
    young = await world.running()
    await world.report(young, [event_wait("a", "topic")])
    assert await events_of(world, young) == []
    world.now_us -= back_us
    await world.publish("topic", "of both")
    assert (await events_of(world, id), await events_of(world, young)) == (["of its lifetime", "of both"], ["of both"])


async def test_after_and_latest_override_where_a_wait_begins(world: World) -> None:
    await world.publish("topic", 1, 2)
    world.advance(1)
    id = await world.running()
    await world.publish("topic", 3)
    await world.report(id, [event_wait("all", "topic", after=0)])
    await world.report(id, [event_wait("second", "topic", after=1)])
    await world.report(id, [event_wait("new", "topic", latest=True), event_wait("far", "topic", after=5)])
    assert await events_of(world, id) == [1, 2]
    await world.publish("topic", 4)
    await world.publish("topic", 5)
    await world.publish("topic", 6)
    rows = [row for row in await world.journal(id) if row.kind is Kind.EVENT]
    assert [(row.key, json.decode(row.value)["data"]) for row in rows[2:]] == [("new", 4), ("far", 6)]


async def test_a_consumer_reads_on_after_many_events(world: World) -> None:
    """More than a page of taken events lies between the start and the next."""
    id = await world.running()
    for start in range(0, 1_200, 400):
        await world.publish("topic", *range(start, start + 400))
    await world.report(id, [event_wait(f"k{n}", "topic") for n in range(1_200)])
    assert await events_of(world, id) == list(range(1_200))
    assert (await world.wait_for(id, event_wait("next", "topic"))).ended


async def test_a_topic_has_no_gap_and_each_reader_its_place(world: World) -> None:
    assert await world.publish("topic", "a", "b") == [1, 2]
    assert await world.publish("topic", "c") == [3]
    assert await world.publish("other", "x") == [1]
    assert [event.sequence_id for event in await world.read_topic("topic", after=1)] == [2, 3]


async def test_a_dedup_key_keeps_the_first_event(world: World) -> None:
    id = await world.running()
    assert await world.publish("topic", "first", dedup_key="k") == [1]
    assert await world.publish("topic", "second", "third", dedup_key="k") == [1, 1]
    assert await world.publish("topic", "second", "third", dedup_key="l") == [2, 2]
    assert [json.decode(event.data) for event in await world.read_topic("topic")] == ["first", "second"]
    await world.report(id, [event_wait("k1", "topic"), event_wait("k2", "topic")])
    assert await events_of(world, id) == ["first", "second"]


@pytest.mark.parametrize("order", list(itertools.permutations(["event", "timer", "answer"])), ids="-".join)
async def test_whatever_wakes_first_the_rest_is_kept(world: World, order: tuple[str, ...]) -> None:
    id = await world.running()
    due_us = world.now_us + SECOND
    await world.wait_for(id, event_wait("e", "topic"), answer_wait("k"), due_us=due_us)
    for what in order:
        if what == "event":
            await world.publish("topic", 1)
        elif what == "answer":
            await world.resume(id, "k", 2)
        else:
            world.now_us = due_us
            await world.wake_due()
    kinds = {"event": "event", "answer": "resume"}
    expected = [kinds[what] for what in order if what != "timer"]
    if order[0] == "timer":
        expected.insert(0, "timer")  # only a waiting execution's timer fires in the store
    assert await world.kinds(id) == ["claimed", "waiting", *expected]
    assert await world.phase(id) is Phase.QUEUED


async def test_the_end_of_a_pause_is_no_timer_of_the_code(world: World) -> None:
    id = await world.running()
    await world.report(id, [step("s", ok=False, last=False)], Suspend([], (None, world.now_us + SECOND)))
    world.advance(1)
    await world.wake_due()
    assert (await world.kinds(id))[-1] == "woken"
    assert await world.claim_ids() == [id]


# --- children --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.WAITING, Phase.QUEUED, Phase.BLOCKED, Phase.CANCELLING])
@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "poisoned"])
async def test_a_child_s_end_reaches_its_parent_in_every_phase(world: World, phase: Phase, how: str) -> None:
    for worker in LOSING:
        await world.register(worker)
    parent = await world.running()
    reply = await world.report(parent, [child("c", session_id="s", tags={"a": "b"})])
    id = json.decode(reply.rows[0].value)
    if phase is Phase.CANCELLING:
        if how == "cancelled":
            pytest.skip("the child goes with its parent: see the tests of cancel")
        await world.claim(LOSING[0])
        await world.acknowledge(id, worker=LOSING[0])
        await world.cancel(parent)
    else:
        assert await world.claim_ids(LOSING[0]) == [id]
        await world.acknowledge(id, worker=LOSING[0])
    ends: dict[Phase, End] = {
        Phase.WAITING: Suspend([]),
        Phase.QUEUED: failure(retry_delay_us=60 * SECOND),
        Phase.BLOCKED: BLOCK,
    }
    if phase in ends:
        assert (await world.report(parent, end=ends[phase])).ended
    assert await world.phase(parent) is phase

    if how == "completed":
        await world.report(id, end=Complete(raw({"answer": 42})), worker=LOSING[0])
    elif how == "failed":
        await world.report(id, end=failure("child broke"), worker=LOSING[0])
    elif how == "cancelled":
        await world.cancel(id)
        await world.report(id, end=failure("stopped"), worker=LOSING[0])
    else:
        await _poison(world, id)

    if phase is Phase.CANCELLING and how == "poisoned":
        return  # a lost worker ends what is being cancelled: it is cancelled, not poisoned
    assert await world.phase(parent) is (Phase.QUEUED if phase is Phase.WAITING else phase)
    row = next(row for row in await world.journal(parent) if row.kind is Kind.CHILD)
    assert (row.key, row.ok) == ("c", how == "completed")
    assert row.name == ("completed" if how == "completed" else "failed")
    value = json.decode(row.value)
    assert value == {"answer": 42} if how == "completed" else value["message"]
    execution = await world.get(id)
    assert execution.parent_execution_id == execution.root_execution_id == parent
    assert (execution.step_key, execution.session_id) == ("c", "s")


async def _poison(world: World, id: str) -> None:
    """Lose five workers to the execution, while the parent's lives on."""
    for n in range(5):
        await world.live(10, "w", *LOSING[n:])  # past the pause before it is handed out again
        await world.wake_due()
        if n:
            await world.claim(LOSING[n], 10)
        await world.acknowledge(id, worker=LOSING[n])
        await world.live(20, "w", *LOSING[n + 1 :])
        assert await world.reap() == 1


async def test_children_inherit_and_find_their_root(world: World) -> None:
    parent = await world.running(session_id="s", user_id="u")
    [row] = (await world.report(parent, [child("c")])).rows
    middle = json.decode(row.value)
    await world.claim()
    [row] = (await world.report(middle, [child("c", user_id="v")])).rows
    leaf = await world.get(json.decode(row.value))
    assert (leaf.parent_execution_id, leaf.root_execution_id) == (middle, parent)
    assert (leaf.session_id, leaf.user_id, leaf.deployment_id) == ("s", "v", "d")


async def test_a_child_cannot_take_a_key_that_names_another_execution(world: World) -> None:
    """The end would reach another execution, and the parent would wait for ever."""
    taken = await world.start(key="k")
    parent = await world.running()
    [row] = (await world.report(parent, [StartChild("c", None, StartItem("wf", key="k"))])).rows
    assert not row.ok
    assert taken in json.decode(row.value)["message"]
    [row] = (await world.report(parent, [StartChild("d", None, StartItem("wf", key="free"))])).rows
    assert row.ok


async def test_fan_in_wakes_once_for_many_children(world: World) -> None:
    parent = await world.running()
    await world.report(parent, [child(f"c{n}") for n in range(100)])
    children = await world.claim_ids(capacity=200)
    assert len(children) == 100
    await world.finish(children[0])
    assert not (await world.report(parent, end=Suspend([]), seen=101)).ended  # one has ended already
    assert (await world.report(parent, end=Suspend([]))).ended
    for id in children[1:]:
        await world.finish(id)
    kinds = await world.kinds(parent)
    assert kinds.count("child") == 100
    assert await world.claim_ids() == [parent]


async def test_a_child_that_ends_after_its_parent_disturbs_nobody(world: World) -> None:
    parent = await world.running()
    [row] = (await world.report(parent, [child("c")])).rows
    await world.finish(parent)
    before = await world.everything(parent)
    await world.claim()
    await world.finish(json.decode(row.value))
    assert await world.everything(parent) == before


async def test_a_release_keeps_waits_and_outcomes(world: World) -> None:
    id = await world.running()
    assert (await world.report(id, [step("s", 1), answer_wait("k")], RELEASE)) == ItemReply(
        ended=True, accepted=[2, 0], at_us=world.now_us
    )
    await world.resume(id, "k", 2)
    [claimed] = await world.claim()
    assert [row.kind.value for row in claimed.rows] == ["claimed", "step", "released", "resume", "claimed"]
    assert not claimed.ack_first  # handing back is no loss
