"""A worker's report of an execution, as one verb. If the guarded write matches no row, one look tells a lost execution
from a repeat, which gets the first answer again."""

from collections.abc import Sequence
from typing import Any, TypeGuard

from msgspec import Raw, structs

from perdure.store.base.executions import ChangedExecution, ChangedParent, EndedExecution, JournalRow, State
from perdure.store.base.interface import (
    WEIGHED_BYTES,
    Metric,
    Notify,
    Query,
    Written,
    query,
    query_many,
    record,
    records,
    value,
    verb,
)
from perdure.store.base.locks import Arguments, Locks, SharedRow
from perdure.store.verbs.base.shared_values import is_large, share, step_of_result
from perdure.store.verbs.runs.direct_dispatch import DirectDispatch, WaitingClaim
from perdure.store.verbs.runs.effects import TRANSCRIPT, make_effect, start_children
from perdure.store.verbs.runs.endings import ReportContext, cannot_wait, start_and_wait, stop, suspend, suspend_next
from perdure.store.verbs.runs.events import open_wait
from perdure.store.verbs.runs.rows import ended, journal_after
from perdure.store.verbs.runs.starts import item_locks
from perdure.store.verbs.runs.streams import append
from perdure.wire.agents.agent_runs import over_budget
from perdure.wire.base.errors import IllegalMove
from perdure.wire.base.fields import INT64_MAX
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.records import OUTCOMES, Kind, Problem, fingerprint_of_timer
from perdure.wire.base.status import LEASED, Phase
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import (
    Answer,
    Cancelled,
    Claimed,
    CloseWait,
    Complete,
    End,
    Entry,
    Fail,
    Hold,
    ItemReply,
    OpenCall,
    OpenWait,
    Publish,
    ReportItem,
    StartChild,
    StepDone,
    Suspend,
    TimerFired,
    TranscriptEntry,
)

LOST = ItemReply(lost=True)
ROWS_MAX = 500
LOG_LINES_MAX = 1_000
REPORT_ENTRIES_MAX = 100_000

_STEP, _STEP_FAILED = Kind.STEP, Kind.STEP_FAILED  # an enum's members are slow to find
_RELEASES = (Kind.WOKEN, Kind.RETRIED)
_ONE_ROW = (StepDone, TimerFired, StartChild, Publish, Answer, *TRANSCRIPT)


def _locks(arguments: Arguments) -> Locks:
    item: ReportItem = arguments["item"]
    yield "execution", item.execution_id
    for entry in item.entries:
        if type(entry) is Publish:
            yield "topic", entry.topic
        elif type(entry) is OpenWait:
            if entry.topic is not None:
                yield SharedRow(("topic", entry.topic))
        elif type(entry) is Answer:
            yield "execution", entry.execution_id
        elif type(entry) is StartChild:
            yield from item_locks(entry.item)
        elif isinstance(entry, TranscriptEntry):
            yield "session", entry.session_id


def _dispatch_locks(arguments: Arguments) -> Locks:
    yield from _locks(arguments)
    yield "waiting_claim", arguments["waiting_claim"].worker_id


def _is_sweep(arguments: Arguments) -> bool:
    item: ReportItem = arguments["item"]
    return any(type(entry) is StartChild and entry.item.queue_concurrency_limit is not None for entry in item.entries)


def _weight(arguments: Arguments) -> int:
    item: ReportItem = arguments["item"]
    return 1 + len(item.entries) + _size(item) // WEIGHED_BYTES


def _steps_weight(arguments: Arguments) -> int:
    items: Sequence[ReportItem] = arguments["items"]
    return 2 * len(items) + sum(map(_size, items)) // WEIGHED_BYTES


def _size(item: ReportItem) -> int:
    size = len(item.end.result) if type(item.end) is Complete else 0
    for entry in item.entries:
        if type(entry) is StepDone:
            size += len(entry.value)
    return size


@verb(locks=_locks, sweep=_is_sweep, weight=_weight)
async def report(
    *, project_id: str, worker_id: str, item: ReportItem, now_us: int, ids: Sequence[str] = (), decides: bool = True
) -> ItemReply:
    """Take a report. `decides`: the worker's key may answer questions.

    `ids` are fresh ids for the children and events that the item creates, in order.
    """
    if item.number == 0:
        return await _acknowledge(project_id, worker_id, item)
    end = item.end
    if is_final(end):
        return await _finish(project_id, worker_id, item, end, now_us)
    entries = item.entries
    if is_next_step(item):
        return await _record(project_id, worker_id, item, now_us)
    bare = not (entries or item.logs or item.progress or item.stream or item.open_calls is not None)
    if bare and type(end) is Suspend and not end.waits:
        reply = await suspend_next(project_id, worker_id, item, end, now_us)
        if reply is not None:
            return reply
    return await _take(project_id, worker_id, item, now_us, ids, decides=decides)


@verb(locks=_dispatch_locks, sweep=_is_sweep, weight=_weight)
async def report_and_dispatch(
    *,
    project_id: str,
    worker_id: str,
    item: ReportItem,
    now_us: int,
    ids: Sequence[str] = (),
    waiting_claim: WaitingClaim,
    decides: bool = True,
) -> tuple[ItemReply, list[Claimed]]:
    """Report, and return the children, or the parent, that the waiting claim took at once."""
    # The end of a worker locks the worker's row first. This locks it late, and only if it is free.
    dispatch = DirectDispatch(waiting_claim)
    end = item.end
    if is_final(end):
        return await _finish(project_id, worker_id, item, end, now_us, dispatch=dispatch), dispatch.given
    if type(end) is Suspend:
        reply = await start_and_wait(project_id, worker_id, item, end, now_us, ids=ids, dispatch=dispatch)
        if reply is not None:
            return reply, dispatch.given
    return await _take(project_id, worker_id, item, now_us, ids, dispatch=dispatch, decides=decides), dispatch.given


@verb(locks="execution=items[].execution_id", weight=_steps_weight)
async def record_steps(
    *, project_id: str, worker_id: str, items: Sequence[ReportItem], now_us: int
) -> Sequence[ItemReply]:
    """Report `items` of different executions with two statements. Each item must pass `is_small_step`."""
    # `_fence` in the order of the SQL: by name, a step would cost 10 % more here.
    fences = [
        (item.number, now_us, project_id, item.execution_id, item.attempt, worker_id, item.seen + 1) for item in items
    ]
    moved = {id for (id,) in await query_many("advance_next", fences)}
    recorded = [item for item in items if item.execution_id in moved]
    await query_many("insert_journal", [_outcome(item, item.seen + 1, now_us, item.entries[0]) for item in recorded])
    await Notify(*[Written(item.execution_id) for item in recorded])
    return [
        ItemReply(accepted=[item.seen + 1], at_us=now_us)
        if item.execution_id in moved
        else await _take(project_id, worker_id, item, now_us, ())
        for item in items
    ]


def is_next_step(item: ReportItem) -> bool:
    return (
        item.end is None
        and len(item.entries) == 1
        and type(item.entries[0]) is StepDone
        and item.entries[0].last
        and item.number != 0
        and item.progress is None
        and item.open_calls is None
        and not (item.logs or item.stream)
    )


def is_small_step(item: ReportItem) -> bool:
    """Whether `record_steps` may take the item. A large value is compared with the payload."""
    return is_next_step(item) and not any(type(entry) is StepDone and is_large(entry.value) for entry in item.entries)


def is_final(end: End | None) -> TypeGuard[Complete | Fail | Cancelled]:
    return type(end) is Complete or type(end) is Cancelled or (type(end) is Fail and end.retry_delay_us is None)


async def _take(
    project_id: str,
    worker_id: str,
    item: ReportItem,
    now_us: int,
    ids: Sequence[str],
    dispatch: DirectDispatch | None = None,
    decides: bool = True,
) -> ItemReply:
    """Take a report that leaves the execution alive."""
    entries, end = item.entries, item.end
    own = 0
    outcomes = 0
    for entry in entries:
        if isinstance(entry, _ONE_ROW):
            own += 1
            outcomes += not (type(entry) is StepDone and not entry.last)
    moved = await record(
        ChangedParent,
        "advance",
        rows=own,
        outcomes=outcomes,
        progress=_bytes(item.progress),
        **_fence(project_id, worker_id, item, now_us),
    )
    if moved is None:
        return await _refused(project_id, worker_id, item)
    at_us = moved.at_us
    at = ReportContext(
        project_id, item.execution_id, item.attempt, worker_id, now_us=now_us, at_us=at_us, decides=decides
    )
    first = moved.seq + 1 - own
    unseen, more = await _unseen(item, first)
    given = await _given(item, first) if first - 1 > item.seen else ()
    accepted: list[int] = []
    rows: list[JournalRow] = []
    shown: list[Row] = []
    fresh = iter(ids)
    children = [entry for entry in entries if type(entry) is StartChild]
    started = await start_children(at, children, fresh, moved, dispatch) if children else []
    told_of = iter(started)
    touched = False
    seq = first
    for entry in entries:
        if type(entry) is StepDone or type(entry) is TimerFired:
            row = _outcome(at, seq, at_us, entry)
            is_late = entry.key in given
            if is_late:
                row = structs.replace(row, kind=Kind.IGNORED)
                shown.append(row.to_row())
            rows.append(row)
            accepted.append(0 if is_late else seq)
            seq += 1
        elif type(entry) is CloseWait:
            await query("close_wait", execution_id=item.execution_id, key=entry.key, now_us=at.now_us)
            accepted.append(0)
        elif type(entry) is OpenWait:
            met = await open_wait(at.project_id, at.execution_id, at.attempt, entry, now_us=at.now_us, at_us=at_us)
            if met is not None:
                shown.append(met.to_row())
            accepted.append(0)
        else:
            touched = touched or type(entry) is Publish or type(entry) is Answer
            row = await make_effect(at, seq, entry, fresh, told_of)  # type: ignore[arg-type]  # the other kinds
            rows.append(row)
            shown.append(row.to_row())
            accepted.append(seq)
            seq += 1
    if rows:
        await _insert(rows)
        await Notify(Written(item.execution_id))
    if touched:  # its own events or answers may have resolved its own waits
        told = {seq for entry, seq in zip(entries, accepted, strict=True) if type(entry) in (StepDone, TimerFired)}
        shown = [row for row in await _rows_after(item.execution_id, first - 1) if row.seq not in told]
    shown.sort(key=lambda row: row.seq)
    if item.logs:
        await _log(item)
    if item.stream:
        await append(project_id, item, now_us)
    if item.open_calls is not None:
        await _put_open_calls(item, item.open_calls)
    found = unseen + shown
    stopped = False
    problem = None
    if end is not None:
        if type(end) is Suspend:
            if not more and not any(_is_news(row, first) for row in found):
                found_open = await cannot_wait(at, end, sure=bool(children) or moved.phase is not Phase.RUNNING)
                if isinstance(found_open, Problem):
                    problem = found_open
                else:
                    stopped = await suspend(at, end, moved.seq if children else item.seen, found_open)
        elif type(end) is Hold and end.steps and (more or any(_is_news(row, seq) for row in found)):
            stopped = False  # the code may go on with what it has not seen
        elif type(end) is not Complete and type(end) is not Cancelled:
            if type(end) is Hold and given:  # acts decided these first
                end = structs.replace(end, take_back=[key for key in end.take_back if key not in given])
            stopped = await stop(at, end, moved.phase)  # type: ignore[arg-type]  # the other kinds
    return ItemReply(rows=found, more=more, ended=stopped, accepted=accepted, at_us=at_us, problem=problem)


def _is_news(row: Row, first: int) -> bool:
    """Whether the worker must see `row` before suspending. Child starts of the same report (`seq` from `first` on) are
    exempt."""
    if row.kind in _RELEASES:
        return row.key is not None
    return row.kind in OUTCOMES and not (row.kind is Kind.CHILD_STARTED and row.ok and row.seq >= first)


async def _record(project_id: str, worker_id: str, item: ReportItem, now_us: int) -> ItemReply:
    """Record one step, if the journal has not grown since the worker looked and the clock has not gone back."""
    moved = await query("advance_next", **_fence(project_id, worker_id, item, now_us))
    if not moved:
        return await _take(project_id, worker_id, item, now_us, ())
    await _insert((_outcome(item, item.seen + 1, now_us, item.entries[0]),))
    await Notify(Written(item.execution_id))
    return ItemReply(accepted=[item.seen + 1], at_us=now_us)


async def _insert(rows: Sequence[JournalRow]) -> None:
    for row in rows:
        if is_large(row.value):
            rows = await share(rows)
            break
    await query_many("insert_journal", rows)


def _fence(project_id: str, worker_id: str, item: ReportItem, now_us: int) -> dict[str, Any]:
    return {
        "project_id": project_id,
        "id": item.execution_id,
        "attempt": item.attempt,
        "worker_id": worker_id,
        "number": item.number,
        "now_us": now_us,
        "seq": item.seen + 1,
    }


def _bytes(value: Raw | None) -> bytes | None:
    return None if value is None else bytes(value)


def _outcome(of: ReportContext | ReportItem, seq: int, at_us: int, entry: Entry) -> JournalRow:
    if type(entry) is StepDone:
        return JournalRow(
            of.execution_id,
            seq,
            at_us,
            _STEP if entry.last else _STEP_FAILED,
            of.attempt,
            key=entry.key,
            name=entry.name,
            fingerprint=entry.fingerprint,
            ok=entry.ok,
            value=entry.value,
            started_at_us=entry.started_at_us,
            tries=entry.tries,
            label=entry.label,
            quiet=entry.quiet,
        )
    assert type(entry) is TimerFired
    due = fingerprint_of_timer(entry.at_us)
    return JournalRow(of.execution_id, seq, at_us, Kind.TIMER, of.attempt, key=entry.key, fingerprint=due)


async def _given(item: ReportItem, before: int) -> set[str]:
    """Return keys of steps and timers that acts decided since the worker looked."""
    if not any(type(entry) in (StepDone, TimerFired) for entry in item.entries):
        return set()
    found = await query("given_since", execution_id=item.execution_id, after=item.seen, before=before)
    return {key for (key,) in found}


async def _put_open_calls(item: ReportItem, calls: Sequence[OpenCall]) -> None:
    await query("delete_pending_calls", id=item.execution_id)
    if calls:
        its = {"execution_id": item.execution_id, "attempt": item.attempt}
        await query_many("insert_pending_call", [{**structs.asdict(call), **its} for call in calls])


async def _unseen(item: ReportItem, next_seq: int) -> tuple[list[Row], bool]:
    if next_seq - 1 <= item.seen:
        return [], False
    return await journal_after(
        item.execution_id, item.seen, rows_max=ROWS_MAX, bytes_max=REPLY_BYTES_MAX, before=next_seq
    )


async def _rows_after(execution_id: str, seq: int) -> list[Row]:
    return await records(Row, "read_journal", execution_id=execution_id, after=seq, limit=ROWS_MAX + REPORT_ENTRIES_MAX)


async def _acknowledge(project_id: str, worker_id: str, item: ReportItem) -> ItemReply:
    """Acknowledge a delivery."""
    holder = {"project_id": project_id, "id": item.execution_id, "attempt": item.attempt, "worker_id": worker_id}
    moved = await record(ChangedExecution, "acknowledge", **holder)
    if moved is None:
        await Notify(Metric("stale_rejections"))
        return LOST
    if item.logs:
        await _log(item)
    if item.open_calls is not None:
        await _put_open_calls(item, item.open_calls)
    unseen, more = await _unseen(item, moved.seq + 1)
    return ItemReply(rows=unseen, more=more, at_us=moved.at_us)


async def _refused(project_id: str, worker_id: str, item: ReportItem) -> ItemReply:
    """Tell a repeat from an execution that this worker no longer holds."""
    state = await record(State, "read_state", project_id=project_id, id=item.execution_id)
    if state is None or state.attempt != item.attempt or state.assigned_to_worker != worker_id:
        await Notify(Metric("stale_rejections"))
        return LOST
    if state.report_number < item.number:
        if state.phase in LEASED:
            # The fence holds, so the move is illegal, not `lost`.
            message = f"Execution {item.execution_id!r} is {state.phase}: no cancel was requested."
            return ItemReply(problem=Problem(message, IllegalMove.code))
        await Notify(Metric("stale_rejections"))
        return LOST
    if state.phase not in LEASED:
        # This attempt ended, by this report or without it (a cancel, a lapse).
        return ItemReply(ended=item.end is not None, lost=item.end is None)
    rows, more = await _unseen(item, state.next_seq)
    late = {row.key for row in rows if row.kind is Kind.IGNORED and row.attempt == item.attempt}
    own: dict[tuple[Kind, str], list[int]] = {}
    for n, entry in enumerate(item.entries):
        if isinstance(entry, _ONE_ROW) and not (type(entry) in (StepDone, TimerFired) and entry.key in late):
            own.setdefault((_kind_of(entry), entry.key), []).append(n)
    accepted = [0] * len(item.entries)
    shown: list[Row] = []
    at_us = 0
    for row in rows:
        mine = own.get((row.kind, row.key or "")) if row.attempt == item.attempt else None
        if mine:
            accepted[mine.pop(0)] = row.seq
            at_us = row.at_us
            if row.kind in (Kind.STEP, Kind.STEP_FAILED, Kind.TIMER):
                continue
        shown.append(row)
    if more:  # too long for one reply: the worker reads everything anew
        return ItemReply(rows=rows, more=True, accepted=[], at_us=rows[-1].at_us)
    return ItemReply(rows=shown, accepted=accepted, at_us=at_us)


def _kind_of(entry: object) -> Kind:
    if type(entry) is StepDone:
        return Kind.STEP if entry.last else Kind.STEP_FAILED
    if type(entry) is TimerFired:
        return Kind.TIMER
    if type(entry) is StartChild:
        return Kind.CHILD_STARTED
    if isinstance(entry, TRANSCRIPT):
        return Kind.TRANSCRIPT
    return Kind.PUBLISHED if type(entry) is Publish else Kind.SENT


async def _log(item: ReportItem) -> None:
    last = await value("last_log", execution_id=item.execution_id) or 0
    lines = [
        {"execution_id": item.execution_id, "n": last + n, "at_us": line.at_us, "level": line.level, "text": line.text}
        for n, line in enumerate(item.logs[-LOG_LINES_MAX:], 1)
    ]
    await query_many("insert_log", lines)
    if item.changed_inputs:
        await Notify(Metric("changed_inputs", item.changed_inputs))
    if last + len(lines) > LOG_LINES_MAX:
        await query("trim_logs", execution_id=item.execution_id, upto=last + len(lines) - LOG_LINES_MAX)
    await Notify(Written(item.execution_id))


def _own_step(item: ReportItem, result: bytes) -> int | None:
    """Return the number of the item's step, if a large result equals the step's value."""
    [step] = item.entries
    is_same = is_large(result) and type(step) is StepDone and bytes(step.value) == result
    return item.seen + 1 if is_same else None


async def _finish(
    project_id: str,
    worker_id: str,
    item: ReportItem,
    end: Complete | Fail | Cancelled,
    now_us: int,
    dispatch: DirectDispatch | None = None,
) -> ItemReply:
    outcomes = [entry for entry in item.entries if type(entry) is StepDone or type(entry) is TimerFired]
    values = _fence(project_id, worker_id, item, now_us)
    values["rows"] = len(outcomes) + 1
    values["progress"] = _bytes(item.progress)
    result = error = detail = None
    returns_step = False
    if type(end) is Complete:
        result = bytes(end.result)
        returns_step = end.returns_step
        values["upto"] = item.seen + 1 if returns_step else INT64_MAX
        same = _own_step(item, result) if returns_step else None
        if same is None:
            same = await step_of_result(item.execution_id, result, item.seen)
        values["result_seq"] = same
        values["result"] = result if same is None else b""
        name, phase, kind = "complete", Phase.COMPLETED, Kind.COMPLETED
    elif type(end) is Fail:
        values["error"] = error = end.error
        detail = bytes(end.detail)
        name, phase, kind = "fail", Phase.FAILED, Kind.FAILED
    else:
        name, phase, kind = "confirm_cancel", Phase.CANCELLED, Kind.CANCELLED
    over: EndedExecution | None = await Query(name, values, record=EndedExecution, first=True)
    if over is None and returns_step:
        return await _take(project_id, worker_id, item, now_us, ())
    if over is None:
        return await _refused(project_id, worker_id, item)
    at_us = over.at_us
    seq = over.seq - len(outcomes)
    rows = [_outcome(item, seq + n, at_us, entry) for n, entry in enumerate(outcomes)]
    if seq - 1 > item.seen and (given := await _given(item, seq)):
        rows = [structs.replace(row, kind=Kind.IGNORED) if row.key in given else row for row in rows]
    told = b"null" if detail is None else detail
    rows.append(JournalRow(item.execution_id, over.seq, at_us, kind, item.attempt, ok=detail is None, value=told))
    await _insert(rows)
    if item.logs:
        await _log(item)
    if item.stream:
        await append(project_id, item, now_us)
    early = None if result is None or item.progress is None else over_budget(bytes(item.progress))
    await ended(
        project_id,
        item.execution_id,
        phase,
        over,
        now_us,
        result=result,
        error=error,
        detail=detail,
        early=early,
        taker=dispatch,
    )
    return ItemReply(ended=True, at_us=at_us)
