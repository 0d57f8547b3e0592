"""The facts by which the engine explains an execution."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from perdure.store.base.executions import unknown_execution
from perdure.store.base.interface import query, record, records, value, verb
from perdure.store.verbs.base.pages import VALUE_BYTES_MAX, newest_entries, read_entries
from perdure.store.verbs.insight.why_queued import queued
from perdure.store.verbs.steering import pending
from perdure.store.verbs.steering.fork_plans import later_keys
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.errors import NotFound
from perdure.wire.base.records import OUTCOMES, Kind
from perdure.wire.base.status import LEASED, Phase
from perdure.wire.insight.critical_path import PathExecution
from perdure.wire.insight.explain_queued import queued_behind
from perdure.wire.insight.why_facts import (
    BLAMED,
    Blocked,
    Cause,
    Compared,
    EndFacts,
    Facts,
    Failed,
    Losses,
    Running,
    Subject,
    WaitFacts,
)
from perdure.wire.runs.executions import Act
from perdure.wire.runs.queues import ReadyExecution
from perdure.wire.runs.starts import INT32_MAX
from perdure.wire.runs.waits import PendingWait, PendingWaits, RecordedWait
from perdure.wire.runs.workers import ListedWorker
from perdure.wire.steering.acts import PendingCall, PendingKind

NAMED_MAX: Final = 11
"""Rows read of a kind, one more than an explanation names."""
ACTS_MAX: Final = 3
LEVELS_MAX: Final = 20
STEPS_COMPARED_MAX: Final = 1_000
PATH_PAGE: Final = 1_000
PATH_BYTES_MAX: Final = 64
"""Enough for a child's id."""
READY_MAX: Final = 10_000
"""Ready executions of a queue that are sorted, of each kind."""


@verb(reads=True)
async def explained(*, project_id: str, execution_id: str, times: Mapping[str, int]) -> tuple[Facts, Sequence[Act]]:
    """Return facts with the newest acts. `times` are the values of `read_listed_worker`."""
    facts = await _facts(project_id, execution_id, times)
    return facts, await records(Act, "newest_acts", execution_id=execution_id, limit=ACTS_MAX)


@verb(reads=True)
async def list_waits(*, project_id: str, execution_id: str, times: Mapping[str, int]) -> PendingWaits:
    """Raises NotFound."""
    subject = await _subject(project_id, execution_id)
    if subject is None:
        raise unknown_execution(execution_id)
    waits = await records(PendingWait, "list_waits", execution_id=execution_id)
    if subject.summary.phase is not Phase.QUEUED:
        return PendingWaits(waits)
    return PendingWaits(waits, queued_behind(await queued(project_id, subject, None, times)))


@verb(reads=True)
async def next_in_queue(
    *, project_id: str, name: str, limit: int, times: Mapping[str, int]
) -> tuple[list[tuple[ReadyExecution, Facts | None]], bool]:
    """Return ready executions with facts about each, and whether the order is exact."""
    of_queue = {"project_id": project_id, "queue_name": name, "looked": READY_MAX}
    found = await records(ReadyExecution, "next_in_queue", limit=limit, **of_queue)
    facts: list[Facts | None] = []
    for one in found:
        try:
            facts.append(await _facts(project_id, one.id, times))
        except NotFound:
            facts.append(None)
    return list(zip(found, facts, strict=True)), not await query("many_in_queue", **of_queue)


async def _facts(project_id: str, execution_id: str, times: Mapping[str, int]) -> Facts:
    now_us = times["now_us"]
    subject = await _subject(project_id, execution_id)
    if subject is None:
        raise unknown_execution(execution_id)
    phase = subject.summary.phase
    if phase is Phase.WAITING:
        return await _waiting(project_id, subject, await _calls(project_id, subject, now_us))
    if phase is Phase.HELD:
        return WaitFacts(subject, await _calls(project_id, subject, now_us))
    if phase in LEASED:
        at = {"project_id": project_id, "id": subject.summary.assigned_to_worker}
        worker = await record(ListedWorker, "read_listed_worker", **at, **times)
        return await _running(subject, worker, await _calls(project_id, subject, now_us))
    if phase is Phase.BLOCKED:
        row = await _newest(execution_id, Kind.BLOCKED)
        assert row is not None
        return Blocked(subject, row)
    if phase is Phase.QUEUED:
        newest = await _newest(execution_id, *Kind)
        return await queued(project_id, subject, newest, times)
    if phase is Phase.FAILED:
        return await _failed(project_id, subject)
    steps = await value("count_steps", execution_id=execution_id)
    return EndFacts(subject, await _newest(execution_id, Kind(phase)), steps)


@verb(reads=True)
async def path_execution(*, project_id: str, execution_id: str, rows_max: int) -> PathExecution | None:
    found = await record(PathExecution, "path_execution", project_id=project_id, id=execution_id)
    if found is None:
        return None
    before = max(0, found.next_seq - 1 - rows_max)
    rows = await read_entries(execution_id, before, rows_max, chunk=PATH_PAGE, bytes_max=PATH_BYTES_MAX, every=0)
    waits = await records(
        RecordedWait, "newest_waits", execution_id=execution_id, unmet=0, bytes_max=0, limit=PATH_PAGE
    )
    return replace(found, rows=rows, waits=waits, whole=before == 0)


async def _subject(project_id: str, id: str) -> Subject | None:
    given = {"ids": json.dumps([id]), "progress_bytes_max": INT32_MAX}
    return await record(Subject, "summaries", project_id=project_id, **given)


async def _newest(execution_id: str, *kinds: Kind) -> JournalEntry | None:
    return next(iter(await newest_entries(execution_id, kinds)), None)


async def _calls(project_id: str, subject: Subject, now_us: int) -> list[PendingCall]:
    of = await pending.read_actable(project_id, subject.summary.id)
    tries = await pending.read_tries(subject.summary.id, of.next_seq)
    calls = [*pending.steps(of, tries, now_us), *await pending.others(project_id, subject.summary.id, of)]
    return pending.allowed(calls, of) or calls


async def _waiting(project_id: str, subject: Subject, calls: Sequence[PendingCall]) -> WaitFacts:
    waits = await pending.open_waits(subject.summary.id, bytes_max=VALUE_BYTES_MAX)
    ids = [call.child_id for call in calls if call.child_id is not None]
    phases = await query("phases_of", project_id=project_id, ids=json.dumps(ids))
    return WaitFacts(subject, calls, {wait.key: wait for wait in waits}, {id: Phase(phase) for id, phase in phases})


async def _running(subject: Subject, worker: ListedWorker | None, calls: Sequence[PendingCall]) -> Running:
    claimed = await _newest(subject.summary.id, Kind.CLAIMED)
    newest = await _newest(subject.summary.id, *OUTCOMES)
    losses = await record(Losses, "count_losses", execution_id=subject.summary.id)
    claimed_at_us = subject.summary.since_us if claimed is None else claimed.at_us
    steps = [call for call in calls if call.kind is PendingKind.STEP]
    return Running(subject, worker, claimed_at_us, newest, losses or Losses(), steps=steps)


async def _failed(project_id: str, subject: Subject) -> Failed:
    causes: list[Cause] = []
    id: str | None = subject.summary.id
    while id is not None and len(causes) < LEVELS_MAX:
        cause = await _cause(project_id, id)
        if cause is None:  # deleted, or it did not fail
            break
        causes.append(cause)
        id = None
        if cause.row is not None and cause.row.kind is Kind.CHILD:
            rows = await records(JournalEntry, "outcomes_of_key", execution_id=cause.id, key=cause.row.key)
            id = next((row.child_id for row in rows if row.kind is Kind.CHILD_STARTED and row.ok), None)
    run = await _compared(project_id, subject.summary.id)
    assert run is not None
    older = {"workflow_id": subject.summary.workflow_id, "id": subject.summary.id}
    before_id = await value("completed_before", project_id=project_id, **older)
    before = None if before_id is None else await _compared(project_id, before_id)
    later = [] if subject.summary.retried_as is not None else await later_keys(project_id, subject.summary.id)
    return Failed(subject, causes, run, before, later)


async def _cause(project_id: str, id: str) -> Cause | None:
    failed = await _subject(project_id, id)
    end = await _newest(id, Kind.FAILED)
    if failed is None or end is None:
        return None
    cause = Cause(id, failed.summary.workflow_id, end, await newest_entries(id, BLAMED, failed=True, limit=NAMED_MAX))
    if cause.row is None or cause.row.kind is not Kind.STEP:
        return cause
    tries = await newest_entries(id, [Kind.STEP_FAILED], key=cause.row.key, limit=NAMED_MAX)
    return replace(cause, tries=[*reversed(tries)])


async def _compared(project_id: str, id: str) -> Compared | None:
    found = await record(Compared, "compared_run", project_id=project_id, id=id, bytes_max=VALUE_BYTES_MAX)
    if found is None:
        return None
    steps = await records(JournalEntry, "shapes_of_steps", execution_id=id, limit=STEPS_COMPARED_MAX)
    return replace(found, steps=steps, step_count=await value("count_steps", execution_id=id))
