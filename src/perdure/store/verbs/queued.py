"""A queued execution may wait for a turn, or for room in its queue."""

from typing import Final

from perdure.store.interface import query
from perdure.wire.waits import QueuedBehind

HOLDERS_MAX: Final = 10


async def queued_behind(project_id: str, execution_id: str) -> QueuedBehind | None:
    """None: it only waits for a worker or for its time."""
    for session_id, holder in await query("turn_before", execution_id=execution_id):
        return QueuedBehind("session", session_id, [] if holder is None else [holder])
    for queue_name, key, key_limit, total_limit in await query(
        "place_in_queue", project_id=project_id, id=execution_id
    ):
        queue = {"project_id": project_id, "queue_name": queue_name}
        if total_limit is not None:
            ((held,),) = await query("count_held_of_queue", **queue)
            if held >= total_limit:
                rows = await query("holders_of_queue", **queue, limit=HOLDERS_MAX)
                return QueuedBehind("queue", queue_name, sorted(id for (id,) in rows), total_limit)
        if key_limit is not None:
            queue["concurrency_key"] = key
            ((held,),) = await query("count_held_of_key", **queue)
            if held >= key_limit:
                rows = await query("holders_of_key", **queue, limit=HOLDERS_MAX)
                return QueuedBehind("concurrency_key", queue_name, sorted(id for (id,) in rows), key_limit)
    return None
