"""Rows of lists: the line that says where an execution stands, in each phase."""

from __future__ import annotations

from typing import Any

from msgspec import json
from tests.store.insight.test_why import failed_step
from tests.store.pausing import QUEUE, pause, unpause
from tests.store.world import BLOCK, HOLD, PROJECT, SECOND, START_US, World, child, event_wait, failure, raw, step

from perdure.store.base.interface import Query, verb
from perdure.store.verbs.insight import summaries
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.record import to_json
from perdure.wire.base.status import Phase
from perdure.wire.insight.summaries import ExecutionSummary
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.requests import (
    Complete,
    OpenCall,
    OpenWait,
    QueueSpec,
    ReportItem,
    StartItem,
    Suspend,
    WorkflowSpec,
)


@verb(reads=True)
async def _again(*, wanted: Query) -> Any:
    return await wanted


async def rows(world: World, **filters: Any) -> dict[str, ExecutionSummary]:
    listing = summaries.list_summaries(project_id=PROJECT, filters=ListFilters(**filters), before="~", limit=500)
    page, following = await world.store.scan(listing)
    assert following is None and [one.id for one in page] == sorted((one.id for one in page), reverse=True)
    return {one.id: one for one in page}


async def details(world: World, id: str) -> str | None:
    return (await rows(world))[id].details


async def test_a_row_has_the_fields_of_its_execution_but_its_values(world: World) -> None:
    await world.register()
    id = await world.start(key="k-1", tags={"a": "b"}, session_id="s", user_id="u", payload=raw({"large": 1}))
    row, whole = (await rows(world))[id], await world.get(id)
    shared = {*row.__struct_fields__} & {*whole.__struct_fields__}
    assert {name: getattr(row, name) for name in shared} == {name: getattr(whole, name) for name in shared}
    assert {*whole.__struct_fields__} - shared >= {"payload", "result"}
    shown = json.decode(json.encode(to_json(row)))
    assert (shown["status"], shown["took_ms"], shown["since"][:19]) == ("pending", None, "2025-06-15T15:06:40")


async def test_an_early_end_is_the_detail_of_a_completed_execution(world: World) -> None:
    await world.register()
    early, whole = [await world.running() for _ in range(2)]
    said = {"stopped": "budget", "text": "ended early (budget): The budget is used up."}
    await world.report(early, end=Complete(raw("let me see")), progress=said)
    await world.report(whole, end=Complete(raw("it is there")), progress={"done": 1, "total": None, "text": "found"})
    found = await rows(world)
    assert found[early].details == "Ended early (budget): The budget is used up."
    assert found[whole].details is None


async def test_waits(world: World) -> None:
    await world.register(workflows=["wf", "sub"])
    asked, event, timer, several = [await world.running() for _ in range(4)]
    form = {"_form": {"title": "Refund €480.00?", "fields": [{"key": "approved"}]}}
    await world.wait_for(asked, OpenWait("approve it", None, data=raw(form)))
    await world.wait_for(event, event_wait("paid", "payments", match={"order": raw(7)}))
    await world.wait_for(timer, due_us=START_US + 9 * SECOND)
    await world.wait_for(several, OpenWait("a", None), OpenWait("b", None))
    found = await rows(world)
    assert found[asked].details == "Waits for an answer to 'Refund €480.00?'"
    assert found[event].details == "Waits for an event of topic 'payments' where {\"order\":7}"
    assert (found[timer].details, found[timer].due_at_us) == ("Waits for its timer", START_US + 9 * SECOND)
    assert found[several].details == "Waits for an answer to 'a' and 1 more"


async def test_waits_for_the_next_try_of_a_step(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.report(id, [failed_step("pay", 2, last=False, retry_at_us=START_US + 600 * SECOND)])
    assert await details(world, id) == "Step 'pay' failed twice: ValueError: pay went wrong"
    await world.report(id, end=Suspend([], (None, START_US + 600 * SECOND)))
    assert await details(world, id) == (
        "Waits for try 3 of step 'pay'; the last one failed: ValueError: pay went wrong"
    )


async def test_waits_for_children(world: World) -> None:
    await world.register(workflows=["wf", "sub"])
    id = await world.running()
    await world.report(id, [child(f"c{n}", "sub") for n in range(3)])
    children = await world.claim_ids(capacity=3)
    await world.report(id, end=Suspend([]))
    assert await details(world, id) == "Waits for 3 children"
    for one in children[:2]:
        await world.report(one, end=failure())
    [again] = await world.claim_ids()
    assert again == id
    await world.report(id, end=Suspend([]), seen=await world.last_seq(id))
    assert await details(world, id) == f"Waits for its child {children[2]} (sub)"


async def test_running(world: World) -> None:
    await world.register()
    id = await world.running()
    assert await details(world, id) == "No outcome is recorded yet"
    await world.report(id, [step("quote")])
    assert await details(world, id) == "Newest outcome: step 'quote'"
    call = OpenCall("charge", "step", "charge_card", START_US)
    attempt, seen = (await world.get(id)).attempt, await world.last_seq(id)
    await world.send(ReportItem(id, attempt, 2, seen, [], open_calls=[call]))
    assert await details(world, id) == "Runs step 'charge'"
    await world.report(id, [step("charge")], number=3)
    assert await details(world, id) == "Newest outcome: step 'charge'"
    await world.cancel(id)
    assert await details(world, id) == "A caller cancelled it; its worker cleans up"


async def test_ends(world: World) -> None:
    await world.register()
    done, failed, cancelled, blocked, held = [await world.running() for _ in range(5)]
    world.advance(2)
    await world.finish(done)
    await world.report(failed, end=failure("TimeoutError:\n  connect to db-1"))
    await world.report(blocked, end=BLOCK)
    await world.report(held, [failed_step("pay", 3, last=False, held=True)], HOLD)
    await world.cancel(cancelled)
    await world.end_overdue(seconds=600)
    found = await rows(world)
    assert found[done].details is None
    assert found[done].took_ms == 2_000
    assert found[failed].details == "TimeoutError: connect to db-1"
    assert found[cancelled].details == "A caller cancelled it"
    for id, phase in ((blocked, Phase.BLOCKED), (held, Phase.HELD)):
        assert (found[id].phase, found[id].details) == (phase, (await world.get(id)).error)


async def test_queued(world: World) -> None:
    early = await world.start(accept_early=True)
    assert await details(world, early) == "No deployment has registered workflow 'wf' yet"
    await world.register(workflows=[WorkflowSpec("wf"), WorkflowSpec("narrow", queue_name="narrow")])
    await world.cancel(early)
    later = await world.start(delay_seconds=60)
    assert await details(world, later) == "Waits for its start time"
    ready = await world.start()
    assert await details(world, ready) == "Ready for a worker"
    await world.register("o", deployment="other")
    alien = await world.start(deployment_id="other")
    await world.lose("o")
    assert await details(world, alien) == "No worker serves deployment 'other'"
    _, second = await world.start_all([StartItem("wf", session_id="s", on_conflict=OnConflict.QUEUE) for _ in range(2)])
    row = (await rows(world))[second]
    assert (row.details, row.due_at_us) == ("Waits for its turn in session 's'", None)


async def test_limits_and_pauses(world: World) -> None:
    queues = [QueueSpec("q", concurrency_limit=1, total_limit=2)]
    await world.register(queues=queues)
    running = await world.start_all([StartItem("wf", queue_name="q", concurrency_key=key) for key in "ab"])
    assert len(await world.claim_ids()) == 2
    waits = await world.start(queue_name="q", concurrency_key="a")
    assert await details(world, waits) == "Queue 'q' runs 2 at a time, and 2 are running"
    await world.finish(running[1])
    assert await details(world, waits) == (
        "Queue 'q' runs 1 of each concurrency key at a time, and 1 of key 'a' is running"
    )
    await pause(world, QUEUE, note="provider move")
    row = (await rows(world))[waits]
    assert row.paused
    assert row.details == "Queue 'q' has been paused by ann: provider move"
    await unpause(world, QUEUE, work=False)
    assert await details(world, waits) == "The pause that held it has ended, and the server releases it"


async def test_a_row_counts_losses_and_tries_and_no_wakes(world: World) -> None:
    await world.register()
    id = await world.running()
    await world.wait_for(id, OpenWait("ask", None))
    await world.resume(id, "ask")
    assert await world.claim_ids() == [id]
    await world.acknowledge(id, attempt=2)
    row = (await rows(world))[id]
    assert ((await world.get(id)).attempt, row.losses, row.tries) == (2, 0, 1)
    await world.lose()
    row = (await rows(world))[id]
    assert (row.losses, row.tries, row.details) == (1, 1, "No worker serves deployment 'd'")


async def test_a_page_of_waiting_executions_takes_few_queries(world: World) -> None:
    """The number of rows adds no queries."""
    await world.register()
    ids = [await world.running() for _ in range(30)]
    for id in ids:
        await world.wait_for(id, OpenWait("ask", None))
    listing = summaries.list_summaries(project_id=PROJECT, filters=ListFilters(), before="~", limit=100)
    asked: list[str] = []
    coroutine = listing.start()
    answer: Any = None
    try:
        while True:
            wanted: Any = coroutine.send(answer)
            asked.append(wanted.name)
            answer = await world.store.scan(_again(wanted=wanted))
    except StopIteration as end:
        page, _ = end.value
    assert [one.id for one in page] == sorted(ids, reverse=True)
    assert asked[-3:] == ["summaries", "first_waits", "open_among_children"]
    assert len(asked) < 8
