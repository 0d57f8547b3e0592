"""In-process hints that end a wait early. A lost ring costs latency, never truth: every waiter looks by itself too."""

import asyncio
from collections import deque
from collections.abc import Hashable


class Doorbell:
    """Bells by key. Take a ticket, look, then wait: a ring after the ticket was taken is not missed."""

    def __init__(self) -> None:
        self._rings: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def ticket(self, key: Hashable) -> int:
        """How often this bell has rung. Bells nobody waits at are forgotten, so hold the ticket only briefly."""
        return self._rings.setdefault(key, 0)

    async def wait(self, key: Hashable, ticket: int, seconds: float) -> bool:
        """Wait for a ring later than the ticket; False when `seconds` passed without one."""
        if self._rings.get(key, 0) != ticket:
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

    def tickets(self, *keys: Hashable) -> tuple[tuple[Hashable, int], ...]:
        """A ticket for each of several bells."""
        return tuple((key, self.ticket(key)) for key in keys)

    async def wait_any(
        self, tickets: tuple[tuple[Hashable, int], ...], seconds: float, future: "asyncio.Future[None]"
    ) -> bool:
        """Wait for a ring at any of the bells or until somebody resolves `future`; False after `seconds` without."""
        if any(self._rings.get(key, 0) != ticket for key, ticket in tickets):
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
            self._rings.pop(key, None)

    def ring(self, key: Hashable) -> None:
        """Wake everybody who waits at this bell."""
        if key in self._rings:
            self._rings[key] += 1
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
        if key in self._rings:
            self._rings[key] += 1

    def ring_all(self) -> None:
        """Wake everybody (shutdown)."""
        for key in list(self._waiting):
            self.ring(key)


def _ring_future(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
