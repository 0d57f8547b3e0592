"""Moments: microseconds since the epoch inside, RFC 3339 in JSON."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final

from msgspec import Meta

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
AT_US_MAX: Final = 253_402_300_799_000_000
"""The last second of the year 9999."""
NEVER_US: Final = AT_US_MAX + 1
"""The due time of a turn waiting for the turn before."""

AtUs = Annotated[int, Meta(ge=0, le=AT_US_MAX)]
"""A time from a worker."""


def clamped(at_us: int) -> int:
    """The nearest time between 1970 and 9999.

    >>> clamped(-1), clamped(2**70) == AT_US_MAX
    (0, True)
    """
    return min(max(at_us, 0), AT_US_MAX)


def rfc3339(at_us: int) -> str:
    """RFC 3339, always with microseconds. Any number is written, because a stored time must not make an answer fail.

    >>> rfc3339(1_750_000_000_000_000)
    '2025-06-15T15:06:40.000000+00:00'
    """
    if not 0 <= at_us <= AT_US_MAX:
        at_us = clamped(at_us)
    seconds, us = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{us:06d}+00:00"


@lru_cache(maxsize=256)  # times of one answer are mostly of one second
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def microseconds(moment: datetime) -> int:
    """Convert without rounding.

    >>> microseconds(datetime.fromisoformat("2025-06-15T17:06:40+02:00"))
    1750000000000000
    """
    return (moment - _EPOCH) // _MICROSECOND


def moment(at_us: int) -> datetime:
    """Reverse `microseconds`, clamped to 1970 … 9999.

    >>> moment(1_750_000_000_000_000).isoformat()
    '2025-06-15T15:06:40+00:00'
    """
    return _EPOCH + timedelta(microseconds=clamped(at_us))


def duration(us: int) -> str:
    """A duration for people.

    >>> [duration(us) for us in (860, 12_345, 2_500_000, 125_000_000, 7_260_000_000, 200_000_000_000)]
    ['0.9 ms', '12 ms', '2.5 s', '2 min 5 s', '2 h 1 min', '2 d 7 h']
    """
    if us < 10_000:
        return f"{us / 1e3:.1f} ms"
    if us < 1_000_000:
        return f"{us / 1e3:.0f} ms"
    seconds = us / 1e6
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
