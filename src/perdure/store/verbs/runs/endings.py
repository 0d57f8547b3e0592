"""Ends of attempts whose execution goes on: suspended, retried, released, blocked or held."""

from collections.abc import Sequence

import msgspec

from perdure.store.base.executions import ChangedExecution, ChangedParent, JournalRow
from perdure.store.base.interface import Due, Metric, Notify, Ready, Written, query, query_many, record
from perdure.store.verbs.runs.direct_dispatch import DirectDispatch
from perdure.store.verbs.runs.start_targets import check_payload, dispatch_target, where_of
from perdure.store.verbs.runs.starts import New, start_items
from perdure.wire.base.errors import IllegalMove, PerdureError
from perdure.wire.base.failures import write_held
from perdure.wire.base.records import Kind, Problem, fingerprint_of_timer
from perdure.wire.base.status import Phase
from perdure.wire.base.times import clamped
from perdure.wire.runs.requests import Block, Fail, Hold, ItemReply, Release, ReportItem, StartChild, Started, Suspend

TRY_NEWER_US = 1_000_000
"""A diverged execution is offered to a newer worker after this time."""


class ReportContext(msgspec.Struct, frozen=True, gc=False):
    project_id: str
    execution_id: str
    attempt: int
    worker_id: str
    now_us: int
    at_us: int
    decides: bool = True
    """Whether the worker's key may answer questions."""


async def cannot_wait(at: ReportContext, end: Suspend, *, sure: bool) -> Problem | list[str] | None:
    """Return why a suspend is refused, or the open waits if a wait of `end` is open. `sure`: a child of this report, or
    its cancel, will wake the execution."""
    if end.timer is not None:
        if await _has_fired(at.execution_id, end.timer[0]):
            message = f"Timer {end.timer[0]!r} has fired already; each timer of an execution has a key of its own."
            return Problem(message, IllegalMove.code)
    elif not sure:
        open_waits = await _open_waits(at) if end.waits else None
        if open_waits and not set(end.waits).isdisjoint(open_waits):
            return open_waits
        if not await query("any_open_child", project_id=at.project_id, id=at.execution_id):
            message = "The execution would wait for ever: nothing that is open can wake it."
            return Problem(message, IllegalMove.code)
    return None


async def _open_waits(at: ReportContext) -> list[str]:
    return [key for (key,) in await query("open_waits", execution_id=at.execution_id)]


async def _has_fired(execution_id: str, key: str | None) -> bool:
    """Whether the timer has fired: a second row of a timer would make every wake-up of due timers fail."""
    return key is not None and bool(await query("timer_fired", execution_id=execution_id, key=key))


async def suspend_next(
    project_id: str, worker_id: str, item: ReportItem, end: Suspend, now_us: int
) -> ItemReply | None:
    """Suspend with one guarded write. None: nothing was written, and the general path decides."""
    if end.timer is not None and await _has_fired(item.execution_id, end.timer[0]):
        return None
    at = ReportContext(project_id, item.execution_id, item.attempt, worker_id, now_us, at_us=now_us)
    values = _parking(at, end, item.seen)
    moved = await record(ChangedExecution, "suspend_next", number=item.number, seq=item.seen + 1, **values)
    if moved is None:
        return None
    await _suspended(at, end, moved)
    return ItemReply(ended=True, at_us=moved.at_us)


async def start_and_wait(
    project_id: str,
    worker_id: str,
    item: ReportItem,
    end: Suspend,
    now_us: int,
    ids: Sequence[str],
    dispatch: DirectDispatch,
) -> ItemReply | None:
    """Start a child and wait for it, with one guarded write to the parent. None: as for `suspend_next`."""
    if len(item.entries) != 1 or item.logs or item.progress or item.stream or item.open_calls is not None:
        return None
    entry = item.entries[0]
    if type(entry) is not StartChild:
        return None
    child = entry.item
    if child.key or child.budget or child.on_conflict or child.queue_concurrency_limit is not None:
        return None
    deployment_id = dispatch.waiting_claim.deployment_id
    child = msgspec.structs.replace(
        child,
        parent_execution_id=item.execution_id,
        step_key=entry.key,
        deployment_id=child.deployment_id or deployment_id,
    )
    try:
        target = await dispatch_target(project_id, child, dispatch)
        await check_payload(project_id, child.workflow_id, target, child.payload)
    except PerdureError:
        return None
    if not dispatch.room:
        return None
    if end.timer is not None and await _has_fired(item.execution_id, end.timer[0]):
        return None
    seq = item.seen + 1
    at = ReportContext(project_id, item.execution_id, item.attempt, worker_id, now_us, at_us=now_us)
    values = {"number": item.number, "seq": seq, "deployment_id": deployment_id, **_parking(at, end, seq)}
    moved = await record(ChangedParent, "start_and_wait", **values)
    if moved is None:
        return None
    [started] = await start_items(
        project_id,
        [New(ids[0], child)],
        now_us,
        dispatch=dispatch,
        parents={item.execution_id: moved.parent},
        targets={where_of(child): target},
        budgeted={moved.parent.root_id: moved.budgeted},
    )
    assert isinstance(started, Started)  # every refusal was excluded before
    row = JournalRow(
        item.execution_id,
        seq,
        moved.at_us,
        Kind.CHILD_STARTED,
        item.attempt,
        key=entry.key,
        name=child.workflow_id,
        fingerprint=entry.fingerprint,
        value=msgspec.json.encode(started.execution_id),
    )
    await query_many("insert_journal", [row])
    await _suspended(at, end, moved)
    return ItemReply(rows=[row.to_row()], ended=True, accepted=[seq], at_us=moved.at_us)


async def suspend(at: ReportContext, end: Suspend, seen: int, open_waits: Sequence[str] | None) -> bool:
    """Suspend. False: the code has not seen every outcome in the journal (I5). Pass `open_waits` if known."""
    moved = await record(ChangedExecution, "suspend", **_parking(at, end, seen))
    if moved is not None:
        await _suspended(at, end, moved, open_waits)
    return moved is not None


def _fence(at: ReportContext) -> dict[str, object]:
    holder = {"project_id": at.project_id, "id": at.execution_id, "attempt": at.attempt, "worker_id": at.worker_id}
    return {**holder, "now_us": at.now_us}


def _parking(at: ReportContext, end: Suspend, seen: int) -> dict[str, object]:
    timer_key, due_at_us = (None, None) if end.timer is None else end.timer
    parked = {"parked_worker": at.worker_id if end.parked else None, "parked_seq": seen}
    return {**_fence(at), "due_at_us": due_at_us, "timer_key": timer_key, **parked}


async def _suspended(
    at: ReportContext, end: Suspend, moved: ChangedExecution, open_waits: Sequence[str] | None = None
) -> None:
    wanted = set(end.waits)
    if open_waits is None:
        open_waits = await _open_waits(at) if moved.waits else ()
    for key in open_waits:
        if key not in wanted:  # an earlier, lost attempt left it open
            await query("close_wait", execution_id=at.execution_id, key=key, now_us=at.now_us)
    due = None if end.timer is None or end.timer[0] is None else fingerprint_of_timer(end.timer[1])
    row = JournalRow(at.execution_id, moved.seq, moved.at_us, Kind.WAITING, at.attempt, fingerprint=due)
    await query_many("insert_journal", [row])
    await Notify(Written(at.execution_id))
    if end.timer is not None:
        await Notify(Due(end.timer[1]))
    if moved.gate:
        await Notify(Ready(at.project_id, None))


async def stop(at: ReportContext, end: Fail | Release | Block | Hold, phase: Phase) -> bool:
    if phase is Phase.CANCELLING:
        # A cancelled execution never goes back to a queue.
        return False
    fence = _fence(at)
    delay_us = end.retry_delay_us if type(end) is Fail else None
    if type(end) is Block and await query("newer_registration", worker_id=at.worker_id):
        delay_us = TRY_NEWER_US  # code that registered since then may match
    elif type(end) is Block:
        moved = await record(ChangedExecution, "block", error=end.error, **fence)
        if moved is None:
            return False
        row = JournalRow(at.execution_id, moved.seq, at.at_us, Kind.BLOCKED, at.attempt, ok=False, value=end.detail)
        await query_many("insert_journal", [row])
        freed = [Ready(at.project_id, None)] if moved.gate else []
        await Notify(Written(at.execution_id), Metric("blocked"), *freed)
        return True
    if type(end) is Hold:
        return await _hold(at, end, fence)
    retry = type(end) is Fail
    due_at_us = clamped(at.now_us + delay_us) if delay_us else None
    moved = await record(ChangedExecution, "requeue", due_at_us=due_at_us, retries=int(retry), **fence)
    if moved is None:
        return False
    if type(end) is Fail:
        taken = await take_back(at.execution_id, end.take_back)
        await query_many("drop_step", [{"execution_id": at.execution_id, "key": key} for key in end.redo])
        row = JournalRow(
            at.execution_id, moved.seq, at.at_us, Kind.RETRIED, at.attempt, name=end.error[:500], ok=False, value=taken
        )
    else:
        row = JournalRow(at.execution_id, moved.seq, at.at_us, Kind.RELEASED, at.attempt, name=at.worker_id)
    await query_many("insert_journal", [row])
    again = Due(due_at_us) if due_at_us else Ready(at.project_id, moved.deployment_id)
    freed = [Ready(at.project_id, None)] if moved.gate else []
    await Notify(again, Written(at.execution_id), *freed)
    return True


async def _hold(at: ReportContext, end: Hold, fence: dict[str, object]) -> bool:
    moved = await record(ChangedExecution, "hold", error=end.error, **fence)
    if moved is None:
        return False
    row = JournalRow(
        at.execution_id,
        moved.seq,
        at.at_us,
        Kind.HELD,
        at.attempt,
        key=end.steps[0] if len(end.steps) == 1 else None,
        ok=False,
        value=write_held(end.detail, end.steps, end.take_back),
    )
    await query_many("insert_journal", [row])
    freed = [Ready(at.project_id, None)] if moved.gate else []
    await Notify(Written(at.execution_id), Metric("held"), *freed)
    return True


async def take_back(execution_id: str, keys: Sequence[str]) -> bytes:
    """Make room for new outcomes of failed steps. Returns their rows, for the row `retried`."""
    back = await query_many("take_back_step", [{"execution_id": execution_id, "key": key} for key in keys])
    seqs = sorted(seq for (seq,) in back)
    return msgspec.json.encode(seqs if len(seqs) > 1 else seqs[0] if seqs else None)
