"""One stream of changes for everything that a page shows.

Followers of the same thing share a watcher. If the store has changed, each watcher queries the store once a second, and
sends followers the differences to their pages. A follower has no queue: a slow reader holds digests of the page, and
skips states in between.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.runs.executions import Executions
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.insight import live
from perdure.store.verbs.insight.live import Stamp
from perdure.store.verbs.runs import queues
from perdure.wire.base.errors import BadRequest, PerdureError
from perdure.wire.base.operation import Stream
from perdure.wire.base.record import to_json
from perdure.wire.base.status import FINAL
from perdure.wire.insight.live import (
    ChangedRows,
    FollowLive,
    GoneRows,
    InboxChanged,
    LiveCounts,
    LiveEvent,
    NewRows,
    QueuesChanged,
    Watch,
)
from perdure.wire.insight.summaries import ExecutionSummary, ListSummaries, SummaryPage
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.queues import ListQueues

logger = logging.getLogger("perdure.engine")

LOOK_SECONDS: Final = 1.0
LOOK_SHARE: Final = 20
"""A watcher's looks take at most 1/20 of the time."""
ALL_SHARE: Final = 4
"""All looks together take at most 1/4 of the time."""
REFRESH_SECONDS: Final = 10.0
"""Seconds between two reads of all rows: details also tell about workers, queues and pauses."""
COUNTED_MAX: Final = 1_000
"""Most new executions that are counted."""
ROWS_MAX: Final = 500
"""Rows per look."""
_LIST_STATE: Final = re.compile(r"([0-9a-f-]{36}|)\.[0-9a-f]{1,16}\.([0-9]{1,4})\.([0-9]{1,4})\.([01])")
_STATE: Final = re.compile(r"(?:[a-z]+=[0-9a-f.-]*)(?:;[a-z]+=[0-9a-f.-]*)*")


class PageRow(Struct, frozen=True):
    summary: ExecutionSummary
    digest: int


def digest(record: msgspec.Struct) -> int:
    """Return a digest, the same on all servers."""
    return int.from_bytes(blake2b(msgspec.json.encode(to_json(record)), digest_size=8).digest())


class PageWatcher(Protocol):
    turn: int
    """Counts changes."""
    followers: int
    wanted: bool
    """Whether a follower awaits a look even without a change."""
    broken: bool
    """A look has failed, so streams end."""
    due_at: float
    """The earliest time of the next look, on the loop's clock."""

    async def look(self, *, whole: bool) -> None: ...


class ListWatcher:
    """Watches a list: the rows on followers' pages, and the rows that match now."""

    def __init__(self, core: Core, project_id: str, filters: ListFilters) -> None:
        self._core = core
        self._project_id = project_id
        self._filters = filters
        self._stamps: dict[str, Stamp] = {}
        self.pages: set[ListPage] = set()
        self.turn = self.followers = 0
        self.wanted, self.broken, self.due_at = True, False, 0.0
        self.rows: dict[str, PageRow | None] = {}
        """Rows by id; None: the execution does not fit."""
        self.window: list[str] = []
        self.more = False
        self.failed: frozenset[str] = frozenset()
        self._changed: dict[tuple[str, ...], ChangedRows] = {}

    def join(self, page: ListPage, rows: Sequence[PageRow]) -> None:
        """Add a page. The next look reads its rows again: the watcher may have newer ones."""
        self.pages.add(page)
        self.wanted = True
        for row in rows:
            self.rows[row.summary.id] = row
            self._stamps.pop(row.summary.id, None)

    async def look(self, *, whole: bool) -> None:
        pages = list(self.pages)
        followed = {id for page in pages for id in page.sent}
        ended = {id for id in followed if self._has_ended(id)}
        known = {id: self._stamps.get(id) for id in (followed if whole else followed - ended)}
        if whole:
            known |= dict.fromkeys(followed - ended)
        since = min((page.bottom for page in pages if not page.is_full), default=None)
        room = max((len(page.sent) for page in pages), default=0)
        found = await self._core.store.scan(
            live.look_at_list(
                project_id=self._project_id,
                filters=self._filters,
                known=known,
                since=since,
                limit=COUNTED_MAX + room,
                rows_max=ROWS_MAX,
            )
        )
        rows = {id: self.rows.get(id) for id in followed}
        rows |= dict.fromkeys(known.keys() - found.stamps.keys())
        for summary in found.rows:
            row = rows[summary.id]
            if row is None or row.summary != summary:
                rows[summary.id] = PageRow(summary, digest(summary))
        self._stamps = {id: stamp for id, stamp in {**self._stamps, **found.stamps}.items() if rows.get(id) is not None}
        seen = (rows, found.window, found.failed)
        if seen != (self.rows, self.window, self.failed) or not all(page.is_covered for page in pages):
            self._changed = {}
            self.turn += 1
        self.rows, self.window, self.failed = seen
        self.more = found.more
        for page in pages:
            page.is_covered = True

    def _has_ended(self, id: str) -> bool:
        row = self.rows.get(id)
        return row is not None and id in self._stamps and row.summary.phase in FINAL

    def changed(self, rows: Sequence[PageRow]) -> ChangedRows:
        """Return the same record for all followers with the same changes."""
        key = tuple(f"{row.digest:x}" for row in rows)
        known = self._changed.get(key)
        if known is None:
            known = self._changed[key] = ChangedRows([row.summary for row in rows])
        return known


class ListState(Struct, frozen=True):
    """A list's part of a cursor."""

    anchor: str
    new: NewRows


def _read_state(state: str) -> ListState | None:
    found = _LIST_STATE.fullmatch(state)
    if found is None:
        return None
    anchor, count, failed, at_least = found.groups()
    return ListState(anchor, NewRows(int(count), int(failed), at_least == "1"))


class ListPage:
    """Remembers a follower's rows."""

    def __init__(self, watcher: ListWatcher, page: SummaryPage, limit: int, state: str) -> None:
        rows = [PageRow(one, digest(one)) for one in page.executions]
        known = _read_state(state)
        self._watcher = watcher
        self.anchor = known.anchor if known is not None else rows[0].summary.id if rows else ""
        """The newest execution that the page may have."""
        self.bottom = rows[-1].summary.id if len(rows) >= limit else page.next_cursor or ""
        self.sent: dict[str, int | None] = {row.summary.id: row.digest for row in rows}
        """The digests by id; None: gone."""
        self.new = NewRows(0, 0, False) if known is None else known.new
        self.is_covered = False
        """Whether a look has begun since the page joined."""
        self._seen = -1
        watcher.join(self, rows)

    @property
    def is_full(self) -> bool:
        """Whether counting has stopped."""
        return self.new.at_least

    @property
    def state(self) -> str:
        whole = sum(one for one in self.sent.values() if one is not None) & ((1 << 64) - 1)
        return f"{self.anchor}.{whole:x}.{self.new.count}.{self.new.failed}.{int(self.new.at_least)}"

    def leave(self) -> None:
        self._watcher.pages.discard(self)

    def take(self) -> list[LiveEvent]:
        """Return the events that lead to the present state."""
        watcher = self._watcher
        if watcher.turn == self._seen or not self.is_covered:
            return []
        self._seen = watcher.turn
        events: list[LiveEvent] = []
        changed: list[PageRow] = []
        gone: list[str] = []
        for id, sent in self.sent.items():
            row = watcher.rows.get(id)
            if row is None and sent is not None and id in watcher.rows:
                gone.append(id)
                self.sent[id] = None
            elif row is not None and row.digest != sent:
                changed.append(row)
                self.sent[id] = row.digest
        if changed:
            events.append(watcher.changed(changed))
        if gone:
            events.append(GoneRows(gone))
        new = self._count()
        if new != self.new:
            self.new = new
            events.append(new)
        return events

    def _count(self) -> NewRows:
        if self.is_full:
            return self.new
        watcher = self._watcher
        new = [id for id in watcher.window if id >= self.bottom and id not in self.sent]
        at_least = len(new) > COUNTED_MAX or (watcher.more and watcher.window[-1] > self.bottom)
        new = new[:COUNTED_MAX]
        return NewRows(len(new), sum(id in watcher.failed for id in new), at_least)


class RecordWatcher:
    """Watches a record that is read as a whole."""

    def __init__(self, core: Core, project_id: str, watch: str) -> None:
        self._core = core
        self._project_id = project_id
        self._watch = watch
        self.turn = self.followers = 0
        self.wanted, self.broken, self.due_at = True, False, 0.0
        self.record: LiveEvent | None = None
        self.state = ""

    async def look(self, *, whole: bool) -> None:
        record = await self._read_page()
        if record != self.record:
            self.record, self.state = record, f"{digest(record):x}"
            self.turn += 1

    async def _read_page(self) -> LiveCounts | InboxChanged | QueuesChanged:
        store, project_id = self._core.store, self._project_id
        if self._watch == Watch.COUNTS:
            return await store.scan(live.count_open(project_id=project_id))
        if self._watch == Watch.INBOX:
            return await store.scan(live.look_at_inbox(project_id=project_id))
        listed = await store.scan(queues.list_queues(At(project_id), ListQueues()))
        return QueuesChanged(listed.items)


class RecordPage:
    """The state of a record last sent to a follower."""

    def __init__(self, watcher: RecordWatcher, state: str) -> None:
        self._watcher = watcher
        self.state = state

    def leave(self) -> None:
        pass

    def take(self) -> list[LiveEvent]:
        watcher = self._watcher
        if watcher.record is None or watcher.state == self.state:
            return []
        self.state = watcher.state
        return [watcher.record]


Page = ListPage | RecordPage


class Live(Service):
    def __init__(self, core: Core, executions: Executions) -> None:
        super().__init__(core)
        self._executions = executions
        self._watchers: dict[tuple[str, str, bytes], PageWatcher] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Tasks by project: a slow look of one must not delay other projects."""
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._closed = True
        self._wake()

    @serves(FollowLive)
    async def follow(self, scope: Scope, op: FollowLive) -> Stream[LiveEvent]:
        """Raises BadRequest for an invalid cursor, and the errors of the list for its filters."""
        states = _read_states(op.last_event_id)
        filters = ListFilters(**{name: getattr(op, name) for name in ListFilters.__struct_fields__})
        first = None
        if Watch.LIST in op.watch:
            first = await self._page(scope, filters, op.limit, states.get(Watch.LIST, ""))
        return Stream(self._follow(scope.project_id, op, filters, first))

    async def _page(self, scope: Scope, filters: ListFilters, limit: int, state: str) -> SummaryPage:
        """Return the newest page or, after a state, the page from the state's newest execution on."""
        known = _read_state(state)
        if known is not None and not known.anchor:
            return SummaryPage([])
        given = {name: getattr(filters, name) for name in ListFilters.__struct_fields__}
        before = None if known is None else f"{known.anchor}~"
        return await self._executions.summaries(scope, ListSummaries(**given, cursor=before, limit=limit))

    async def _follow(
        self, project_id: str, op: FollowLive, filters: ListFilters, first: SummaryPage | None
    ) -> AsyncGenerator[list[tuple[str, LiveEvent]], None]:
        watches = [watch for watch in Watch if watch in op.watch]
        cursor, states = op.last_event_id or "", _read_states(op.last_event_id)
        with self._watching(project_id, filters, watches) as watchers:
            pages: dict[Watch, Page] = {}
            events: list[LiveEvent] = []
            try:
                for watch, watcher in watchers.items():
                    state = states.get(watch, "")
                    if isinstance(watcher, ListWatcher) and first is not None:
                        shown = pages[watch] = ListPage(watcher, first, op.limit, state)
                        if shown.state != state:
                            events += [first, shown.new] if shown.new.count else [first]
                    elif isinstance(watcher, RecordWatcher):
                        pages[watch] = RecordPage(watcher, state)
                        if watcher.record is None:
                            await watcher.look(whole=True)
                while True:
                    events += [event for page in pages.values() for event in page.take()]
                    if events:
                        before, cursor = cursor, ";".join(f"{watch}={page.state}" for watch, page in pages.items())
                        # A client that is cut between two of them gets all again.
                        yield [*((before, event) for event in events[:-1]), (cursor, events[-1])]
                        events = []
                    else:
                        await self._changed()
                    if self._closed or any(watcher.broken for watcher in watchers.values()):
                        return
            finally:
                for page in pages.values():
                    page.leave()

    @contextmanager
    def _watching(
        self, project_id: str, filters: ListFilters, watches: Sequence[Watch]
    ) -> Iterator[dict[Watch, PageWatcher]]:
        found: dict[Watch, PageWatcher] = {}
        keys: dict[Watch, tuple[str, str, bytes]] = {}
        for watch in watches:
            filtered = msgspec.msgpack.encode(filters) if watch is Watch.LIST else b""
            key = keys[watch] = (project_id, watch.value, filtered)
            known = self._watchers.get(key)
            if known is None or known.broken:
                is_list = watch is Watch.LIST
                known = ListWatcher(self._core, project_id, filters) if is_list else RecordWatcher(self._core, *key[:2])
                self._watchers[key] = known
            known.followers += 1
            found[watch] = known
        if project_id not in self._tasks:
            self._tasks[project_id] = asyncio.create_task(self._serve_watchers(project_id), name="perdure-live")
        try:
            yield found
        finally:
            for watch, watcher in found.items():
                watcher.followers -= 1
                if not watcher.followers and self._watchers.get(keys[watch]) is watcher:
                    del self._watchers[keys[watch]]
            if not self._of(project_id) and (task := self._tasks.pop(project_id, None)) is not None:
                task.cancel()

    def _of(self, project_id: str) -> list[PageWatcher]:
        return [watcher for (project, _, _), watcher in self._watchers.items() if project == project_id]

    async def _changed(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def _serve_watchers(self, project_id: str) -> None:
        core, loop = self._core, asyncio.get_running_loop()
        changes, looked_at, refreshed_at = -1, loop.time(), loop.time()
        while True:
            now, seen = loop.time(), core.changes
            trusted = core.store.alone or (core.store.hints_up and now - looked_at < core.settings.poll_seconds)
            everything = seen != changes or not trusted
            whole = everything and now - refreshed_at >= REFRESH_SECONDS
            late = False
            for watcher in self._of(project_id):
                if (everything or watcher.wanted) and now >= watcher.due_at:
                    await self._refresh(watcher, whole=whole)
                else:
                    late = late or everything
            if everything and not late:
                looked_at, changes = now, seen
                refreshed_at = now if whole else refreshed_at
            await asyncio.sleep(max(LOOK_SECONDS, (loop.time() - now) * (ALL_SHARE - 1)))

    async def _refresh(self, watcher: PageWatcher, *, whole: bool) -> None:
        loop, turn = asyncio.get_running_loop(), watcher.turn
        started = loop.time()
        watcher.wanted = False
        try:
            await watcher.look(whole=whole)
        except Exception as error:  # streams must not wait for ever
            watcher.broken = True
            if not isinstance(error, PerdureError):
                logger.exception("A look of live streams failed; the streams end.")
        watcher.due_at = loop.time() + (loop.time() - started) * (LOOK_SHARE - 1)
        if watcher.turn != turn or watcher.broken:
            self._wake()


def _read_states(cursor: str | None) -> dict[str, str]:
    if not cursor:
        return {}
    if len(cursor) > 1_000 or not _STATE.fullmatch(cursor):
        raise BadRequest(f"Last-Event-ID {cursor[:100]!r} is not one of this stream's; leave it out to begin anew.")
    return dict(part.split("=", 1) for part in cursor.split(";"))
