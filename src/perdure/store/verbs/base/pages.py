"""The number of rows on a page, the start of the next page, and pages of journals for people."""

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeVar

from perdure.store.base.interface import query, records
from perdure.store.verbs.base.idempotency import At
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.fields import FIRST_CURSOR, INT64_MAX
from perdure.wire.base.operation import Listed
from perdure.wire.base.records import Kind

T = TypeVar("T")
VALUE_BYTES_MAX: Final = 64 << 10


class Place(NamedTuple):
    at_us: int
    id: str


async def newest(cls: type[T], name: str, at: At, op: Any) -> Listed[T]:
    """A page of records, the greatest ids first."""
    found = await records(cls, name, at, op, before=op.cursor or FIRST_CURSOR, limit=op.limit + 1)
    return Listed.of(found, op.limit)


def fitting(sizes: Iterable[int], bytes_max: int) -> int:
    """The number of rows for a page. The last row may pass the limit."""
    amount = 0
    for size in sizes:
        if bytes_max <= 0:
            break
        bytes_max -= size
        amount += 1
    return amount


async def page_of(
    sizes: str, after: int, limit: int, bytes_max: int, *, ahead: int = 2, **where: object
) -> tuple[int, bool]:
    """How many rows after a number go into a page, and whether there may be more.

    `sizes` names a query. It asks for few rows first, because SQLite reads a row's value to reach the next row.
    """
    amount = 0
    while amount < limit and bytes_max > 0:
        asked = min(ahead, limit - amount)
        found = {number: size for number, size, *_ in await query(sizes, after=after, limit=asked, **where)}
        fits = fitting(found.values(), bytes_max)
        amount += fits
        if fits < len(found) or len(found) < asked:
            return amount, fits < len(found)
        after, ahead = max(found), ahead * 8
        bytes_max -= sum(found.values())
    return amount, True


async def read_entries(
    execution_id: str,
    after: int,
    limit: int,
    *,
    name: str = "entries",
    chunk: int = 500,
    bytes_max: int,
    room: int = INT64_MAX,
    stops: bool = True,
    **where: object,
) -> list[JournalEntry]:
    """Read at most `limit` rows after a number, without values above `bytes_max`. `name` is a statement."""
    rows: list[JournalEntry] = []
    while len(rows) < limit and (room > 0 or not stops):
        amount = min(limit - len(rows), chunk)
        most = bytes_max if stops else min(room // chunk, bytes_max)
        found = await records(
            JournalEntry, name, execution_id=execution_id, after=after, limit=amount, bytes_max=most, **where
        )
        rows += found
        if len(found) < amount:
            break
        after = found[-1].seq
        room = max(0, room - sum(len(row.value or b"") for row in found))
    return rows


async def newest_entries(
    execution_id: str,
    kinds: Iterable[Kind],
    *,
    key: str | None = None,
    failed: bool = False,
    limit: int = 1,
    bytes_max: int = VALUE_BYTES_MAX,
) -> list[JournalEntry]:
    """The newest rows of these kinds and, if a key is given, of this key."""
    where = {"kinds": json.dumps([*kinds]), "key": key, "failed": int(failed), "limit": limit, "bytes_max": bytes_max}
    return await records(JournalEntry, "newest_entries", execution_id=execution_id, **where)
