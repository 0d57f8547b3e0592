"""The service of live streams.

Each execution numbers its own items, so that emitters on different servers never wait for each other. A cursor
therefore holds the last number seen of each.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from perdure.engine.core import Core
from perdure.engine.notifier import ChannelCursors
from perdure.store.verbs.streams import read_stream
from perdure.wire.errors import BadRequest
from perdure.wire.fields import checked_id
from perdure.wire.status import Phase
from perdure.wire.streams import StreamItem, short_id

LOOK_SECONDS: Final = 1.0
CURSOR_EXECUTIONS_MAX: Final = 50
_CURSOR: Final = re.compile(r"[0-9]{1,18}(,[0-9a-f]{12}:[0-9]{1,18})*")


class Streams:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def open(self, project_id: str, execution_id: str, cursor: str | None = None) -> Follower:
        """From the start or a cursor. Raises NotFound, and BadRequest for an invalid cursor."""
        execution_id = checked_id(execution_id)
        follower = Follower(self._core, project_id, execution_id, _places(execution_id, cursor))
        await follower.read(1, keep=False)
        return follower


class Follower:
    """Take cursors, read, and watch if there was nothing."""

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
        """Raises NotFound if the execution was deleted."""
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
        """The execution's own last number, then each descendant's."""
        own = short_id(self._id)
        others = [f"{short}:{n}" for short, n in self._seen.items() if short != own]
        return ",".join([str(self._seen.get(own, 0)), *others[-CURSOR_EXECUTIONS_MAX:]])

    def cursors(self) -> ChannelCursors:
        """Take them before reading: `watch` then misses nothing."""
        return self._core.notifier.cursors(("stream", self._project_id, self._root_id), ("written", self._id))

    async def watch(self, cursors: ChannelCursors, seconds: float) -> bool:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return await self._core.notifier.wait_any(cursors, seconds, future)

    @property
    def look_seconds(self) -> float:
        return self._core.own_look(LOOK_SECONDS)


def _places(execution_id: str, cursor: str | None) -> dict[str, int]:
    if not cursor:
        return {}
    if not _CURSOR.fullmatch(cursor) or cursor.count(",") > CURSOR_EXECUTIONS_MAX:
        raise BadRequest(f"{cursor[:100]!r} is not a place in this stream; leave it out to start at the beginning.")
    own, *others = cursor.split(",")
    return {short_id(execution_id): int(own)} | {one[:12]: int(one[13:]) for one in others}
