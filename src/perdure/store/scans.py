"""Long looks take turns, so that no project stops the others.

A store has a few *lanes* for scans: threads or connections. One project uses at most one of them at a time, and the
projects take turns. The server's own scans, of no project, count as one more project.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from perdure.store.interface import Verb
from perdure.wire.errors import TooManyRequests, Unavailable

T = TypeVar("T")
L = TypeVar("L")

LANES: Final = 2
SCAN_SECONDS_MAX: Final = 10.0
"""Scans of a project end after this time. The server's own scans may read whole tables."""
WAITING_MAX: Final = 1_000
"""The most scans of one project that wait."""


class Scans(Generic[L]):
    def __init__(self, *lanes: L) -> None:
        self.lanes = lanes
        self._free = list(lanes)
        self._running: set[str] = set()
        self._waiting: dict[str, deque[asyncio.Future[L]]] = {}
        """By project. The first one that has no running scan is next."""

    async def run(self, verb: Verb[T], look: Callable[[L, Verb[T]], Awaitable[T]]) -> T:
        """Call `look` with a lane when it is the turn of the verb's project. A cancellation ends the wait or the look.
        Raises `TooManyRequests`, and `Unavailable` after SCAN_SECONDS_MAX."""
        project_id: str = verb.values.get("project_id", "")
        lane = await self._enter(project_id)
        limit = asyncio.timeout(SCAN_SECONDS_MAX if project_id else None)
        try:
            async with limit:
                return await look(lane, verb)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unavailable(
                f"The search was ended after {SCAN_SECONDS_MAX:g} s. Use narrower filters, or try again later."
            ) from None
        finally:
            self._leave(project_id, lane)

    async def _enter(self, project_id: str) -> L:
        waiting = self._waiting.setdefault(project_id, deque())
        if len(waiting) >= WAITING_MAX:
            raise TooManyRequests(
                f"{WAITING_MAX:,} searches of this project wait for their turn already; try again later."
            )
        future: asyncio.Future[L] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        self._begin_next()
        try:
            return await future
        except asyncio.CancelledError:
            if future in waiting:
                waiting.remove(future)
            elif not future.cancelled():  # the turn came at the same moment
                self._leave(project_id, future.result())
            raise

    def _leave(self, project_id: str, lane: L) -> None:
        self._free.append(lane)
        self._running.discard(project_id)
        self._begin_next()

    def _begin_next(self) -> None:
        for project_id, waiting in list(self._waiting.items()):
            if not self._free:
                return
            if project_id in self._running:
                continue
            del self._waiting[project_id]
            while waiting and waiting[0].cancelled():
                waiting.popleft()
            if waiting:
                self._running.add(project_id)
                waiting.popleft().set_result(self._free.pop())
            if waiting:
                self._waiting[project_id] = waiting  # behind the others
