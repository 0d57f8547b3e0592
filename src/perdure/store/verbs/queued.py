"""Why a queued execution has not been claimed: another execution has its turn, or its room in the queue."""

from typing import Final, NamedTuple

from perdure.store.interface import query, verb

HOLDERS_MAX: Final = 10


class QueuedBehind(NamedTuple):
    """The obstacle and its holders.

    `what` is "session" (its turn in the session `name`), "queue" (room in the queue `name`) or "concurrency_key" (room
    for its key there). `limit` is how many may run.
    """

    what: str
    name: str
    holders: list[str]
    limit: int | None = None


@verb(looks=True)
async def queued_behind(*, project_id: str, execution_id: str) -> QueuedBehind | None:
    """None: it only waits for a worker or for its time."""
    turn = await query("turn_before", execution_id=execution_id)
    if turn:
        session_id, holder = turn[0]
        return QueuedBehind("session", session_id, [] if holder is None else [holder])
    place = await query("place_in_queue", project_id=project_id, id=execution_id)
    if not place:
        return None
    queue_name, key, key_limit, total_limit = place[0]
    queue = {"project_id": project_id, "queue_name": queue_name}
    if total_limit is not None and (await query("count_held_of_queue", **queue))[0][0] >= total_limit:
        rows = await query("holders_of_queue", **queue, limit=HOLDERS_MAX)
        return QueuedBehind("queue", queue_name, sorted(id for (id,) in rows), total_limit)
    queue["concurrency_key"] = key
    if key_limit is not None and (await query("count_held_of_key", **queue))[0][0] >= key_limit:
        rows = await query("holders_of_key", **queue, limit=HOLDERS_MAX)
        return QueuedBehind("concurrency_key", queue_name, sorted(id for (id,) in rows), key_limit)
    return None
