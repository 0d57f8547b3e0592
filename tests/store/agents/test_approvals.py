"""Questions of native and of push workers, answered by people through one verb."""

from typing import Any

import pytest
from msgspec import json
from tests.store.pushing import PushWorld
from tests.store.world import PROJECT, SECOND, World, raw

from perdure.store.verbs.agents import approvals
from perdure.wire.agents.approvals import (
    AnswerChannel,
    Approval,
    ListApprovals,
    ListedState,
    OpenApproval,
    Question,
    QuestionState,
)
from perdure.wire.base.errors import Conflict
from perdure.wire.base.operation import Listed
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import CloseWait, EventItem, OpenWait, Publish, StartItem
from perdure.wire.steering.acts import Action


async def looked(world: World, id: str, key: str = "ask", question_id: str | None = None) -> Question | None:
    same: dict[str, Any] = {"project_id": PROJECT, "now_us": world.now_us, "question_id": question_id}
    _, question = await world.store.read(approvals.find_question(execution_id=id, step_key=key, **same))
    return question


async def find(world: World, id: str, key: str = "ask", question_id: str | None = None) -> Question:
    question = await looked(world, id, key, question_id)
    assert question is not None
    return question


async def answer(world: World, id: str, data: object, by: str = "Ann", question_id: str | None = None) -> Approval:
    return await world.store.write(
        approvals.answer_question(
            project_id=PROJECT,
            execution_id=id,
            step_key="ask",
            question_id=question_id,
            data=raw(data),
            answered_by=by,
            how=AnswerChannel.LINK,
            now_us=world.now_us,
        )
    )


async def listed(world: World) -> list[str]:
    return [one.execution_id for one in (await world.do(approvals.list_approvals, op=ListApprovals())).items]


async def ask_natively(world: World, seconds: int | None = None) -> str:
    await world.register()
    id = await world.running()
    until_us = None if seconds is None else world.now_us + seconds * SECOND
    wait = OpenWait("ask", "f", data=raw({"n": 1}), expires_at_us=until_us)
    assert (await world.wait_for(id, wait, due_us=until_us)).ended
    return id


async def ask_by_push(world: World, seconds: int | None = None) -> str:
    pushes = PushWorld(world)
    id = await pushes.running(await pushes.register())
    topic = await pushes.ask(id, "ask", {"n": 1})
    await pushes.wait(id, "ask", "suspend", topic=topic, seconds=seconds)
    return id


@pytest.fixture(params=[ask_natively, ask_by_push], ids=["native", "push"])
async def asked(world: World, request: pytest.FixtureRequest) -> str:
    """An execution that asks, and waits ten seconds for an answer."""
    id: str = await request.param(world, 10)
    return id


async def test_a_question_is_found_listed_and_answered_once(world: World, asked: str) -> None:
    question = await find(world, asked)
    assert (question.state, json.decode(question.data)) == (QuestionState.OPEN, {"n": 1})
    assert question.expires_at_us == world.now_us + 10 * SECOND
    assert await listed(world) == [asked]
    with pytest.raises(Conflict, match="asks something else"):
        await answer(world, asked, 1, question_id="another")
    said = await answer(world, asked, {"approved": True}, question_id=question.id)
    assert await answer(world, asked, {"approved": True}) == said, "told again what stands"
    for by, data in (("Ann", {"approved": False}), ("Bob", {"approved": True})):
        with pytest.raises(Conflict, match="answered by 'Ann'"):
            await answer(world, asked, data, by)
    question = await find(world, asked)
    assert (question.state, question.approval) == (QuestionState.ANSWERED, said)
    assert await listed(world) == []
    [row] = [row for row in await world.journal(asked) if row.kind is Kind.RESUME]
    value = json.decode(row.value)
    assert value.get("approved", value.get("data")) is True or value["data"] == {"approved": True}
    await world.check()


async def test_after_its_time_no_answer_is_taken(world: World, asked: str) -> None:
    world.advance(10)
    for _ in range(2):
        with pytest.raises(Conflict, match="its time is over"):
            await answer(world, asked, 1)
        assert (await find(world, asked)).state is QuestionState.EXPIRED
        await world.wake_due()
    assert not [row for row in await world.journal(asked) if row.kind is Kind.RESUME]
    await world.check()


async def test_an_answer_that_was_there_first_is_told_with_who_gave_it(world: World, asked: str) -> None:
    await world.resume(asked, "ask", "an answer")
    with pytest.raises(Conflict, match="answered by 'a program'"):
        await answer(world, asked, 1)
    assert (await find(world, asked)).approval == Approval(
        world.now_us, "a program", AnswerChannel.API, raw("an answer")
    )


# --- an answer is for the question that was seen --------------------------------------------------------------------


ONE_QUESTION = "asked something else before, was answered before it asked, or several"


async def asked_after_an_early_answer(world: World, how: str) -> str:
    """An execution whose step asks after a person has answered."""
    if how == "native":
        await world.register()
        id = await world.running()
        await world.resume(id, "ask", {"approved": True})
        assert (await world.wait_for(id, OpenWait("ask", "f", data=raw({"euros": 1_000_000})))).ended
        return id
    pushes = PushWorld(world)
    id = await pushes.running(await pushes.register())
    await world.resume(id, "ask", {"approved": True})
    topic = f"workflow/wf/{id}"
    if how == "push, by its event":
        await pushes.ask(id, "ask", {"euros": 1_000_000})
    else:
        world.advance(1)
        await pushes.publish(topic, "suspend_ask", {"euros": 1_000_000}, asked_by=world.new_id())
    await pushes.wait(id, "ask", "suspend", topic=topic)
    return id


@pytest.mark.parametrize("how", ["native", "push, by its event", "push, by its wait"])
async def test_an_answer_that_comes_before_the_question_does_not_count_and_is_shown(world: World, how: str) -> None:
    early_at_us = world.now_us
    id = await asked_after_an_early_answer(world, how)
    assert await world.phase(id) is Phase.WAITING
    found = await find(world, id)
    assert (found.state, found.approval) == (QuestionState.OPEN, None)
    assert found.early is not None and found.asked_at_us > found.early.answered_at_us >= early_at_us
    assert (found.early.answered_by, found.early.data) == ("a program", raw({"approved": True}))
    assert await listed(world) == [id]
    for data in ({"approved": True}, {"approved": False}):  # the early one sent again has not seen the question either
        with pytest.raises(Conflict, match="send the answer with its `question`"):
            await world.resume(id, "ask", data)
        with pytest.raises(Conflict, match=ONE_QUESTION):
            await answer(world, id, data)
    said = await answer(world, id, {"approved": True}, question_id=found.id)
    again = await find(world, id)
    assert (again.state, again.approval, again.early) == (QuestionState.ANSWERED, said, found.early)
    assert json.decode(again.data) == {"euros": 1_000_000}, "what was approved is kept"
    assert await answer(world, id, {"approved": True}) == said
    assert await world.phase(id) is Phase.QUEUED
    await world.check()


@pytest.mark.parametrize("shown", [None, raw(None)], ids=["no data", "null"])
async def test_a_step_that_shows_nothing_takes_an_early_answer(world: World, shown: Any) -> None:
    await world.register()
    id = await world.running()
    await world.resume(id, "ask", "early")
    [row] = (await world.report(id, [OpenWait("ask", "f", data=shown)])).rows
    assert (row.kind, json.decode(row.value)) == (Kind.RESUME, "early")
    with pytest.raises(Conflict, match="answered by 'a program'"):
        await world.resume(id, "ask", "late")


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed meanwhile"])
async def test_a_step_that_asks_something_else_under_its_key_asks_anew(world: World, closed: bool) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [OpenWait("ask", "f", data=raw({"pay": 10}))])
    shown = await find(world, id)
    assert not (await world.report(id, [OpenWait("ask", "f", data=raw({"pay": 10}))])).rows
    assert (await find(world, id)).id == shown.id, "the same again"
    if closed:
        await world.report(id, [CloseWait("ask")])
    await world.wait_for(id, OpenWait("ask", "g", data=raw({"pay": 1_000_000})))
    found = await find(world, id)
    assert (found.id != shown.id, json.decode(found.data)) == (True, {"pay": 1_000_000})
    with pytest.raises(Conflict, match="asks something else by now"):
        await world.resume(id, "ask", "yes", shown.id)
    with pytest.raises(Conflict, match="asks something else"):
        await answer(world, id, "yes", question_id=shown.id)
    with pytest.raises(Conflict, match="with its `question`"):
        await world.resume(id, "ask", "yes")
    assert await listed(world) == [id]
    await world.resume(id, "ask", "no", found.id)
    assert await world.outcomes(id, Kind.RESUME) == ["no"]
    await world.check()


def typed(schema: object, **fields: Any) -> OpenWait:
    return OpenWait("ask", "f", data=raw({"n": 1}), answer_schema=None if schema is None else raw(schema), **fields)


async def test_a_question_keeps_the_schema_of_its_answer(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [typed({"type": "integer"})])
    shown = await find(world, id)
    assert shown.answer_schema == raw({"type": "integer"})
    await world.report(id, [typed(None)])
    assert await find(world, id) == shown, "an older worker knows no schema"
    await world.report(id, [typed({"type": "number"})])
    found = await find(world, id)
    assert (found.id, found.answer_schema) == (shown.id, raw({"type": "number"})), "the code has changed"
    await world.report(id, [CloseWait("ask")])
    await world.wait_for(id, typed({"type": "string"}))
    assert (await find(world, id)).answer_schema == raw({"type": "string"})
    await answer(world, id, "yes")
    await world.claim()
    await world.finish(id)
    fork = (await world.fork(id, steps={"ask": "no"})).execution_id
    assert (await find(world, fork)).answer_schema == raw({"type": "string"})
    await world.check()


async def test_a_question_that_is_asked_anew_has_the_schema_of_its_code(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [typed({"type": "integer"})])
    await world.report(id, [OpenWait("ask", "g", data=raw({"n": 2}))])
    assert (await find(world, id)).answer_schema is None


async def ended(
    world: World, state: ListedState = ListedState.ANSWERED, cursor: str | None = None, limit: int = 10
) -> Listed[OpenApproval]:
    return await world.do(approvals.list_approvals, op=ListApprovals(state, cursor, limit))


async def test_answered_questions_are_listed_newest_first_and_only_where_they_were_answered(world: World) -> None:
    await world.register()
    early = await world.running()
    await world.resume(early, "ask", "early")
    ids = []
    for n in range(3):
        ids.append(await ask_natively(world))
        world.advance(1)
        await answer(world, ids[-1], n, by=f"Ann {n}")
    for id in ids:
        await world.fork(id)
    page = await ended(world, limit=2)
    first, second = page.items
    assert [first.execution_id, second.execution_id] == [ids[2], ids[1]]
    assert (first.answered_by, json.decode(first.answer or b""), first.answered_how) == ("Ann 2", 2, AnswerChannel.LINK)
    assert (first.state, json.decode(first.data), first.root_execution_id) == ("answered", {"n": 1}, ids[2])
    assert first.question == (await find(world, ids[2])).id
    rest = await ended(world, cursor=page.next_cursor)
    assert [one.execution_id for one in rest.items] == [ids[0]]
    assert (await ended(world, ListedState.EXPIRED)).items == []


async def test_a_question_expires_only_if_it_was_open_until_its_time(world: World) -> None:
    later, sooner, cancelled, open_ = [await ask_natively(world, seconds) for seconds in (9, 5, 5, 20)]
    await world.cancel(cancelled)
    assert (await find(world, cancelled)).state is QuestionState.CLOSED
    world.advance(10)
    assert [one.execution_id for one in (await ended(world, ListedState.EXPIRED)).items] == [later, sooner]
    await world.wake_due()
    assert {later, sooner} <= {*await world.claim_ids()}
    await world.report(later, [CloseWait("ask")])
    await world.finish(sooner)
    found = (await ended(world, ListedState.EXPIRED)).items
    assert [(one.execution_id, one.state, one.answer) for one in found] == [
        (later, "expired", None),
        (sooner, "expired", None),
    ]
    assert (await find(world, cancelled)).state is QuestionState.CLOSED
    assert open_ in await listed(world)
    await world.check()


async def test_a_question_that_was_timed_out_was_not_answered(world: World) -> None:
    id = await ask_natively(world)
    await world.act(id, Action.TIME_OUT, "ask")
    assert (await find(world, id)).state is QuestionState.EXPIRED
    with pytest.raises(Conflict, match="its time is over"):
        await answer(world, id, "yes")


async def test_what_nobody_asks_is_not_answered_by_its_name(world: World) -> None:
    await world.register()
    id = await world.running()
    with pytest.raises(Conflict, match="asks nothing under 'ask', yet"):
        await world.resume(id, "ask", "yes", f"{id}.1")
    with pytest.raises(Conflict, match="asks nothing under 'ask', yet; `perdure approvals`"):
        await answer(world, id, "yes")
    await world.finish(id)
    with pytest.raises(Conflict, match="is completed, and asked nothing under 'ask'"):
        await answer(world, id, "yes")


# --- push workers ----------------------------------------------------------------------------------------------------


async def kids(pushes: PushWorld, worker: str) -> tuple[str, str, str]:
    """A root whose two children run; the three ids."""
    root = await pushes.running(worker)
    first, second = await pushes.children(root, "kids", [StartItem("kid"), StartItem("kid")], batch=True)
    await pushes.claim(worker)
    return root, first.execution_id, second.execution_id


async def test_who_answers_between_question_and_wait_is_heard(pushes: PushWorld, worker: str) -> None:
    """A push worker publishes its question before it reports the wait."""
    world = pushes.world
    id = await pushes.running(worker)
    topic = await pushes.ask(id, "ask", {"n": 1})
    assert (await find(world, id)).state is QuestionState.OPEN
    assert await listed(world) == [id]
    await answer(world, id, "at once")
    world.advance(0.01)
    await pushes.wait(id, "ask", "suspend", topic=topic)
    assert await world.phase(id) is Phase.QUEUED
    assert (await pushes.outputs(id, "ask"))["data"] == "at once"
    found = await find(world, id)
    assert found.state is QuestionState.ANSWERED
    assert found.approval is not None and found.approval.answered_by == "Ann"
    await world.check()


@pytest.mark.parametrize("named", [True, False], ids=["named", "alone in its run"])
@pytest.mark.parametrize("by_event", [False, True], ids=["by the API", "by an event"])
async def test_an_answer_reaches_a_question_that_is_asked_again(
    pushes: PushWorld, worker: str, by_event: bool, named: bool
) -> None:
    """The worker died between its question and its wait."""
    world = pushes.world
    id = await pushes.running(worker)
    topic = f"workflow/wf/{id}"
    await pushes.publish(topic, "suspend_ask", {"n": 1}, asked_by=id if named else None)
    if by_event:
        await pushes.publish(topic, "resume_ask", "yes")
    else:
        await answer(world, id, "yes", "Kim")
    await pushes.register()
    again = (await pushes.online_ids())[-1]
    assert [one.claimed.id for one in await pushes.claim(again)] == [id]
    assert (await pushes.outputs(id, "ask"))["data"] == "yes"
    for asked in ({"n": 1}, {"n": 2}):  # although it could know
        await pushes.publish(topic, "suspend_ask", asked, asked_by=id if named else None)
        await pushes.wait(id, "ask", "suspend", topic=topic)
        assert await world.phase(id) is Phase.QUEUED
        await pushes.claim(again)
    found = await find(world, id)
    assert (found.state, json.decode(found.data)) == (QuestionState.ANSWERED, {"n": 1})
    assert found.approval is not None and found.approval.answered_by == "Kim"
    with pytest.raises(Conflict, match="answered by 'Kim'"):
        await answer(world, id, "no")
    assert len([row for row in await world.journal(id) if row.kind is Kind.RESUME]) == 1
    await world.check()


async def test_a_question_is_the_same_from_its_event_on(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    topic = await pushes.ask(id, "ask", {"n": 1})
    first = await find(world, id)
    assert first.execution_id == id
    for _ in range(2):
        world.advance(1)
        await pushes.ask(id, "ask", {"n": 1})
        assert (await find(world, id)).id == first.id, "the same again"
    await pushes.wait(id, "ask", "suspend", topic=topic, seconds=60)
    found = await find(world, id)
    assert (found.id, found.asked_at_us) == (first.id, first.asked_at_us)
    assert found.expires_at_us == world.now_us + 60 * SECOND
    await answer(world, id, "yes", question_id=first.id)
    assert (await find(world, id)).id == first.id


async def test_who_asks_something_else_under_a_key_asks_anew(pushes: PushWorld, worker: str) -> None:
    """An answer to the shown question does not answer the new question."""
    world = pushes.world
    id = await pushes.running(worker)
    await pushes.ask(id, "ask", {"pay": 10})
    shown = await find(world, id)
    world.advance(1)
    await pushes.ask(id, "ask", {"pay": 1_000_000})
    with pytest.raises(Conflict, match="asks something else"):
        await answer(world, id, "yes", question_id=shown.id)
    with pytest.raises(Conflict, match=ONE_QUESTION):
        await answer(world, id, "yes")
    found = await find(world, id)
    assert json.decode(found.data) == {"pay": 1_000_000}
    await answer(world, id, "no", question_id=found.id)


@pytest.mark.parametrize("waiting", [False, True], ids=["before they wait", "while they wait"])
async def test_an_answer_is_for_one_of_those_who_ask_under_a_key(pushes: PushWorld, worker: str, waiting: bool) -> None:
    world = pushes.world
    root, first, second = await kids(pushes, worker)
    for id, pay in ((first, 10), (second, 1_000_000)):
        topic = await pushes.ask(id, "ask", {"pay": pay}, root=root)
        world.advance(0.01)
    if waiting:
        for id in (first, second):
            await pushes.wait(id, "ask", "suspend", topic=topic)
    assert await listed(world) == [first, second]
    for id, pay in ((first, 10), (second, 1_000_000)):
        assert json.decode((await find(world, id)).data) == {"pay": pay}
    small, large = await find(world, first), await find(world, second)
    assert (await find(world, root)).id == small.id, "the first that is open"
    assert (await find(world, root, question_id=large.id)).id == large.id
    with pytest.raises(Conflict, match=ONE_QUESTION):
        await answer(world, root, "yes")
    await answer(world, root, "yes", question_id=large.id)
    assert await answer(world, root, "yes", question_id=large.id) == (await find(world, second)).approval
    if not waiting:
        for id in (first, second):
            await pushes.wait(id, "ask", "suspend", topic=topic)
    assert await world.phase(first) is Phase.WAITING and await world.phase(second) is Phase.QUEUED
    assert (await pushes.outputs(second, "ask"))["data"] == "yes"
    assert await listed(world) == [first]
    await world.resume(first, "ask", "no")
    assert (await pushes.outputs(first, "ask"))["data"] == "no"
    assert (await pushes.outputs(second, "ask"))["data"] == "yes"
    events = [event for event in await world.read_topic(topic) if event.event_type == "resume_ask"]
    assert [json.decode(event.data) for event in events] == ["yes", "no"], "whoever follows the run sees both"
    await world.check()


async def test_an_answer_by_an_event_is_for_all_who_wait_for_it_and_kept(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    root, first, second = await kids(pushes, worker)
    for id in (first, second):
        topic = await pushes.ask(id, "ask", root=root)
        await pushes.wait(id, "ask", "suspend", topic=topic)
    world.advance(1)
    await pushes.publish(topic, "resume_ask", {"approved": True})
    await pushes.publish(topic, "resume_ask", {"approved": False}, by="Lou")
    for id in (first, second):
        found = await find(world, id)
        assert found.state is QuestionState.ANSWERED
        assert found.approval == Approval(world.now_us, "Kim", AnswerChannel.API, raw({"approved": True}))
        assert (await pushes.outputs(id, "ask"))["data"] == {"approved": True}


async def test_a_program_that_answers_is_kept(world: World) -> None:
    asked = await ask_by_push(world)
    await world.register("native", deployment="n")
    native = await world.running("native", deployment_id="n")
    [topic] = [event.topic for event in await world.read_topic(f"workflow/wf/{asked}")]
    await world.report(native, [Publish("p", "f", topic, [EventItem(raw("yes"), "resume_ask")])], worker="native")
    said = (await find(world, asked)).approval
    assert said is not None and said.answered_by == f"execution {native}"


async def test_who_does_not_say_that_it_asks_asks_when_it_waits(pushes: PushWorld, worker: str) -> None:
    """The question of such a worker is the last one under the key. Answers to another question do not count."""
    world = pushes.world
    root, first, second = await kids(pushes, worker)
    topic = f"workflow/wf/{root}"
    for id in (first, second):
        await pushes.publish(topic, "suspend_ask", {"for": id})
        assert await looked(world, id) is None
        if id == first:
            await pushes.wait(id, "ask", "suspend", topic=topic)
    found = await find(world, root)
    assert (found.execution_id, json.decode(found.data)) == (first, {"for": first})
    await answer(world, root, "yes", question_id=found.id)
    await pushes.wait(second, "ask", "suspend", topic=topic)
    assert await world.phase(second) is Phase.WAITING
    assert json.decode((await find(world, second)).data) == {"for": second}
    third = await pushes.running(worker)
    await pushes.children(third, "kid", [StartItem("kid")], wait=False)
    await pushes.publish(f"workflow/wf/{third}", "suspend_ask")
    number = await pushes.publish(f"workflow/wf/{third}", "resume_ask", "at once")
    await pushes.wait(third, "ask", "suspend", topic=f"workflow/wf/{third}")
    assert (await pushes.outputs(third, "ask"))["sequence_id"] == number
    said = (await find(world, third)).approval
    assert said is not None and said.answered_by == f"event {number} of topic 'workflow/wf/{third}'"


async def test_a_question_that_shows_nothing_takes_an_early_answer(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    await world.resume(id, "ask", "early")
    topic = await pushes.ask(id, "ask")
    assert (await pushes.outputs(id, "ask"))["data"] == "early"
    with pytest.raises(Conflict, match="answered by 'a program'"):
        await answer(world, id, "late")
    await pushes.wait(id, "ask", "suspend", topic=topic)
    assert await world.phase(id) is Phase.QUEUED


async def test_an_answer_between_a_question_that_names_nobody_and_its_wait_counts(
    pushes: PushWorld, worker: str
) -> None:
    world = pushes.world
    id = await pushes.running(worker)
    topic = f"workflow/wf/{id}"
    await pushes.publish(topic, "suspend_ask", {"n": 1}, asked_by=world.new_id())
    world.advance(0.01)
    await world.resume(id, "ask", "at once")
    await pushes.wait(id, "ask", "suspend", topic=topic)
    assert (await pushes.outputs(id, "ask"))["data"] == "at once"
    found = await find(world, id)
    assert (found.early, json.decode(found.data)) == (None, {"n": 1})
    assert found.approval is not None and found.approval.answered_by == "a program"


async def test_only_an_open_execution_of_the_run_asks(pushes: PushWorld, worker: str) -> None:
    world = pushes.world
    id, other = await pushes.running(worker), await pushes.running(worker)
    await world.register("native", deployment="n")
    native = await world.running("native", deployment_id="n")
    unknown = world.new_id()
    for asking, topic_of in ((other, id), (unknown, id), (native, native), (unknown, unknown)):
        await pushes.ask(asking, "ask", root=topic_of)
        assert await looked_by(world, id, other, native) == []
    await pushes.complete(id, worker)
    await pushes.ask(id, "ask")
    assert await looked_by(world, id) == []
    await pushes.wait(other, "order", "event", topic="orders")
    await pushes.ask(other, "order")
    await pushes.publish("orders", "made", 1)
    assert (await pushes.outputs(other, "order"))["data"] == 1, "what it waits for stays as it is"
    await world.check()


async def looked_by(world: World, *ids: str) -> list[Question]:
    found = [await looked(world, id) for id in ids]
    return [question for question in found if question is not None]
