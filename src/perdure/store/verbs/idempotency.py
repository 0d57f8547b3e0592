"""The first answer to a request that carried an Idempotency-Key, kept in the transaction of its effect.

It stays until some time after that, or after the end of the last execution that it names. Ends know nothing of it: when
an answer's time is over, the sweep looks at its executions. While one is open the time counts anew, so an answer whose
execution waits for weeks is looked at once in that time; and one that is looked at later has not ended before the look
before, so the time from its end on is exact.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from perdure.store.interface import query, query_many
from perdure.wire.errors import KeyReused

LISTED_BYTES_MAX: Final = 256 << 10
"""How much is read of the lists of executions at once: an answer may name ten thousand of them."""


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


async def remember(
    project_id: str, same: Idempotency | None, answer: bytes, now_us: int, executions: Sequence[str] = ()
) -> None:
    """Keep the answer for when the request comes again; `executions` are those that it names."""
    if same is not None:
        ids = msgspec.json.encode(executions).decode() if executions else None
        await query_many("insert_idempotency", [(project_id, *same, answer, ids, now_us)])


async def prune_answers(before_us: int, now_us: int, limit: int) -> tuple[int, bool]:
    """Part of `prune`: drop answers whose time began before `before_us`. Tells how many, and whether there may be more.

    Of executions that were deleted nobody knows when they ended: the time counts from when they are missed.
    """
    rows = await query("oldest_answers", before_us=before_us, limit=limit)
    gone: list[tuple[str, str, str]] = []
    asked: list[tuple[str, str, str]] = []
    looked, room = 0, LISTED_BYTES_MAX
    for project_id, route, key, size in rows:
        looked += 1
        (gone if size is None else asked).append((project_id, route, key))
        room -= size or 0
        if room <= 0:
            break
    kept: list[tuple[int, int, str, str, str]] = []
    ends = await query_many("ends_of_answer", asked) if asked else []
    for one, (first_us, last_us, missing) in zip(asked, ends, strict=True):
        any_open = first_us == 0
        since_us = now_us if any_open or missing else last_us
        if since_us < before_us:
            gone.append(one)
        else:
            kept.append((since_us, int(any_open), *one))
    if kept:
        await query_many("keep_answer", kept)
    if gone:
        await query_many("drop_answer", gone)
    return len(gone), looked < len(rows) or len(rows) == limit
