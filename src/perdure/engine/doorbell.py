"""In-process hints that end a wait early. A lost ring costs latency, never truth: every waiter looks by itself too, or
the lookout looks for all of them."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import TypeAlias

Tickets: TypeAlias = tuple[tuple[Hashable, int], ...]
"""Bells, each with a ticket."""
RUNG_MAX = 10_000
"""Bells for which tickets are remembered."""


class Doorbell:
    """Bells by key. Take a ticket, look, then wait: a ring after the ticket was taken is not missed.

    A ticket is the number of rings so far, of whatever bell. The last ring is remembered of those bells for which a
    ticket was taken, until tickets for so many others were taken that it is crowded out; whoever holds a ticket as old
    as that is told to look again. A ring that nobody has a ticket for, as most are, leaves nothing behind.
    """

    def __init__(self) -> None:
        self._rings = 0
        self._rung: OrderedDict[Hashable, int] = OrderedDict()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def ticket(self, key: Hashable) -> int:
        """What `wait` compares with. It need not be used."""
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
        """Wait for a ring later than the ticket; False when `seconds` passed without one."""
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
        """A ticket for each of several bells."""
        return tuple((key, self.ticket(key)) for key in keys)

    async def wait_any(self, tickets: Tickets, seconds: float, future: "asyncio.Future[None]") -> bool:
        """Wait for a ring at any of the bells or until somebody resolves `future`; False after `seconds` without."""
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
        """The keys of one kind, (kind, …), at whose bells somebody waits now."""
        return [key for key in self._waiting if isinstance(key, tuple) and key[0] == kind]

    def ring(self, key: Hashable) -> None:
        """Wake everybody who waits at this bell."""
        self._note(key)
        queue = self._waiting.get(key)
        if queue:
            for future in queue:
                if not future.done():
                    future.set_result(None)

    def ring_one(self, key: Hashable) -> None:
        """Wake the one who waits longest; whoever finds more than he can take rings on."""
        queue = self._waiting.get(key)
        while queue:
            future = queue.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._note(key)

    def ring_all(self) -> None:
        """Wake everybody (shutdown)."""
        for key in list(self._waiting):
            self.ring(key)

    def _note(self, key: Hashable) -> None:
        self._rings += 1
        if key in self._rung:
            self._rung[key] = self._rings


def _ring_future(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
