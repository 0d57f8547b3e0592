"""A queued execution may wait for a turn, for the end of a pause, or for room in its queue."""

from typing import Final

from perdure.store.interface import query, record
from perdure.store.verbs.admission import group_room, room
from perdure.wire.runs.admission import Rule
from perdure.wire.runs.queues import Pause
from perdure.wire.runs.waits import QueuedBehind

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
