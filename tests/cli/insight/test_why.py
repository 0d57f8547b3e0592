"""`perdure why`: the sentence, the details and the commands."""

import time

from tests.cli.processes import House

from perdure.cli.base.render import in_local_time
from perdure.wire.base.wording import moment


def test_a_failed_run_and_one_that_waits(busy_house: House) -> None:
    house = busy_house
    failed = house.run("run", "fails", "--detach").stdout.strip()
    house.run("wait", failed, code=1)
    told = house.run("why", failed).stdout
    assert told.startswith("failed  Its code failed: Fatal: no such luck (")
    assert f"perdure show {failed} --journal" in told
    waiting = house.waiting("asks")
    told = house.run("why", waiting).stdout
    assert "for an answer to 'approve'." in told and "Goes on with" not in told
    assert f"perdure resume {waiting} approve --data JSON" in told
    assert house.json("why", waiting)["remedy"] == "an answer to 'approve'"
    house.run("cancel", waiting)


def test_the_critical_path_is_a_table(busy_house: House) -> None:
    house = busy_house
    id = house.run("run", "double", "--input", "[1, 2]", "--detach").stdout.strip()
    house.run("wait", id)
    assert "Critical path" not in house.run("why", id).stdout
    told = house.run("why", id, "--slow").stdout
    assert "Critical path" in told and "step body" in told and " % " in told
    path = house.json("why", id, "--slow")["path"]
    assert round(sum(part["percent"] for part in path), 6) == 100


def test_an_unknown_execution_is_refused(busy_house: House) -> None:
    id = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"
    assert f"Execution '{id}' does not exist." in busy_house.run("why", id, code=2).stderr
    assert "is not an execution id" in busy_house.run("why", "nonsense", code=2).stderr


def test_times_of_today_are_those_of_the_clock() -> None:
    now_us = time.time_ns() // 1_000
    assert "UTC" not in in_local_time(f"since {moment(now_us)}.", now_us)
    assert len(in_local_time(moment(now_us), now_us)) == len("12:00:00")
    assert in_local_time(moment(1_750_000_000_000_000), now_us).startswith("2025-06-1")
