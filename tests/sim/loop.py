"""An event loop whose time is a number: the simulation's scheduler.

Everything of one run lives on one heap, ordered by (time, order of arrival). Nothing waits for real: when nothing is
left to do now, the time jumps to the next due entry. The engine's coroutines run on the loop unchanged.
"""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from perdure.engine.base.clock import ManualClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_US = 1_750_000_000_000_000
BOOTED_US = 1_000_000_000
"""The reading of the clock since boot at the start: long enough for nothing to precede the boot."""

EVENTS_MAX = 20_000
"""The limit of events at one moment. A loop above the limit does not come to rest (I15)."""


class Spinning(Exception):
    """Time does not pass any more."""


class SimLoop(asyncio.AbstractEventLoop):
    """The part of an event loop that the engine and the store need."""

    def __init__(self) -> None:
        self.us = 0
        self.failure: BaseException | None = None
        self._ready: deque[asyncio.Handle] = deque()
        self._heap: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._order = 0

    # --- what asyncio asks of a loop ---------------------------------------------------------------------------------

    def time(self) -> float:
        return (BOOTED_US + self.us) / 1_000_000

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # the signature differs by Python version
        self, coro: Coroutine[Any, Any, T], *, name: object = None, context: Context | None = None
    ) -> "asyncio.Task[T]":
        return asyncio.Task(coro, loop=self, name=None if name is None else str(name), context=context)

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        # Rounded up: whoever waits for a billionth of a second and looks again must find that time has passed.
        return self.call_at_us(self.us + max(0, math.ceil(delay * 1_000_000)), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at_us(math.ceil(when * 1_000_000) - BOOTED_US, callback, *args, context=context)

    def call_at_us(
        self, at_us: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at a moment of simulated time."""
        handle = asyncio.TimerHandle(at_us, callback, args, self, context)
        self._order += 1
        heapq.heappush(self._heap, (at_us, self._order, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        return

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.failure is None:
            self.failure = context.get("exception") or RuntimeError(context.get("message"))

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self, until_us: int, stop: Callable[[], bool] | None = None) -> None:
        """Let time pass until a moment, or until `stop` says so; raises what any callback raised."""
        ready, heap = self._ready, self._heap
        events = 0
        with self._running():
            while True:
                while ready:
                    handle = ready.popleft()
                    events += 1
                    if events > EVENTS_MAX:
                        raise Spinning(f"more than {EVENTS_MAX} things happened at {self.us / 1e6} s")
                    if not handle._cancelled:
                        handle._run()
                        if self.failure is not None:
                            raise self.failure
                if stop is not None and stop():
                    return
                while heap and heap[0][2]._cancelled:
                    heapq.heappop(heap)
                if not heap or heap[0][0] > until_us:
                    self.us = max(self.us, until_us)
                    return
                at_us, _, timer = heapq.heappop(heap)
                if at_us > self.us:
                    self.us = at_us
                    events = 0
                ready.append(timer)

    @contextmanager
    def _running(self) -> Generator[None, None, None]:
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(before)

    def settle(self) -> None:
        """Run what is ready now and forget the rest: the end of a simulation."""
        self.failure = None
        with self._running():
            while self._ready:
                handle = self._ready.popleft()
                if not handle._cancelled:
                    handle._run()
        self._heap.clear()


class SimClock(ManualClock):
    """The store's time: the loop's, which the simulation alone moves."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__(EPOCH_US)
        self._loop = loop

    def now_us(self) -> int:
        return EPOCH_US + self._loop.us
