"""`perdure bulk`: output and effect."""

import pytest
from tests.cli.processes import House

from perdure import Client
from perdure.wire.runs.executions import ListFilters


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> str:
    """The test's own: tests share a store, and run in any order."""
    return f"test={request.node.name}"


@pytest.fixture
def waiting(busy_house: House, tag: str) -> list[str]:
    """Two executions that start later."""
    late = ("run", "double", "--input", "[4]", "--detach", "--delay", "3600", "--tag", tag)
    return [busy_house.run(*late).stdout.strip() for _ in range(2)]


def test_a_job_is_looked_at_and_run(busy_house: House, waiting: list[str], tag: str) -> None:
    house = busy_house
    ours = ("--workflow", "double", "--tag", tag)
    cancel = ("bulk", "cancel", *ours)
    looked = house.run(*cancel, "--dry-run").stdout
    assert waiting[1] in looked
    assert "2 would be cancelled." in looked
    assert house.json(*cancel, "--dry-run")["count"] == 2
    assert "Confirm with --yes" in house.run(*cancel, code=2).stderr
    assert "add --dry-run to look, or --yes to act" in house.run(*cancel, "--json", code=2).stderr
    ran = house.run(*cancel, "--yes", "--note", "a wrong import")
    assert "2 of 2 cancelled." in ran.stdout
    [job] = [one for one in house.lines("bulk", "ls") if one["note"] == "a wrong import"]
    assert (job["state"], job["done"]) == ("completed", 2)
    assert "a wrong import" in house.run("bulk").stdout
    assert '"workflow_id":"double"' in house.run("bulk", "show", job["id"]).stdout
    assert house.json("bulk", "show", job["id"]) == job
    assert [one["execution_id"] for one in house.lines("bulk", "items", job["id"])] == waiting[::-1]
    assert "No executions are refused." in house.run("bulk", "items", job["id"], "--state", "refused").stdout
    assert "completed at" in house.run("bulk", "stop", job["id"], code=2).stderr
    refused = house.run("bulk", "delete", *ours, "--status", "running", "--yes", code=2).stderr
    assert "delete needs final executions" in refused
    assert house.json("bulk", "delete", *ours, "--yes")["done"] == 2


def test_a_held_job_says_when_it_starts_and_what_starts_it(busy_house: House, waiting: list[str], tag: str) -> None:
    house = busy_house
    with Client.sync(house.env["PERDURE_URL"], house.env["PERDURE_API_KEY"]) as client:
        held = client.bulk.start("cancel", ListFilters(workflow_id="double", tag=tag), hold_seconds=300)
    assert "held" in house.run("bulk", "ls").stdout
    shown = house.run("bulk", "show", held.id)
    assert "starts" in shown.stdout and f"`perdure bulk continue {held.id}` starts it now" in shown.stderr
    assert "2 of 2 cancelled." in house.run("bulk", "continue", held.id).stdout


def test_a_retry_is_refused_with_the_reason(busy_house: House) -> None:
    house = busy_house
    house.run("run", "double", "--input", "[3]", "--key", "three")
    refused = house.run("bulk", "retry", "--key", "three", "--from", "a", "--from-end", "--yes", code=2).stderr
    assert "name either `from_step` or `from_end`" in refused
    again = ("bulk", "retry", "--key", "three", "--from", "nowhere", "--yes")
    assert "No failed execution matches key 'three'." in house.run(*again, code=2).stderr
    job = house.json(*again, "--status", "completed")
    assert (job["done"], job["refused"]) == (0, 1)
    [item] = house.lines("bulk", "items", job["id"], "--state", "refused")
    assert "has no step 'nowhere'" in item["reason"]
    assert house.json("bulk", "fork", "--key", "three", "--yes")["done"] == 1
    assert "--set is STEP=JSON" in house.run("bulk", "fork", "--key", "three", "--set", "a", code=2).stderr
    assert "Say what to do" in house.run("bulk", "act", "--key", "three", code=2).stderr
