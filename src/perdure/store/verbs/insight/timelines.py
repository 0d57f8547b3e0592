"""The facts that an execution's timeline is folded from."""

import json
from typing import Final

from perdure.store.base.executions import unknown_execution
from perdure.store.base.interface import query, record, records, value, verb
from perdure.store.verbs.runs import workers
from perdure.wire.base.status import LEASED, Phase
from perdure.wire.insight.timeline_fold import (
    FoldedChild,
    FoldedExecution,
    FoldedRow,
    FoldedWait,
    OpenTimer,
    RunningStep,
    TimelineFacts,
    child_ids,
    wait_keys,
)
from perdure.wire.runs.executions import Act
from perdure.wire.steering.acts import PendingKind

VALUE_BYTES_MAX: Final = 48 << 10
PAGE_BYTES_MAX: Final = 4 << 20
"""Of the values that a page reads."""
CHUNK_ROWS: Final = 500
WAITS_MAX: Final = 1_000
"""Open and given up waits, in the last page."""


@verb(reads=True)
async def timeline(*, project_id: str, execution_id: str, after: int, limit: int) -> TimelineFacts:
    """Raises NotFound."""
    execution = await record(FoldedExecution, "timeline_execution", project_id=project_id, id=execution_id)
    if execution is None:
        raise unknown_execution(execution_id)
    rows = await _rows(execution_id, after, limit)
    before = rows.pop(0) if rows and rows[0].seq == after else None
    last_seq = rows[-1].seq if rows else after
    has_more = last_seq < execution.next_seq - 1
    waits: list[FoldedWait] = []
    timers: list[OpenTimer] = []
    steps: list[RunningStep] = []
    if keys := wait_keys(rows):
        waits += await _waits("timeline_waits", execution_id, keys=json.dumps(keys))
    if not has_more:
        waits += await _waits("timeline_unmet_waits", execution_id, limit=WAITS_MAX)
        timers, steps = await _open_calls(execution)
    children: list[FoldedChild] = []
    if ids := child_ids(rows):
        children = await records(FoldedChild, "timeline_children", project_id=project_id, ids=json.dumps(ids))
    acts: list[Act] = []
    steps_rerun = 0
    if rows:
        page = {"execution_id": execution_id, "first_seq": rows[0].seq, "last_seq": last_seq}
        acts = await records(Act, "acts_between", **page)
        steps_rerun = await value("steps_rerun", **page)
    return TimelineFacts(
        execution=execution,
        before=before,
        rows=rows,
        last_seq=last_seq,
        has_more=has_more,
        waits=waits,
        children=children,
        timers=timers,
        in_flight=steps,
        acts={act.seq: act.action for act in acts},
        steps_rerun=steps_rerun,
    )


async def _rows(execution_id: str, after: int, limit: int) -> list[FoldedRow]:
    """Begins with the row `after`. At least one row follows if there is one, else as many as have room."""
    left = limit + (after > 0)
    room = PAGE_BYTES_MAX
    rows: list[FoldedRow] = []
    while left > 0 and room > 0:
        chunk = await records(
            FoldedRow,
            "timeline_rows",
            execution_id=execution_id,
            after=rows[-1].seq + 1 if rows else after,
            limit=min(left, CHUNK_ROWS),
            bytes_max=VALUE_BYTES_MAX,
        )
        rows += chunk
        room -= sum(len(row.value or b"") for row in chunk)
        left -= len(chunk)
        if len(chunk) < CHUNK_ROWS:
            break
    return rows


async def _waits(name: str, execution_id: str, **values: object) -> list[FoldedWait]:
    return await records(FoldedWait, name, execution_id=execution_id, bytes_max=VALUE_BYTES_MAX, **values)


async def _open_calls(execution: FoldedExecution) -> tuple[list[OpenTimer], list[RunningStep]]:
    timers: dict[str, OpenTimer] = {}
    if execution.phase is Phase.WAITING and execution.timer_key is not None:
        timers[execution.timer_key] = OpenTimer(execution.timer_key, execution.ready_at_us, execution.due_at_us)
    steps: dict[str, RunningStep] = {}
    for key, kind, _, since_us, due_us, tries in await query(
        "pending_calls", execution_id=execution.id, attempt=execution.attempt
    ):
        if kind == PendingKind.TIMER:
            timers.setdefault(key, OpenTimer(key, since_us, due_us))
        elif execution.phase in LEASED:
            steps[key] = RunningStep(key, tries + 1, since_us)
    if execution.phase in LEASED and execution.worker_id is not None:
        said = (await workers.steps_of(execution.worker_id)).get(execution.id, ())
        steps.update((step.key, step) for step in said)
    return [*timers.values()], await workers.without_outcome(execution.id, execution.next_seq, steps.values())
