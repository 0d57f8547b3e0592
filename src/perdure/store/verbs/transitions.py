"""Transitions from outside: cancel, time-out, loss of the worker, due timers."""

import json
from collections.abc import Collection
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from perdure.store.interface import Changed, Due, Metric, Notify, Ready, Written, query, query_many, verb
from perdure.store.verbs.rows import ended, journal_row
from perdure.store.verbs.try_lock import try_lock, try_lock_below, try_lock_end
from perdure.wire.errors import NotCancellable, NotFound
from perdure.wire.records import Kind
from perdure.wire.status import FINAL, HELD, Phase

LOSSES_MAX = 5
"""An execution is POISONED after this many lost workers without a newly recorded outcome."""
UNDELIVERED_MAX = 100
"""Limit of deliveries in vain in a row: unacknowledged, handed back after the worker had begun, or lost with a worker
that came back. It is high because neither a lost message nor a departing worker is a crash."""
BACKOFF_MAX_US = 300_000_000
RESTING: Final = frozenset({Phase.WAITING, Phase.QUEUED})
"""Phases whose due times `wake_due` serves; `end_overdue` serves the held ones."""


class Overdue(NamedTuple):
    """An execution past its due time. Executions are handled in this order."""

    due_at_us: int
    project_id: str
    id: str


FIRST: Final = Overdue(-(1 << 62), "", "")


@verb(locks="execution=execution_id")
async def cancel(*, project_id: str, execution_id: str, cancelled_by: str, now_us: int, grace_us: int) -> Phase:
    """Cancel an execution and its open descendants. Answers `cancelling` or `cancelled`."""
    rows = await query("lock_state", project_id=project_id, id=execution_id)
    if not rows:
        raise NotFound(f"Execution {execution_id!r} does not exist.")
    if Phase(rows[0][0]) in FINAL:
        raise NotCancellable(f"Execution {execution_id!r} cannot be cancelled: it is {rows[0][0]} already.")
    return await cancel_tree(project_id, execution_id, cancelled_by, now_us, grace_us)


async def cancel_tree(project_id: str, execution_id: str, cancelled_by: str, now_us: int, grace_us: int) -> Phase:
    phase = await _cancel_one(project_id, execution_id, cancelled_by, now_us, grace_us)
    level = [execution_id]
    while level:
        below: list[str] = []
        for parent in level:
            children = await query("children_to_cancel", project_id=project_id, id=parent)
            below.extend(id for id, _ in children)
            for id, over in children:
                if not over:
                    await _cancel_one(project_id, id, cancelled_by, now_us, grace_us)
        level = below
    return phase


async def _cancel_one(project_id: str, execution_id: str, cancelled_by: str, now_us: int, grace_us: int) -> Phase:
    state = await query("lock_state", project_id=project_id, id=execution_id)
    phase = Phase(state[0][0])
    has_begun = phase is Phase.WAITING or (phase is Phase.QUEUED and state[0][1])
    if has_begun and state[0][10] and state[0][11] is None:
        rows = await query(
            "cancel_waking", project_id=project_id, id=execution_id, now_us=now_us, cancelled_by=cancelled_by
        )
        seq, at_us, deployment_id, attempt = rows[0]
        await query_many(
            "insert_journal", [journal_row(execution_id, seq, at_us, Kind.CANCEL, attempt, name=cancelled_by)]
        )
        await Notify(Ready(project_id, deployment_id), Written(execution_id))
        return Phase.CANCELLING
    if phase is Phase.RUNNING:
        rows = await query(
            "ask_cancel",
            project_id=project_id,
            id=execution_id,
            now_us=now_us,
            cancelled_by=cancelled_by,
            due_at_us=now_us + grace_us,
        )
        seq, at_us, worker_id, attempt = rows[0]
        await query_many(
            "insert_journal", [journal_row(execution_id, seq, at_us, Kind.CANCEL, attempt, name=cancelled_by)]
        )
        await Notify(Changed(worker_id, execution_id), Written(execution_id), Due(now_us + grace_us, ends=True))
        return Phase.CANCELLING
    if phase in (Phase.CANCELLING, *FINAL):
        return phase
    if state[0][11] is not None and phase is Phase.QUEUED and now_us < state[0][17] + grace_us:
        return Phase.CANCELLING  # on its way to a worker to clean up; after the grace, a second cancel ends it
    rows = await query("cancel_idle", project_id=project_id, id=execution_id, now_us=now_us, cancelled_by=cancelled_by)
    await note_cancelled(project_id, execution_id, rows[0], state[0][1], now_us, cancelled_by)
    return Phase.CANCELLED


async def note_cancelled(
    project_id: str, execution_id: str, moved: tuple[Any, ...], attempt: int, now_us: int, why: str
) -> None:
    """Follow up on a cancel. `moved` is the row that its query returned."""
    next_seq, at_us, workflow_id, parent_id, step_key, limited, batch_id, *_, told = moved
    row = journal_row(execution_id, next_seq - 1, at_us, Kind.CANCELLED, attempt, name=why)
    await query_many("insert_journal", [row])
    await ended(
        project_id,
        execution_id,
        Phase.CANCELLED,
        now_us,
        workflow_id=workflow_id,
        parent_execution_id=parent_id,
        step_key=step_key,
        batch_id=batch_id,
        limited=limited,
        told=told,
    )


async def try_lose(
    project_id: str, execution_id: str, attempt: int, worker_id: str, now_us: int, *, sure: bool = True
) -> bool:
    """As `lose`, without waiting for locks.

    False: it did nothing, because a row is locked, or the loss would poison the execution and is not `sure`.
    """
    if not await try_lock(project_id, execution_id):
        return False
    for row in await query("read_state", project_id=project_id, id=execution_id):
        phase, parent_id, acked, losses, undelivered = row[0], row[7], row[13], row[14], row[15]
        if phase == Phase.RUNNING and acked and losses + 1 >= LOSSES_MAX and not sure:
            return False
        ends = phase != Phase.RUNNING or losses + 1 >= LOSSES_MAX or undelivered + 1 >= UNDELIVERED_MAX
        if ends and not await try_lock_end(project_id, execution_id, parent_id):
            return False
    await lose(project_id, execution_id, attempt, worker_id, now_us)
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
) -> None:
    """Take an execution back from a worker that is gone, that `released` it, or that `refused` it.

    An unacknowledged delivery is a lost message. A crash is a loss, and the fifth without progress poisons the
    execution; if the worker proves alive, `claims.drain` takes the count back. A hand-back of `begun` work counts like
    a lost message, because the code may do it each time.
    """
    state = await query("lock_state", project_id=project_id, id=execution_id)
    if not state or state[0][1] != attempt or state[0][2] != worker_id:
        return
    phase, acked, losses, undelivered = Phase(state[0][0]), state[0][13], state[0][14], state[0][15]
    if phase is Phase.CANCELLING:
        rows = await query("overrule", project_id=project_id, id=execution_id, now_us=now_us)
        if rows:
            await note_cancelled(project_id, execution_id, rows[0], attempt, now_us, "worker lost")
        return
    if phase is not Phase.RUNNING:
        return
    delay_us = 0
    if acked and not released:
        losses += 1
        delay_us = _backoff_us(execution_id, losses)
    elif begun or not released:
        undelivered += 1
        delay_us = _backoff_us(execution_id, undelivered)
    if losses >= LOSSES_MAX or undelivered >= UNDELIVERED_MAX:
        await _poison(project_id, execution_id, attempt, worker_id, now_us, losses, undelivered)
        return
    rows = await query(
        "lose",
        project_id=project_id,
        id=execution_id,
        attempt=attempt,
        worker_id=worker_id,
        now_us=now_us,
        due_at_us=now_us + delay_us if delay_us else None,
        losses=losses,
        undelivered=undelivered,
        refused=int(refused),
    )
    if not rows:
        return
    next_seq, at_us, deployment_id = rows[0]
    kind = Kind.RELEASED if released else Kind.LOST
    await query_many("insert_journal", [journal_row(execution_id, next_seq - 1, at_us, kind, attempt, name=worker_id)])
    if not released:
        await Notify(Metric("executions_lost" if acked else "deliveries_lost"))
        if acked:
            await query(
                "note_loss", worker_id=worker_id, project_id=project_id, execution_id=execution_id, now_us=now_us
            )
    await Notify(Due(now_us + delay_us) if delay_us else Ready(project_id, deployment_id), Written(execution_id))


def _backoff_us(execution_id: str, count: int) -> int:
    """0 s after the first loss, then 1 s, 2 s, 4 s …, at most 5 minutes, shortened by up to half.

    The reduction differs by execution. Otherwise all executions lost with one worker would return together to one
    worker, and one that kills its worker would take the rest along until all are poisoned.
    """
    if count <= 1:
        return 0
    most = min(1_000_000 << min(count - 2, 20), BACKOFF_MAX_US)
    part = int.from_bytes(blake2b(f"{execution_id} {count}".encode(), digest_size=4).digest())
    return most - (most // 2) * part // (1 << 32)


async def _poison(
    project_id: str, execution_id: str, attempt: int, worker_id: str, now_us: int, losses: int, undelivered: int
) -> None:
    what = (
        f"{losses} workers were lost while they ran it, without a newly recorded outcome in between"
        if losses >= LOSSES_MAX
        else f"{undelivered} deliveries in a row were never acknowledged, or were handed back, or lost by live workers"
    )
    error = f"POISONED: {what}; the last was worker {worker_id}."
    detail = json.dumps({"type": "Poisoned", "code": "POISONED", "message": error, "worker": worker_id}).encode()
    rows = await query(
        "poison",
        project_id=project_id,
        id=execution_id,
        attempt=attempt,
        worker_id=worker_id,
        now_us=now_us,
        error=error,
    )
    if not rows:
        return
    next_seq, at_us, workflow_id, parent_id, step_key, limited, batch_id, told = rows[0]
    row = journal_row(execution_id, next_seq - 1, at_us, Kind.FAILED, attempt, ok=False, value=detail)
    await query_many("insert_journal", [row])
    await Notify(Metric("poisoned"))
    await ended(
        project_id,
        execution_id,
        Phase.FAILED,
        now_us,
        workflow_id=workflow_id,
        parent_execution_id=parent_id,
        step_key=step_key,
        batch_id=batch_id,
        limited=limited,
        told=told,
        error=error,
        detail=detail,
    )


@verb(sweep=True)
async def wake_due(*, now_us: int, limit: int) -> int:
    """Wake due timers and ready delayed starts, except locked ones. Answers how many."""
    woken = await query("wake_timers", now_us=now_us, limit=limit)
    await query_many(
        "insert_journal",
        [
            journal_row(id, seq, at_us, Kind.WOKEN if key is None else Kind.TIMER, attempt, key=key)
            for id, seq, at_us, attempt, key, _, _ in woken
        ],
    )
    # In a push execution a wait and its time-out share a key; only one of them happens.
    await query_many("close_wait", [(row[0], row[4]) for row in woken if row[4] is not None])
    ready = await query("ready_delayed", now_us=now_us, limit=limit)
    hints = {Ready(row[-2], row[-1]) for row in woken} | {Ready(row[0], row[1]) for row in ready}
    await Notify(*hints, *[Written(row[0]) for row in woken])
    return len(woken) + len(ready)


class SetAhead(NamedTuple):
    """Timers set by a clock that was ahead, and the duration of the shortest."""

    amount: int
    shortest_us: int


@verb(looks=True)
async def set_ahead(*, now_us: int) -> SetAhead | None:
    """Timers left behind by the clock's step back; None: none are left."""
    amount, shortest_us = (await query("set_ahead", now_us=now_us))[0]
    return SetAhead(amount, shortest_us) if amount else None


@verb(sweep=True)
async def bring_forward(*, now_us: int, passed_us: int, limit: int) -> bool:
    """Make timers from before the clock's step back due, if they last no longer than the time since. Answers whether
    there may be more."""
    found = await query("bring_forward", now_us=now_us, passed_us=passed_us, limit=limit)
    if found:
        await Notify(Due(now_us))
    return len(found) == limit


@verb(looks=True)
async def overdue(*, now_us: int, limit: int, after: Overdue = FIRST) -> list[Overdue]:
    """Executions whose run timeout or grace is over, the earliest first, after the place `after`."""
    after_us, after_project_id, after_id = after
    where = {"now_us": now_us, "after_us": after_us, "after_project_id": after_project_id, "after_id": after_id}
    running = await query("overdue", phase=Phase.RUNNING, limit=limit, **where)
    cancelling = await query("overdue", phase=Phase.CANCELLING, limit=limit, **where)
    return sorted(Overdue(*row) for row in (*running, *cancelling))[:limit]


@verb(sweep=True)
async def end_overdue(*, project_id: str, execution_id: str, now_us: int, grace_us: int) -> bool:
    """Cancel an execution after its run timeout, or end one after its grace.

    False: it is no longer overdue, or a row is locked.
    """
    found = await query("try_lock_execution", project_id=project_id, id=execution_id)
    if not found or found[0][0] not in HELD or found[0][1] is None or found[0][1] > now_us:
        return False
    if found[0][0] == Phase.RUNNING:
        if not await try_lock_below(project_id, execution_id):
            return False
        await cancel_tree(project_id, execution_id, "system", now_us, grace_us)
        return True
    state = await query("lock_state", project_id=project_id, id=execution_id)
    if not await try_lock_end(project_id, execution_id, state[0][7]):
        return False
    rows = await query("overrule", project_id=project_id, id=execution_id, now_us=now_us)
    await note_cancelled(project_id, execution_id, rows[0], state[0][1], now_us, "grace over")
    await Notify(Changed(state[0][2], execution_id))
    return True


@verb(looks=True)
async def next_due(*, phases: Collection[str] = RESTING | HELD, after_us: int = FIRST.due_at_us) -> int | None:
    rows = await query("next_due", after_us=after_us)
    return min((due_at_us for phase, due_at_us in rows if phase in phases and due_at_us is not None), default=None)
