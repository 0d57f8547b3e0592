"""Database rows as records, and the only way to write to a journal or to end an execution."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from msgspec import Raw

from perdure.store.interface import Changed, Ended, Notify, Ready, Rows, Written, query, query_many, records
from perdure.store.verbs.turns import end_turns
from perdure.store.verbs.webhooks import enqueue
from perdure.wire.executions import Row
from perdure.wire.records import Kind
from perdure.wire.status import Phase

NULL_BYTES = b"null"
WOKEN_RANK = 1_000_000
"""A fresh execution's rank is this minus its priority; a woken one's is minus its priority."""

OUTSIDE = 1
SESSIONS = 2
"""Flags in `told`: the end has webhooks; the execution has to do with sessions."""

ROW_BYTES = 120
"""Approximate size of a journal row in a reply, without its value."""

JournalRow = tuple[str, int, int, str, int, str | None, str | None, str | None, int, bytes, int | None, int]


def journal_row(
    execution_id: str,
    seq: int,
    at_us: int,
    kind: Kind,
    attempt: int,
    *,
    key: str | None = None,
    name: str | None = None,
    fingerprint: str | None = None,
    ok: bool = True,
    value: bytes | Raw = NULL_BYTES,
    started_at_us: int | None = None,
    tries: int = 0,
) -> JournalRow:
    return (
        execution_id,
        seq,
        at_us,
        kind.value,
        attempt,
        key,
        name,
        fingerprint,
        int(ok),
        bytes(value),
        started_at_us,
        tries,
    )


def as_row(row: JournalRow) -> Row:
    _, seq, at_us, kind, attempt, key, name, fingerprint, ok, value, started_at_us, tries = row
    return Row(seq, at_us, Kind(kind), attempt, key, name, fingerprint, bool(ok), Raw(value), started_at_us, tries)


def fitting(sizes: Iterable[int], bytes_max: int) -> int:
    """How many of the first rows go into a page. The row that fills it is the last, so the first always fits."""
    amount = 0
    for size in sizes:
        if bytes_max <= 0:
            break
        bytes_max -= size
        amount += 1
    return amount


async def page_of(
    sizes: str, after: int, limit: int, bytes_max: int, *, ahead: int = 2, **where: object
) -> tuple[int, bool]:
    """How many rows after a number go into a page, and whether there may be more.

    `sizes` names the query of numbers and sizes. It asks for `ahead` rows first, then for more while they are small:
    SQLite reads a row's value to reach the next row, so the cost grows with the page, not with `limit`.
    """
    amount = 0
    while amount < limit and bytes_max > 0:
        asked = min(ahead, limit - amount)
        found = await query(sizes, after=after, limit=asked, **where)
        fits = fitting((row[1] for row in found), bytes_max)
        amount += fits
        if fits < len(found) or len(found) < asked:
            return amount, fits < len(found)
        after, ahead = found[-1][0], ahead * 8
        bytes_max -= sum(row[1] for row in found)
    return amount, True


async def journal_after(
    execution_id: str, seq: int, *, rows_max: int, bytes_max: int, before: int | None = None
) -> tuple[list[Row], bool]:
    """The journal's rows after `seq` and before `before`, at least one, and whether some were left out for size."""
    left = rows_max + 1 if before is None else min(before - seq - 1, rows_max + 1)  # numbers have no gaps
    fits, more = left, False
    if left > 1:  # one always passes
        fits, more = await page_of("journal_sizes", seq, left, max(bytes_max, 1), ahead=16, execution_id=execution_id)
    if not fits:
        return [], False
    rows: list[Row] = []
    for row in await records(Row, "read_journal", execution_id=execution_id, after=seq, limit=fits):
        bytes_max -= ROW_BYTES + len(row.value)
        if len(rows) == rows_max or (bytes_max < 0 and rows):
            return rows, True
        rows.append(row)
    return rows, more and fits < left


Outcome = Callable[[int, int, int], JournalRow]
"""Makes an outcome's row from its seq, time and attempt."""


class Taker(Protocol):
    """A waiting claim that may take a woken execution."""

    async def wake(
        self, project_id: str, execution_id: str, now_us: int, outcome: Outcome, key: str | None, started: bytes | None
    ) -> bool:
        """Write the outcome and claim the execution. False: it did nothing. `key` and `started` are as in `deliver`."""


async def deliver(
    project_id: str,
    execution_id: str,
    kind: Kind,
    now_us: int,
    *,
    key: str | None = None,
    name: str | None = None,
    fingerprint: str | None = None,
    ok: bool = True,
    value: bytes | Raw = NULL_BYTES,
    started: bytes | None = None,
    taker: Taker | None = None,
) -> bool:
    """Write an outcome into an execution's journal and wake it if it waits.

    False: the execution is final or unknown, or its journal does not say that it `started` this child under `key`.
    """

    def outcome(seq: int, at_us: int, attempt: int) -> JournalRow:
        return journal_row(
            execution_id, seq, at_us, kind, attempt, key=key, name=name, fingerprint=fingerprint, ok=ok, value=value
        )

    if taker is not None and await taker.wake(project_id, execution_id, now_us, outcome, key, started):
        return True
    moved = await query(
        "deliver_outcome", project_id=project_id, id=execution_id, now_us=now_us, key=key, started=started
    )
    if not moved:
        return False
    seq, phase, worker_id, deployment_id, at_us, attempt = moved[0]
    await query_many("insert_journal", [outcome(seq, at_us, attempt)])
    if phase == "queued":
        await Notify(Ready(project_id, deployment_id), Written(execution_id))
    elif phase in ("running", "cancelling"):
        await Notify(Changed(worker_id, execution_id), Written(execution_id))
    else:
        await Notify(Written(execution_id))
    return True


async def ended(
    project_id: str,
    execution_id: str,
    phase: Phase,
    now_us: int,
    *,
    workflow_id: str,
    parent_execution_id: str | None,
    step_key: str | None,
    batch_id: str | None,
    limited: int,
    result: bytes | None = None,
    error: str | None = None,
    detail: bytes | None = None,
    waits: int = 1,
    told: int = 0,
    taker: Taker | None = None,
) -> None:
    """Follow up on a new final phase: notify the parent and waiters, free the slot.

    `waits` is 0 if no wait can be open. `told` is a sum of OUTSIDE and SESSIONS.
    """
    hints: list[Ended | Written | Ready] = [
        Ended(project_id, execution_id, workflow_id, phase.value, result, error, detail),
        Written(execution_id),
    ]
    if limited:
        hints.append(Ready(project_id, None))
    await Notify(*hints)
    if waits:
        await query("close_waits", execution_id=execution_id)
    if told & OUTSIDE:
        await enqueue(project_id, execution_id, workflow_id, parent_execution_id is None, now_us)
    value = result if result is not None else detail if detail is not None else NULL_BYTES
    if parent_execution_id is not None and step_key is not None:
        await _tell_parent(
            project_id, execution_id, parent_execution_id, step_key, batch_id, phase, value, now_us, taker
        )
    if told & SESSIONS:  # last: executions are locked before sessions
        await end_turns(project_id, execution_id, phase, now_us)


async def _tell_parent(
    project_id: str,
    child_id: str,
    parent_id: str,
    step_key: str,
    batch_id: str | None,
    phase: Phase,
    value: bytes,
    now_us: int,
    taker: Taker | None,
) -> None:
    """Notify the parent, if its journal says that it started this child: a start by the API may name any parent and
    step."""
    if (
        batch_id is not None
        and not _is_derived(batch_id)
        and await _ended_in_batch(project_id, parent_id, step_key, batch_id, now_us)
    ):
        return
    ok = phase is Phase.COMPLETED
    await deliver(
        project_id,
        parent_id,
        Kind.CHILD,
        now_us,
        key=step_key,
        name=phase.value,
        ok=ok,
        value=value,
        started=msgspec.json.encode(child_id),
        taker=taker,
    )


def _is_derived(batch_id: str) -> bool:
    """Whether the parent's code numbered the batch (`map_children`: UUID version 5), not the server (version 7).

    Such a parent waits for each child, which saves two queries per child.
    """
    return batch_id[14:15] == "5"


async def _ended_in_batch(project_id: str, parent_id: str, step_key: str, batch_id: str, now_us: int) -> bool:
    """Notify the parent after a batch's last end. False: the parent does not wait for the batch as one."""
    # Lock the parent first: of two simultaneous ends the later one then sees that it is the last.
    if not await query("lock_state", project_id=project_id, id=parent_id):
        return False
    if not await query("batch_waited_for", execution_id=parent_id, key=step_key, batch_id=batch_id):
        return False
    if await query("any_open_of_batch", project_id=project_id, batch_id=batch_id):
        return True
    if await query("meet_wait", execution_id=parent_id, key=step_key, event_seq=None, data=None):
        children = await query("batch_children", project_id=project_id, batch_id=batch_id)
        rows = await query("outcomes_of_key", execution_id=parent_id, key=step_key)
        started = [row[7] for row in rows if row[2] == Kind.CHILD_STARTED]
        value = batch_value(children, msgspec.json.decode(started[0]) if started else [row[0] for row in children])
        await deliver(project_id, parent_id, Kind.CHILD, now_us, key=step_key, name=Phase.COMPLETED, value=value)
    return True


_DELETED = "The execution was deleted before the batch had ended."


def batch_value(children: Rows, ids: Sequence[str]) -> bytes:
    """The ends of a batch, in the order of the request, on which readers rely. A deleted execution keeps its place."""
    by_id = {id: rest for id, *rest in children}
    ends = []
    for id in ids:
        if id not in by_id:
            ends.append({"workflow_id": "", "success": False, "error": _DELETED})
            continue
        workflow_id, phase, result, error, schema = by_id[id]
        if phase == Phase.COMPLETED:
            ends.append(
                {"workflow_id": workflow_id, "success": True, "result": Raw(result), "result_schema_name": schema}
            )
        else:
            told = error if error is not None else "The execution was cancelled."
            ends.append({"workflow_id": workflow_id, "success": False, "error": told})
    return msgspec.json.encode(ends)


__all__ = [
    "NULL_BYTES",
    "ROW_BYTES",
    "WOKEN_RANK",
    "JournalRow",
    "Outcome",
    "Taker",
    "as_row",
    "batch_value",
    "deliver",
    "ended",
    "fitting",
    "journal_after",
    "journal_row",
    "page_of",
]
