"""Waiting for conditions without a signal: those of other processes, of a database or of a loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(
    condition: Callable[[], bool | Awaitable[bool]], seconds: float = 60.0, what: str = "the condition holds"
) -> None:
    """Poll `condition` for a bounded time. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s and it is not so that {what}")
        await asyncio.sleep(0.005)
