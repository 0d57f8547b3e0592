"""The due times of a schedule: a cron expression in a time zone.

`crontab` lists local times; this module decides how clock changes affect them, by the rules of `docs/schedules.md`. The
functions are pure: the rules of zones (`zoneinfo`, or `tzdata`) are constant while a process lives.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSimError

from perdure.wire.base.codec import check_name
from perdure.wire.base.errors import BadValue
from perdure.wire.base.times import microseconds
from perdure.wire.clock.crontab import Crontab

NEXT_MAX: Final = 100
"""Due times per request."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)
# They mean another zone on another machine, or none.
_NOT_ZONES: Final = frozenset({"localtime", "Factory"})


class Cron:
    """Made by `cron`, which refuses what will never be due.

    >>> from datetime import datetime
    >>> daily = cron("30 2 * * *", "America/New_York")
    >>> when = daily.next_after(microseconds(datetime.fromisoformat("2026-03-07T12:00:00-05:00")))
    >>> daily.local(when).isoformat()  # 02:30 was skipped that night
    '2026-03-08T03:00:00-04:00'
    """

    __slots__ = ("_follows_hours", "_table", "_zone", "expression", "timezone")

    def __init__(self, expression: str, timezone: str) -> None:
        self.expression = expression
        self.timezone = timezone
        self._zone = ZoneInfo(timezone)
        self._table = Crontab(expression)
        self._follows_hours = expression.lstrip().startswith("*") or self._table.is_hourly

    def local(self, at_us: int) -> datetime:
        return (_EPOCH + timedelta(microseconds=at_us)).astimezone(self._zone)

    def next_after(self, at_us: int) -> int | None:
        """The next due time. None: more than fifty years away."""
        found: int | None = None
        for wall in self._walls(self._first_wall(at_us)):
            if found is not None and self._first(wall) >= found:
                break  # a later wall time is never an earlier moment
            for due_us in self._due(wall):
                if due_us > at_us and (found is None or due_us < found):
                    found = due_us
        return found

    def last_until(self, at_us: int) -> int | None:
        """The last due time until `at_us`. None: more than fifty years away."""
        found: int | None = None
        now = self.local(at_us).replace(tzinfo=None)
        first, second = self._offsets(now)
        # In the second pass of an hour that happens twice, later walls occurred in the first.
        for wall in self._walls(now + (first - second) + _MINUTE, back=True):
            if found is not None and self._second(wall) <= found:
                break
            for due_us in self._due(wall):
                if due_us <= at_us and (found is None or due_us > found):
                    found = due_us
        return found

    def slots(self, after_us: int, until_us: int, limit: int) -> list[int]:
        found: list[int] = []
        due_us = self.next_after(after_us)
        while due_us is not None and due_us <= until_us and len(found) < limit:
            found.append(due_us)
            due_us = self.next_after(due_us)
        return found

    def _first_wall(self, at_us: int) -> datetime:
        local = self.local(at_us)
        wall = local.replace(tzinfo=None)
        if not self._follows_hours or local.fold:
            return wall
        first, second = self._offsets(wall)
        # In the first pass of an hour that happens twice, past walls come again.
        return wall - (first - second) - _MINUTE if first > second else wall

    def _walls(self, start: datetime, *, back: bool = False) -> Iterator[datetime]:
        following = self._table.before if back else self._table.after
        wall = following(start)
        while wall is not None:
            yield wall
            wall = following(wall)

    def _due(self, wall: datetime) -> tuple[int, ...]:
        first, second = self._offsets(wall)
        if not self._follows_hours or first == second:
            return (self._first(wall),)
        if first < second:
            return ()  # skipped
        return _instant(wall, first), _instant(wall, second)

    def _first(self, wall: datetime) -> int:
        """When the wall first shows the time, or the end of a gap around it. Never decreases for later wall times."""
        first, second = self._offsets(wall)
        if first >= second:
            return _instant(wall, first)
        low, high = _instant(wall, second), _instant(wall, first)
        before = self._offset(low)
        while high - low > 1_000_000:  # clocks change at whole seconds
            middle = (low + high) // 2_000_000 * 1_000_000
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return high

    def _second(self, wall: datetime) -> int:
        """Never decreases for later wall times."""
        first, second = self._offsets(wall)
        return _instant(wall, second) if first >= second else self._first(wall)

    def _offsets(self, wall: datetime) -> tuple[timedelta, timedelta]:
        """The larger is first if the wall time happens twice, and last if the wall time is skipped."""
        first = wall.replace(tzinfo=self._zone, fold=0).utcoffset()
        second = wall.replace(tzinfo=self._zone, fold=1).utcoffset()
        assert first is not None and second is not None
        return first, second

    def _offset(self, at_us: int) -> timedelta:
        offset = self.local(at_us).utcoffset()
        assert offset is not None
        return offset


def _instant(wall: datetime, offset: timedelta) -> int:
    return microseconds(wall.replace(tzinfo=UTC) - offset)


@lru_cache(maxsize=1_024)
def cron(expression: str, timezone: str) -> Cron:
    """Raises BadValue with the fault of `cron` or `timezone`."""
    check_name(expression, where="cron")
    check_name(timezone, where="timezone")
    if timezone not in _zones():
        raise BadValue(
            f"timezone: {timezone!r} is not the name of a time zone; give an IANA name such as Europe/Berlin, or UTC.",
            {"path": "timezone"},
        )
    fields = expression.split()
    if len(fields) != 5:
        raise BadValue(
            f"cron: {expression!r} has {len(fields)} fields; give 5: minute, hour, day of month, month, day of week.",
            {"path": "cron"},
        )
    try:
        made = Cron(expression, timezone)
    except CronSimError as error:
        if str(error) == "Bad day-of-month" and _reads(["0", "0", fields[2], "*", "*"]):
            raise _never(expression) from None
        what = str(error).removeprefix("Bad ")
        raise BadValue(
            f"cron: {expression!r} cannot be read: its {what} is not one; see `man 5 crontab`.", {"path": "cron"}
        ) from None
    if made.next_after(0) is None:
        raise _never(expression)
    return made


def _never(expression: str) -> BadValue:
    return BadValue(f"cron: {expression!r} is never due: no such day exists.", {"path": "cron"})


def _reads(fields: list[str]) -> bool:
    try:
        Crontab(" ".join(fields))
    except CronSimError:
        return False
    return True


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NOT_ZONES
