"""When expressions are due, above all where clocks change: a table made by hand, and a clock walked by minutes."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.wire.base.errors import BadValue
from perdure.wire.base.times import microseconds
from perdure.wire.clock.cron import Cron, cron

NY, LORD_HOWE, SANTIAGO, BERLIN = "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Europe/Berlin"

# Expression, zone, a moment, and the due times that follow it.
TABLE = [
    # New York, 8 March 2026: 02:00 -05:00 is followed by 03:00 -04:00.
    ("30 2 * * *", NY, "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
    ("0 2 * * *", NY, "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:00-04:00"]),
    ("15,45 2 * * *", NY, "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:15-04:00"]),
    ("0 2,3 * * *", NY, "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:00-04:00"]),
    ("30 2,3 * * *", NY, "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-08T03:30-04:00"]),
    ("0 3 * * *", NY, "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T03:00-04:00"]),
    ("59 1 * * *", NY, "2026-03-07T12:00-05:00", ["2026-03-08T01:59-05:00", "2026-03-09T01:59-04:00"]),
    ("0 */2 * * *", NY, "2026-03-08T00:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-08T04:00-04:00"]),
    ("30 2 * * SUN", NY, "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-15T02:30-04:00"]),
    ("30 2 8 3 *", NY, "2026-01-01T00:00-05:00", ["2026-03-08T03:00-04:00", "2027-03-08T02:30-05:00"]),
    ("*/15 2 * * *", NY, "2026-03-08T00:00-05:00", ["2026-03-09T02:00-04:00", "2026-03-09T02:15-04:00"]),
    ("30 * * * *", NY, "2026-03-08T00:45-05:00", ["2026-03-08T01:30-05:00", "2026-03-08T03:30-04:00"]),
    ("* * * * *", NY, "2026-03-08T01:58:30-05:00", ["2026-03-08T01:59-05:00", "2026-03-08T03:00-04:00"]),
    ("* 1-2 * * *", NY, "2026-03-08T01:58:30-05:00", ["2026-03-08T01:59-05:00", "2026-03-09T01:00-04:00"]),
    # New York, 1 November 2026: 01:59 -04:00 is followed by 01:00 -05:00.
    ("30 1 * * *", NY, "2026-10-31T12:00-04:00", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
    ("0 1 * * *", NY, "2026-10-31T12:00-04:00", ["2026-11-01T01:00-04:00", "2026-11-02T01:00-05:00"]),
    ("0 2 * * *", NY, "2026-10-31T12:00-04:00", ["2026-11-01T02:00-05:00", "2026-11-02T02:00-05:00"]),
    ("0,30 1 * * *", NY, "2026-11-01T01:00-04:00", ["2026-11-01T01:30-04:00", "2026-11-02T01:00-05:00"]),
    ("30 1 * * *", NY, "2026-11-01T01:10-05:00", ["2026-11-02T01:30-05:00"]),
    ("0 0 * * *", NY, "2026-11-01T00:00-04:00", ["2026-11-02T00:00-05:00"]),
    ("0 */6 * * *", NY, "2026-11-01T00:00-04:00", ["2026-11-01T06:00-05:00", "2026-11-01T12:00-05:00"]),
    ("45 1 1 11 *", NY, "2026-01-01T00:00-05:00", ["2026-11-01T01:45-04:00", "2027-11-01T01:45-04:00"]),
    (
        "30 * * * *",
        NY,
        "2026-11-01T00:45-04:00",
        ["2026-11-01T01:30-04:00", "2026-11-01T01:30-05:00", "2026-11-01T02:30-05:00"],
    ),
    (
        "* * * * *",
        NY,
        "2026-11-01T01:58:30-04:00",
        ["2026-11-01T01:59-04:00", "2026-11-01T01:00-05:00", "2026-11-01T01:01-05:00"],
    ),
    (
        "*/15 1 * * *",
        NY,
        "2026-11-01T01:20-04:00",
        [
            "2026-11-01T01:30-04:00",
            "2026-11-01T01:45-04:00",
            "2026-11-01T01:00-05:00",
            "2026-11-01T01:15-05:00",
            "2026-11-01T01:30-05:00",
            "2026-11-01T01:45-05:00",
            "2026-11-02T01:00-05:00",
        ],
    ),
    # Lord Howe moves by half an hour: on 4 October 2026 from 02:00 to 02:30, on 5 April from 02:00 back to 01:30.
    ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00+10:30", ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"]),
    ("0 2 * * *", LORD_HOWE, "2026-10-03T12:00+10:30", ["2026-10-04T02:30+11:00", "2026-10-05T02:00+11:00"]),
    ("0 * * * *", LORD_HOWE, "2026-10-04T01:00+10:30", ["2026-10-04T03:00+11:00"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00+11:00", ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"]),
    ("15 1 * * *", LORD_HOWE, "2026-04-04T12:00+11:00", ["2026-04-05T01:15+11:00", "2026-04-06T01:15+10:30"]),
    ("*/15 2 * * *", LORD_HOWE, "2026-04-05T01:00+11:00", ["2026-04-05T02:00+10:30", "2026-04-05T02:15+10:30"]),
    (
        "*/15 * * * *",
        LORD_HOWE,
        "2026-04-05T01:40+11:00",
        ["2026-04-05T01:45+11:00", "2026-04-05T01:30+10:30", "2026-04-05T01:45+10:30", "2026-04-05T02:00+10:30"],
    ),
    # Santiago changes at midnight: 6 September 2026 begins at 01:00, 4 April has 23:00 to 24:00 twice.
    ("0 0 * * *", SANTIAGO, "2026-09-05T12:00-04:00", ["2026-09-06T01:00-03:00", "2026-09-07T00:00-03:00"]),
    ("0 0 * * SUN", SANTIAGO, "2026-09-05T12:00-04:00", ["2026-09-06T01:00-03:00", "2026-09-13T00:00-03:00"]),
    ("*/30 0 * * *", SANTIAGO, "2026-09-05T12:00-04:00", ["2026-09-07T00:00-03:00", "2026-09-07T00:30-03:00"]),
    ("30 23 * * *", SANTIAGO, "2026-04-04T12:00-03:00", ["2026-04-04T23:30-03:00", "2026-04-05T23:30-04:00"]),
    ("59 23 4 4 *", SANTIAGO, "2026-04-04T12:00-03:00", ["2026-04-04T23:59-03:00", "2027-04-04T23:59-04:00"]),
    # Europe; Dublin, whose winter is what the data calls saving; Cairo, at midnight; two hours at once; a whole day.
    ("30 2 * * *", BERLIN, "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
    ("30 2 * * *", BERLIN, "2026-10-24T12:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
    ("30 1 * * *", "Europe/Dublin", "2026-03-28T12:00+00:00", ["2026-03-29T02:00+01:00", "2026-03-30T01:30+01:00"]),
    ("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00+02:00", ["2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00"]),
    ("30 1,2 * * *", "Antarctica/Troll", "2026-03-28T12:00+00:00", ["2026-03-29T03:00+02:00"]),
    ("0 12 * * *", "Pacific/Apia", "2011-12-29T13:00-10:00", ["2011-12-31T00:00+14:00", "2011-12-31T12:00+14:00"]),
    # The calendar.
    ("0 12 29 2 *", "UTC", "2026-01-01T00:00+00:00", ["2028-02-29T12:00+00:00", "2032-02-29T12:00+00:00"]),
    ("0 0 29 2 *", "UTC", "2096-03-01T00:00+00:00", ["2104-02-29T00:00+00:00"]),
    ("0 0 31 * *", "UTC", "2026-01-31T00:00+00:00", ["2026-03-31T00:00+00:00", "2026-05-31T00:00+00:00"]),
    ("0 9 * * MON-FRI", "UTC", "2026-06-05T10:00+00:00", ["2026-06-08T09:00+00:00", "2026-06-09T09:00+00:00"]),
    ("0 0 1 jan,jul *", "UTC", "2026-01-01T00:00+00:00", ["2026-07-01T00:00+00:00", "2027-01-01T00:00+00:00"]),
    ("0 0 1 * MON", "UTC", "2026-06-29T00:00+00:00", ["2026-07-01T00:00+00:00", "2026-07-06T00:00+00:00"]),
    ("0 0 */2 * MON", "UTC", "2026-06-01T12:00+00:00", ["2026-06-15T00:00+00:00", "2026-06-29T00:00+00:00"]),
    ("*/7 0 * * *", "UTC", "2026-06-01T00:49+00:00", ["2026-06-01T00:56+00:00", "2026-06-02T00:00+00:00"]),
]


def us(text: str) -> int:
    return microseconds(datetime.fromisoformat(text))


@pytest.mark.parametrize(("expression", "zone", "after", "expected"), TABLE)
def test_each_due_time_of_the_table(expression: str, zone: str, after: str, expected: list[str]) -> None:
    read = cron(expression, zone)
    found = read.slots(us(after), us(after) + 20 * 366 * 86_400_000_000, len(expected))
    assert [read.local(at_us).isoformat(timespec="minutes") for at_us in found] == expected
    for at_us in found:
        assert read.last_until(at_us) == at_us
        assert read.last_until(at_us - 1) != at_us


@pytest.mark.parametrize(
    ("days", "expected"),
    [("L * *", "2026-06-30"), ("LW * *", "2026-06-30"), ("* * 5L", "2026-06-26"), ("* * 1#2", "2026-06-08")],
)
def test_last_days_and_nth_weekdays(days: str, expected: str) -> None:
    due = cron(f"0 0 {days}", "UTC").next_after(us("2026-06-02T00:00Z"))
    assert due == us(f"{expected}T00:00Z")


@pytest.mark.parametrize("sunday", ["0", "7", "SUN", "sun", "7-7"])
def test_sunday_has_three_names(sunday: str) -> None:
    [due] = cron(f"0 0 * * {sunday}", "UTC").slots(us("2026-06-01T00:00Z"), us("2026-06-12T00:00Z"), 5)
    assert due == us("2026-06-07T00:00Z")


@pytest.mark.parametrize(("old", "new"), [("Europe/Kiev", "Europe/Kyiv"), ("Asia/Calcutta", "Asia/Kolkata")])
def test_a_zone_that_was_renamed_keeps_its_old_name(old: str, new: str) -> None:
    moment = us("2026-03-28T00:00Z")
    assert cron("30 3 * * *", old).next_after(moment) == cron("30 3 * * *", new).next_after(moment)


@pytest.mark.parametrize("expression", ["30 2 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"])
def test_a_day_that_never_comes_is_refused(expression: str) -> None:
    with pytest.raises(BadValue, match="is never due") as caught:
        cron(expression, NY)
    assert caught.value.details == {"path": "cron"}


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("* * * *", "has 4 fields"),
        ("0 * * * * *", "has 6 fields"),
        ("@daily", "has 1 fields"),
        ("60 * * * *", "its minute is not one"),
        ("* 24 * * *", "its hour is not one"),
        ("* * 0 * *", "its day-of-month is not one"),
        ("* * 32 * *", "its day-of-month is not one"),
        ("* * * 13 *", "its month is not one"),
        ("* * * * 8", "its day-of-week is not one"),
        ("* * * * FRI-MON", "its day-of-week is not one"),
        ("*/0 * * * *", "its minute is not one"),
        ("1- * * * *", "its minute is not one"),
        ("\u0661 * * * *", "its minute is not one"),
        ("", "is empty"),
        ("0 0 * * *\n", "may not hold"),
        ("*," * 200 + "* * * * *", "the limit is 256"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_field(expression: str, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        cron(expression, "UTC")


@pytest.mark.parametrize(
    "zone",
    ["", "Mars/Olympus", "localtime", "europe/berlin", "../UTC", "/etc/localtime", "posix/UTC", "right/UTC", "America"],
)
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(BadValue, match="timezone"):
        cron("0 0 * * *", zone)


# --- a clock walked by minutes ---------------------------------------------------------------------------------------

_numbers = st.lists(st.integers(0, 59), min_size=1, max_size=4, unique=True).map(sorted)
_hours = st.lists(st.integers(0, 23), min_size=1, max_size=4, unique=True).map(sorted)
_CHANGES = {
    NY: ["2026-03-08T07:00Z", "2026-11-01T06:00Z"],
    LORD_HOWE: ["2026-04-04T15:00Z", "2026-10-03T15:30Z"],
    SANTIAGO: ["2026-04-05T03:00Z", "2026-09-06T04:00Z"],
    "Antarctica/Troll": ["2026-03-29T01:00Z", "2026-10-25T01:00Z"],
    "Pacific/Apia": ["2011-12-30T10:00Z"],
}


def _walked(
    minutes: set[int], hours: set[int], follows_hours: bool, zone: str, start: datetime, end: datetime
) -> list[int]:
    """The due times of a daemon that reads the wall clock every minute and never forgets a reading."""
    found = []
    place = ZoneInfo(zone)
    seen = start.astimezone(place).replace(tzinfo=None)
    now = start
    while now < end:
        now += timedelta(minutes=1)
        wall = now.astimezone(place).replace(tzinfo=None)
        if follows_hours:
            fresh = [wall]
        else:
            fresh = [seen + timedelta(minutes=n + 1) for n in range((wall - seen) // timedelta(minutes=1))]
            seen = max(seen, wall)
        if any(one.minute in minutes and one.hour in hours for one in fresh):
            found.append(microseconds(now))
    return found


@pytest.mark.slow
@settings(max_examples=150)
@given(
    minutes=_numbers | st.sampled_from([7, 15, 30]),
    hours=_hours | st.none(),
    change=st.sampled_from([(zone, at) for zone, moments in _CHANGES.items() for at in moments]),
    before=st.integers(61, 600),
)
def test_due_times_are_those_of_a_clock_walked_by_minutes(
    minutes: list[int] | int, hours: list[int] | None, change: tuple[str, str], before: int
) -> None:
    if isinstance(minutes, int):
        said, wanted = f"*/{minutes}", set(range(0, 60, minutes))
    else:
        said, wanted = ",".join(map(str, minutes)), set(minutes)
    zone, at = change
    read: Cron = cron(f"{said} {'*' if hours is None else ','.join(map(str, hours))} * * *", zone)
    start = datetime.fromisoformat(at).astimezone(UTC) - timedelta(minutes=before)
    end = start + timedelta(hours=36)
    allowed = set(range(24)) if hours is None else set(hours)
    expected = _walked(wanted, allowed, said.startswith("*/") or hours is None, zone, start, end)
    found = read.slots(microseconds(start), microseconds(end), 10_000)
    assert found == expected
    assert all(one < other for one, other in pairwise(found))
    # From any moment on, and looking back from it, it is the same list.
    for moment in range(microseconds(start), microseconds(end), 37 * 60_000_000):
        coming = [due for due in expected if due > moment]
        if coming:
            assert read.next_after(moment) == coming[0]
        past = [due for due in expected if due <= moment]
        if past:
            assert read.last_until(moment) == past[-1]
