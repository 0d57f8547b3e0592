"""Scans take turns, so that no project stops the others.

A store has a few *lanes* for scans: threads or connections. A project uses at most one lane at a time. The
server's own scans count as one more project.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from perdure.store.base.interface import Verb
from perdure.wire.base.errors import TooManyRequests, Unavailable

T = TypeVar("T")
L = TypeVar("L")

LANES: Final = 2
SCAN_SECONDS_MAX: Final = 10.0
"""Seconds after which a project's scan ends. The server's own scans may read whole tables."""
WAITING_MAX: Final = 1_000
"""Most scans of one project that wait."""


class Scans(Generic[L]):
    def __init__(self, *lanes: L) -> None:
        self.lanes = lanes
        self._free = list(lanes)
        self._room = asyncio.Semaphore(len(lanes))
        self._turns: dict[str, asyncio.Lock] = {}
        """A lock per project. The holder runs, or waits for a lane behind other projects."""
        self._asked: Counter[str] = Counter()

    async def run(self, verb: Verb[T], look: Callable[[L, Verb[T]], Awaitable[T]]) -> T:
        """Call `look` with a lane at the turn of the verb's project. A cancellation ends the wait or the look. Raises
        `TooManyRequests`, and `Unavailable` after SCAN_SECONDS_MAX."""
        project_id = verb.project_id
        if self._asked[project_id] > WAITING_MAX:
            raise TooManyRequests(
                f"{WAITING_MAX:,} searches of this project wait for their turn already; try again later."
            )
        self._asked[project_id] += 1
        try:
            async with self._turns.setdefault(project_id, asyncio.Lock()), self._room:
                return await self._scan_on(verb, look, SCAN_SECONDS_MAX if project_id else None)
        finally:
            self._asked[project_id] -= 1
            if not self._asked[project_id]:
                del self._asked[project_id], self._turns[project_id]

    async def _scan_on(self, verb: Verb[T], look: Callable[[L, Verb[T]], Awaitable[T]], seconds: float | None) -> T:
        lane = self._free.pop()
        try:
            async with asyncio.timeout(seconds) as limit:
                return await look(lane, verb)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unavailable(
                f"The search was ended after {seconds:g} s. Use narrower filters, or try again later."
            ) from None
        finally:
            self._free.append(lane)
