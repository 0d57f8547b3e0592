"""Transitions from outside: cancel, time-out, loss of the worker, due timers."""

from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct, structs

from perdure.store.base.executions import ChangedExecution, EndedExecution, State, unknown_execution
from perdure.store.base.interface import (
    Changed,
    Due,
    Metric,
    Notify,
    Ready,
    Written,
    query,
    query_many,
    record,
    records,
    value,
    verb,
)
from perdure.store.verbs.base.try_lock import try_lock, try_lock_below, try_lock_end
from perdure.store.verbs.runs.rows import note_end, overrule
from perdure.store.verbs.runs.workers import without_outcome
from perdure.wire.base.errors import NotCancellable
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, LEASED, Phase
from perdure.wire.insight.timeline_fold import LostWork, RunningStep
from perdure.wire.runs.executions import CANCEL

LOSSES_MAX = 5
"""Losses without a newly recorded outcome after which an execution is poisoned."""
UNDELIVERED_MAX = 100
"""Deliveries in vain in a row after which an execution is poisoned (I9). The bound is high because neither a lost
message nor a departing worker is a crash."""
BACKOFF_MAX_US = 300_000_000
RESTING: Final = frozenset({Phase.WAITING, Phase.QUEUED})
"""Phases whose due times `wake_due` serves; `end_overdue` serves leased ones."""


class Overdue(Struct, frozen=True, order=True):
    """An overdue execution. Executions are handled in this order."""

    due_at_us: int
    project_id: str
    id: str


FIRST: Final = Overdue(-(1 << 62), "", "")


class Woken(ChangedExecution, frozen=True, gc=False, kw_only=True):
    project_id: str
    id: str
    timer_key: str | None


class Canceller(NamedTuple):
    """The author of a cancel. `cancelled_by` is a column of the execution; the other fields become an act."""

    cancelled_by: str
    acted_by: str | None = None
    note: str | None = None


@verb(locks="execution=execution_id")
async def cancel(
    *,
    project_id: str,
    execution_id: str,
    cancelled_by: str,
    now_us: int,
    grace_us: int,
    acted_by: str | None = None,
    note: str | None = None,
) -> Phase:
    state = await record(State, "lock_state", project_id=project_id, id=execution_id)
    if state is None:
        raise unknown_execution(execution_id)
    if state.phase in FINAL:
        raise NotCancellable(f"Execution {execution_id!r} cannot be cancelled: it is {state.phase} already.")
    return await cancel_tree(project_id, execution_id, Canceller(cancelled_by, acted_by, note), now_us, grace_us)


@verb(reads=True)
async def has_running_parent(*, project_id: str, execution_id: str) -> bool:
    """Raises NotFound."""
    phase = await value("phase_of_parent", project_id=project_id, id=execution_id)
    if phase is None:
        raise unknown_execution(execution_id)
    return phase in (Phase.RUNNING, Phase.CANCELLING)


async def cancel_tree(project_id: str, execution_id: str, by: Canceller, now_us: int, grace_us: int) -> Phase:
    phase = await _cancel_one(project_id, execution_id, by, now_us, grace_us)
    tree = [execution_id]
    for parent in tree:
        for id, over in await query("children_to_cancel", project_id=project_id, id=parent):
            tree.append(id)
            if not over:
                await _cancel_one(project_id, id, by, now_us, grace_us)
    return phase


async def _cancel_one(project_id: str, execution_id: str, by: Canceller, now_us: int, grace_us: int) -> Phase:
    [state] = await records(State, "lock_state", project_id=project_id, id=execution_id)
    phase = state.phase
    values = {"project_id": project_id, "id": execution_id, "now_us": now_us, "cancelled_by": by.cancelled_by}
    has_begun = phase in (Phase.WAITING, Phase.HELD) or (phase is Phase.QUEUED and state.attempt)
    if has_begun and state.wake_on_cancel and state.cancelled_by is None:
        [moved] = await records(ChangedExecution, "cancel_waking", **values)
        await _note_cancel(project_id, execution_id, moved, by)
        await Notify(Ready(project_id, moved.deployment_id), Written(execution_id))
        return Phase.CANCELLING
    if phase is Phase.RUNNING:
        [moved] = await records(ChangedExecution, "ask_cancel", due_at_us=now_us + grace_us, **values)
        await _note_cancel(project_id, execution_id, moved, by)
        await Notify(Changed(moved.worker_id, execution_id), Written(execution_id), Due(now_us + grace_us, ends=True))
        return Phase.CANCELLING
    if phase in (Phase.CANCELLING, *FINAL):
        return phase
    if state.cancelled_at_us is not None and phase is Phase.QUEUED and now_us < state.cancelled_at_us + grace_us:
        return Phase.CANCELLING  # on its way to a worker to clean up; after the grace, a second cancel ends it
    [end] = await records(EndedExecution, "cancel_idle", **values)
    await note_end(project_id, execution_id, Phase.CANCELLED, end, now_us, name=by.cancelled_by)
    if state.cancelled_by is None:
        await _note_act(project_id, execution_id, end, by)
    return Phase.CANCELLED


async def _note_cancel(project_id: str, execution_id: str, moved: ChangedExecution, by: Canceller) -> None:
    await query_many("insert_journal", [moved.row(execution_id, Kind.CANCEL, name=by.cancelled_by)])
    await _note_act(project_id, execution_id, moved, by)


async def _note_act(project_id: str, execution_id: str, row: ChangedExecution | EndedExecution, by: Canceller) -> None:
    if by.acted_by is None:
        return
    act = {"execution_id": execution_id, "seq": row.seq, "project_id": project_id, "at_us": row.at_us}
    said = {"action": CANCEL, "key": None, "acted_by": by.acted_by, "note": by.note}
    await query_many("insert_act", [act | said])


async def try_lose(
    project_id: str,
    execution_id: str,
    attempt: int,
    worker_id: str,
    now_us: int,
    *,
    sure: bool = True,
    steps: Sequence[RunningStep] = (),
) -> bool:
    """Lose like `lose`, but without waiting for locks. False: a row is locked, or the loss would poison the execution
    and is not `sure`."""
    if not await try_lock(project_id, execution_id):
        return False
    state = await record(State, "read_state", project_id=project_id, id=execution_id)
    if state is not None:
        poisons = state.losses + 1 >= LOSSES_MAX
        if state.phase is Phase.RUNNING and state.acked and poisons and not sure:
            return False
        ends = state.phase is not Phase.RUNNING or poisons or state.undelivered + 1 >= UNDELIVERED_MAX
        if ends and not await try_lock_end(project_id, execution_id, state.parent_execution_id):
            return False
    await lose(project_id, execution_id, attempt, worker_id, now_us, steps=steps)
    return True


async def lose(
    project_id: str,
    execution_id: str,
    attempt: int,
    worker_id: str,
    now_us: int,
    *,
    released: bool = False,
    begun: bool = False,
    refused: bool = False,
    steps: Sequence[RunningStep] = (),
) -> None:
    """Take an execution back from a worker that is gone, that `released` the execution, or that `refused` the
    execution.

    `steps` were in flight at the newest beat.

    A crash is a loss, which `claims.forgive` takes back if the worker proves alive. An unacknowledged delivery is a
    lost message. A hand-back of `begun` work counts alike, because the code may repeat it each time.
    """
    state = await record(State, "lock_state", project_id=project_id, id=execution_id)
    if state is None or state.attempt != attempt or state.assigned_to_worker != worker_id:
        return
    losses, undelivered = state.losses, state.undelivered
    if state.phase is Phase.CANCELLING:
        await overrule(project_id, execution_id, now_us, "worker lost")
        return
    if state.phase is not Phase.RUNNING:
        return
    holder = {"project_id": project_id, "id": execution_id, "attempt": attempt, "worker_id": worker_id}
    values = {**holder, "now_us": now_us}
    delay_us = 0
    if state.acked and not released:
        losses += 1
        delay_us = _backoff_us(execution_id, losses)
    elif begun or not released:
        undelivered += 1
        delay_us = _backoff_us(execution_id, undelivered)
    if losses >= LOSSES_MAX or undelivered >= UNDELIVERED_MAX:
        await _poison(values, losses, undelivered, await without_outcome(execution_id, state.next_seq, steps))
        return
    due_at_us = now_us + delay_us if delay_us else None
    counts = {"losses": losses, "undelivered": undelivered, "refused": int(refused)}
    moved = await record(ChangedExecution, "lose", due_at_us=due_at_us, **counts, **values)
    if moved is None:
        return
    kind = Kind.RELEASED if released else Kind.LOST
    row = moved.row(execution_id, kind, name=worker_id)
    if lost := await without_outcome(execution_id, moved.seq, steps):
        row = structs.replace(row, value=msgspec.json.encode(LostWork(lost)))
    await query_many("insert_journal", [row])
    if not released:
        await Notify(Metric("executions_lost" if state.acked else "deliveries_lost"))
        if state.acked:
            await query(
                "note_loss", worker_id=worker_id, project_id=project_id, execution_id=execution_id, now_us=now_us
            )
    again = Due(now_us + delay_us) if delay_us else Ready(project_id, moved.deployment_id)
    freed = [Ready(project_id, None)] if moved.gate else []
    await Notify(again, Written(execution_id), *freed)


def _backoff_us(execution_id: str, count: int) -> int:
    """Return 0 s after the first loss, then 1 s, 2 s, 4 s …, at most 5 minutes, shortened by up to half.

    The reduction differs by execution, so an execution that kills its workers poisons other neighbours each time.
    """
    if count <= 1:
        return 0
    most = min(1_000_000 << min(count - 2, 20), BACKOFF_MAX_US)
    part = int.from_bytes(blake2b(f"{execution_id} {count}".encode(), digest_size=4).digest())
    return most - (most // 2) * part // (1 << 32)


async def _poison(values: dict[str, Any], losses: int, undelivered: int, lost: Sequence[RunningStep]) -> None:
    what = (
        f"{losses} workers were lost while they ran it, without a newly recorded outcome in between"
        if losses >= LOSSES_MAX
        else f"{undelivered} deliveries in a row were never acknowledged, or were handed back, or lost by live workers"
    )
    worker_id = values["worker_id"]
    error = f"POISONED: {what}; the last was worker {worker_id}."
    said = {"type": "Poisoned", "code": "POISONED", "message": error, "worker": worker_id}
    detail = msgspec.json.encode({**said, "in_flight": lost} if lost else said)
    end = await record(EndedExecution, "poison", error=error, **values)
    if end is not None:
        await Notify(Metric("poisoned"))
        await note_end(
            values["project_id"], values["id"], Phase.FAILED, end, values["now_us"], error=error, detail=detail
        )


@verb(sweep=True)
async def wake_due(*, now_us: int, limit: int) -> int:
    """Wake due timers and ready delayed starts, except locked ones. Returns the count."""
    woken = await records(Woken, "wake_timers", now_us=now_us, limit=limit)
    await query_many(
        "insert_journal",
        [one.row(one.id, Kind.WOKEN if one.timer_key is None else Kind.TIMER, key=one.timer_key) for one in woken],
    )
    # In a push execution a wait and its time-out share a key; only one of them happens.
    timers = [
        {"execution_id": one.id, "key": one.timer_key, "now_us": now_us} for one in woken if one.timer_key is not None
    ]
    await query_many("close_wait", timers)
    ready = await records(Ready, "ready_delayed", now_us=now_us, limit=limit)
    hints = {Ready(one.project_id, one.deployment_id) for one in woken} | set(ready)
    await Notify(*hints, *[Written(one.id) for one in woken])
    return len(woken) + len(ready)


@verb(reads=True)
async def set_ahead(*, now_us: int) -> tuple[int, int] | None:
    """Count timers set by a clock that was ahead, and return the shortest duration."""
    [(amount, shortest_us)] = await query("set_ahead", now_us=now_us)
    return (amount, shortest_us) if amount else None


@verb(sweep=True)
async def bring_forward(*, now_us: int, passed_us: int, limit: int) -> bool:
    """Make timers due that last no longer than `passed_us`, after the clock's step back. Returns whether more may be
    left."""
    found = await query("bring_forward", now_us=now_us, passed_us=passed_us, limit=limit)
    if found:
        await Notify(Due(now_us))
    return len(found) == limit


@verb(reads=True)
async def overdue(*, now_us: int, limit: int, after: Overdue = FIRST) -> list[Overdue]:
    place = {"after_us": after.due_at_us, "after_project_id": after.project_id, "after_id": after.id}
    where = {"now_us": now_us, "limit": limit, **place}
    running = await records(Overdue, "overdue", phase=Phase.RUNNING, **where)
    cancelling = await records(Overdue, "overdue", phase=Phase.CANCELLING, **where)
    return sorted([*running, *cancelling])[:limit]


@verb(sweep=True)
async def end_overdue(*, project_id: str, execution_id: str, now_us: int, grace_us: int) -> bool:
    """Cancel an execution whose run timeout is over, or end an execution whose grace is over. Returns False if neither
    is over, or if a row is locked."""
    for phase, due_at_us in await query("try_lock_execution", project_id=project_id, id=execution_id):
        if phase not in LEASED or due_at_us is None or due_at_us > now_us:
            return False
        if phase == Phase.RUNNING:
            if not await try_lock_below(project_id, execution_id):
                return False
            await cancel_tree(project_id, execution_id, Canceller("system"), now_us, grace_us)
            return True
        [state] = await records(State, "lock_state", project_id=project_id, id=execution_id)
        if not await try_lock_end(project_id, execution_id, state.parent_execution_id):
            return False
        await overrule(project_id, execution_id, now_us, "grace over")
        assert state.assigned_to_worker is not None
        await Notify(Changed(state.assigned_to_worker, execution_id))
        return True
    return False


@verb(reads=True)
async def next_due(*, phases: Collection[str] = RESTING | LEASED, after_us: int = FIRST.due_at_us) -> int | None:
    rows = await query("next_due", after_us=after_us)
    return min((due_at_us for phase, due_at_us in rows if phase in phases and due_at_us is not None), default=None)
