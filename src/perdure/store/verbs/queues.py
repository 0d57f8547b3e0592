"""Queues: limits and pauses."""

from msgspec.structs import replace

from perdure.store.interface import Notify, Ready, query, record, records, verb
from perdure.wire.queues import QueueState
from perdure.wire.requests import QueueSpec


async def put_queue(project_id: str, queue: QueueSpec, *, keep_total: bool = False) -> None:
    """Make a queue, or change its limits. A pause stays."""
    before = await _read(project_id, queue.name)
    total_limit = before.total_limit if keep_total else queue.total_limit
    await _put(project_id, before, replace(before, concurrency_limit=queue.concurrency_limit, total_limit=total_limit))


@verb(sweep=True)
async def put_pause(*, project_id: str, name: str, paused_at_us: int | None) -> None:
    """None resumes the queue. A paused queue keeps the time of its pause."""
    before = await _read(project_id, name)
    if (before.paused_at_us is None) == (paused_at_us is None):
        return
    await _put(project_id, before, replace(before, paused_at_us=paused_at_us))
    if paused_at_us is None:
        await Notify(Ready(project_id, None))


@verb(looks=True)
async def list_queues(*, project_id: str, name: str | None = None) -> list[QueueState]:
    """Queues with limits, a pause, or executions that are ready or running."""
    return await records(QueueState, "list_queues", project_id=project_id, name=name)


async def _read(project_id: str, name: str) -> QueueState:
    """A queue without its numbers."""
    return await record(QueueState, "read_queue", project_id=project_id, name=name) or QueueState(name)


async def _put(project_id: str, before: QueueState, after: QueueState) -> None:
    """If this adds the first limit or removes the last, mark the queue's open executions. A pause counts as a limit."""
    limited, was_limited = _is_limited(after), _is_limited(before)
    if limited and not was_limited:
        await query("begin_limits")
    await query("upsert_queue", after, project_id=project_id)
    if limited != was_limited:
        await query("mark_limited", project_id=project_id, name=after.name, gate=int(limited))


def _is_limited(queue: QueueState) -> bool:
    return (queue.concurrency_limit, queue.total_limit, queue.paused_at_us) != (None, None, None)
