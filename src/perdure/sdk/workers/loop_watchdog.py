"""Warns about code that blocks a worker's event loop, and shows the code."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from perdure.sdk.payloads.tracebacks import is_library

logger = logging.getLogger("perdure.worker")

LOOK_SECONDS: Final = 1.0
BLOCKED_SECONDS: Final = 2.0
_NOT_THEIRS: Final = frozenset({"perdure", "asyncio", "selectors", "uvloop"})
"""Frames outside these packages are the users' code."""


@contextmanager
def loop_watchdog(
    loop: asyncio.AbstractEventLoop, *, look_seconds: float = LOOK_SECONDS, blocked_seconds: float = BLOCKED_SECONDS
) -> Iterator[None]:
    """Watches `loop`, which runs in this thread."""
    stop = threading.Event()
    thread = threading.Thread(
        target=_watch,
        args=(loop, threading.get_ident(), stop, look_seconds, blocked_seconds),
        name="perdure-loop-watchdog",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _watch(
    loop: asyncio.AbstractEventLoop, thread_id: int, stop: threading.Event, look_seconds: float, blocked_seconds: float
) -> None:
    while not stop.wait(look_seconds):
        ran = threading.Event()
        asked = time.monotonic()
        try:
            loop.call_soon_threadsafe(ran.set)
        except RuntimeError:  # the loop is closed
            return
        warned = False
        while not ran.wait(blocked_seconds) and not stop.is_set():
            if not warned and (stack := blocking_code(thread_id)):
                first = next((one for one in stack if not is_library(one.filename)), stack[0])
                logger.warning(
                    "The event loop of this worker is blocked by %r (%s:%s): no other step, time-out or report can "
                    "run. Move blocking code into a sync function: in a workflow "
                    '`await ctx.step("name", function, …)` runs it in a thread, elsewhere '
                    "`await asyncio.to_thread(function, …)`.\n%s",
                    first.name,
                    first.filename,
                    first.lineno,
                    "".join(stack.format()).rstrip(),
                )
                warned = True
        if warned and not stop.is_set():
            logger.warning("The event loop of this worker runs again, after %.1f s.", time.monotonic() - asked)


def blocking_code(thread_id: int) -> traceback.StackSummary:
    """The user's frames, outermost first; empty while the loop waits."""
    frame = sys._current_frames().get(thread_id)
    places: list[tuple[FrameType, int]] = []
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] not in _NOT_THEIRS:
        places.append((frame, frame.f_lineno))
        frame = frame.f_back
    return traceback.StackSummary.extract(iter(reversed(places)))
