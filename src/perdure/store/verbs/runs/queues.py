"""Queues and their limits."""

from typing import Final

from perdure.store.base.interface import Notify, Ready, query, record, records, verb
from perdure.store.verbs.runs.admission import group_room, room
from perdure.wire.runs.admission import Rule
from perdure.wire.runs.queues import Pause, QueueState
from perdure.wire.runs.requests import QueueSpec
from perdure.wire.runs.waits import QueuedBehind


async def put_queue(project_id: str, queue: QueueSpec, *, keep_total: bool = False) -> None:
    """Make a queue, or change its limits. If this adds the first limit or removes the last, mark the queue's open
    executions."""
    before = await record(QueueSpec, "read_queue", project_id=project_id, name=queue.name) or QueueSpec(queue.name)
    total_limit = before.total_limit if keep_total else queue.total_limit
    after = QueueSpec(queue.name, queue.concurrency_limit, total_limit)
    limited, was_limited = _is_limited(after), _is_limited(before)
    if limited and not was_limited:
        await query("begin_limits")
    await query("upsert_queue", after, project_id=project_id)
    if limited != was_limited:
        await query("mark_limited", project_id=project_id, name=after.name, gate=int(limited))
    if after != before:
        await Notify(Ready(project_id, None))  # executions of any deployment


def _is_limited(queue: QueueSpec) -> bool:
    return (queue.concurrency_limit, queue.total_limit) != (None, None)


@verb(reads=True)
async def list_queues(*, project_id: str, name: str | None = None) -> list[QueueState]:
    """Queues with limits, a pause, or executions that are ready or running."""
    return await records(QueueState, "list_queues", project_id=project_id, name=name)


HOLDERS_MAX: Final = 10


async def queued_behind(project_id: str, execution_id: str) -> QueuedBehind | None:
    """None: it only waits for a worker or for its time."""
    for session_id, holder in await query("turn_before", execution_id=execution_id):
        return QueuedBehind("session", session_id, [] if holder is None else [holder])
    pause = await record(Pause, "pause_of", project_id=project_id, id=execution_id)
    if pause is not None:
        return QueuedBehind("pause", pause.name, [], pause=pause)
    for queue_name, key in await query("place_in_queue", project_id=project_id, id=execution_id):
        group = await group_room(project_id, queue_name, key)
        queue = {"project_id": project_id, "queue_name": queue_name, "limit": HOLDERS_MAX}
        match room(group)[1]:
            case Rule.QUEUE_LIMIT:
                rows = await query("holders_of_queue", **queue)
                return QueuedBehind("queue", queue_name, sorted(id for (id,) in rows), group.total_limit)
            case Rule.KEY_LIMIT:
                rows = await query("holders_of_key", **queue, concurrency_key=key)
                return QueuedBehind("concurrency_key", queue_name, sorted(id for (id,) in rows), group.key_limit)
    return None
