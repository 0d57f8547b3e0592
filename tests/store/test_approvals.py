"""Questions of native and of push workers, answered by people through one verb."""

import pytest
from msgspec import json
from tests.store.pushing import PushWorld
from tests.store.world import PROJECT, SECOND, World, raw

from perdure.store.verbs import approvals
from perdure.wire.approvals import Approval, How, Question, QuestionState
from perdure.wire.errors import Conflict
from perdure.wire.records import Kind
from perdure.wire.requests import OpenWait

TOPIC = "workflow/wf/{}"


async def find(world: World, id: str, key: str = "ask") -> Question:
    _, question = await world.store.read(
        approvals.find_question(project_id=PROJECT, execution_id=id, step_key=key, now_us=world.now_us)
    )
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
            how=How.LINK,
            event_id=world.new_id(),
            now_us=world.now_us,
        )
    )


async def listed(world: World) -> list[str]:
    page = await world.store.read(
        approvals.list_questions(project_id=PROJECT, after=(0, "", ""), limit=10, now_us=world.now_us)
    )
    return [one.execution_id for one in page]


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
    await pushes.publish(TOPIC.format(id), "suspend_ask", {"n": 1})
    await pushes.wait(id, "ask", "suspend", topic=TOPIC.format(id), seconds=seconds)
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
    await world.resume(asked, "ask", "by a program")
    with pytest.raises(Conflict, match="answered before"):
        await answer(world, asked, 1)
    assert (await find(world, asked)).approval is None


async def test_who_answers_between_question_and_wait_is_heard(world: World) -> None:
    """A push worker publishes its question, and only then says that it waits."""
    pushes = PushWorld(world)
    id = await pushes.running(await pushes.register())
    await pushes.publish(TOPIC.format(id), "suspend_ask", {"n": 1})
    assert (await find(world, id)).state is QuestionState.OPEN
    await answer(world, id, "at once")
    world.advance(0.01)
    await pushes.wait(id, "ask", "suspend", topic=TOPIC.format(id))
    assert (await pushes.outputs(id, "ask"))["data"] == "at once"
    found = await find(world, id)
    assert found.state is QuestionState.ANSWERED
    assert found.approval is not None and found.approval.answered_by == "Ann"
    await world.check()
