"""The service of streams.

Each execution numbers its own items, so emitters on different servers never wait for each other. A cursor therefore
holds the last number seen of each execution.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from heapq import merge
from typing import Final

from perdure.engine.base.core import Core
from perdure.engine.base.notifier import ChannelCursors
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.runs.executions import Executions
from perdure.store.verbs.runs.streams import read_stream
from perdure.wire.base.errors import BadRequest, Unavailable
from perdure.wire.base.operation import Stream
from perdure.wire.base.status import STATUS, Phase
from perdure.wire.runs.executions import LogLine, Row, StreamExecution, StreamItems
from perdure.wire.runs.streams import StreamEnd, StreamItem, short_id

LOOK_SECONDS: Final = 1.0
ITEMS_PAGE: Final = 200
JOURNAL_PAGE: Final = 200
PIECE_BYTES: Final = 1 << 20
"""Bytes that a stream reads at a time (or one row or event), and bytes that a slow client keeps in memory."""
CURSOR_EXECUTIONS_MAX: Final = 50
_CURSOR: Final = re.compile(r"[0-9]{1,18}(,[0-9a-f]{12}:[0-9]{1,18})*")


class Streams(Service):
    """A stream raises NotFound if the execution is deleted, and Unavailable if the engine closes."""

    def __init__(self, core: Core, executions: Executions) -> None:
        super().__init__(core)
        self._executions = executions

    @serves(StreamItems)
    async def items(self, scope: Scope, op: StreamItems) -> Stream[StreamItem | StreamEnd]:
        """Raises NotFound, and BadRequest for an invalid cursor."""
        id = op.execution_id
        follower = _Follower(self._core, scope.project_id, id, _places(id, op.last_event_id))
        await follower.read(1, keep=False)
        return Stream(self._items(id, follower))

    async def _items(
        self, id: str, follower: _Follower
    ) -> AsyncGenerator[list[tuple[str, StreamItem | StreamEnd]], None]:
        while True:
            cursors = follower.cursors()
            if items := await follower.read(ITEMS_PAGE):
                yield [(follower.take(item), item) for item in items]
            elif follower.ended is not None:
                yield [(follower.cursor, _end(id, follower.ended, follower.error))]
                return
            else:
                self._check_open()
                await follower.watch(cursors, self._core.own_look(LOOK_SECONDS))

    @serves(StreamExecution)
    async def journal(self, scope: Scope, op: StreamExecution) -> Stream[Row | LogLine | StreamEnd]:
        """Raises NotFound, and BadRequest for an invalid cursor."""
        after, after_log = _place(op.last_event_id) if op.last_event_id else (0, 0)
        await self._executions.how_ended(scope.project_id, op.execution_id)
        return Stream(self._journal(scope.project_id, op.execution_id, after, after_log))

    async def _journal(
        self, project_id: str, id: str, after: int, after_log: int
    ) -> AsyncGenerator[list[tuple[str, Row | LogLine | StreamEnd]], None]:
        executions = self._executions
        while True:
            cursor = executions.watch_cursor(id)
            # First, because a final execution has all its rows.
            ended = await executions.how_ended(project_id, id)
            rows, _ = await executions.journal(project_id, id, after, JOURNAL_PAGE, bytes_max=PIECE_BYTES)
            lines = await executions.logs(project_id, id, after_log, JOURNAL_PAGE)
            both: list[Sequence[Row | LogLine]] = [rows, lines]
            page: list[tuple[str, Row | LogLine | StreamEnd]] = []
            for one in merge(*both, key=lambda one: one.at_us):
                if isinstance(one, Row):
                    after = one.seq
                else:
                    after_log = one.n
                page.append((f"{after}-{after_log}", one))
            if page:
                yield page
            elif ended is not None:
                yield [(f"{after}-{after_log}", _end(id, Phase(ended.phase), ended.error))]
                return
            else:
                self._check_open()
                await executions.watch(id, cursor, self._core.own_look(LOOK_SECONDS))

    def _check_open(self) -> None:
        if self._core.closing:
            raise Unavailable("The engine was closed while a stream was followed; the execution goes on.")


def _end(id: str, phase: Phase, error: str | None) -> StreamEnd:
    return StreamEnd(id=id, status=STATUS[phase], phase=phase, error=error)


class _Follower:
    """Follows changes: take cursors, read, and watch if nothing was read."""

    def __init__(self, core: Core, project_id: str, execution_id: str, seen: dict[str, int]) -> None:
        self._core = core
        self._project_id = project_id
        self._id = execution_id
        self._root_id = execution_id
        self._seen = seen
        """Last numbers by short id. The latest emitter is last."""
        self.ended: Phase | None = None
        """Set once everything is read."""
        self.error: str | None = None

    async def read(self, limit: int, *, keep: bool = True) -> list[StreamItem]:
        page = await self._core.store.read(
            read_stream(project_id=self._project_id, execution_id=self._id, seen=self._seen, limit=limit)
        )
        self._root_id = page.root_id
        self.ended, self.error = page.ended, page.error
        return page.items if keep else []

    def take(self, item: StreamItem) -> str:
        """Move past a delivered item, to the returned cursor."""
        short = short_id(item.execution_id)
        if short != short_id(self._id):
            self._seen.pop(short, None)
        self._seen[short] = item.n
        return self.cursor

    @property
    def cursor(self) -> str:
        """Return the execution's own last number, then each descendant's."""
        own = short_id(self._id)
        others = [f"{short}:{n}" for short, n in self._seen.items() if short != own]
        return ",".join([str(self._seen.get(own, 0)), *others[-CURSOR_EXECUTIONS_MAX:]])

    def cursors(self) -> ChannelCursors:
        """Take cursors before reading: `watch` then misses nothing."""
        return self._core.notifier.cursors(("stream", self._project_id, self._root_id), ("written", self._id))

    async def watch(self, cursors: ChannelCursors, seconds: float) -> bool:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return await self._core.notifier.wait_any(cursors, seconds, future)


def _place(text: str) -> tuple[int, int]:
    rows, dash, logs = text.partition("-")
    if not dash or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (rows, logs)):
        raise BadRequest(f"Last-Event-ID {text!r} is not one of this stream's; leave it out to start at the beginning.")
    return int(rows), int(logs)


def _places(execution_id: str, cursor: str | None) -> dict[str, int]:
    if not cursor:
        return {}
    if not _CURSOR.fullmatch(cursor) or cursor.count(",") > CURSOR_EXECUTIONS_MAX:
        raise BadRequest(f"{cursor[:100]!r} is not a place in this stream; leave it out to start at the beginning.")
    own, *others = cursor.split(",")
    return {short_id(execution_id): int(own)} | {one[:12]: int(one[13:]) for one in others}
