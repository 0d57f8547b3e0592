"""The only place that asks what time it is.

Store time is an anchor plus a clock that neither jumps nor stops while the machine sleeps. The anchor follows a wall
clock by at most 1 % slew; a larger difference is taken over at once, and whoever holds leases is told so that every one
of them is granted anew.

Whose wall clock: where the store has one server, its own. Where it has several, the database's: leases and timers are
compared by all of them, so their times must be one, however wrong each machine's own clock is.
"""

import logging
import sys
import time
from typing import NamedTuple, Protocol

logger = logging.getLogger("perdure.engine")

JUMP_US = 60_000_000
DATABASE_JUMP_US = 500_000
"""A server that starts now has the database's time at once, so those that run must not be far from it for long."""
SLEW = 0.01


class Span(NamedTuple):
    """How far store time is ahead of the time since boot: not less and not more than this, as far as an answer of the
    database tells, which was written at some moment between the question and the arrival."""

    least_us: int
    most_us: int


def boottime_us() -> int:
    """Microseconds since boot, sleep included: what local deadlines are measured with."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000
    if sys.platform == "darwin":  # the monotonic clock stands still there while the machine sleeps
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) // 1_000
    return time.monotonic_ns() // 1_000


class Clock(Protocol):
    """Store time in microseconds since the epoch; never goes back, except where `adjust` says that it jumped."""

    @property
    def of_database(self) -> bool:
        """Whether it keeps with the database's clock, which can then be asked to confirm it."""
        ...

    def now_us(self) -> int: ...

    def adjust(self, database: Span | None = None) -> bool:
        """Follow the wall clock (the database's, where it was asked) a little; True when it jumped and leases must be
        granted anew."""
        ...


class SystemClock:
    """The machine's time or the database's, as this module's docstring says."""

    def __init__(self) -> None:
        self._offset_us = time.time_ns() // 1_000 - boottime_us()
        self._adjusted_us = boottime_us()
        self._last_us = 0
        self.of_database = False

    def now_us(self) -> int:
        now = max(boottime_us() + self._offset_us, self._last_us)
        self._last_us = now
        return now

    def adjust(self, database: Span | None = None) -> bool:
        boot = boottime_us()
        passed, self._adjusted_us = boot - self._adjusted_us, boot
        if database is None:
            wanted, jump_us = time.time_ns() // 1_000 - boot, JUMP_US
        elif not self.of_database:  # asked for the first time: nobody holds anything by this clock yet
            self.of_database = True
            self._offset_us, self._last_us = (database.least_us + database.most_us) // 2, 0
            return False
        else:  # within the span it may be right already
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
    """A clock that tests move by hand. A move is a jump: no lease is lost by it."""

    of_database = False

    def __init__(self, now_us: int = 1_750_000_000_000_000) -> None:
        self._now_us = now_us
        self._jumped = False

    def now_us(self) -> int:
        return self._now_us

    def adjust(self, database: Span | None = None) -> bool:
        jumped, self._jumped = self._jumped, False
        return jumped

    def advance(self, seconds: float) -> None:
        """Move time on by that many seconds."""
        self._now_us += int(seconds * 1_000_000)
        self._jumped = True
