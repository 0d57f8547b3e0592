"""A large payload is a row of its own; nobody who looks at an execution sees a difference."""

import pytest
from msgspec import json
from tests.store.world import PROJECT, World, child, raw, step

from perdure.store.verbs import retention
from perdure.store.verbs.agents import sessions
from perdure.store.verbs.insight import trace_queries, workflow_runs
from perdure.store.verbs.runs import find
from perdure.store.verbs.runs.starts import INLINE_BYTES_MAX
from perdure.wire.agents.sessions import GetSessionDetail
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.records import Kind
from perdure.wire.insight.journal_spans import trace_id_of
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.requests import StartItem, Suspend, TakeMessages
from perdure.wire.runs.workflows import GetWorkflowRuns

LARGE = "x" * INLINE_BYTES_MAX
SMALL = "y" * (INLINE_BYTES_MAX - 2)
"""The text with its quotes is just as large as may be inline."""


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register(workflows=["wf"])


async def test_whoever_looks_sees_no_difference(world: World) -> None:
    ids = [await world.start(payload=raw(text)) for text in (LARGE, SMALL, "z")]
    claimed = await world.claim(capacity=10)
    assert [json.decode(one.payload) for one in claimed] == [LARGE, SMALL, "z"]
    for id, text in zip(ids, (LARGE, SMALL, "z"), strict=True):
        assert json.decode((await world.get(id)).payload) == text
    page, _ = await world.store.read(
        find.list_executions(project_id=PROJECT, filters=ListFilters(), before="~", limit=10)
    )
    assert [json.decode(one.payload) for one in page] == ["z", SMALL, LARGE]
    found = (await world.store.read(workflow_runs.list_runs(world.at(), GetWorkflowRuns()))).items
    assert [json.decode(one.payload) for one in found] == ["z", SMALL, LARGE]
    _, executions, _ = await world.store.scan(trace_queries.get_trace(project_id=PROJECT, trace_id=trace_id_of(ids[0])))
    assert [json.decode(one.values.input or b"null") for one in executions] == [LARGE]
    session = await world.store.scan(sessions.get_session(world.at(), GetSessionDetail(ids[0])))
    assert json.decode(session.payload) == LARGE


async def test_pages_and_claims_are_cut_by_it(world: World) -> None:
    ids = [await world.start(payload=raw(text)) for text in ("a", LARGE, "b", "c")]
    page, before = await world.store.scan(
        find.list_executions(project_id=PROJECT, filters=ListFilters(), before="~", limit=10, bytes_max=1_000)
    )
    assert [one.id for one in page] == ids[3:0:-1] and before is not None
    assert [one.id for one in await world.claim(capacity=10, bytes_max=1_000)] == ids[:2]
    assert [one.id for one in await world.claim(capacity=10, bytes_max=1_000)] == ids[2:]


async def test_it_goes_on_through_waits_losses_and_children(world: World) -> None:
    parent = await world.running(payload=raw(LARGE))
    await world.report(parent, [step("s", 1), child("c", payload=raw(LARGE + "!"))])
    assert (await world.report(parent, end=Suspend([]))).ended
    [kid] = await world.claim()
    assert json.decode(kid.payload) == LARGE + "!"
    await world.lose()
    await world.register("w2", workflows=["wf"])
    world.advance(60)
    await world.wake_due()
    [kid] = await world.claim("w2")
    assert json.decode(kid.payload) == LARGE + "!"
    await world.finish(kid.id, "w2", result=LARGE)
    [again] = await world.claim("w2")
    assert (again.id, json.decode(again.payload)) == (parent, LARGE)
    await world.finish(parent, "w2")
    await world.check()


async def test_a_large_message_is_delivered(world: World) -> None:
    def turn(text: str, on_conflict: OnConflict) -> StartItem:
        return StartItem("wf", raw(text), session_id="s", on_conflict=on_conflict)

    [first] = await world.start_all([turn("first", OnConflict.QUEUE)])
    assert await world.claim_ids() == [first]
    [second] = await world.start_all([turn(LARGE, OnConflict.DELIVER)])
    reply = await world.report(first, [TakeMessages("t", "s")])
    [value] = [row.value for row in reply.rows if row.kind is Kind.TRANSCRIPT]
    assert json.decode(value) == [{"execution_id": second, "message": LARGE}]


async def test_it_goes_with_its_execution(world: World) -> None:
    id = await world.running(payload=raw(LARGE))
    await world.finish(id)
    await world.check()
    await world.store.write(retention.delete(project_id=PROJECT, execution_id=id))
    await world.check()  # no row is left that belongs to nobody
