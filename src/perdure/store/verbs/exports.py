"""Sending the spans of what has ended to a collector: which server sends what, once each.

Executions are found by the time at which they ended, in that order; each claim reads about as many as it takes. A
transaction that ends one may commit after another that ended later. So an end is taken a moment after its time, and
what is still late is found by a second look, which comes to each end once nothing of its time can be committed any
more. A row for each execution says what was taken already. The cursor's row is the lock of whoever chooses.
"""

from typing import Final, NamedTuple

from perdure.store.interface import query, query_many, verb

OVERLAP_US: Final = 120_000_000
"""How much later than its time an end may be committed and still be found; then everything is looked at once more."""
SETTLED_US: Final = 1_000_000
"""How much later than its time an end is taken: nearly all that ended before it are committed by then."""
AGAIN: Final = 2
"""How many ends a claim looks at once more for each that it may take: as many would never catch up."""


class Place(NamedTuple):
    """A place in the order of ends: what comes up to this one is done."""

    at_us: int
    id: str


class ToSend(NamedTuple):
    """Executions whose spans are the caller's to send, and whether there may be more."""

    ids: list[str]
    more: bool


@verb(looks=True)
async def project_ids() -> list[str]:
    """All projects."""
    return [row[0] for row in await query("list_projects")]


@verb(looks=True)
async def exporting(*, project_id: str) -> bool:
    """Whether it is known from when on a project's executions are sent."""
    return bool(await query("read_export_cursor", project_id=project_id))


@verb(locks="export=project_id")
async def begin_exports(*, project_id: str, now_us: int) -> None:
    """From now on the project's executions are sent; what had ended before is not."""
    await query("insert_export_cursor", project_id=project_id, ended_at_us=now_us + OVERLAP_US)


@verb(locks="export=project_id")
async def claim_exports(*, project_id: str, now_us: int, until_us: int, limit: int) -> ToSend:
    """Take executions whose spans are to be sent; they are the caller's until `until_us`."""
    cursor = await query("lock_export_cursor", project_id=project_id)
    if not cursor:
        return ToSend([], False)
    ended, looked = before = _places(*cursor[0])
    ids = [row[0] for row in await query("lapsed_exports", project_id=project_id, now_us=now_us, limit=limit)]
    await query_many("claim_export", [(until_us, project_id, id) for id in ids])
    more = len(ids) == limit
    upto_us = min(ended.at_us, now_us - OVERLAP_US)
    looked, late = await _take(project_id, looked, upto_us, AGAIN * limit, ids, limit, until_us)
    ended, fresh = await _take(project_id, ended, now_us - SETTLED_US, limit, ids, limit, until_us)
    if (ended, looked) != before:
        await query(
            "move_export_cursor",
            project_id=project_id,
            ended_at_us=ended.at_us,
            ended_id=ended.id,
            looked_at_us=looked.at_us,
            looked_id=looked.id,
        )
        # Servers of the release before look from `ended_at_us - OVERLAP_US` on.
        before_us = min(looked.at_us, ended.at_us - OVERLAP_US)
        await query("forget_exports", project_id=project_id, before_us=before_us, limit=AGAIN * limit)
    return ToSend(ids, more or late or fresh)


def _places(ended_at_us: int, ended_id: str, looked_at_us: int | None, looked_id: str | None) -> tuple[Place, Place]:
    """Up to where ends were taken, and looked at once more."""
    if looked_at_us is None or looked_id is None:
        begun = Place(ended_at_us - OVERLAP_US, "")
        return begun, begun
    return Place(ended_at_us, ended_id), Place(looked_at_us, looked_id)


async def _take(
    project_id: str, after: Place, upto_us: int, depth: int, ids: list[str], limit: int, until_us: int
) -> tuple[Place, bool]:
    """Look at up to `depth` ends after a place and up to a time, and add to `ids`, up to its limit, what nobody has
    taken. Answers up to where that went, and whether there may be more."""
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
    """Their spans were sent."""
    await query_many("note_export", [(project_id, id) for id in ids])


@verb(locks="export=project_id")
async def release_exports(*, project_id: str, ids: list[str], now_us: int) -> None:
    """Their spans were not sent; anybody may take them again."""
    await query_many("claim_export", [(now_us, project_id, id) for id in ids])
