"""The wall times of a cron expression, without a zone.

cronsim parses the expression, with the rules of Debian's cron, but searches day by day: milliseconds if the next match
is years away. This module searches month by month. The matching days follow from a month's length and first weekday, so
each of the 28 kinds is computed once.
"""

from bisect import bisect_left, bisect_right
from calendar import isleap
from datetime import MAXYEAR, MINYEAR, date, datetime, timedelta
from typing import Final

from cronsim import CronSim

YEARS_MAX: Final = 50
"""Each date falls on each weekday again within 40 years."""
_ANY_DAY: Final = datetime.fromisoformat("2000-01-01")  # an expression reads the same on all days
_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_LENGTHS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Crontab:
    """Raises CronSimError if the expression is invalid."""

    __slots__ = ("_both", "_days", "_hours", "_kinds", "_minutes", "_months", "_weekdays", "is_hourly")

    def __init__(self, expression: str) -> None:
        read = CronSim(expression, _ANY_DAY)
        self._minutes, self._hours, self._months = sorted(read.minutes), sorted(read.hours), sorted(read.months)
        self._days, self._weekdays = read.days, read.weekdays
        self._both = read.day_and
        """True if a day must match both day fields, not only one."""
        self._kinds: dict[tuple[int, int], list[int]] = {}
        self.is_hourly = len(self._hours) == 24

    def after(self, wall: datetime) -> datetime | None:
        """None: more than fifty years away."""
        last = (wall.replace(microsecond=0) + _SECOND).year + YEARS_MAX
        at = wall.replace(second=0, microsecond=0) + _MINUTE
        if at.month in self._months:
            days = self._days_of(at.year, at.month)
            day = bisect_left(days, at.day)
            if day < len(days) and days[day] == at.day:
                found = self._first_from(at)
                if found is not None:
                    return found
                day += 1
            if day < len(days):
                return at.replace(day=days[day], hour=self._hours[0], minute=self._minutes[0])
        for year in range(at.year, min(last, MAXYEAR) + 1):
            for month in self._months[bisect_right(self._months, at.month) :] if year == at.year else self._months:
                days = self._days_of(year, month)
                if days:
                    return at.replace(year, month, days[0], self._hours[0], self._minutes[0])
        return None

    def before(self, wall: datetime) -> datetime | None:
        """None: more than fifty years away."""
        at = (wall - _MICROSECOND).replace(second=0, microsecond=0)
        if at.month in self._months:
            days = self._days_of(at.year, at.month)
            day = bisect_right(days, at.day) - 1
            if day >= 0 and days[day] == at.day:
                found = self._last_until(at)
                if found is not None:
                    return found
                day -= 1
            if day >= 0:
                return at.replace(day=days[day], hour=self._hours[-1], minute=self._minutes[-1])
        for year in range(at.year, max(at.year - YEARS_MAX, MINYEAR) - 1, -1):
            months = self._months[: bisect_left(self._months, at.month)] if year == at.year else self._months
            for month in reversed(months):
                days = self._days_of(year, month)
                if days:
                    return at.replace(year, month, days[-1], self._hours[-1], self._minutes[-1])
        return None

    def _first_from(self, at: datetime) -> datetime | None:
        hour, minute = bisect_left(self._hours, at.hour), bisect_left(self._minutes, at.minute)
        if hour < len(self._hours) and self._hours[hour] == at.hour:
            if minute < len(self._minutes):
                return at.replace(minute=self._minutes[minute])
            hour += 1
        return at.replace(hour=self._hours[hour], minute=self._minutes[0]) if hour < len(self._hours) else None

    def _last_until(self, at: datetime) -> datetime | None:
        hour, minute = bisect_right(self._hours, at.hour) - 1, bisect_right(self._minutes, at.minute) - 1
        if hour >= 0 and self._hours[hour] == at.hour:
            if minute >= 0:
                return at.replace(minute=self._minutes[minute])
            hour -= 1
        return at.replace(hour=self._hours[hour], minute=self._minutes[-1]) if hour >= 0 else None

    def _days_of(self, year: int, month: int) -> list[int]:
        kind = date(year, month, 1).weekday(), 29 if month == 2 and isleap(year) else _LENGTHS[month - 1]
        days = self._kinds.get(kind)
        if days is None:
            days = self._kinds[kind] = self._matching(*kind)
        return days

    def _matching(self, first: int, length: int) -> list[int]:
        """The matching days of a month with the first weekday `first` (Monday is 0) and `length` days."""
        by_number = {day for day in self._days if 0 < day <= length}
        if CronSim.LAST in self._days:
            by_number.add(length)
        if CronSim.LAST_WEEKDAY in self._days:
            by_number.add(length - max(0, (first + length - 1) % 7 - 4))
        by_weekday: set[int] = set()
        for one in self._weekdays:  # Sunday is 0 or 7; with a number, the nth of the month or the last one
            weekday, which = one if isinstance(one, tuple) else (one, None)
            days = range((weekday - 1 - first) % 7 + 1, length + 1, 7)
            if which is None:
                by_weekday.update(days)
            elif which == CronSim.LAST:
                by_weekday.add(days[-1])
            elif which <= len(days):
                by_weekday.add(days[which - 1])
        return sorted(by_number & by_weekday if self._both else by_number | by_weekday)
