"""Looks and removals: lists, cursors, deletion, retention."""

from typing import Any

import pytest
from msgspec import json
from tests.store.agents.test_sessions import get as get_memory
from tests.store.agents.test_sessions import put as put_memory
from tests.store.agents.test_transcripts import append
from tests.store.insight.test_traces import known as known_spans
from tests.store.insight.test_traces import put as put_spans
from tests.store.insight.test_traces import span
from tests.store.locks import held, without_waiting
from tests.store.world import BLOCK, CANCELLED, PROJECT, World, answer_wait, child, failure, raw, step

from perdure.engine.base.clock import ManualClock
from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.store.base.interface import query, verb
from perdure.store.verbs import retention
from perdure.store.verbs.base.idempotency import Idempotency
from perdure.store.verbs.runs import find, queries, starts, transitions
from perdure.wire.base.errors import Conflict, NotFound
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import Execution, ListFilters, LogLine
from perdure.wire.runs.requests import StartItem


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register(workflows=["wf", "other"])


async def listed(world: World, limit: int = 50, before: str = "~", **filters: Any) -> list[str]:
    """All pages of a list; all but the last are full."""
    ids: list[str] = []
    cursor: str | None = before
    while cursor is not None:
        page, cursor = await world.store.read(
            find.list_executions(
                project_id=PROJECT,
                filters=ListFilters(**filters),
                before=cursor,
                limit=limit,
            )
        )
        assert len(page) == limit or cursor is None
        assert page or cursor is None
        ids += [execution.id for execution in page]
    return ids


async def test_each_filter_narrows_to_what_it_names(world: World) -> None:
    plain = await world.start()
    rich = await world.start(
        "other", session_id="s", user_id="u", queue_name="q", key="k", tags={"a": "1", "b": "x=y", "e": ""}
    )
    [batched] = [answer.execution_id for answer in await world.batch([StartItem("wf")])]
    batch_id = (await world.get(batched)).batch_id
    world.advance(10)
    parent = await world.running()
    [row] = (await world.report(parent, [child("c")])).rows
    below = json.decode(row.value)
    await world.finish(parent)
    every = [below, parent, batched, rich, plain]
    assert await listed(world) == every
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"phases": ["completed"]}, [parent]),
        ({"phases": ["completed", "queued"], "workflow_id": "wf"}, [id for id in every if id not in (rich,)]),
        ({"phases": []}, []),
        ({"phases": ["complete"]}, []),
        ({"workflow_id": "other"}, [rich]),
        ({"session_id": "s"}, [rich]),
        ({"session_id": plain}, [plain]),
        ({"session_id": parent}, [below, parent]),
        ({"user_id": "u"}, [rich]),
        ({"queue_name": "q"}, [rich]),
        ({"batch_id": batch_id}, [batched]),
        ({"parent_execution_id": parent}, [below]),
        ({"root_execution_id": parent}, [below]),
        ({"deployment_id": "d"}, every),
        ({"deployment_id": "e"}, []),
        ({"key": "k"}, [rich]),
        ({"tag": "a=1"}, [rich]),
        ({"tag": "b=x=y"}, [rich]),
        ({"tag": "e="}, [rich]),
        ({"tag": "a=2"}, []),
        ({"created_after_us": world.now_us}, [below, parent]),
        ({"created_before_us": world.now_us}, [batched, rich, plain]),
    ]
    for filters, expected in cases:
        running = [id for id in expected if id in every]
        if filters.get("phases") == ["completed", "queued"]:
            running = [id for id in running if await world.phase(id) in (Phase.COMPLETED, Phase.QUEUED)]
        assert await listed(world, **filters) == running, filters


@pytest.mark.parametrize("limit", [1, 3, 7, 10, 11])
async def test_pages_join_without_gap_or_repeat(world: World, limit: int) -> None:
    ids = await world.start_all([StartItem("wf") for _ in range(10)])
    assert await listed(world, limit) == ids[::-1]


async def test_a_filter_without_an_index_looks_back_a_bounded_way_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "DEPTHS", (4,))
    for name in ("e", "d"):
        await world.register(deployment=name, workflows=("wf",))
    ids = await world.start_all([StartItem("wf", deployment_id="e" if n == 0 else "d") for n in range(12)])
    found, cursor, pages = [], "~", 0
    while cursor:
        page, following = await world.store.read(
            find.list_executions(project_id=PROJECT, filters=ListFilters(deployment_id="e"), before=cursor, limit=5)
        )
        found += [execution.id for execution in page]
        pages += 1
        cursor = following or ""
    assert found == [ids[0]]
    assert pages == 3


async def test_a_filter_with_an_index_finds_what_is_old_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "DEPTHS", (12,))
    await world.register(workflows=("wf", "old"))
    head = await world.start("old")
    item = StartItem("old", session_id=head, user_id="u", tags={"n": "0"})
    first, second = await world.start_all([item, item])
    await world.start_all([StartItem("wf", queue_name="q") for _ in range(40)])
    every: list[tuple[ListFilters, list[str]]] = [
        (ListFilters(workflow_id="old"), [second, first, head]),
        (ListFilters(session_id=head), [second, first, head]),
        (ListFilters(user_id="u"), [second, first]),
        (ListFilters(tag="n=0"), [second, first]),
        (ListFilters(tag="n"), [second, first]),
        (ListFilters(tag="n=1"), []),
        (ListFilters(queue_name="old"), [second, first, head]),
        (ListFilters(queue_name="none"), []),
        (ListFilters(workflow_id="old", status=["completed"]), []),
        (ListFilters(workflow_id="old", queue_name="q"), []),
        (ListFilters(status=["cancelled", "failed"]), []),
        (ListFilters(key="k"), []),
        (ListFilters(key="k", workflow_id="wf"), []),
    ]
    for filters, ids in every:
        for limit in (1, 2, 50):
            assert await listed_at_once(world, filters, limit) == ids
    await world.cancel(first)
    for filters in (
        ListFilters(user_id="u", phases=["cancelled"]),
        ListFilters(workflow_id="old", phases=["cancelled"]),
        ListFilters(phases=["cancelled"]),
    ):
        assert await listed_at_once(world, filters) == [first]


async def listed_at_once(world: World, filters: ListFilters, limit: int = 50) -> list[str]:
    """All pages; no page is empty before the last."""
    found: list[str] = []
    cursor: str | None = "~"
    while cursor is not None:
        page, cursor = await world.store.read(
            find.list_executions(project_id=PROJECT, filters=filters, before=cursor, limit=limit)
        )
        assert page or cursor is None
        found += [execution.id for execution in page]
    return found


async def test_missing_things_are_missed(world: World) -> None:
    id = await world.start()
    for project, wanted in (("other", id), (PROJECT, world.new_id())):
        for look in (
            queries.get(project_id=project, execution_id=wanted),
            queries.journal(project_id=project, execution_id=wanted, after=0, limit=1),
            queries.logs(project_id=project, execution_id=wanted, after=0, limit=1),
            retention.delete(project_id=project, execution_id=wanted),
        ):
            with pytest.raises(NotFound):
                await world.store.write(look)
    assert await world.store.read(queries.finished(project_id="other", ids=[id])) == ([], [id])
    filters = ListFilters(workflow_id="wf", key="k")
    found = find.list_executions(project_id=PROJECT, filters=filters, before=FIRST_CURSOR, limit=1)
    assert await world.store.read(found) == ([], None)


async def test_ends_are_told_with_result_error_and_detail(world: World) -> None:
    done, broken, stopped, open_ = [await world.running() for _ in range(4)]
    await world.finish(done, result={"n": 1})
    await world.report(broken, end=failure("broke"))
    await world.cancel(stopped)
    await world.report(stopped, end=failure("while stopping"))
    finished, missing = await world.store.read(
        queries.finished(project_id=PROJECT, ids=[done, broken, stopped, open_, "none"])
    )
    assert missing == ["none"]
    assert [(one.id, one.phase, one.error) for one in finished] == [
        (done, "completed", None),
        (broken, "failed", "broke"),
        (stopped, "failed", "while stopping"),
    ]
    assert finished[0].result == raw({"n": 1})
    assert finished[1].detail == raw({"type": "ValueError", "message": "broke"})


async def test_deleting_takes_a_final_execution_with_all_below_it(world: World) -> None:
    parent = await world.running(tags={"a": "1"})
    [row] = (
        await world.report(
            parent, [child("c"), step("s", 1), answer_wait("k")], logs=[LogLine(at_us=1, level=1, text="x")]
        )
    ).rows
    below = json.decode(row.value)
    await world.finish(parent)
    with pytest.raises(Conflict, match=f"{below}' is queued"):
        await world.store.write(retention.delete(project_id=PROJECT, execution_id=parent))
    await world.cancel(below)
    assert await world.store.write(retention.delete(project_id=PROJECT, execution_id=parent)) == 2
    assert await listed(world) == await listed(world, tag="a=1") == []


@pytest.mark.parametrize("end", ["queued", "running", "waiting", "blocked", "cancelling"])
async def test_nothing_open_is_deleted(world: World, end: str) -> None:
    id = await world.start()
    if end != "queued":
        await world.claim()
    if end == "waiting":
        await world.wait_for(id, answer_wait("k"))
    elif end == "blocked":
        await world.report(id, end=BLOCK)
    elif end == "cancelling":
        await world.cancel(id)
    before = await world.everything(id)
    with pytest.raises(Conflict, match=end):
        await world.store.write(retention.delete(project_id=PROJECT, execution_id=id))
    assert await world.everything(id) == before


@pytest.mark.parametrize("whose", ["user", "session"])
async def test_erasing_takes_what_is_final_and_counts_what_is_open(world: World, whose: str) -> None:
    user_id, session_id = ("x", None) if whose == "user" else (None, "x")
    item = StartItem("wf", user_id=user_id, session_id=session_id)
    open_ = await world.start_all([item] * 4)
    for id in await world.start_all([item] * 3):
        await world.cancel(id)
    other = await world.start()
    await world.cancel(other)
    erase = retention.erase(project_id=PROJECT, user_id=user_id, session_id=session_id, limit=2)
    assert await world.store.write(erase) == (2, 4)  # the open ones in front do not hide the final ones
    assert await world.store.write(erase) == (1, 4)
    assert await world.store.write(erase) == (0, 4)
    assert await listed(world) == [other, *open_[::-1]]


async def test_erasing_a_session_takes_the_execution_that_began_it(world: World) -> None:
    id = await world.start()
    await world.cancel(id)
    erased = await world.store.write(retention.erase(project_id=PROJECT, user_id=None, session_id=id, limit=10))
    assert erased == (1, 0)


DAY_US = 86_400_000_000


async def _prune(world: World, days: float, limit: int = 500, workflows: dict[str, float] | None = None) -> int:
    """The rows that a whole walk deletes."""
    total = 0
    after = ("", "")
    while True:
        deleted, after, more = await world.store.write(
            retention.prune(
                after=after,
                finished_before_us=world.now_us - int(days * DAY_US),
                idempotency_before_us=world.now_us - DAY_US,
                now_us=world.now_us,
                limit=limit,
                workflows={name: world.now_us - int(own * DAY_US) for name, own in (workflows or {}).items()},
            )
        )
        total += deleted
        if not more:
            assert after == ("", "")
            return total


@verb(reads=True)
async def _version(*, session_id: str) -> int:
    """The version of a session's transcript; 0 without a transcript."""
    found = await query("read_version", project_id=PROJECT, session_id=session_id)
    return found[0][0] if found else 0


async def test_one_locked_row_keeps_no_other_from_being_deleted(
    world: World, database: str, on_postgresql: None
) -> None:
    locked, *free = [await world.start() for _ in range(3)]
    for id in (locked, *free):
        await world.cancel(id)
    for session in ("locked", "free"):
        await append(world, session, "hello")
    world.advance(10 * 86_400)
    async with held(database, "executions", locked), held(database, "transcripts", "locked"):
        async with without_waiting():
            await _prune(world, 5)
        assert await listed(world) == [locked]
        assert [await world.store.read(_version(session_id=one)) for one in ("locked", "free")] == [1, 0]
    await _prune(world, 5)
    assert await listed(world) == []
    assert await world.store.read(_version(session_id="locked")) == 0


async def test_nor_does_a_locked_event_memory_or_trace(world: World, database: str, on_postgresql: None) -> None:
    traces = {"locked": "1" * 32, "free": "2" * 32}

    async def kept() -> list[set[str]]:
        return [
            {one for one in traces if await world.read_topic(one)},
            {one for one in traces if (await get_memory(world, one)).version},
            {one for one, trace in traces.items() if await known_spans(world, trace)},
        ]

    for one, trace in traces.items():
        await world.publish(one, "hello")
        await put_memory(world, one, "[1]")
        await put_spans(world, span(world, trace=trace))
    world.advance(10 * 86_400)
    async with (
        held(database, "events", "locked"),
        held(database, "session_memory", "locked"),
        held(database, "traces", traces["locked"]),
    ):
        async with without_waiting():
            assert await _prune(world, 5, limit=1) == 3
        assert await kept() == [{"locked"}] * 3
    assert await _prune(world, 5) == 3
    assert await kept() == [set()] * 3


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
async def test_retention_takes_what_ended_long_ago_and_nothing_else(world: World, limit: int) -> None:
    old_open = await world.start()
    old = [await world.start() for _ in range(5)]
    other = await world.start("other")
    for id in (*old, other):
        await world.cancel(id)
    ended_late = await world.start()
    world.advance(9 * 86_400)
    await world.cancel(ended_late)
    world.advance(86_400 + 1)
    young = await world.start()
    await world.cancel(young)
    assert await _prune(world, 30, limit) == 0
    assert await _prune(world, 30, limit, {"other": 10}) == 1
    assert await _prune(world, 10, limit, {"wf": 20}) == 0
    assert await _prune(world, 10, limit) == 5
    assert await listed(world) == [young, ended_late, old_open]
    assert await _prune(world, 0, limit, {"wf": 5}) == 0


async def test_what_is_open_keeps_its_ancestors(world: World) -> None:
    """Cancels and spending of a child pass through its ancestors."""
    root = await world.running()
    await world.report(root, [child("middle")])
    [middle] = await world.claim_ids()
    await world.report(middle, [child("leaf")])
    leaf = next(one for one in await listed(world) if one not in (root, middle))
    await world.finish(middle)
    world.advance(40 * 86_400)
    assert await _prune(world, 30) == 0
    await world.cancel(root)
    assert await world.phase(leaf) is Phase.CANCELLED
    world.advance(40 * 86_400)
    assert await _prune(world, 30) == 2
    assert await listed(world) == [root]  # its worker has not confirmed


async def test_one_batch_is_bounded_by_the_rows_of_its_journals(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a long transaction, however long the executions were."""
    monkeypatch.setattr(retention, "PRUNE_ROWS_MAX", 25)
    await world.register()
    for _ in range(7):
        id = await world.running()
        await world.report(id, [step(f"s{n}") for n in range(8)])
        await world.finish(id)  # ten rows
    world.advance(2 * 86_400)
    sizes = []
    after, more = ("", ""), True
    while more:
        deleted, after, more = await world.store.write(
            retention.prune(
                after=after,
                finished_before_us=world.now_us - DAY_US,
                idempotency_before_us=0,
                now_us=world.now_us,
                limit=500,
                workflows={},
            )
        )
        sizes.append(deleted)
    assert sizes == [3, 3, 1]  # the one that reaches the bound is the last
    assert await listed(world) == []


@verb(locks="")
async def _add_project(*, id: str) -> None:
    await query("insert_project", id=id, name=id, now_us=1)


async def test_a_walk_leaves_out_what_is_young_and_finds_what_is_old_in_other_projects(world: World) -> None:
    last = "z" + PROJECT
    await world.store.write(_add_project(id=last))
    ids = [world.new_id() for _ in range(3)]
    for id in ids:
        await world.store.write(
            starts.start(
                project_id=last,
                news=[starts.New(id, StartItem("wf", accept_early=True))],
                now_us=world.now_us,
                idempotency=None,
            )
        )
        await world.store.write(
            transitions.cancel(
                project_id=last, execution_id=id, cancelled_by="user", now_us=world.now_us, grace_us=1_000_000
            )
        )
    world.advance(2 * 86_400)
    for _ in range(50):
        await world.cancel(await world.start())
    windows = 0
    after, gone = ("", ""), 0
    while True:
        deleted, after, more = await world.store.write(
            retention.prune(
                after=after,
                finished_before_us=world.now_us - DAY_US,
                idempotency_before_us=0,
                now_us=world.now_us,
                limit=2,
                workflows={},
            )
        )
        windows += 1
        gone += deleted
        if not more:
            break
    assert (gone, after) == (3, ("", ""))
    assert windows == 3  # one for the young ones, two for the others
    assert len(await listed(world)) == 50


async def test_events_and_idempotency_rows_go_as_well(world: World) -> None:
    await world.publish("topic", 1, 2)
    world.advance(86_400 * 2)
    await world.publish("topic", 3)
    await _prune(world, 1)
    assert [event.sequence_id for event in await world.read_topic("topic")] == [3]
    assert await world.publish("topic", 4) == [4]
    world.advance(86_400 * 2)
    await _prune(world, 1)
    assert await world.read_topic("topic") == []
    assert await world.publish("topic", 5) == [5]


async def test_a_walk_goes_on_until_everything_that_is_due_is_gone(world: World) -> None:
    """Many events or answers and few executions, or the other way round: the batch's size leaves none behind."""
    await world.publish("topic", *range(7))
    for n in range(5):
        await world.answers([StartItem("wf")], Idempotency("start", f"k{n}", "hash"))
    for execution in await listed(world):
        await world.cancel(execution)
    world.advance(86_400 * 2)
    assert await _prune(world, 1, limit=2, workflows={"wf": 3}) == 12
    assert await _prune(world, 1, limit=2, workflows={"wf": 3}) == 0
    assert await world.read_topic("topic") == []


async def test_the_engine_s_loop_prunes_by_its_settings(world: World) -> None:
    clock = ManualClock(world.now_us)
    settings = EngineSettings(retention_days=10, retention_workflows={"other": 2})
    engine = Engine(world.store, clock=clock, settings=settings)
    ids = await world.start_all([StartItem("wf"), StartItem("other")] * 3)
    for id in ids:
        await world.cancel(id)
    assert 42.0 <= await engine.housekeeping.prune() <= 60.0  # not the same on all servers of a store
    assert len(await listed(world)) == 6
    clock.advance(3 * 86_400)
    await engine.housekeeping.prune()
    assert await listed(world, workflow_id="other") == []
    assert len(await listed(world)) == 3
    clock.advance(8 * 86_400)
    await engine.housekeeping.prune()
    assert await listed(world) == []


async def test_retention_differs_by_how_executions_ended(world: World) -> None:
    clock = ManualClock(world.now_us)
    settings = EngineSettings(
        retention_days=10, retention_statuses={"cancelled": 2, "failed": 90}, retention_workflows={"other": 30}
    )
    engine = Engine(world.store, clock=clock, settings=settings)
    completed, failed, cancelled, other = await world.start_all([StartItem(name) for name in ("wf",) * 3 + ("other",)])
    await world.claim(capacity=4)
    await world.finish(completed)
    await world.report(failed, end=failure())
    await world.cancel(cancelled)
    await world.report(cancelled, end=CANCELLED)
    await world.cancel(other)
    await world.report(other, end=CANCELLED)
    left = {
        0: [completed, failed, cancelled, other],
        3: [completed, failed, other],
        11: [failed, other],
        31: [failed],
        91: [],
    }
    day = 0
    for until, ids in left.items():
        clock.advance((until - day) * 86_400)
        day = until
        await engine.housekeeping.prune()
        assert sorted(await listed(world)) == sorted(ids), f"day {until}"


async def test_counts_are_by_phase_and_by_queue(world: World) -> None:
    await world.start_all([StartItem("wf") for _ in range(3)])
    await world.claim(capacity=1)
    await world.start("other", delay_seconds=5)
    counts = await world.store.scan(queries.counts())
    assert sorted(counts["phases"]) == [
        (PROJECT, "other", "queued", 1),
        (PROJECT, "wf", "queued", 2),
        (PROJECT, "wf", "running", 1),
    ]
    assert counts["queued"] == [(PROJECT, "d", "wf", 2, world.now_us)]


async def test_work_that_nobody_serves_is_told(world: World) -> None:
    await world.start_all([StartItem("wf") for _ in range(3)])
    look = queries.unserved(before_us=world.now_us + 1)
    assert await world.store.scan(look) == []
    await world.lose()
    assert await world.store.scan(look) == [(PROJECT, "d", None, None, 3, world.now_us - 13_000_000)]


async def test_work_that_began_on_a_python_that_nobody_runs_any_more_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The deployment's workers may not take the work, so its wait would be silent."""
    await world.running()
    await world.lose()
    await world.register("newer", python="3.13")
    await world.start()
    world.advance(100)
    engine = Engine(world.store, clock=ManualClock(world.now_us))
    for _ in range(2):
        await engine.housekeeping.alarm()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("1 executions of deployment 'd' began on Python 3.12,")


async def test_an_execution_of_long_ago_reads_like_a_new_one(world: World) -> None:
    id = await world.running()
    await world.finish(id)
    execution = await world.get(id)
    assert isinstance(execution, Execution)
    assert (execution.started_at_us, execution.completed_at_us) == (world.now_us, world.now_us)
    assert execution.assigned_to_worker == "w"


async def test_a_page_ends_with_the_execution_that_fills_it(world: World) -> None:
    await world.register()
    ids = [await world.start(payload=raw("x" * size)) for size in (10, 2_000, 300, 300, 300)]
    pages: list[list[str]] = []
    cursor: str | None = "~"
    while cursor is not None:
        page, cursor = await world.store.scan(
            find.list_executions(project_id=PROJECT, filters=ListFilters(), before=cursor, limit=10, bytes_max=700)
        )
        pages.append([execution.id for execution in page])
    assert pages == [ids[4:1:-1], [ids[1]], [ids[0]]]
