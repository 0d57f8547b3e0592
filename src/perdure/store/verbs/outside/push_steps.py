"""Steps for push workers. Timers, events, answers and ends of children become outcomes under their step's key."""

import json
from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct, structs

from perdure.store.base.executions import StoredWait, unknown_execution
from perdure.store.base.interface import query, record, records, value, verb
from perdure.store.verbs.base.pages import fitting
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.base.times import rfc3339
from perdure.wire.outside.push_workers import ListedStep, SavedStep
from perdure.wire.runs.events import JournalEvent
from perdure.wire.runs.executions import Row

ENDS = (Kind.STEP, Kind.TIMER, Kind.EVENT, Kind.RESUME, Kind.CHILD)


class HeldPush(Struct, frozen=True):
    phase: Phase
    attempt: int
    worker_id: str | None
    report_number: int
    next_seq: int
    retry_count: int
    acked: int
    due_at_us: int | None
    deployment_id: str | None
    push: bool
    push_worker_id: str | None
    """The holder, if it is a push worker."""
    root_id: str
    root_workflow_id: str


@verb(reads=True)
async def standing(*, project_id: str, execution_id: str) -> HeldPush:
    return await lock_held(project_id, execution_id, "read_pushed")


async def lock_held(project_id: str, execution_id: str, name: str = "lock_pushed") -> HeldPush:
    held = await record(HeldPush, name, project_id=project_id, id=execution_id)
    if held is None:
        raise unknown_execution(execution_id)
    return held


class HolderAndRow(Struct, frozen=True):
    """An execution's holder, and a journal row under the asked key."""

    attempt: int
    acked: int
    push_worker_id: str | None
    row: Row | None


@verb(reads=True)
async def read_step(*, project_id: str, execution_id: str, step_key: str) -> tuple[HolderAndRow, SavedStep | None]:
    """Raises NotFound for the execution."""
    found = await records(HolderAndRow, "step_of_pushed", project_id=project_id, id=execution_id, key=step_key)
    if not found:
        raise unknown_execution(execution_id)
    saved = await _saved(project_id, execution_id, [one.row for one in found if one.row is not None])
    if saved is None:
        return found[0], None
    step, schema_name = saved
    return found[0], SavedStep(**structs.asdict(step), output_schema_name=schema_name)


@verb(reads=True)
async def list_steps(
    *, project_id: str, execution_id: str, after: str | None, limit: int, bytes_max: int = REPLY_BYTES_MAX
) -> list[ListedStep]:
    """The outcomes of an execution by key, after `after`.

    Without `after` the list is complete, because the reader runs missing steps. Raises NotFound; BadRequest for
    outcomes too large together.
    """
    await lock_held(project_id, execution_id, "read_pushed")
    first: dict[str, tuple[int, int]] = {}
    started: dict[str, int] = {}
    for seq, kind, key, size in await query("outcome_sizes", execution_id=execution_id, limit=limit):
        if kind in ENDS:
            first[key] = min(first.get(key, (seq, size)), (seq, size))
        elif kind == Kind.CHILD_STARTED:
            started[key] = seq
    keys = sorted(key for key in first if after is None or key > after)
    fits = fitting((first[key][1] for key in keys), bytes_max)
    if after is None and fits < len(keys):
        raise BadRequest(
            f"The outcomes of {len(keys)} steps of execution {execution_id!r} have more than the {bytes_max:,} bytes "
            "of an answer. Ask page by page: with `after=`, then with the last step's key as `after`, until a page is "
            "empty."
        )
    seqs = [first[key][0] for key in keys[:fits]] + [started[key] for key in keys[:fits] if key in started]
    by_key: dict[str | None, list[Row]] = {}
    for row in await records(Row, "outcomes_at", execution_id=execution_id, seqs=json.dumps(seqs)):
        by_key.setdefault(row.key, []).append(row)
    found = [await _saved(project_id, execution_id, by_key.get(key, ())) for key in keys[:fits]]
    return [step for step, _ in filter(None, found)]


async def _saved(project_id: str, execution_id: str, rows: Sequence[Row]) -> tuple[ListedStep, str | None] | None:
    """The step, and the name of the output's schema."""
    outcome = min((row for row in rows if row.kind in ENDS), key=lambda row: row.seq, default=None)
    if outcome is None:
        return None
    key, ok, given = outcome.key or "", outcome.ok, outcome.value
    if outcome.kind is Kind.STEP:
        step = ListedStep(key, given if ok else None, None if ok else given, ok, outcome.fingerprint)
        return step, outcome.name
    if outcome.kind is Kind.TIMER:
        return await _timer(execution_id, key, outcome.seq), None
    if outcome.kind is Kind.CHILD:
        return await _child(project_id, key, rows, outcome)
    return ListedStep(key, await _event(project_id, execution_id, key, outcome), success=True), None


async def _timer(execution_id: str, key: str, seq: int) -> ListedStep:
    """A due timer: the awaited time, or the time-out of another wait."""
    due = await value("due_before", execution_id=execution_id, seq=seq)
    until = None if due is None else rfc3339(int(due))
    wait = await record(StoredWait, "read_wait", execution_id=execution_id, key=key)
    if wait is not None and wait.topic is not None:
        return ListedStep(key, error=_json({"message": f"Event wait expired at {until}"}), success=False)
    return ListedStep(key, _json({"success": True, "wait_until": until}), success=True)


async def _event(project_id: str, execution_id: str, key: str, outcome: Row) -> Raw:
    """The event of an answer. Answers are stored bare, so the event is looked up."""
    if outcome.kind is Kind.EVENT:
        return _shown(msgspec.json.decode(outcome.value, type=JournalEvent))
    id, event_type, at_us = execution_id, f"resume_{key}", outcome.at_us
    number, topic = 0, ""
    wait = await record(StoredWait, "read_wait", execution_id=execution_id, key=key)
    if wait is not None and wait.topic is not None and wait.event_seq is not None:
        topic, number = wait.topic, wait.event_seq
        found = await query("read_event", project_id=project_id, topic=topic, seq=number)
        if found:
            id, event_type, at_us = found[0]
    return _shown(
        JournalEvent(
            id=id, sequence_id=number, topic=topic, event_type=event_type, data=outcome.value, created_at_us=at_us
        )
    )


def _shown(event: JournalEvent) -> Raw:
    return _json(
        {
            "sequence_id": event.sequence_id,
            "topic": event.topic,
            "event_type": event.event_type,
            "data": event.data,
            "id": event.id,
            "created_at": rfc3339(event.created_at_us),
        }
    )


async def _child(project_id: str, key: str, rows: Sequence[Row], end: Row) -> tuple[ListedStep, str | None]:
    if not end.ok:
        told = msgspec.json.decode(end.value)
        message = told.get("message") if isinstance(told, dict) else None
        message = message or "The execution was cancelled."
        return ListedStep(key, error=_json({"message": message}), success=False), None
    started = next((row.value for row in rows if row.kind is Kind.CHILD_STARTED), None)
    id = None if started is None else msgspec.json.decode(started)
    schema = None
    if isinstance(id, str):
        schema = await value("output_schema_of", project_id=project_id, id=id)
    return ListedStep(key, end.value, success=True), schema


def _json(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))
