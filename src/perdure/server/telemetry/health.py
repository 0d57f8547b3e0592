"""How late the event loop runs, and whether the store can write."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from perdure.wire.base.errors import PerdureError, Unavailable

logger = logging.getLogger("perdure.server")

TICK_SECONDS: Final = 0.5
REMEMBERED_TICKS: Final = 20
CHECK_SECONDS: Final = 10.0
"""Seconds between checks while the store is well, else `FRESH_SECONDS`."""
FRESH_SECONDS: Final = 1.0


class Health:
    """`check` writes to the store, or raises `Unavailable`."""

    def __init__(self, check: Callable[[], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._check = check
        self._clock = clock
        self._lags: deque[float] = deque(maxlen=REMEMBERED_TICKS)
        self._due: float | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._checking: asyncio.Task[None] | None = None
        self._checked_at: float | None = None
        self.problem: Unavailable | None = None

    @property
    def lag_seconds(self) -> float:
        overdue = 0.0 if self._due is None else self._clock() - self._due
        return max(0.0, overdue, *self._lags)

    def start(self) -> None:
        self._schedule()
        self._checking = asyncio.create_task(self._watch(), name="perdure-health")

    async def stop(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        if self._checking is not None:
            self._checking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._checking

    async def check(self) -> None:
        """Raises `Unavailable`. A result is valid for `FRESH_SECONDS`."""
        if self._checked_at is None or self._clock() - self._checked_at >= FRESH_SECONDS:
            try:
                await self._check()
                self.problem = None
            except PerdureError as error:
                self.problem = Unavailable(error.message)
            except Exception as error:  # any error of a driver
                logger.exception("The store's check failed.")
                self.problem = Unavailable(
                    f"The store cannot write ({type(error).__name__}); the server's log says why."
                )
            self._checked_at = self._clock()
        if self.problem is not None:
            raise Unavailable(self.problem.message)

    def _schedule(self) -> None:
        self._due = self._clock() + TICK_SECONDS
        self._tick = asyncio.get_running_loop().call_later(TICK_SECONDS, self._beat)

    def _beat(self) -> None:
        assert self._due is not None
        self._lags.append(self._clock() - self._due)
        self._schedule()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS if self.problem is None else FRESH_SECONDS)
            with contextlib.suppress(Unavailable):  # `problem` keeps it
                await self.check()
