"""Root executions by workflow type."""

from typing import Final

from perdure.store.base.interface import query, records, serves
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.runs.find import list_floor
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.operation import Listed
from perdure.wire.runs.workflows import GetWorkflowRuns, WorkflowRun

LIST_DEPTH: Final = 100_000
HOUR_US: Final = 3_600_000_000


@serves(GetWorkflowRuns, scans=True)
async def list_runs(at: At, op: GetWorkflowRuns) -> Listed[WorkflowRun]:
    """A page cannot end early, because the reader counts on `limit`."""
    before = op.cursor or FIRST_CURSOR
    if op.end_time is not None:
        # Ids grow with time, but not to the microsecond, and by other clocks.
        before = min(before, _id_of(op.end_time + HOUR_US))
    floor_id = await list_floor(at.project_id, before, LIST_DEPTH)
    wanted: dict[str, object] = {
        "before": before,
        "floor_id": floor_id,
        "type": op.workflow_type,
        "workflow_id": op.workflow_id,
        "created_after_us": op.start_time,
        "created_before_us": op.end_time,
        "offset": op.offset,
    }
    found = await query("run_sizes", at, limit=op.limit + 1, **wanted)
    ids = [id for id, _ in found[: op.limit]]
    sizes = [size for _, size in found[: op.limit]]
    if len(sizes) > 1 and sum(sizes) > REPLY_BYTES_MAX:
        raise BadRequest(
            f"Inputs and results of these {len(sizes)} runs are {sum(sizes):,} bytes; the limit of an answer is "
            f"{REPLY_BYTES_MAX:,}. Ask for fewer at once."
        )
    following = ids[-1] if len(found) > op.limit else floor_id or None
    return Listed(await records(WorkflowRun, "list_runs", at, limit=op.limit, **wanted), following)


def _id_of(at_us: int) -> str:
    """The smallest id of a moment."""
    ms = f"{min(max(at_us // 1_000, 0), 2**48 - 1):012x}"
    return f"{ms[:8]}-{ms[8:]}"
