"""Hints within the process that end waits early. A lost hint costs only time: each waiter also queries by itself, or
the fallback poller does."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import TypeAlias

Tickets: TypeAlias = tuple[tuple[Hashable, int], ...]
"""Bells, each with a ticket."""
RUNG_MAX = 10_000
"""How many bells keep tickets."""


class Doorbell:
    """Bells by key. Take a ticket, query, then wait: rings after the ticket are not missed.

    A ticket is the total number of rings so far. A bell with tickets keeps its last ring until many others crowd it
    out. Then its waiters query again. A ring without tickets leaves no trace.
    """

    def __init__(self) -> None:
        self._rings = 0
        self._rung: OrderedDict[Hashable, int] = OrderedDict()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def ticket(self, key: Hashable) -> int:
        """It need not be used."""
        rung = self._rung
        rung.setdefault(key, self._rings)
        rung.move_to_end(key)
        if len(rung) > RUNG_MAX:
            rung.popitem(last=False)
        return self._rings

    def _has_rung(self, key: Hashable, ticket: int) -> bool:
        last = self._rung.get(key)
        return last is None or last > ticket

    async def wait(self, key: Hashable, ticket: int, seconds: float) -> bool:
        """False if `seconds` passed without a ring after the ticket."""
        if self._has_rung(key, ticket):
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

    def tickets(self, *keys: Hashable) -> Tickets:
        return tuple((key, self.ticket(key)) for key in keys)

    async def wait_any(self, tickets: Tickets, seconds: float, future: "asyncio.Future[None]") -> bool:
        """Wait for any bell or for `future`. False after `seconds` without either."""
        if any(self._has_rung(key, ticket) for key, ticket in tickets):
            return True
        for key, _ in tickets:
            self._waiting.setdefault(key, deque()).append(future)
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            _ring_future(future)

        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        try:
            await future
            return not late
        finally:
            timer.cancel()
            for key, _ in tickets:
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
        """The keys (kind, …) with waiters."""
        return [key for key in self._waiting if isinstance(key, tuple) and key[0] == kind]

    def ring(self, key: Hashable) -> None:
        self._note(key)
        queue = self._waiting.get(key)
        if queue:
            for future in queue:
                if not future.done():
                    future.set_result(None)

    def ring_one(self, key: Hashable) -> None:
        """Wake the longest waiter. If it finds more than it can take, it rings again."""
        queue = self._waiting.get(key)
        while queue:
            future = queue.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._note(key)

    def ring_all(self) -> None:
        for key in list(self._waiting):
            self.ring(key)

    def _note(self, key: Hashable) -> None:
        self._rings += 1
        if key in self._rung:
            self._rung[key] = self._rings


def _ring_future(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
