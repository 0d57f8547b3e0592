"""Queues: the limits under which executions are admitted."""

from perdure.store.interface import query
from perdure.wire.requests import QueueSpec


async def put_queue(project_id: str, queue: QueueSpec, *, keep_total: bool = False) -> None:
    """Make a queue, or change its limits. If that adds its first limit or removes its last, mark its open
    executions."""
    before = await query("read_queue", project_id=project_id, name=queue.name)
    total_limit = before[0][1] if keep_total and before else queue.total_limit
    limited = queue.concurrency_limit is not None or total_limit is not None
    was_limited = bool(before) and before[0] != (None, None)
    if limited and not was_limited:
        await query("begin_limits")
    await query(
        "upsert_queue",
        project_id=project_id,
        name=queue.name,
        concurrency_limit=queue.concurrency_limit,
        total_limit=total_limit,
    )
    if limited != was_limited:
        await query("mark_limited", project_id=project_id, name=queue.name, limited=int(limited))
