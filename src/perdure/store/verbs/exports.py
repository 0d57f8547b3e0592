"""Sending the spans of what has ended to a collector: which server sends what, once each.

Executions are found by the time at which they ended. A transaction that ends one may commit after another that ended
later, so the look begins some time before the cursor, and a row for each execution says what was taken already. The
cursor's row is the lock of whoever chooses.
"""

from typing import Final, NamedTuple

from perdure.store.interface import query, query_many, verb

OVERLAP_US: Final = 120_000_000
"""How much later than its time an end may be committed and still be found."""


class ToSend(NamedTuple):
    """Executions whose spans are the caller's to send, and whether there may be more."""

    ids: list[str]
    more: bool


@verb
async def project_ids() -> list[str]:
    """All projects."""
    return [row[0] for row in await query("list_projects")]


@verb
async def exporting(*, project_id: str) -> bool:
    """Whether it is known from when on a project's executions are sent."""
    return bool(await query("read_export_cursor", project_id=project_id))


@verb
async def begin_exports(*, project_id: str, now_us: int) -> None:
    """From now on the project's executions are sent; what had ended before is not."""
    await query("insert_export_cursor", project_id=project_id, ended_at_us=now_us + OVERLAP_US)


@verb
async def claim_exports(*, project_id: str, now_us: int, until_us: int, limit: int) -> ToSend:
    """Take executions whose spans are to be sent; they are the caller's until `until_us`."""
    cursor = await query("lock_export_cursor", project_id=project_id)
    if not cursor:
        return ToSend([], False)
    ended_at_us: int = cursor[0][0]
    ids = [row[0] for row in await query("lapsed_exports", project_id=project_id, now_us=now_us, limit=limit)]
    rows = await query(
        "fresh_exports", project_id=project_id, after_us=ended_at_us - OVERLAP_US, limit=limit - len(ids)
    )
    if ids:
        await query_many("claim_export", [(until_us, project_id, id) for id in ids])
    if rows:
        await query_many("insert_export", [(project_id, id, at_us, until_us) for id, at_us in rows])
        last_us = max(ended_at_us, rows[-1][1])
        await query("move_export_cursor", project_id=project_id, ended_at_us=last_us)
        await query("forget_exports", project_id=project_id, before_us=last_us - 2 * OVERLAP_US, limit=2 * limit)
    return ToSend([*ids, *(row[0] for row in rows)], len(ids) + len(rows) == limit)


@verb
async def note_exports(*, project_id: str, ids: list[str]) -> None:
    """Their spans were sent."""
    await query_many("note_export", [(project_id, id) for id in ids])


@verb
async def release_exports(*, project_id: str, ids: list[str], now_us: int) -> None:
    """Their spans were not sent; anybody may take them again."""
    await query_many("claim_export", [(now_us, project_id, id) for id in ids])
