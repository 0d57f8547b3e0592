"""`perdure deployments`, and what `perdure show` says of an execution that nobody serves."""

from tests.cli.processes import House, ask_server, serving


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


def test_whoever_nobody_serves_is_told_of_the_right_kind_of_worker(house: House) -> None:
    """A native worker in the place of push workers would keep the push workers out."""
    with serving(house):
        ask_server(house, "POST", "/api/v1/workers/deployments", {"deployment_id": "pushed"})
        id = house.run("run", "buy", "--detach").stdout.strip()
        shown = house.run("show", id).stdout
        assert "No worker serves deployment 'pushed'." in " ".join(shown.split())
        assert "perdure workers" in shown and "perdure work " not in shown
        assert "Starts with: its push worker." in house.run("why", id).stdout
