"""First answers to requests with an Idempotency-Key, stored in the transaction of the effect.

An answer is kept for some time after the request, or after the end of the last execution it names. Ends do not touch
answers: when the time is over, the sweep looks at the executions. If one is open, the time starts again.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from perdure.store.base.interface import query, query_many
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import KeyReused

LISTED_BYTES_MAX: Final = 256 << 10


class Idempotency(NamedTuple):
    route: str
    key: str
    body_hash: str


class At(Struct, frozen=True):
    """The project, the time and the caller of an operation that a verb serves."""

    project_id: str
    now_us: int = 0
    new_id: str = ""
    idempotency: Idempotency | None = None
    principal: Principal | None = None
    """None: the embedding program."""

    async def recall(self) -> bytes | None:
        return await recall(self.project_id, self.idempotency)

    async def remember(self, answer: object, executions: Sequence[str] = ()) -> None:
        """Keep the answer, and the ids of the executions that the answer names."""
        await remember(self.project_id, self.idempotency, msgspec.json.encode(answer), self.now_us, executions)

    def may(self, role: Role) -> bool:
        return self.principal is None or self.principal.role.includes(role)


async def recall(project_id: str, same: Idempotency | None) -> bytes | None:
    """The first answer to the request. Raises KeyReused if the key came with another body."""
    if same is None:
        return None
    found = await query("read_idempotency", project_id=project_id, route=same.route, key=same.key)
    if not found:
        return None
    [(body_hash, answer)] = found
    if body_hash != same.body_hash:
        raise KeyReused(f"Idempotency-Key {same.key!r} was used with another body; use a new key for a new request.")
    return bytes(answer)


async def remember(
    project_id: str, same: Idempotency | None, answer: bytes, now_us: int, executions: Sequence[str] = ()
) -> None:
    """`executions` are named by the answer."""
    if same is not None:
        ids = msgspec.json.encode(executions).decode() if executions else None
        await query_many("insert_idempotency", [(project_id, *same, answer, ids, now_us)])


async def prune_answers(before_us: int, now_us: int, limit: int) -> tuple[int, bool]:
    """Drop answers whose time began before `before_us`. Answers how many, and whether there may be more.

    The end of a deleted execution is not known, so the time counts from when it is missed.
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
