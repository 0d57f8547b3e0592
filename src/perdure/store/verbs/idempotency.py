"""The first answer to a request that carried an Idempotency-Key, kept in the transaction of its effect."""

from typing import NamedTuple

from perdure.store.interface import query, query_many
from perdure.wire.errors import KeyReused


class Idempotency(NamedTuple):
    """A request's Idempotency-Key, its route and the hash of its body."""

    route: str
    key: str
    body_hash: str


async def recall(project_id: str, same: Idempotency | None) -> bytes | None:
    """What the same request was answered the first time. Raises KeyReused when the key came with another body."""
    if same is None:
        return None
    found = await query("read_idempotency", project_id=project_id, route=same.route, key=same.key)
    if not found:
        return None
    if found[0][0] != same.body_hash:
        raise KeyReused(f"Idempotency-Key {same.key!r} was used with another body; use a new key for a new request.")
    answer: bytes = found[0][1]
    return answer


async def remember(project_id: str, same: Idempotency | None, answer: bytes, now_us: int) -> None:
    """Keep the answer for when the request comes again."""
    if same is not None:
        await query_many("insert_idempotency", [(project_id, *same, answer, now_us)])
