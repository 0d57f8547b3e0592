"""The only place that asks what time it is.

Store time is an anchor plus a clock that neither jumps nor stops while the machine sleeps (CLOCK_BOOTTIME). The wall
clock is followed by at most 1 % slew; a difference of more than a minute is taken over at once, and whoever holds
leases is told so that every one of them is granted anew.
"""

import logging
import time
from typing import Protocol

logger = logging.getLogger("perdure.engine")

JUMP_US = 60_000_000
SLEW = 0.01


def boottime_us() -> int:
    """Microseconds since boot, sleep included: what local deadlines are measured with."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000
    return time.monotonic_ns() // 1_000


class Clock(Protocol):
    """Store time in microseconds since the epoch; never goes back, except where `adjust` says that it jumped."""

    def now_us(self) -> int: ...

    def adjust(self) -> bool:
        """Follow the wall clock a little; True when it jumped and leases must be granted anew."""
        ...


class SystemClock:
    """The machine's time, as this module's docstring says."""

    def __init__(self) -> None:
        self._offset_us = time.time_ns() // 1_000 - boottime_us()
        self._adjusted_us = boottime_us()
        self._last_us = 0

    def now_us(self) -> int:
        now = max(boottime_us() + self._offset_us, self._last_us)
        self._last_us = now
        return now

    def adjust(self) -> bool:
        boot = boottime_us()
        wanted = time.time_ns() // 1_000 - boot
        away = wanted - self._offset_us
        passed, self._adjusted_us = boot - self._adjusted_us, boot
        if abs(away) > JUMP_US:
            logger.warning(
                "The wall clock jumped by %.1f s; store time follows, all leases are granted anew.", away / 1e6
            )
            self._offset_us = wanted
            self._last_us = 0
            return True
        most = int(passed * SLEW)
        self._offset_us += max(-most, min(most, away))
        return False


class ManualClock:
    """A clock that tests move by hand."""

    def __init__(self, now_us: int = 1_750_000_000_000_000) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def adjust(self) -> bool:
        return False

    def advance(self, seconds: float) -> None:
        """Move time on by that many seconds."""
        self._now_us += int(seconds * 1_000_000)
