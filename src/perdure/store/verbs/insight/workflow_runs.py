"""Root executions by workflow type."""

from typing import Final

from perdure.store.base.interface import query, records, verb
from perdure.store.verbs.runs.find import list_floor
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.runs.workflows import WorkflowRun, WorkflowType

LIST_DEPTH: Final = 100_000


@verb(reads=True)
async def list_runs(
    *,
    project_id: str,
    type: WorkflowType,
    workflow_id: str | None,
    created_after_us: int | None,
    created_before_us: int | None,
    before: str,
    limit: int,
    offset: int,
) -> tuple[list[WorkflowRun], str | None]:
    """List a page of runs, newest first, and the next place.

    A page cannot end early, because the reader counts on `limit`. Raises BadRequest if the page is too large.
    """
    floor_id = await list_floor(project_id, before, LIST_DEPTH)
    wanted: dict[str, object] = {
        "project_id": project_id,
        "before": before,
        "floor_id": floor_id,
        "type": type,
        "workflow_id": workflow_id,
        "created_after_us": created_after_us,
        "created_before_us": created_before_us,
        "offset": offset,
    }
    found = await query("run_sizes", limit=limit + 1, **wanted)
    ids = [id for id, _ in found[:limit]]
    sizes = [size for _, size in found[:limit]]
    if len(sizes) > 1 and sum(sizes) > REPLY_BYTES_MAX:
        raise BadRequest(
            f"Inputs and results of these {len(sizes)} runs are {sum(sizes):,} bytes; the limit of an answer is "
            f"{REPLY_BYTES_MAX:,}. Ask for fewer at once."
        )
    following = ids[-1] if len(found) > limit else floor_id or None
    return await records(WorkflowRun, "list_runs", limit=limit, **wanted), following
