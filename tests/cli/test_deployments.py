"""`perdure deployments`, and what `perdure show` says of an execution that nobody serves."""

from tests.cli.processes import House


def test_deployments_are_listed_used_and_retired(busy_house: House) -> None:
    house = busy_house
    (found,) = [one for one in house.lines("deployments", "ls") if one["current"]]
    assert found["served_by"] == "native" and found["workers"] == 1
    shown = house.run("deployments", "ls").stdout
    assert found["id"] in shown and "current" in shown
    assert house.run("deployments", "use", found["id"]).stdout == f"New executions go to '{found['id']}' from now on.\n"
    assert house.json("deployments", "use", found["id"])["id"] == found["id"]
    assert "is the current one" in house.run("deployments", "retire", found["id"], code=2).stderr
    assert "'nowhere' does not exist" in house.run("deployments", "use", "nowhere", code=2).stderr
