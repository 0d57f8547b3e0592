"""Finds the first event of a topic that matches a wait. The caller has locked or shared the topic."""

from collections.abc import Sequence
from typing import Final

from perdure.store.base.interface import query, records
from perdure.store.verbs.base.pages import page_of
from perdure.store.verbs.runs.event_fields import (
    BLOCK,
    UNKNOWN,
    Fields,
    FieldsRow,
    Wanted,
    events_in,
    part_of,
    wanted_by,
)
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.runs.events import Event

PAGE: Final = 500
ROWS_MAX: Final = 64
"""Index rows per query."""


async def events_page(project_id: str, topic: str, after: int, limit: int, bytes_max: int) -> tuple[list[Event], bool]:
    """Read a page of events, and whether more may follow."""
    fits, more = await page_of("event_sizes", after, limit, bytes_max, project_id=project_id, topic=topic)
    if not fits:
        return [], more
    return await records(Event, "read_events", after=after, limit=fits, project_id=project_id, topic=topic), more


async def first_event(project_id: str, execution_id: str, topic: str, match: bytes | None, after: int) -> Event | None:
    """Find the first matching event that the execution has not taken."""
    search = _Search(project_id, execution_id, topic, wanted_by(match))
    hashes = [] if match is None else Fields(match).searches()
    return await (search.by_index(after, hashes) if hashes else search.scan(after))


class _Search:
    def __init__(self, project_id: str, execution_id: str, topic: str, wanted: Wanted) -> None:
        self._project_id = project_id
        self._execution_id = execution_id
        self._topic = topic
        self._wanted = wanted
        self._taken: set[int] = set()
        self._has_read_taken = False

    async def _pass_taken(self, after: int) -> int:
        """Pass taken events before a page is read. A search without candidates need not know the taken events."""
        if not self._has_read_taken:
            found = await query("taken_events", execution_id=self._execution_id, topic=self._topic)
            self._taken = {seq for (seq,) in found}
            self._has_read_taken = True
        while after + 1 in self._taken:  # numbers have no gaps, so these are not read
            after += 1
        return after

    async def _page(self, after: int, limit: int) -> tuple[Event | None, int, bool]:
        """Return a page's first matching event, the page's end, and whether more may follow."""
        page, more = await events_page(self._project_id, self._topic, after, limit, REPLY_BYTES_MAX)
        for event in page:
            if event.sequence_id not in self._taken and Fields(bytes(event.data)).match(self._wanted):
                return event, event.sequence_id, more
        return None, page[-1].sequence_id if page else after, more and bool(page)

    async def scan(self, after: int) -> Event | None:
        more = True
        after = await self._pass_taken(after)
        while more:
            event, after, more = await self._page(after, PAGE)
            if event is not None:
                return event
        return None

    async def by_index(self, after: int, hashes: Sequence[tuple[bytes, bytes]]) -> Event | None:
        limit = 1
        more = True
        while more:
            candidates, upto, more = await self._candidates(after, hashes)
            if candidates or more:
                after = await self._pass_taken(after)
            for seq in candidates:
                if seq > after and seq not in self._taken:
                    # Many candidates in vain are read by page, with all events between.
                    event, after, _ = await self._page(seq - 1, limit)
                    if event is not None:
                        return event
                    after, limit = max(after, seq), min(8 * limit, PAGE)
            after = max(after, upto)
        return None

    async def _candidates(self, after: int, hashes: Sequence[tuple[bytes, bytes]]) -> tuple[Sequence[int], int, bool]:
        """Return candidates in order, the number up to which the list is complete, and whether more may follow."""
        found: set[int] | None = None
        first, upto = after, None
        for hash, long in hashes:
            where = {"project_id": self._project_id, "topic": self._topic, "after": after, "limit": ROWS_MAX}
            wanted = {"part": part_of(hash), "hash": hash, "long": long, "unknown": UNKNOWN}
            rows = await records(FieldsRow, "find_event_fields", **where, **wanted)
            if not rows:
                return [], after, False
            oldest, newest = rows[0].seq, rows[-1].seq
            first = max(first, oldest - BLOCK)
            if len(rows) == ROWS_MAX:  # two parts may have a row of one block, and the last row stands alone
                rows = [row for row in rows if row.seq < newest]
                newest = rows[-1].seq
                upto = newest if upto is None else min(upto, newest)
            here = {seq for row in rows for seq in events_in(row, (hash, long, UNKNOWN))}
            found = here if found is None else found & here
        candidates = sorted(seq for seq in found or () if seq > after)
        if upto is None:
            return candidates, after, False
        return [seq for seq in candidates if seq <= upto], max(upto, first), True
