"""Hints within the process to end waits early. A lost hint costs only time."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import TypeAlias

ChannelCursors: TypeAlias = tuple[tuple[Hashable, int], ...]
CHANNELS_MAX = 10_000


class Notifier:
    """Channels by key. Take a cursor, query, then wait: notifications after the cursor are not missed.

    A cursor is the number of notifications so far. Waiters of a channel crowded out by others query again.
    """

    def __init__(self) -> None:
        self._notifications = 0
        self._last: OrderedDict[Hashable, int] = OrderedDict()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def cursor(self, key: Hashable) -> int:
        last = self._last
        last.setdefault(key, self._notifications)
        last.move_to_end(key)
        if len(last) > CHANNELS_MAX:
            last.popitem(last=False)
        return self._notifications

    def _was_notified(self, key: Hashable, cursor: int) -> bool:
        last = self._last.get(key)
        return last is None or last > cursor

    async def wait(self, key: Hashable, cursor: int, seconds: float) -> bool:
        """False if `seconds` passed without a notification after the cursor."""
        if self._was_notified(key, cursor):
            return True
        if seconds <= 0:
            return False
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(future)
        try:
            async with asyncio.timeout(seconds):
                await future
            return True
        except TimeoutError:
            return False
        finally:
            self._leave(key, future)

    def cursors(self, *keys: Hashable) -> ChannelCursors:
        return tuple((key, self.cursor(key)) for key in keys)

    async def wait_any(self, cursors: ChannelCursors, seconds: float, future: "asyncio.Future[None]") -> bool:
        """Wait for any channel or for `future`. False after `seconds` without either."""
        if any(self._was_notified(key, cursor) for key, cursor in cursors):
            return True
        for key, _ in cursors:
            self._waiting.setdefault(key, deque()).append(future)
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            _resolve(future)

        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        try:
            await future
            return not late
        finally:
            timer.cancel()
            for key, _ in cursors:
                self._leave(key, future)

    def _leave(self, key: Hashable, future: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(key)
        if queue is None:
            return
        if future in queue:
            queue.remove(future)
        if not queue:
            del self._waiting[key]

    def waited_at(self, kind: str) -> list[tuple[str, ...]]:
        return [key for key in self._waiting if isinstance(key, tuple) and key[0] == kind]

    def notify(self, key: Hashable) -> None:
        # Without `_note`: each recorded step comes here.
        self._notifications += 1
        if key in self._last:
            self._last[key] = self._notifications
        queue = self._waiting.get(key)
        if queue:
            for future in queue:
                if not future.done():
                    future.set_result(None)

    def notify_one(self, key: Hashable) -> None:
        """Wake the longest waiter. A waiter with more work than it can take notifies again."""
        queue = self._waiting.get(key)
        while queue:
            future = queue.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._note(key)

    def notify_all(self) -> None:
        for key in list(self._waiting):
            self.notify(key)

    def _note(self, key: Hashable) -> None:
        self._notifications += 1
        if key in self._last:
            self._last[key] = self._notifications


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
