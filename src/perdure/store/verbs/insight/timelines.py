"""The facts of a timeline."""

import json
from typing import Final

from perdure.store.base.interface import records, value, verb
from perdure.store.verbs.base.pages import read_entries
from perdure.store.verbs.runs import workers
from perdure.store.verbs.steering import pending
from perdure.store.verbs.steering.pending import read_actable
from perdure.wire.base.brief_executions import BriefExecution
from perdure.wire.base.status import LEASED
from perdure.wire.insight.timeline_fold import RunningStep, TimelineFacts, child_ids, wait_keys
from perdure.wire.runs.executions import Act
from perdure.wire.runs.waits import RecordedWait
from perdure.wire.steering.acts import Actable, PendingCall, PendingKind

VALUE_BYTES_MAX: Final = 48 << 10
PAGE_BYTES_MAX: Final = 4 << 20
"""Bytes of values that a page reads."""
CHUNK_ROWS: Final = 500
WAITS_MAX: Final = 1_000
"""Open and closed waits, in the last page."""


@verb(reads=True)
async def timeline(*, project_id: str, execution_id: str, after: int, limit: int) -> TimelineFacts:
    """Raises NotFound."""
    execution = await read_actable(project_id, execution_id)
    first, amount = max(after - 1, 0), limit + (after > 0)
    rows = await read_entries(
        execution_id, first, amount, chunk=CHUNK_ROWS, bytes_max=VALUE_BYTES_MAX, room=PAGE_BYTES_MAX, every=0
    )
    before = rows.pop(0) if rows and rows[0].seq == after else None
    last_seq = rows[-1].seq if rows else after
    has_more = last_seq < execution.next_seq - 1
    waits: list[RecordedWait] = []
    timers: list[PendingCall] = []
    steps: list[RunningStep] = []
    of = {"execution_id": execution_id, "bytes_max": VALUE_BYTES_MAX}
    if keys := wait_keys(rows):
        waits += await records(RecordedWait, "waits_of_keys", keys=json.dumps(keys), **of)
    if not has_more:
        waits += reversed(await records(RecordedWait, "newest_waits", unmet=1, limit=WAITS_MAX, **of))
        timers, steps = await _open_calls(execution)
    children: list[BriefExecution] = []
    if ids := child_ids(rows):
        children = await records(BriefExecution, "timeline_children", project_id=project_id, ids=json.dumps(ids))
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


async def _open_calls(execution: Actable) -> tuple[list[PendingCall], list[RunningStep]]:
    calls = await pending.running(execution.id, execution)
    steps = {
        call.key: RunningStep(call.key, (call.tries or 0) + 1, call.since_us)
        for call in calls
        if call.kind is PendingKind.STEP and call.key is not None and call.since_us is not None
    }
    if execution.phase in LEASED and execution.worker_id is not None:
        said = (await workers.steps_of(execution.worker_id)).get(execution.id, ())
        steps.update((step.key, step) for step in said)
    timers = [call for call in calls if call.kind is PendingKind.TIMER]
    return timers, await workers.without_outcome(execution.id, execution.next_seq, steps.values())
