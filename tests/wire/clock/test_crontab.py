"""The wall times of expressions equal those of cronsim, without its walk."""

from contextlib import suppress
from datetime import datetime

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import example, given
from hypothesis import strategies as st
from tests.work import counted

from perdure.wire.base.errors import BadValue
from perdure.wire.base.times import microseconds
from perdure.wire.clock.cron import cron
from perdure.wire.clock.crontab import Crontab

_wall = datetime.fromisoformat
_NOW_US = microseconds(_wall("2026-11-29T12:00Z"))


def _field(least: int, most: int, *others: str) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    one = st.one_of(
        st.just("*"),
        number.map(str),
        number.map(lambda step: f"*/{step or 1}"),
        st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}"),
        st.tuples(number, number, st.integers(1, 9)).map(lambda n: f"{min(n[:2])}-{max(n[:2])}/{n[2]}"),
        *[st.just(other) for other in others],
    )
    return st.lists(one, min_size=1, max_size=3).map(",".join)


_expressions = st.tuples(
    _field(0, 59),
    _field(0, 23),
    _field(1, 31, "L", "LW", "29", "31"),
    _field(1, 12, "2", "FEB"),
    _field(0, 7, "MON#5", "SUN#5", "7#1", "5L", "7L", "SUN"),
).map(" ".join)
_moments = st.datetimes(_wall("1970-01-01"), _wall("2110-01-01"))


@given(_expressions, _moments)
@example("7 3 29 2 */7", _wall("2028-12-31T23:59:30"))
@example("0 0 29 2 */7", _wall("2072-02-29"))
@example("0 0 29 2 *", _wall("2096-02-29"))
@example("59 23 31 12 *", _wall("2027-01-01T00:00:00.000001"))
@example("0 0 1 1 *", _wall("2027-01-01"))
@example("0 0 */31 2 SUN#5", _wall("2026-01-01"))
def test_wall_times_are_those_that_cronsim_walks_to(expression: str, moment: datetime) -> None:
    try:
        walks = [CronSim(expression, moment, reverse=back) for back in (False, True)]
    except CronSimError:
        with pytest.raises(CronSimError):
            Crontab(expression)
        return
    table = Crontab(expression)
    for walk, step in zip(walks, (table.after, table.before), strict=True):
        wall = moment
        for _ in range(3):
            following = step(wall)
            assert following == next(walk, None)
            if following is None:
                break
            wall = following


def _lines(expression: str, count: int) -> int:
    """The lines of Python that reading an expression and finding `count` due times takes."""
    with counted() as work, suppress(BadValue):
        assert len(cron(expression, "America/New_York").slots(_NOW_US, 1 << 62, count)) == count
    return work.lines


def test_no_expression_costs_more_than_a_few_thousand_lines() -> None:
    cron("0 0 * * *", "America/New_York")  # the zone is read once
    rare = [f"{minute} {hour} 29 2 */7" for minute in range(10) for hour in range(10)]
    never = ["0 0 */31 2 SUN#5", "0 0 LW * */7", "0 0 */31 * MON#5", "0 0 31 4,6,9,11 *", "0 0 */31 */1 5L"]
    often = [f"{n} */{n} */{n} */{n} */7" for n in range(1, 24)]
    long = [",".join(["*"] * 60) + f" {hour} " + ",".join(["*"] * 30) + " * *" for hour in range(20)]
    for expression in (*rare, *never, *often, *long):
        assert _lines(expression, 1) < 10_000, expression  # a walk by days takes 200,000


def test_a_hundred_rare_due_times_cost_little() -> None:
    _lines("0 5 29 2 */7", 100)  # the zone is read once
    assert _lines("1 5 29 2 */7", 100) < 150_000  # a walk by days takes 900,000
