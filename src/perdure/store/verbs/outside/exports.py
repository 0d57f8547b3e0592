"""Export of ended executions' spans to a collector, divided among servers, once each.

Executions are found in the order of end times, but an end may commit after a later end. Each end is therefore taken a
moment after its time, and a second, later look finds late commits. The cursor's row is the lock.
"""

from typing import Any, Final

from perdure.store.base.interface import query, query_many, verb
from perdure.store.verbs.base.pages import Place

OVERLAP_US: Final = 120_000_000
"""Microseconds after its time in which the commit of an end is still found."""
SETTLED_US: Final = 1_000_000
"""Microseconds after their time at which ends are taken."""
AGAIN: Final = 2
"""The second look reads as many ends per execution of a claim. With 1 the look would never catch up."""


@verb(reads=True)
async def project_ids() -> list[str]:
    return [id for [id] in await query("list_projects")]


@verb(reads=True)
async def exporting(*, project_id: str) -> bool:
    return bool(await query("read_export_cursor", project_id=project_id))


@verb(locks="export=project_id")
async def begin_exports(*, project_id: str, now_us: int) -> None:
    await query("insert_export_cursor", project_id=project_id, now_us=now_us)


@verb(locks="export=project_id")
async def claim_exports(*, project_id: str, now_us: int, until_us: int, limit: int) -> tuple[list[str], bool]:
    """The executions are the caller's until `until_us`. Also answers whether there may be more."""
    cursor = await query("lock_export_cursor", project_id=project_id)
    if not cursor:
        return [], False
    [(ended_at_us, ended_id, looked_at_us, looked_id)] = cursor
    ended, looked = before = Place(ended_at_us, ended_id), Place(looked_at_us, looked_id)
    ids = [id for [id] in await query("lapsed_exports", project_id=project_id, now_us=now_us, limit=limit)]
    await query_many("claim_export", [(until_us, project_id, id) for id in ids])
    more = len(ids) == limit
    upto_us = min(ended.at_us, now_us - OVERLAP_US)
    room: dict[str, Any] = {"ids": ids, "limit": limit, "until_us": until_us}
    looked, late = await _take(project_id, looked, upto_us, AGAIN * limit, **room)
    ended, fresh = await _take(project_id, ended, now_us - SETTLED_US, limit, **room)
    if (ended, looked) != before:
        places = {
            "ended_at_us": ended.at_us,
            "ended_id": ended.id,
            "looked_at_us": looked.at_us,
            "looked_id": looked.id,
        }
        await query("move_export_cursor", project_id=project_id, **places)
        await query("forget_exports", project_id=project_id, before_us=looked.at_us, limit=AGAIN * limit)
    return ids, more or late or fresh


async def _take(
    project_id: str, after: Place, upto_us: int, depth: int, ids: list[str], limit: int, until_us: int
) -> tuple[Place, bool]:
    """Add untaken ends to `ids`, up to `limit`. Answers the place reached, and whether there may be more."""
    rows = await query(
        "ended_exports", project_id=project_id, after_us=after.at_us, after_id=after.id, upto_us=upto_us, limit=depth
    )
    taken: list[tuple[str, str, int, int]] = []
    more = len(rows) == depth
    for at_us, id, sent in rows:
        if sent is None:
            if len(ids) == limit:
                more = True
                break
            ids.append(id)
            taken.append((project_id, id, at_us, until_us))
        after = Place(at_us, id)
    await query_many("insert_export", taken)
    return after, more


@verb(locks="export=project_id")
async def note_exports(*, project_id: str, ids: list[str]) -> None:
    await query_many("note_export", [(project_id, id) for id in ids])


@verb(locks="export=project_id")
async def release_exports(*, project_id: str, ids: list[str], now_us: int) -> None:
    """The spans were not sent; any server may claim the executions again."""
    await query_many("claim_export", [(now_us, project_id, id) for id in ids])
