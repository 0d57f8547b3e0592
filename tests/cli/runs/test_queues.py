"""`perdure queues` and `perdure pause`: output and effect."""

from tests.cli.processes import House


def test_a_queue_is_paused_and_goes_on(busy_house: House) -> None:
    house = busy_house
    said = house.run("pause", "queue", "double", "--until", "2h", "--note", "moving").stdout
    assert "Queue 'double' is paused since" in said
    assert "until" in said
    assert "End it with `perdure unpause queue double`." in " ".join(said.split())
    started = house.run("run", "double", "--input", "[4]", "--detach").stdout.strip()
    (listed,) = [one for one in house.lines("queues", "ls") if one["name"] == "double"]
    assert (listed["queued"], listed["pause"]["note"]) == (1, "moving")
    assert "moving" in house.run("queues", "ls").stdout
    assert house.lines("queues") == house.lines("queues", "ls"), "without a command it lists"
    (pause,) = house.lines("pauses")
    assert (pause["kind"], pause["name"], pause["held"]) == ("queue", "double", 1)
    noted = "Queue 'double' is paused since"
    assert noted in " ".join(house.run("ls").stderr.split())
    assert "paused" not in house.run("deployments").stderr
    waited = " ".join(house.run("wait", started, "--timeout", "0.1", code=4).stderr.split())
    assert f"{started} is queued. Queue 'double' has been paused since" in waited
    shown = " ".join(house.run("show", started).stdout.split())
    assert "perdure unpause queue double" in shown
    assert "moving" in shown
    why = house.run("why", started).stdout
    assert "Queue 'double' has been paused since" in why
    assert "Queue 'double' goes on, with 1 execution that it held." in house.run("unpause", "queue", "double").stdout
    assert "Queue 'double' was not paused." in house.run("unpause", "queue", "double").stdout
    assert house.run("pauses").stdout == "Nothing is paused.\n"


def test_a_pause_of_an_unknown_queue_names_the_nearest_one(busy_house: House) -> None:
    try:
        noted = busy_house.run("pause", "queue", "duble").stderr
        assert "Queue 'duble' has no limit and no execution yet. Did you mean 'double'?" in " ".join(noted.split())
        assert "Did you mean" not in busy_house.run("pause", "queue", "double").stderr
    finally:
        for name in ("duble", "double"):
            busy_house.run("unpause", "queue", name)


def test_a_pause_that_cannot_be_is_refused(busy_house: House) -> None:
    for arguments, error in (
        (["key", "ann"], "A concurrency key belongs to a queue."),
        (["workflow", "double", "--queue", "q"], "--queue goes with `key`"),
        (["workflow", "nothing"], "Workflow 'nothing' is in no active deployment"),
        (["queue", "double", "--until", "soon"], "--until needs a coming time, such as 14:00"),
        (["queue", "double", "--until", "2020-01-01"], "is past; name a later time."),
    ):
        refused = busy_house.run("pause", *arguments, code=2)
        assert error in " ".join(refused.stderr.split())
