"""Root executions by the type of their workflow, in the contract's shape."""

from typing import NamedTuple

from msgspec import Raw

from perdure.store.interface import query, verb
from perdure.store.verbs.queries import LIST_DEPTH
from perdure.wire.errors import BadRequest
from perdure.wire.limits import REPLY_BYTES_MAX
from perdure.wire.status import Phase
from perdure.wire.workflows import WorkflowType


class Run(NamedTuple):
    id: str
    root_execution_id: str | None
    workflow_id: str
    session_id: str
    created_at_us: int
    phase: Phase
    completed_at_us: int | None
    payload: Raw
    result: Raw | None
    error: str | None


@verb(looks=True)
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
    bytes_max: int = REPLY_BYTES_MAX,
) -> tuple[list[Run], str | None]:
    """A page of runs with ids below `before`, newest first, among the newest LIST_DEPTH executions; and the next place.

    A page cannot end early, because its reader counts on `limit`. Raises BadRequest if it is too large.
    """
    floor = await query("list_floor", project_id=project_id, before=before, depth=LIST_DEPTH)
    floor_id = floor[0][0] if floor else ""
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
    sizes = [size for _, size in found[:limit]]
    if len(sizes) > 1 and sum(sizes) > bytes_max:
        raise BadRequest(
            f"Inputs and results of these {len(sizes)} runs are {sum(sizes):,} bytes; the limit of an answer is "
            f"{bytes_max:,}. Ask for fewer at once."
        )
    following = found[limit - 1][0] if len(found) > limit else floor_id or None
    return [_run_of(*row) for row in await query("list_runs", limit=limit, **wanted)], following


def _run_of(
    id: str,
    root_id: str | None,
    workflow_id: str,
    session_id: str,
    created_at_us: int,
    phase: str,
    completed_at_us: int | None,
    payload: bytes,
    result: bytes | None,
    error: str | None,
) -> Run:
    return Run(
        id,
        root_id,
        workflow_id,
        session_id,
        created_at_us,
        Phase(phase),
        completed_at_us,
        Raw(payload),
        None if result is None else Raw(result),
        error,
    )
