"""Turns of a session run one at a time, in order. Messages are delivered once."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.store.world import CANCELLED, LEASE_US, SECOND, World, answer_wait, child, failure, raw

from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.records import Kind, Problem
from perdure.wire.base.status import Phase
from perdure.wire.base.times import AT_US_MAX, NEVER_US
from perdure.wire.runs.requests import LeaveMessages, ReadTranscript, StartItem, TakeMessages

QUEUE, REJECT, DELIVER = OnConflict


def turn(on_conflict: OnConflict = QUEUE, payload: object = None, session: str | None = "s") -> StartItem:
    return StartItem("wf", raw(payload), session_id=session, on_conflict=on_conflict)


async def start(world: World, on_conflict: OnConflict = QUEUE, payload: object = None) -> str:
    return (await world.start_all([turn(on_conflict, payload)]))[0]


async def take(world: World, id: str, key: str = "t") -> list[Any]:
    reply = await world.report(id, [TakeMessages(key, "s")])
    [value] = [row.value for row in reply.rows if row.kind is Kind.TRANSCRIPT]
    found: list[Any] = msgspec.json.decode(value)
    return found


async def read(world: World, id: str, key: str = "r") -> Any:
    reply = await world.report(id, [ReadTranscript(key, "s")])
    [value] = [row.value for row in reply.rows if row.kind is Kind.TRANSCRIPT]
    return msgspec.json.decode(value)


async def test_turns_take_turns(world: World) -> None:
    await world.register()
    first, second, third = [await start(world) for _ in range(3)]
    other = (await world.start_all([turn(session="another")]))[0]
    assert await world.claim_ids() == [first, other]
    await world.wake_due()
    assert await world.phase(second) is Phase.QUEUED and await world.claim_ids() == []
    await world.finish(first)
    assert await world.claim_ids() == [second]
    await world.check()
    await world.report(second, end=failure())
    assert await world.claim_ids() == [third]
    await world.finish(third)
    await world.check()
    assert await world.claim_ids() == []
    assert await start(world) in await world.claim_ids()


async def test_a_turn_is_over_however_it_ends(world: World) -> None:
    await world.register()
    ids = [await start(world) for _ in range(6)]
    assert await world.claim_ids() == [ids[0]]
    assert await world.cancel(ids[0]) is Phase.CANCELLING
    await world.report(ids[0], end=CANCELLED)
    assert await world.claim_ids() == [ids[1]]
    await world.cancel(ids[1])
    world.advance(31)
    assert await world.beat() is None
    await world.reap()  # what is being cancelled ends with its worker
    assert await world.phase(ids[1]) is Phase.CANCELLED
    await world.register("v")
    assert await world.cancel(ids[3]) is Phase.CANCELLED  # while it waits: the others do not wait for it
    assert await world.claim_ids("v") == [ids[2]]
    await world.check()
    for _ in range(5):
        await world.acknowledge(ids[2], worker="v")
        world.advance(LEASE_US / SECOND + 1)
        await world.reap()
        world.advance(301)
        await world.wake_due()
        await world.register("v")
        await world.claim_ids("v")
    assert await world.phase(ids[2]) is Phase.FAILED
    assert await world.phase(ids[4]) is Phase.RUNNING
    await world.cancel(ids[4])
    await world.report(ids[4], end=CANCELLED, worker="v")
    assert await world.claim_ids("v") == [ids[5]]
    await world.check()


async def test_a_session_that_is_busy_is_told(world: World) -> None:
    await world.register()
    first = await start(world, REJECT)
    [answer] = await world.answers([turn(REJECT)])
    assert isinstance(answer, Problem)
    assert (answer.error_type, answer.details) == ("SESSION_BUSY", {"execution_id": first})
    assert first in answer.error and "'s'" in answer.error
    assert await world.claim_ids() == [first]
    await world.finish(first)
    assert isinstance(await start(world, REJECT), str)
    await world.check()


async def test_a_session_without_a_name_is_that_of_its_first_turn(world: World) -> None:
    await world.register()
    first = (await world.start_all([turn(session=None)]))[0]
    [answer] = await world.answers([turn(REJECT, session=first)])
    assert isinstance(answer, Problem) and answer.error_type == "SESSION_BUSY"
    assert await world.claim_ids() == [first]


async def test_a_child_does_not_wait_for_its_parent(world: World) -> None:
    await world.register()
    id = await world.running(session_id="s", on_conflict=QUEUE)
    reply = await world.report(id, [child("c", on_conflict=QUEUE), child("d", session_id="own", on_conflict=QUEUE)])
    refused, started = reply.rows
    assert (refused.ok, started.ok) == (False, True)
    assert msgspec.json.decode(refused.value)["type"] == "CONFLICT"


@pytest.mark.parametrize("amount", [9])
async def test_concurrent_turns_are_each_had_once(world: World, amount: int) -> None:
    await world.register()
    answers = await asyncio.gather(
        *(world.answers([turn(DELIVER if n % 3 else QUEUE, n)]) for n in range(amount)), world.answers([turn(REJECT)])
    )
    started = [one.execution_id for [one] in answers if not isinstance(one, Problem)]
    assert len(started) >= amount
    had: list[str] = []
    while claimed := await world.claim(capacity=100):
        [one] = claimed  # never two at a time
        had.append(one.id)
        await world.finish(one.id)
        await world.check()
    assert sorted(had) == sorted(started)


# --- delivered -----------------------------------------------------------------------------------------------------


async def test_a_message_is_delivered_once_to_the_turn_that_is_open(world: World) -> None:
    await world.register()
    first = await start(world, payload="first")
    assert await world.claim_ids() == [first]
    second = await start(world, DELIVER, "second")
    third = await start(world, QUEUE, "third")
    rows = await world.journal(first)
    assert [(row.kind, row.name) for row in rows] == [(Kind.CLAIMED, "w"), (Kind.MESSAGE, second)]
    assert await take(world, first) == [{"execution_id": second, "message": "second"}]
    assert await take(world, first, "again") == []
    await world.check()
    await world.finish(first, result={"answer": 42})
    assert sorted(await world.claim_ids()) == sorted([second, third])  # it has no turn of its own any more
    assert await read(world, second) == {
        "session_id": "s",
        "version": 0,
        "begun_at_us": world.now_us,
        "taken_by": first,
        "result": {"answer": 42},
    }
    assert await read(world, third) == {"session_id": "s", "version": 0, "begun_at_us": world.now_us}
    for id in (second, third):
        await world.finish(id)
    await world.check()


async def test_a_message_that_nobody_took_is_the_next_turn(world: World) -> None:
    await world.register()
    first, second = await start(world), await start(world, DELIVER)
    assert await world.claim_ids() == [first]
    await world.finish(first)
    assert await world.claim_ids() == [second]
    assert "taken_by" not in await read(world, second)
    await world.check()


@pytest.mark.parametrize("how", ["fail", "cancel"])
async def test_a_message_comes_back_from_a_turn_that_failed(world: World, how: str) -> None:
    await world.register()
    first = await start(world)
    assert await world.claim_ids() == [first]
    second, third = await start(world, DELIVER, "second"), await start(world, DELIVER, "third")
    assert len(await take(world, first)) == 2
    if how == "fail":
        await world.report(first, end=failure())
    else:
        await world.cancel(first)
        await world.report(first, end=CANCELLED)
    assert await world.claim_ids() == [second]
    assert "taken_by" not in await read(world, second)
    assert await take(world, second) == [{"execution_id": third, "message": "third"}]
    await world.finish(second)
    assert await world.claim_ids() == [third]
    assert (await read(world, third))["taken_by"] == second
    await world.check()


async def test_only_the_open_turn_takes_messages(world: World) -> None:
    await world.register()
    first, stranger = await start(world), await world.start("wf", session_id="s")
    await start(world, DELIVER)
    assert sorted(await world.claim_ids()) == sorted([first, stranger])
    assert await take(world, stranger) == []
    assert len(await take(world, first)) == 1


async def test_a_turn_takes_messages_of_its_own_workflow_alone(world: World) -> None:
    await world.register(workflows=("wf", "other"))
    first = await start(world)
    assert await world.claim_ids() == [first]
    [other] = await world.start_all([StartItem("other", raw("to the other"), session_id="s", on_conflict=DELIVER)])
    assert [row.kind for row in await world.journal(first)] == [Kind.CLAIMED], "it hears of what it may take"
    second = await start(world, DELIVER, "second")
    assert await take(world, first) == [{"execution_id": second, "message": "second"}]
    await world.finish(first)
    assert sorted(await world.claim_ids()) == sorted([second, other])
    assert "taken_by" not in await read(world, other)
    assert (await read(world, second))["taken_by"] == first
    await world.check()


@pytest.mark.parametrize("how", ["complete", "fail"])
async def test_a_message_that_is_left_is_a_turn_of_its_own(world: World, how: str) -> None:
    await world.register()
    first, stranger = await start(world), await world.start("wf", session_id="s")
    assert sorted(await world.claim_ids()) == sorted([first, stranger])
    second, third, fourth = [await start(world, DELIVER, text) for text in ("second", "third", "fourth")]
    assert len(await take(world, first)) == 3
    await world.report(stranger, [LeaveMessages("l", "s", [third])])
    await world.finish(stranger)
    reply = await world.report(first, [LeaveMessages("l", "s", [second])])
    assert [(row.name, bytes(row.value)) for row in reply.rows] == [("leave", msgspec.json.encode([second]))]
    assert await take(world, first, "again") == []
    await world.check()
    if how == "fail":
        await world.report(first, end=failure())
        assert await world.claim_ids() == [second]
        assert len(await take(world, second)) == 2
    else:
        await world.finish(first)
        assert sorted(await world.claim_ids()) == sorted([second, third, fourth])
        assert (await read(world, third))["taken_by"] == first
    assert "taken_by" not in await read(world, second)
    await world.check()


async def test_a_message_wakes_a_turn_that_waits_and_is_not_lost_in_a_race(world: World) -> None:
    await world.register()
    first = await start(world)
    assert await world.claim_ids() == [first]
    await world.acknowledge(first)
    assert (await world.wait_for(first, answer_wait("a"))).ended
    await start(world, DELIVER, "second")
    [claimed] = await world.claim()
    assert (claimed.id, claimed.rows[-2].kind) == (first, Kind.MESSAGE)
    assert not (await world.report(first, seen=2, end=None)).ended
    await world.cancel(first)
    await world.report(first, end=CANCELLED)
    assert len(await world.claim_ids()) == 1
    await world.check()


def test_nobody_can_ask_for_the_start_time_of_what_waits_for_its_turn() -> None:
    assert NEVER_US == AT_US_MAX + 1
