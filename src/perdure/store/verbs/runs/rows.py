"""Outcomes and ends of executions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from perdure.store.base.executions import ChangedExecution, EndedExecution, JournalRow
from perdure.store.base.interface import Changed, EndNotice, Notify, Ready, Written, query, query_many, record, records
from perdure.store.verbs.agents.turns import end_turns
from perdure.store.verbs.base.pages import page_of
from perdure.store.verbs.outside.webhooks import enqueue
from perdure.store.verbs.runs.fields import terms_of_fields
from perdure.wire.base.records import Kind
from perdure.wire.base.status import LEASED, Phase
from perdure.wire.runs.executions import Row
from perdure.wire.runs.search_terms import error_terms

NULL_BYTES = b"null"
WOKEN_RANK = 1_000_000
"""A fresh execution's rank is this minus its priority; a woken execution's rank is minus its priority."""

OUTSIDE = 1
SESSIONS = 2
SEARCHABLE = 4
"""Flags of an end, for who must hear of it: webhooks, the session, the search index."""

ROW_BYTES = 120
"""Approximate size of a journal row in a reply, without its value."""


async def journal_after(
    execution_id: str, seq: int, *, rows_max: int, bytes_max: int, before: int | None = None
) -> tuple[list[Row], bool]:
    """Read rows between `seq` and `before`, at least one row, and whether size left rows out."""
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
"""Makes an outcome's row from seq, time and attempt."""


class Taker(Protocol):
    async def wake(
        self,
        project_id: str,
        execution_id: str,
        now_us: int,
        outcome: Outcome,
        *,
        key: str | None,
        started: bytes | None,
    ) -> bool:
        """Write the outcome and claim the execution. False: nothing was done."""


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
    """Deliver a row like `add_row`. False: nothing was done. `taker` may claim the execution at once."""

    def outcome(seq: int, at_us: int, attempt: int) -> JournalRow:
        return JournalRow(
            execution_id, seq, at_us, kind, attempt, key=key, name=name, fingerprint=fingerprint, ok=ok, value=value
        )

    if taker is not None and await taker.wake(project_id, execution_id, now_us, outcome, key=key, started=started):
        return True
    return await add_row(project_id, execution_id, now_us, outcome, key=key, started=started) is not None


async def add_row(
    project_id: str,
    execution_id: str,
    now_us: int,
    outcome: Outcome,
    *,
    key: str | None = None,
    started: bytes | None = None,
) -> ChangedExecution | None:
    """Write an outcome into an execution's journal, and wake a waiting execution.

    None: the execution is final or unknown, or its journal does not say that it `started` this child under `key`.
    """
    moved = await record(
        ChangedExecution,
        "deliver_outcome",
        project_id=project_id,
        id=execution_id,
        now_us=now_us,
        key=key,
        started=started,
    )
    if moved is None:
        return None
    await query_many("insert_journal", [outcome(moved.seq, moved.at_us, moved.attempt)])
    if moved.phase is Phase.QUEUED:
        await Notify(Ready(project_id, moved.deployment_id), Written(execution_id))
    elif moved.phase in LEASED:
        await Notify(Changed(moved.worker_id, execution_id), Written(execution_id))
    else:
        await Notify(Written(execution_id))
    return moved


async def note_end(
    project_id: str,
    execution_id: str,
    phase: Phase,
    end: EndedExecution,
    now_us: int,
    *,
    name: str | None = None,
    result: bytes | None = None,
    error: str | None = None,
    detail: bytes | None = None,
) -> None:
    """Note an end, and write the journal's last row."""
    value = NULL_BYTES if detail is None else detail
    row = JournalRow(
        execution_id, end.seq, end.at_us, Kind(phase), end.attempt, name=name, ok=detail is None, value=value
    )
    await query_many("insert_journal", [row])
    await ended(project_id, execution_id, phase, end, now_us, result=result, error=error, detail=detail)


async def overrule(project_id: str, execution_id: str, now_us: int, name: str) -> None:
    """End a cancelled execution without its worker."""
    end = await record(EndedExecution, "overrule", project_id=project_id, id=execution_id, now_us=now_us)
    if end is not None:
        await note_end(project_id, execution_id, Phase.CANCELLED, end, now_us, name=name)


async def ended(
    project_id: str,
    execution_id: str,
    phase: Phase,
    end: EndedExecution,
    now_us: int,
    *,
    result: bytes | None = None,
    error: str | None = None,
    detail: bytes | None = None,
    early: str | None = None,
    taker: Taker | None = None,
) -> None:
    """`early` names the end in the parent's journal."""
    hint = EndNotice(project_id, execution_id, end.workflow_id, phase, result=result, error=error, detail=detail)
    await Notify(hint, Written(execution_id))
    if end.gate:
        await Notify(Ready(project_id, None))
    if end.waits:
        await query("close_waits", execution_id=execution_id, now_us=now_us)
    if phase is Phase.FAILED and error:
        await query_many("insert_term", [(project_id, term, execution_id) for term in error_terms(error)])
    if result is not None and end.end_flags & SEARCHABLE:
        terms = await terms_of_fields(project_id, end.workflow_id, execution_id, result=result)
        await query_many("insert_term", terms)
    if end.end_flags & OUTSIDE:
        await enqueue(project_id, execution_id, end.workflow_id, end.parent_execution_id is None, now_us)
    if end.parent_execution_id is not None and end.step_key is not None:
        value = result if result is not None else detail if detail is not None else NULL_BYTES
        name = phase.value if early is None else early
        await _tell_parent(project_id, execution_id, phase, end, now_us, name=name, value=value, taker=taker)
    if end.end_flags & SESSIONS:  # last: executions are locked before sessions
        await end_turns(project_id, execution_id, phase, now_us)


async def _tell_parent(
    project_id: str,
    child_id: str,
    phase: Phase,
    end: EndedExecution,
    now_us: int,
    *,
    name: str,
    value: bytes,
    taker: Taker | None,
) -> None:
    """Tell the parent, if its journal says that it started the child: a start by the API may name any parent."""
    parent_id, step_key, batch_id = end.parent_execution_id, end.step_key, end.batch_id
    assert parent_id is not None and step_key is not None
    if (
        batch_id is not None
        and not _is_derived(batch_id)
        and await _ended_in_batch(project_id, parent_id, step_key, batch_id, now_us)
    ):
        return
    await deliver(
        project_id,
        parent_id,
        Kind.CHILD,
        now_us,
        key=step_key,
        name=name,
        ok=phase is Phase.COMPLETED,
        value=value,
        started=msgspec.json.encode(child_id),
        taker=taker,
    )


def _is_derived(batch_id: str) -> bool:
    """Whether the parent's code numbered the batch (UUID version 5) and waits for each child, which saves two
    queries."""
    return batch_id[14:15] == "5"


async def _ended_in_batch(project_id: str, parent_id: str, step_key: str, batch_id: str, now_us: int) -> bool:
    """Note an end in a batch. False: the parent does not wait for the batch as a whole."""
    # Lock the parent first: of two simultaneous ends the later one then sees that it is the last.
    if not await query("lock_state", project_id=project_id, id=parent_id):
        return False
    if not await query("batch_waited_for", execution_id=parent_id, key=step_key, batch_id=batch_id):
        return False
    if await query("any_open_of_batch", project_id=project_id, batch_id=batch_id):
        return True
    if await query("meet_wait", execution_id=parent_id, key=step_key, event_seq=None, data=None):
        children = {id: rest for id, *rest in await query("batch_children", project_id=project_id, batch_id=batch_id)}
        rows = await records(Row, "outcomes_of_key", execution_id=parent_id, key=step_key)
        started = [row.value for row in rows if row.kind is Kind.CHILD_STARTED]
        value = batch_value(children, msgspec.json.decode(started[0]) if started else list(children))
        await deliver(project_id, parent_id, Kind.CHILD, now_us, key=step_key, name=Phase.COMPLETED, value=value)
    return True


_DELETED = "The execution was deleted before the batch had ended."


def batch_value(children: Mapping[str, Sequence[Any]], ids: Sequence[str]) -> bytes:
    """Encode a batch's ends in the order of the request. A deleted execution keeps its place."""
    ends = []
    for id in ids:
        if id not in children:
            ends.append({"workflow_id": "", "success": False, "error": _DELETED})
            continue
        workflow_id, phase, result, error, schema = children[id]
        if phase == Phase.COMPLETED:
            ends.append(
                {"workflow_id": workflow_id, "success": True, "result": Raw(result), "result_schema_name": schema}
            )
        else:
            told = error if error is not None else "The execution was cancelled."
            ends.append({"workflow_id": workflow_id, "success": False, "error": told})
    return msgspec.json.encode(ends)
