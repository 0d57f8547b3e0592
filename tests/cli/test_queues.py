"""`perdure queues`: what it prints, and that it does what it says."""

from tests.cli.processes import House


def test_a_queue_is_paused_and_resumed(busy_house: House) -> None:
    house = busy_house
    assert "Queue double is paused, with 0 queued" in house.run("queues", "pause", "double").stdout
    started = house.run("run", "double", "--input", "4", "--detach").stdout.strip()
    (listed,) = [one for one in house.lines("queues", "ls") if one["name"] == "double"]
    assert (listed["queued"], listed["paused_at"] is None) == (1, False)
    assert "PAUSED" in house.run("queues", "ls").stdout
    assert house.lines("queues") == house.lines("queues", "ls"), "without a command it lists"
    assert "PAUSED" in house.run("queues").stdout
    assert "pause" in house.run("queues", "--help").stdout
    assert "perdure queues resume double" in " ".join(house.run("show", started).stdout.split())
    assert "Queue double is open, with 1 queued" in house.run("queues", "resume", "double").stdout
    assert house.json("queues", "resume", "double")["paused_at"] is None
