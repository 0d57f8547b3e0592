"""A bulk job takes each execution once, whatever happens to its servers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, TypeVar

import pytest
from tests.store.insight.test_why import ask
from tests.store.locks import held
from tests.store.scene import new_job
from tests.store.world import HOLD, PROJECT, World, raw, step, try_of

from perdure.engine.base.clock import ManualClock
from perdure.engine.base.service import Scope, once
from perdure.engine.engine import Engine
from perdure.engine.steering.bulk import BulkJobs
from perdure.store.base.interface import Verb
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.runs.find import list_executions
from perdure.store.verbs.runs.transitions import cancel_tree
from perdure.store.verbs.steering import bulk as verbs
from perdure.wire.base.errors import BadValue, Conflict, KeyReused, NotFound, NothingMatches, Unavailable
from perdure.wire.base.operation import Operation
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.requests import Fail, OpenWait, StartItem
from perdure.wire.steering.acts import Action
from perdure.wire.steering.bulk import (
    BulkAction,
    BulkItem,
    BulkJob,
    BulkOptions,
    BulkPreview,
    ContinueBulkJob,
    GetBulkJob,
    ItemState,
    JobState,
    ListBulkItems,
    ListBulkJobs,
    PreviewBulkJob,
    StartBulkJob,
    StopBulkJob,
)
from perdure.wire.steering.forks import Edits

T = TypeVar("T")
SCOPE = Scope(PROJECT)
WF = ListFilters(workflow_id="wf")
NO_OPTIONS = BulkOptions()


def server(world: World) -> BulkJobs:
    """The bulk jobs of one server."""
    return Engine(world.store, clock=ManualClock(world.now_us)).bulk


@pytest.fixture
def service(world: World) -> BulkJobs:
    return server(world)


async def begin(
    service: BulkJobs, action: str, filters: ListFilters = WF, options: BulkOptions = NO_OPTIONS, **more: Any
) -> BulkJob:
    op = StartBulkJob(BulkAction(action), filters, options, **more)
    op.check()
    return await service.start(SCOPE, op)


async def preview(service: BulkJobs, action: str, filters: ListFilters = WF, **options: Any) -> BulkPreview:
    op = PreviewBulkJob(BulkAction(action), filters, BulkOptions(**options))
    op.check()
    return await service.preview(SCOPE, op)


async def look(service: BulkJobs, op: Operation[T], project_id: str = PROJECT) -> T:
    reads: dict[type, Any] = {
        GetBulkJob: verbs.read_job,
        ListBulkJobs: verbs.list_jobs,
        ListBulkItems: verbs.list_items,
    }
    found: T = await service.read(reads[type(op)](At(project_id), op))
    return found


async def finish(service: BulkJobs, job: BulkJob) -> BulkJob:
    for _ in range(200):
        await service.work()
        job = await look(service, GetBulkJob(job.id))
        if job.state is not JobState.RUNNING:
            return job
    raise AssertionError(f"it is not at its end: {job}")


async def items(service: BulkJobs, job: BulkJob, state: ItemState | None = None) -> list[BulkItem]:
    return (await look(service, ListBulkItems(job.id, state, limit=1_000))).items


async def started(world: World, amount: int) -> list[str]:
    return await world.start_all([StartItem("wf") for _ in range(amount)])


async def failed(world: World, amount: int) -> list[str]:
    ids = await started(world, amount)
    for id in await world.claim_ids(capacity=amount):
        await world.report(id, end=Fail("it broke", raw({"type": "E", "message": "it broke"})))
    return ids


async def phases(world: World, ids: list[str]) -> set[Phase]:
    return {await world.phase(id) for id in ids}


async def test_a_preview_counts_and_shows_the_newest(world: World, service: BulkJobs) -> None:
    await world.register()
    broken, fine = await failed(world, 25), await started(world, 3)
    found = await preview(service, "delete")
    assert (found.count, found.at_least, found.newest) == (25, False, broken[-1])
    assert [one.id for one in found.sample] == broken[:4:-1], "the newest twenty"
    found = await preview(service, "cancel")
    assert (found.count, found.newest) == (3, fine[-1]), "only open ones can be cancelled"
    assert await phases(world, [*broken, *fine]) == {Phase.FAILED, Phase.QUEUED}


async def test_a_job_takes_what_matches_once(world: World, service: BulkJobs) -> None:
    await world.register()
    ids, others = await started(world, 40), await started(world, 2)
    job = await begin(service, "cancel", newest=ids[-1], expect=40, note="a wrong import")
    assert (job.total, job.left, job.note, job.started_by) == (40, 40, "a wrong import", "the embedding program")
    done = await finish(service, job)
    assert (done.state, done.done, done.refused, done.later, done.left) == (JobState.COMPLETED, 40, 0, 0, 0)
    assert done.ended_at_us is not None
    assert await phases(world, ids) == {Phase.CANCELLED}
    assert await phases(world, others) == {Phase.QUEUED}, "they are newer than the newest"
    assert [one.execution_id for one in await items(service, job)] == ids[::-1]
    assert (await world.get(ids[0])).cancelled_by == f"bulk job {job.id}"
    why = await ask(world, ids[0])
    assert why.sentence.startswith(f"The embedding program cancelled it with bulk job {job.id} ('a wrong import') at ")
    assert await world.store.read(verbs.due_jobs(now_us=world.now_us, limit=9)) == ([], None)


async def test_a_held_job_starts_on_time_also_on_another_server(world: World, service: BulkJobs) -> None:
    await world.register()
    ids = await started(world, 3)
    job = await begin(service, "cancel", hold_seconds=30)
    assert job.starts_at_us == world.now_us + 30_000_000
    assert 0 < await service.work() <= 7.5, "it looks no more often than without a job"
    world.now_us += 29_000_000
    other = server(world)
    assert await other.work() == pytest.approx(1.0), "it wakes when the job starts"
    assert await phases(world, ids) == {Phase.QUEUED}
    world.now_us += 1_000_000
    done = await finish(server(world), job)
    assert (done.done, done.starts_at_us, await phases(world, ids)) == (3, job.starts_at_us, {Phase.CANCELLED})
    assert done.per_second is None or done.per_second > 1, "the hold is no work"


async def test_a_held_job_is_undone_by_a_stop_and_started_by_a_continuation(world: World, service: BulkJobs) -> None:
    await world.register()
    ids = await started(world, 3)
    job = await begin(service, "cancel", hold_seconds=30)
    undone = await service.stop(SCOPE, StopBulkJob(job.id))
    assert (undone.state, undone.done, undone.left, undone.starts_at_us) == (JobState.STOPPED, 0, 3, None)
    world.now_us += 60_000_000
    await server(world).work()
    assert await phases(world, ids) == {Phase.QUEUED}
    held = await begin(service, "cancel", hold_seconds=30)
    now = await service.go_on(SCOPE, ContinueBulkJob(held.id))
    assert (now.state, now.starts_at_us) == (JobState.RUNNING, None)
    assert (await finish(service, now)).done == 3


async def test_phases_that_are_left_out_name_none(world: World, service: BulkJobs) -> None:
    await world.register()
    broken = await failed(world, 2)
    [done] = await started(world, 1)
    await world.claim()
    await world.finish(done)
    assert (await preview(service, "retry", ListFilters(not_phase=["held"]))).count == len(broken), (
        "none that completed"
    )
    assert (await preview(service, "delete", ListFilters(not_phase=["failed"]))).count == 1
    with pytest.raises(NothingMatches, match="No failed execution matches not_phase failed"):
        await preview(service, "retry", ListFilters(not_phase=["failed"]))
    await started(world, 3)
    assert (await preview(service, "cancel", ListFilters(not_phase=["running"]))).count == 3


async def test_a_running_execution_is_asked_to_end(world: World, service: BulkJobs) -> None:
    await world.register()
    id = await world.running()
    done = await finish(service, await begin(service, "cancel"))
    assert (done.done, await world.phase(id)) == (1, Phase.CANCELLING)


async def test_children_go_with_their_parents(world: World, service: BulkJobs) -> None:
    await world.register(workflows=["wf", "other"])
    parent = await world.start("other")
    [child] = await world.start_all([StartItem("wf", parent_execution_id=parent)])
    done = await finish(service, await begin(service, "cancel", ListFilters(status=["pending"])))
    assert (done.done, await phases(world, [parent, child])) == (2, {Phase.CANCELLED})
    done = await finish(service, await begin(service, "delete", ListFilters(workflow_id="other")))
    assert done.done == 1
    for id in (parent, child):
        with pytest.raises(NotFound):
            await world.get(id)


async def test_an_execution_with_an_open_descendant_is_not_deleted(world: World, service: BulkJobs) -> None:
    await world.register(workflows=["wf", "other"])
    parent = await world.running()
    child = await world.start("other", parent_execution_id=parent)
    await world.finish(parent)
    done = await finish(service, await begin(service, "delete"))
    [item] = await items(service, done, ItemState.REFUSED)
    assert (done.done, done.refused, item.execution_id) == (0, 1, parent)
    assert item.reason == f"Execution '{child}' is queued; cancel it before it is deleted."


async def test_a_step_of_many_is_answered(world: World, service: BulkJobs) -> None:
    await world.register()
    ids = [await world.running() for _ in range(3)]
    for id in ids[:2]:
        await world.wait_for(id, OpenWait("approve", None))
    found = await preview(service, "resume", key="approve")
    assert (found.count, found.newest) == (2, ids[1]), "the third does not ask"
    done = await finish(
        service, await begin(service, "resume", options=BulkOptions(key="approve", data=raw({"ok": True})))
    )
    assert (done.done, done.refused) == (2, 0)
    assert await phases(world, ids[:2]) == {Phase.QUEUED}
    [*_, last] = await world.journal(ids[0])
    assert (last.kind.value, last.key, bytes(last.value)) == ("resume", "approve", b'{"ok":true}')


async def test_failed_executions_are_retried_once(world: World, service: BulkJobs) -> None:
    await world.register()
    await world.finish(await world.running())
    broken = await failed(world, 30)
    by_hand = (await world.retry(broken[0])).execution_id
    assert (await preview(service, "retry")).count == 29, "one was retried before, one has completed"
    assert (await preview(service, "retry", ListFilters(workflow_id="wf", status=["completed"]))).count == 1
    done = await finish(service, await begin(service, "retry", note="the bank is up"))
    assert (done.done, done.refused) == (29, 0)
    made = {one.execution_id: one.made_id for one in await items(service, done)}
    assert sorted(made) == broken[1:]
    assert {id: (await world.get(id)).retried_as for id in broken} == made | {broken[0]: by_hand}
    assert await phases(world, [id for id in made.values() if id]) == {Phase.QUEUED}
    with pytest.raises(
        NothingMatches, match=r"^No final execution matches status failed, workflow_id 'wf'\. 30 were retried before\.$"
    ):
        await preview(service, "retry", ListFilters(workflow_id="wf", status=["failed"]))


async def test_retries_that_would_keep_a_refund_are_counted_and_refused(world: World, service: BulkJobs) -> None:
    await world.register()
    ids = await started(world, 3)
    later = {"type": "E", "message": "no", "steps": ["ship"], "later": {"refund": None}}
    for id in await world.claim_ids(capacity=3):
        entries = [step("ship", 1, ok=False), step("refund", 1)]
        end = Fail("no", raw(later if id != ids[0] else {**later, "later": {}}))
        await world.report(id, entries, end)
    found = await preview(service, "retry")
    assert (found.count, found.later) == (3, 2)
    assert (await preview(service, "retry", keep_later=True)).later == 0
    assert (await preview(service, "retry", redo_later=True)).later == 0
    done = await finish(service, await begin(service, "retry"))
    assert (done.done, done.refused) == (1, 2)
    reasons = [one.reason for one in await items(service, done, ItemState.REFUSED)]
    assert all(reason and "recorded 'refund' after the failure" in reason for reason in reasons)
    done = await finish(service, await begin(service, "retry", options=BulkOptions(redo_later=True)))
    assert (done.done, done.refused) == (2, 0)


async def test_a_retry_that_was_first_wins(world: World, service: BulkJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.register()
    broken = await failed(world, 3)
    job = await begin(service, "retry")
    scan, first = world.store.scan, list[str]()

    async def look(verb: Verb[Any]) -> Any:
        found = await scan(verb)
        if verb.name == "find_matching" and not first:
            first.append((await world.retry(broken[1])).execution_id)
        return found

    monkeypatch.setattr(world.store, "scan", look)
    done = await finish(service, job)
    [item] = await items(service, done, ItemState.REFUSED)
    assert (done.done, item.execution_id) == (2, broken[1])
    assert item.reason == f"Execution '{broken[1]}' was retried as '{first[0]}'. Retry that one, or fork this one."


async def test_executions_of_any_phase_are_forked(world: World, service: BulkJobs) -> None:
    await world.register()
    running, done_id = await world.running(), await world.running()
    await world.report(running, [step("a", 1)])
    await world.report(done_id, [step("a", 1)])
    await world.finish(done_id)
    options = BulkOptions(edits=Edits(steps={"a": raw(7)}), fresh_keys=True)
    job = await finish(service, await begin(service, "fork", options=options))
    assert (job.done, job.refused) == (2, 0)
    for item in await items(service, job):
        assert item.made_id is not None
        assert (await world.get(item.made_id)).forked_from == item.execution_id
        [edited] = [row for row in await world.journal(item.made_id) if row.key == "a"]
        assert bytes(edited.value) == b"7"


async def test_held_executions_are_tried_again(world: World, service: BulkJobs) -> None:
    await world.register()
    held = [await world.running() for _ in range(3)]
    for id in held:
        await world.report(id, [try_of("pay")], HOLD)
    waiting = await world.running()
    await world.wait_for(waiting, OpenWait("approve", None))
    again = BulkOptions(act=Action.TRY)
    assert (await preview(service, "act", act=Action.TRY)).count == 3, "without a key it is about held executions"
    done = await finish(service, await begin(service, "act", options=again, note="the bank is up"))
    assert (done.done, done.refused) == (3, 0)
    assert await phases(world, held) == {Phase.QUEUED}
    with pytest.raises(NothingMatches, match="No held execution matches"):
        await preview(service, "act", act=Action.TRY)


async def test_what_is_not_pending_is_refused(world: World, service: BulkJobs) -> None:
    await world.register()
    asking, other = await world.running(), await world.running()
    await world.wait_for(asking, OpenWait("approve", None))
    await world.wait_for(other, OpenWait("check", None))
    options = BulkOptions(act=Action.TIME_OUT, key="approve")
    done = await finish(service, await begin(service, "act", options=options))
    [item] = await items(service, done, ItemState.REFUSED)
    assert (done.done, item.execution_id) == (1, other)
    assert item.reason == f"Nothing is pending under 'approve' of execution '{other}'. Pending: 'check'."
    [*_, last] = await world.journal(asking)
    assert (last.kind.value, last.ok) == ("resume", False)


async def test_what_changed_since_the_look_is_refused_with_its_reason(
    world: World, service: BulkJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register()
    ids = await started(world, 5)
    job = await begin(service, "cancel", ListFilters(workflow_id="wf", status=["pending"]))
    scan, taken = world.store.scan, list[str]()

    async def look(verb: Verb[Any]) -> Any:
        found = await scan(verb)
        if verb.name == "find_matching" and not taken:
            taken.extend(await world.claim_ids(capacity=2))
        return found

    monkeypatch.setattr(world.store, "scan", look)
    done = await finish(service, job)
    assert (done.done, done.refused) == (3, 2)
    reasons = {one.execution_id: one.reason for one in await items(service, job, ItemState.REFUSED)}
    assert reasons == {
        id: f"Execution '{id}' is running by now and does not match the filters any more." for id in taken
    }
    assert await phases(world, taken) == {Phase.RUNNING}
    assert await phases(world, [id for id in ids if id not in taken]) == {Phase.CANCELLED}


@pytest.mark.parametrize("action", ["cancel", "fork"])
async def test_two_servers_take_each_execution_once(world: World, action: str) -> None:
    await world.register()
    ids = await started(world, 60)
    one, other = server(world), server(world)
    job = await begin(one, action)
    done = job
    while done.state is JobState.RUNNING:
        await asyncio.gather(one.work(), other.work())
        done = await look(one, GetBulkJob(job.id))
    assert (done.state, done.done, done.refused) == (JobState.COMPLETED, 60, 0)
    assert sorted(item.execution_id for item in await items(one, job)) == ids


async def test_a_job_goes_on_at_its_place_on_another_server(world: World) -> None:
    await world.register()
    ids = await started(world, 30)
    one = server(world)
    job = await begin(one, "cancel")
    await one.work()
    half = await look(one, GetBulkJob(job.id))
    assert 0 < half.done < 30
    done = await finish(server(world), job)
    assert (done.done, done.refused, await phases(world, ids)) == (30, 0, {Phase.CANCELLED})


async def test_a_stopped_job_does_nothing_until_it_is_continued(world: World, service: BulkJobs) -> None:
    await world.register()
    ids = await started(world, 30)
    job = await begin(service, "cancel")
    await service.work()
    stopped = await service.stop(SCOPE, StopBulkJob(job.id))
    assert (stopped.state, 0 < stopped.done < 30) == (JobState.STOPPED, True)
    assert await service.stop(SCOPE, StopBulkJob(job.id)) == stopped
    await service.work()
    assert await look(service, GetBulkJob(job.id)) == stopped
    assert (await service.go_on(SCOPE, ContinueBulkJob(job.id))).state is JobState.RUNNING
    done = await finish(service, job)
    assert (done.done, await phases(world, ids)) == (30, {Phase.CANCELLED})
    with pytest.raises(Conflict, match=r"completed at 2025-06-15T15:06:40\.000000\+00:00\.$"):
        await service.stop(SCOPE, StopBulkJob(job.id))
    with pytest.raises(NotFound, match="does not exist"):
        await service.stop(SCOPE, StopBulkJob(world.new_id()))


@pytest.mark.usefixtures("on_postgresql")
async def test_a_locked_execution_is_taken_later(world: World, service: BulkJobs, database: str) -> None:
    await world.register()
    ids = await started(world, 3)
    job = await begin(service, "cancel")
    async with held(database, "executions", ids[1]):
        for _ in range(3):
            await service.work()
        now = await look(service, GetBulkJob(job.id))
        assert (now.state, now.done, now.later) == (JobState.RUNNING, 2, 1)
        assert [one.execution_id for one in await items(service, job, ItemState.LATER)] == [ids[1]]
    done = await finish(service, job)
    assert (done.done, done.later, await phases(world, ids)) == (3, 0, {Phase.CANCELLED})


async def test_an_execution_that_makes_a_page_fail_does_not_stop_the_job(
    world: World, service: BulkJobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await world.register()
    ids = await started(world, 9)

    async def broken(project_id: str, execution_id: str, *more: Any) -> Phase:
        if execution_id == ids[4]:
            raise ZeroDivisionError("a bug")
        return await cancel_tree(project_id, execution_id, *more)

    monkeypatch.setattr("perdure.store.verbs.steering.bulk.cancel_tree", broken)
    done = await finish(service, await begin(service, "cancel"))
    [item] = await items(service, done, ItemState.REFUSED)
    assert (done.done, done.refused, item.execution_id) == (8, 1, ids[4])
    assert item.reason == "The action failed (ZeroDivisionError: a bug). The server's log says more."
    assert [one.message for one in caplog.records if one.name == "perdure.engine"] == [
        f"Bulk job {done.id}: a page failed. It goes on with single executions."
    ]


async def test_one_that_fails_when_it_is_taken_later_is_refused_itself(
    world: World, service: BulkJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register()
    ids = await started(world, 9)
    locked = True

    async def try_lock(project_id: str, execution_id: str) -> bool:
        return not locked

    async def broken(project_id: str, execution_id: str, *more: Any) -> Phase:
        if execution_id == ids[4]:
            raise ZeroDivisionError("a bug")
        return await cancel_tree(project_id, execution_id, *more)

    monkeypatch.setattr("perdure.store.verbs.steering.bulk.try_lock", try_lock)
    monkeypatch.setattr("perdure.store.verbs.steering.bulk.cancel_tree", broken)
    job = await begin(service, "cancel")
    for _ in range(5):
        await service.work()
    assert (await look(service, GetBulkJob(job.id))).later == 9
    locked = False
    done = await finish(service, job)
    assert (done.done, done.refused, done.later) == (8, 1, 0)
    assert [one.execution_id for one in await items(service, done, ItemState.REFUSED)] == [ids[4]]


async def test_a_page_without_an_answer_comes_back_smaller_and_lets_others_go_first(
    world: World, service: BulkJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register(workflows=["wf", "other"])
    await started(world, 9)
    await world.start("other")
    write = service.write
    taken: list[tuple[str, int]] = []

    async def slow(verb: Verb[Any]) -> Any:
        if verb.name == "work_job":
            page = verb.values["page"]
            taken.append((verb.values["job_id"], len(page.ids)))
            if len(page.ids) > 1:
                raise Unavailable("The database did not answer in time.")
        return await write(verb)

    monkeypatch.setattr(service, "write", slow)
    long = await begin(service, "cancel")
    short = await begin(service, "cancel", ListFilters(workflow_id="other"))
    with pytest.raises(Unavailable):
        await service.work()
    await service.work()
    await service.work()
    assert taken == [(long.id, 5), (short.id, 1), (long.id, 1)]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("action", ["retry", "fork"])
async def test_each_execution_is_taken_once_wherever_servers_die(
    world: World, monkeypatch: pytest.MonkeyPatch, action: str, moment: str
) -> None:
    """Each server dies at its second page. Only the job's place prevents double forks."""
    await world.register()
    broken = await failed(world, 40)
    service, deaths = server(world), 0
    job = await begin(service, action)
    while (await look(service, GetBulkJob(job.id))).state is JobState.RUNNING:
        service, pages, write = server(world), 0, world.store.write

        async def dying(verb: Verb[Any], write: Any = write) -> Any:
            nonlocal pages
            pages += verb.name == "work_job"
            answer = await write(verb) if pages < 2 or moment == "after" else None
            if pages >= 2:
                raise Unavailable("The server is gone.")
            return answer

        with monkeypatch.context() as patched, contextlib.suppress(Unavailable):
            patched.setattr(world.store, "write", dying)
            while pages < 2 and (await look(service, GetBulkJob(job.id))).state is JobState.RUNNING:
                await service.work()
        deaths += pages >= 2
    done = await look(service, GetBulkJob(job.id))
    assert (done.done, done.refused, done.later, deaths > 2) == (40, 0, 0, True)
    found, _ = await world.store.scan(list_executions(project_id=PROJECT, filters=WF, before="~", limit=500))
    forks = sorted((one.forked_from, one.id) for one in found if one.forked_from is not None)
    assert forks == sorted((one.execution_id, one.made_id) for one in await items(service, job))
    assert [source for source, _ in forks] == broken


async def test_filters_that_match_nothing_say_which_is_too_narrow(world: World, service: BulkJobs) -> None:
    await world.register()
    await failed(world, 2)
    with pytest.raises(NothingMatches) as refused:
        await preview(service, "delete", ListFilters(workflow_id="wf", status=["completed"]))
    assert refused.value.message == (
        "No final execution matches status completed, workflow_id 'wf'. Without status completed: 2."
    )
    with pytest.raises(NothingMatches, match=r"^No open execution matches workflow_id 'wf'\.$"):
        await begin(service, "cancel")
    assert (await look(service, ListBulkJobs())).items == []


@pytest.mark.parametrize(
    ("action", "filters", "options", "message"),
    [
        ("cancel", ListFilters(), {}, "A bulk job needs a filter. `created_before` of now takes all."),
        (
            "delete",
            ListFilters(status=["failed", "running"]),
            {},
            "filters.status: delete needs final executions; leave out status and phase, or use completed, failed, "
            "cancelled.",
        ),
        (
            "cancel",
            ListFilters(phases=["failed"]),
            {},
            "filters.status: cancel needs open executions; leave out status and phase, or use pending, running.",
        ),
        ("resume", WF, {}, "options.key: resume needs it."),
        ("cancel", WF, {"key": "k"}, "options.key: cancel takes no options."),
        ("resume", WF, {"key": "k", "error": "no"}, "options.error: resume takes only key, data."),
        ("retry", WF, {"from_step": "a", "from_end": True}, "body: name either `from_step` or `from_end`."),
        ("act", WF, {"act": Action.FIRE}, "key: `fire` needs the key of what is pending"),
        ("act", WF, {"act": Action.TRY, "error": "no"}, "error: belongs to `fail`, not to `try`"),
    ],
)
def test_what_does_not_fit_is_refused(action: str, filters: ListFilters, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue) as refused:
        PreviewBulkJob(BulkAction(action), filters, BulkOptions(**options)).check()
    assert refused.value.message == message


async def test_another_number_than_expected_starts_nothing(world: World, service: BulkJobs) -> None:
    await world.register()
    await started(world, 3)
    with pytest.raises(Conflict, match=r"^3 match now, not 2\. Look again, or leave `expect` out\.$"):
        await begin(service, "cancel", expect=2)
    assert (await look(service, ListBulkJobs())).items == []


async def test_a_repeated_request_gets_the_first_job(world: World, service: BulkJobs) -> None:
    await world.register()
    await started(world, 3)
    op = StartBulkJob(BulkAction.CANCEL, WF)
    scope = Scope(PROJECT, once(op, "monday"))
    first = await service.start(scope, op)
    assert await service.start(scope, op) == first
    await finish(service, first)
    assert await service.start(scope, op) == first, "nothing matches any more, and yet it is the same request"
    other = StartBulkJob(BulkAction.DELETE, WF)
    with pytest.raises(KeyReused) as refused:
        await service.start(Scope(PROJECT, once(other, "monday")), other)
    assert refused.value.message == (
        f"Idempotency-Key 'monday' started bulk job {first.id} with another body (cancel of 3, by the embedding "
        f"program). Look: `perdure bulk show {first.id}`, or use a new key."
    )


async def test_jobs_have_pages_and_belong_to_their_project(world: World, service: BulkJobs) -> None:
    await world.register()
    await started(world, 3)
    made = [await begin(service, "cancel") for _ in range(3)]
    page = await look(service, ListBulkJobs(limit=2))
    assert [job.id for job in page.items] == [made[2].id, made[1].id]
    rest = await look(service, ListBulkJobs(page.next_cursor, 2))
    assert ([job.id for job in rest.items], rest.next_cursor) == ([made[0].id], None)
    await finish(service, made[0])
    page_of_items = await look(service, ListBulkItems(made[0].id, limit=2))
    assert len(page_of_items.items) == 2
    assert len((await look(service, ListBulkItems(made[0].id, cursor=page_of_items.next_cursor))).items) == 1
    other = Scope("another")
    assert (await look(service, ListBulkJobs(), other.project_id)).items == []
    with pytest.raises(NotFound):
        await look(service, GetBulkJob(made[0].id), other.project_id)
    with pytest.raises(NotFound):
        await look(service, ListBulkItems(made[0].id), other.project_id)


async def others(world: World, amount: int, *, hold_seconds: int | None = None, filters: ListFilters = WF) -> list[str]:
    """Jobs of another project, older than all others."""
    ids = [f"00000000-0000-7000-8000-{n:012x}" for n in range(amount)]
    for id in ids:
        job = new_job(
            f"{hold_seconds or 0:08x}{id[8:]}",
            filters,
            newest="~",
            at_us=world.now_us,
            starts_at_us=None if hold_seconds is None else world.now_us + hold_seconds * 1_000_000,
        )
        await world.store.write(verbs.start_job(project_id="other", job=job, now_us=world.now_us))
    return ids


async def test_projects_take_turns(world: World, service: BulkJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs of one project take turns, too."""
    monkeypatch.setattr(verbs, "OPEN_MAX", 1_000)
    await world.register()
    ids = await started(world, 12)
    await others(world, 110, hold_seconds=300)
    await others(world, 110)
    mine = [await begin(service, "cancel"), await begin(service, "cancel")]
    turns: list[tuple[str, str]] = []
    take_page = service._take_page

    async def noted(job: verbs.RunningJob) -> bool:
        turns.append((job.project_id, job.id))
        return await take_page(job)

    monkeypatch.setattr(service, "_take_page", noted)
    for _ in range(4):
        await service.work()
    assert [project_id for project_id, _ in turns] == ["other", PROJECT] * 4
    assert [id for project_id, id in turns if project_id == PROJECT] == [mine[0].id, mine[1].id] * 2
    assert len({id for project_id, id in turns if project_id == "other"}) == 4
    assert Phase.CANCELLED in await phases(world, ids)


async def test_a_job_that_finds_nothing_any_more_does_not_stop_others(
    world: World, service: BulkJobs, caplog: pytest.LogCaptureFixture
) -> None:
    await world.register()
    await started(world, 3)
    await others(world, 1, filters=ListFilters(field="payload.gone=1"))
    assert (await finish(service, await begin(service, "cancel"))).done == 3
    [line] = [one.message for one in caplog.records]
    assert "cannot find its executions: No workflow declares payload.gone" in line


async def test_a_project_has_a_limit_of_open_jobs(
    world: World, service: BulkJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "OPEN_MAX", 3)
    await world.register()
    await started(world, 1)
    await others(world, 3)
    first, second, _ = [await begin(service, "cancel", hold_seconds=300 * (n % 2)) for n in range(3)]
    full = "3 bulk jobs of this project are running or held. Wait until one ends, or stop one."
    with pytest.raises(Conflict, match=full):
        await begin(service, "cancel")
    await service.stop(SCOPE, StopBulkJob(first.id))
    assert (await begin(service, "cancel")).state is JobState.RUNNING
    with pytest.raises(Conflict, match=full):
        await service.go_on(SCOPE, ContinueBulkJob(first.id))
    assert (await service.go_on(SCOPE, ContinueBulkJob(second.id))).starts_at_us is None


async def test_old_jobs_are_deleted_with_their_items(world: World, service: BulkJobs) -> None:
    await world.register()
    await started(world, 7)
    job = await finish(service, await begin(service, "cancel"))
    assert not await world.store.write(verbs.prune_jobs(before_us=world.now_us, limit=5)), "it is too young"
    rounds = 0
    while await world.store.write(verbs.prune_jobs(before_us=world.now_us + 1, limit=5)):
        rounds += 1
    assert rounds == 2
    with pytest.raises(NotFound):
        await look(service, GetBulkJob(job.id))


async def test_a_job_of_a_newer_release_is_left_to_it(
    world: World, service: BulkJobs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter unknown here must not be left out."""
    await world.register()
    ids = await started(world, 2)
    with monkeypatch.context() as patched:
        patched.setattr("perdure.engine.steering.bulk.stored", lambda value: b'{"workflow_id": "wf", "colour": "red"}')
        job = await begin(service, "cancel")
    for _ in range(3):
        await service.work()
    assert (await look(service, GetBulkJob(job.id))).done == 0
    assert await phases(world, ids) == {Phase.QUEUED}
    [line] = [one.message for one in caplog.records]
    assert line.startswith(f"Bulk job {job.id} was started by a newer release, which has to finish it: ")
