"""Bulk jobs: an action on all executions that filters find.

A job walks from the newest execution to the oldest. A page is one transaction, which acts on executions, writes an item
for each, and moves the job's place. Servers that work at the same job see each other's place, so each execution
is taken once.

If another transaction holds a row of an execution, the job takes the execution after the walk: a job that waited for
rows in any order could meet a deadlock.
"""

import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from perdure.store.base.executions import State
from perdure.store.base.interface import query, query_many, record, records, serves, value, verb
from perdure.store.verbs.base.idempotency import At, Idempotency, recall, remember
from perdure.store.verbs.base.pages import fitting, newest
from perdure.store.verbs.base.try_lock import try_lock, try_lock_below, try_lock_end
from perdure.store.verbs.retention import delete_executions, final_tree
from perdure.store.verbs.runs.find import find_ids, that_fit
from perdure.store.verbs.runs.transitions import Canceller, cancel_tree
from perdure.store.verbs.runs.waits import give_answer, lock_topic_of_wait
from perdure.store.verbs.steering.acts import act_on
from perdure.store.verbs.steering.fork_plans import later_keys
from perdure.store.verbs.steering.forks import fork_one, retry_one
from perdure.wire.base.errors import Conflict, KeyReused, NotFound, PerdureError
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.operation import Listed, Operation
from perdure.wire.base.records import NULL
from perdure.wire.base.times import rfc3339
from perdure.wire.runs.executions import CancelExecution, DeleteExecution, Execution, ListFilters, ResumeExecution
from perdure.wire.steering.acts import ActOnExecution
from perdure.wire.steering.bulk import (
    BulkAction,
    BulkItem,
    BulkJob,
    GetBulkJob,
    ItemState,
    JobState,
    ListBulkItems,
    ListBulkJobs,
    Selection,
    place_after,
    read_stored,
    stored,
)
from perdure.wire.steering.forks import ForkExecution, RetryExecution

WALKED = ""
"""The place of a job whose remaining items are for later."""
OPEN_MAX = 100
"""Running and held jobs per project."""
PAUSE_US = 5_000_000
"""Microseconds between two pages. A longer time does not count as work."""


class MatchingPage(NamedTuple):
    """Matching executions, newest first. The next ones are before `place`; None: the list is complete."""

    ids: list[str]
    place: str | None
    sample: list[Execution]


class RunningJob(Struct, frozen=True):
    project_id: str
    id: str
    place: str


class BulkPage(Struct, frozen=True):
    """The executions to take next, between two places of the job."""

    selection: Selection
    place: str
    following: str
    ids: Mapping[str, str]
    """Executions, each with an id for the execution that the action starts."""
    refusal: str | None = None
    """Refuse the executions with this reason: the action failed on them."""

    @property
    def again(self) -> bool:
        return self.place == WALKED


class _Locked(Exception):
    """Another transaction holds a row of the execution."""


@verb(reads=True)
async def find_matching(
    *, project_id: str, selection: Selection, before: str, limit: int, sample: int = 0
) -> MatchingPage:
    """Find executions, and read the first `sample` of them."""
    wanted = selection.wanted()
    if selection.action is BulkAction.RETRY and wanted.retried is None:
        wanted = replace(wanted, retried=False)
    ids, place = await find_ids(project_id, wanted, before, limit)
    if selection.action is BulkAction.RESUME and ids:
        asking = await query("asking_among", ids=json.dumps(ids), key=selection.options.key)
        ids = sorted((id for (id,) in asking), reverse=True)
    found: list[Execution] = []
    if sample and ids:
        sizes = await query("sizes_of", project_id=project_id, ids=json.dumps(ids[:sample]))
        shown = ids[: fitting((size for _, size in sizes), REPLY_BYTES_MAX)]
        found = await records(Execution, "list_executions", project_id=project_id, ids=json.dumps(shown))
    return MatchingPage(ids, place, found)


@verb(reads=True)
async def count_later(*, project_id: str, ids: Sequence[str]) -> int:
    """Count the executions for which a retry needs `keep_later` or `redo_later`."""
    return sum([bool(await later_keys(project_id, id)) for id in ids])


@verb(locks="")
async def start_job(
    *,
    project_id: str,
    job: BulkJob | PerdureError,
    now_us: int,
    idempotency: Idempotency | None = None,
) -> BulkJob:
    """A repeated request gets the first answer, also if by now the job would be refused (`job` is an error)."""
    first = await _recall(project_id, idempotency)
    if first is not None:
        return first
    if isinstance(job, PerdureError):
        raise job
    if not await query("insert_job", job, project_id=project_id, place=place_after(job.newest), most=OPEN_MAX):
        raise _too_many()
    await remember(project_id, idempotency, stored(job), now_us)
    return job


async def _recall(project_id: str, same: Idempotency | None) -> BulkJob | None:
    try:
        answer = await recall(project_id, same)
    except KeyReused:
        assert same is not None
        [(_, answer)] = await query("read_idempotency", project_id=project_id, route=same.route, key=same.key)
        job = read_stored(BulkJob, answer)
        raise KeyReused(
            f"Idempotency-Key {same.key!r} started bulk job {job.id} with another body ({job.action} of {job.total:,}, "
            f"by {job.started_by}). Look: `perdure bulk show {job.id}`, or use a new key.",
            {"job_id": job.id},
        ) from None
    return None if answer is None else read_stored(BulkJob, answer)


async def _read_job(project_id: str, job_id: str) -> BulkJob:
    job = await record(BulkJob, "read_job", project_id=project_id, id=job_id)
    if job is None:
        raise NotFound(f"Bulk job {job_id!r} does not exist.")
    return job


@serves(GetBulkJob, reads=True)
async def read_job(at: At, op: GetBulkJob) -> BulkJob:
    return await _read_job(at.project_id, op.job_id)


@serves(ListBulkJobs, reads=True)
async def list_jobs(at: At, op: ListBulkJobs) -> Listed[BulkJob]:
    return await newest(BulkJob, "list_jobs", at, op)


@serves(ListBulkItems, reads=True)
async def list_items(at: At, op: ListBulkItems) -> Listed[BulkItem]:
    await _read_job(at.project_id, op.job_id)
    name = "list_items" if op.state is None else "list_items_in_state"
    found = await records(BulkItem, name, op, before=op.cursor or FIRST_CURSOR, limit=op.limit + 1)
    return Listed.of(found, op.limit, attrgetter("execution_id"))


@verb(locks="bulk_job=job_id")
async def set_running(*, project_id: str, job_id: str, runs: bool, now_us: int) -> BulkJob:
    """Stop or continue a job. A stop waits for the page under way. A held job continues at once. Raises NotFound, and
    Conflict if the job is completed."""
    state = JobState.RUNNING if runs else JobState.STOPPED
    for before, ended_at_us, starts_at_us in await query("lock_job", project_id=project_id, id=job_id):
        if before == JobState.COMPLETED:
            raise Conflict(f"Bulk job {job_id!r} completed at {rfc3339(ended_at_us)}.")
        if before != state or starts_at_us is not None:
            changed = await query(
                "set_job_state", project_id=project_id, id=job_id, state=state.value, now_us=now_us, most=OPEN_MAX
            )
            if not changed:
                raise _too_many()
    return await _read_job(project_id, job_id)


def _too_many() -> Conflict:
    return Conflict(f"{OPEN_MAX} bulk jobs of this project are running or held. Wait until one ends, or stop one.")


@verb(reads=True)
async def due_jobs(*, now_us: int, limit: int) -> tuple[list[RunningJob], int | None]:
    """List jobs of all projects that may run now, and when the next held job may run."""
    jobs = await records(RunningJob, "due_jobs", now_us=now_us, limit=limit)
    return jobs, await value("next_job_due", now_us=now_us)


@verb(reads=True)
async def selection_of(*, project_id: str, job_id: str) -> Sequence[tuple[str, bytes, bytes]]:
    return await query("selection_of_job", project_id=project_id, id=job_id)


@verb(reads=True)
async def later_items(*, job_id: str, after: str, limit: int) -> list[str]:
    return [id for (id,) in await query("later_items", job_id=job_id, after=after, limit=limit)]


@verb(sweep=True)
async def work_job(*, project_id: str, job_id: str, page: BulkPage, now_us: int, grace_us: int) -> int | None:
    """Take a page of executions. Returns the count of done and refused executions, or None if the job is not running or
    another server works at the job."""
    for place, started_by, note, later in await query("try_lock_job", project_id=project_id, id=job_id):
        if place != page.place:
            return None
        ids = list(page.ids)
        if page.again and ids:
            found = await query("later_among", job_id=job_id, ids=json.dumps(ids))
            ids = [id for (id,) in found]
        by = Canceller(f"bulk job {job_id}", started_by, note)
        wanted = page.selection.wanted()
        job = _Job(project_id, page, by, wanted=wanted, started_by=started_by, now_us=now_us, grace_us=grace_us)
        items = [await job.take(id) for id in ids]
        await query_many(
            "put_item", [(job_id, one.execution_id, one.state.value, one.made_id, one.reason, now_us) for one in items]
        )
        done, refused, put_off = [sum(one.state is state for one in items) for state in ItemState]
        left = later + put_off - (len(ids) if page.again else 0)
        is_over = page.following == WALKED and not left
        await query(
            "move_job",
            project_id=project_id,
            id=job_id,
            place=page.following,
            done=done,
            refused=refused,
            later=left - later,
            state=(JobState.COMPLETED if is_over else JobState.RUNNING).value,
            ended_at_us=now_us if is_over else None,
            now_us=now_us,
            pause_us=PAUSE_US,
        )
        return done + refused
    return None


class _Job(NamedTuple):
    project_id: str
    page: BulkPage
    by: Canceller
    wanted: ListFilters
    started_by: str
    now_us: int
    grace_us: int

    async def take(self, id: str) -> BulkItem:
        """Act on an execution. Actions refuse before the first write, so a refusal leaves the page whole."""
        if self.page.refusal is not None:
            return BulkItem(id, ItemState.REFUSED, self.now_us, reason=self.page.refusal)
        try:
            made_id = await self._apply(id, self.page.selection.operation(id, self.by.note), self.page.ids[id])
        except _Locked:
            return BulkItem(id, ItemState.LATER, self.now_us)
        except PerdureError as error:
            return BulkItem(id, ItemState.REFUSED, self.now_us, reason=error.message)
        return BulkItem(id, ItemState.DONE, self.now_us, made_id)

    async def _apply(self, id: str, op: Operation[Any], fresh_id: str) -> str | None:
        """Return the id of the execution started, if any. Raises PerdureError, and _Locked."""
        project_id, now_us, author = self.project_id, self.now_us, self.started_by
        key = self.page.selection.options.key
        wait = None if key is None else await lock_topic_of_wait(project_id, id, key)
        _demand(await try_lock(project_id, id))
        state = await record(State, "read_state", project_id=project_id, id=id)
        if state is None:
            raise NotFound(f"Execution {id!r} was deleted before the job took it.")
        if not await that_fit(project_id, self.wanted, [id]):
            raise Conflict(f"Execution {id!r} is {state.phase} by now and does not match the filters any more.")
        match op:
            case CancelExecution():
                _demand(await try_lock_end(project_id, id, state.parent_execution_id))
                _demand(await try_lock_below(project_id, id))
                await cancel_tree(project_id, id, self.by, now_us, self.grace_us)
            case DeleteExecution():
                tree = await final_tree(project_id, id)
                for one in tree:
                    _demand(await try_lock(project_id, one))
                await delete_executions(project_id, tree)
            case ResumeExecution(_, step, data):
                if wait is None or wait.state != "open":
                    raise Conflict(f"Step {step!r} of execution {id!r} does not wait for an answer any more.")
                await give_answer(project_id, id, step, data or NULL, now_us, answered_by=author)
            case ActOnExecution():
                await act_on(project_id, op, acted_by=author, event_id=fresh_id, now_us=now_us)
            case ForkExecution():
                return (await fork_one(project_id, op, fresh_id, author, now_us)).execution_id
            case RetryExecution():
                return (await retry_one(project_id, op, fresh_id, author, now_us)).execution_id
        return None


def _demand(locked: bool) -> None:
    if not locked:
        raise _Locked


@verb(sweep=True)
async def prune_jobs(*, before_us: int, limit: int) -> bool:
    """Delete the oldest job that ended before `before_us`, with at most `limit` of its items. Returns whether more may
    be left."""
    for project_id, job_id in await query("oldest_job", before_us=before_us):
        if len(await query("prune_items", job_id=job_id, limit=limit)) < limit:
            await query("delete_job", project_id=project_id, id=job_id)
        return True
    return False
