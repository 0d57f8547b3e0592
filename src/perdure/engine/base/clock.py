"""The only place to read the time.

Store time is an anchor plus a clock without jumps, which runs while the machine sleeps. The anchor follows a wall clock
(the database's, for several servers) by at most 1 % slew. A larger difference applies at once, and all leases start
again.
"""

import logging
import sys
import time
from typing import NamedTuple, Protocol

logger = logging.getLogger("perdure.engine")

JUMP_US = 60_000_000
DATABASE_JUMP_US = 500_000
"""A new server takes the database's time at once, so running servers must be close to the database's time."""
SLEW = 0.01


class TimeBounds(NamedTuple):
    """Bounds of store time minus the time since boot."""

    least_us: int
    most_us: int


def boottime_us() -> int:
    """Time since boot with sleep, for local deadlines."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000
    if sys.platform == "darwin":  # the monotonic clock stops there during sleep
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) // 1_000
    return time.monotonic_ns() // 1_000


class Clock(Protocol):
    """Store time in µs since the epoch. The time goes back only if `adjust` reports a jump."""

    @property
    def of_database(self) -> bool: ...

    def now_us(self) -> int: ...

    def adjust(self, database: TimeBounds | None = None) -> bool:
        """Follow the wall clock, or the database's if given. True after a jump: leases must start again."""
        ...


class SystemClock:
    def __init__(self) -> None:
        self._offset_us = time.time_ns() // 1_000 - boottime_us()
        self._adjusted_us = boottime_us()
        self._last_us = 0
        self.of_database = False

    def now_us(self) -> int:
        now = max(boottime_us() + self._offset_us, self._last_us)
        self._last_us = now
        return now

    def adjust(self, database: TimeBounds | None = None) -> bool:
        boot = boottime_us()
        passed, self._adjusted_us = boot - self._adjusted_us, boot
        if database is None:
            wanted, jump_us = time.time_ns() // 1_000 - boot, JUMP_US
        elif not self.of_database:  # first answer: no lease depends on this clock yet
            self.of_database = True
            self._offset_us, self._last_us = (database.least_us + database.most_us) // 2, 0
            return False
        else:  # it may be right within the span
            wanted, jump_us = min(max(self._offset_us, database.least_us), database.most_us), DATABASE_JUMP_US
        away = wanted - self._offset_us
        if abs(away) > jump_us:
            logger.warning(
                "The %s clock jumped by %.1f s; store time follows, all leases are granted anew.",
                "wall" if database is None else "database's",
                away / 1e6,
            )
            self._offset_us, self._last_us = wanted, 0
            return True
        most = int(passed * SLEW)
        self._offset_us += max(-most, min(most, away))
        return False


class ManualClock:
    """A move is a jump, so no lease is lost."""

    of_database = False

    def __init__(self, now_us: int = 1_750_000_000_000_000) -> None:
        self._now_us = now_us
        self._jumped = False

    def now_us(self) -> int:
        return self._now_us

    def adjust(self, database: TimeBounds | None = None) -> bool:
        jumped, self._jumped = self._jumped, False
        return jumped

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now_us += int(seconds * 1_000_000)
        self._jumped = True
