"""Workers as operators see them."""

from perdure.store.base.interface import records, verb
from perdure.wire.runs.workers import ListedWorker


@verb(looks=True)
async def list_workers(
    *, project_id: str, after: str, limit: int, now_us: int, lease_us: int, push_lease_us: int
) -> list[ListedWorker]:
    """`lease_us` and `push_lease_us` are how long a beat's lease lasts."""
    return await records(
        ListedWorker,
        "list_all_workers",
        project_id=project_id,
        after=after,
        limit=limit,
        now_us=now_us,
        lease_us=lease_us,
        push_lease_us=push_lease_us,
    )
