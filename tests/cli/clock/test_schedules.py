"""`perdure schedules`: output and effect."""

from datetime import datetime

import pytest
from tests.cli.processes import House


def test_a_schedule_from_its_first_day_to_its_last(busy_house: House) -> None:
    house = busy_house
    said = house.run("schedules", "create", "double", "30 9 * * MON-FRI", "-z", "Europe/Berlin", "--input", "[1]")
    id = said.stdout.strip()
    assert "Next: " in said.stderr and f"`perdure schedules next {id}` shows more." in said.stderr
    assert house.run("schedules", "create", "double", "30 9 * * MON-FRI", "-z", "Europe/Berlin").stdout.strip() == id
    (listed,) = house.lines("schedules", "ls", "--workflow", "double")
    assert (listed["id"], listed["cron"], listed["payload"]) == (id, "30 9 * * MON-FRI", [1])
    shown = house.run("schedules", "ls").stdout
    assert "WORKFLOW" in shown and "Europe/Berlin" in shown and "default" in shown

    coming = house.run("schedules", "next", id).stdout.splitlines()
    assert len(coming) == 10 and all(line.split()[2] == "09:30" for line in coming)
    assert not {line.split()[0] for line in coming} & {"Sat", "Sun"}
    (first,) = house.lines("schedules", "next", id, "-n", "1")
    assert datetime.fromisoformat(first).isoformat()[11:16] == "09:30"

    started = house.run("schedules", "run", id).stdout.strip()
    assert house.run("show", started).stdout
    assert f"{id} is paused" in house.run("schedules", "pause", id).stdout
    assert "paused" in house.run("schedules", "ls").stdout
    shown = house.run("schedules", "show", id).stdout
    assert "next, resumed" in shown and "by hand" in shown and started in shown
    found = house.json("schedules", "show", id)
    assert (found["schedule"]["status"], len(found["next"]), len(found["fires"])) == ("paused", 3, 1)
    assert f"{id} goes on; next: " in house.run("schedules", "resume", id).stdout
    assert f"{id} is deleted." in house.run("schedules", "delete", id).stdout
    assert "does not exist" in house.run("schedules", "show", id, code=2).stderr


def test_the_policies_are_taken_and_shown(busy_house: House) -> None:
    house = busy_house
    made = house.json(
        "schedules",
        "create",
        "fails",
        "0 0 1 1 *",
        "--key",
        "k",
        "--overlap",
        "skip",
        "--missed",
        "all",
        "--window",
        "6h",
    )
    assert (made["overlap"], made["missed"], made["missed_window_seconds"]) == ("skip", "all", 21_600)
    assert "all, 6 h 0 min back" in house.run("schedules", "show", made["id"]).stdout
    house.run("schedules", "rm", made["id"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("double", "0 9 * *"), "has 4 fields"),
        (("double", "30 2 31 2 *"), "is never due"),
        (("double", "0 9 * * *", "-z", "Mars/Olympus"), "is not the name of a time zone"),
        (("double", "0 9 * * *", "--overlap", "never"), "--overlap is skip, queue, allow"),
        (("double", "0 9 * * *", "--missed", "some"), "--missed is skip, latest, all"),
        (("double", "0 9 * * *", "--window", "6 hours"), "--window needs a number with a unit"),
        (("double", "0 9 * * *", "--window", "90d"), "missed_window_seconds: must be 60 to 2,678,400"),
        (("double", "0 9 * * *", "--input", "{"), "--input"),
        (("unknown", "0 9 * * *"), "'unknown' cannot be scheduled"),
    ],
)
def test_what_is_refused(busy_house: House, arguments: tuple[str, ...], says: str) -> None:
    assert says in busy_house.run("schedules", "create", *arguments, code=2).stderr


def test_nothing_yet(busy_house: House) -> None:
    assert "No schedules; make one with" in busy_house.run("schedules", "ls", "-w", "nobody").stdout
