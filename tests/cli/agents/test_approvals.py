"""`perdure approvals` and `perdure approve`."""

from datetime import datetime
from urllib.error import HTTPError
from urllib.request import urlopen
from zoneinfo import ZoneInfo

import pytest
from tests.cli.processes import House, ask_server, serving, until_true


def test_what_waits_is_listed_and_answered_with_a_name(busy_house: House) -> None:
    house = busy_house
    id = house.waiting("asks")
    [listed] = [one for one in house.lines("approvals") if one["execution_id"] == id]
    assert (listed["step_key"], listed["workflow_id"]) == ("approve", "asks")
    assert id in house.run("approvals").stdout
    assert "Say what the answer is" in house.run("approve", id, "approve", code=2).stderr
    assert "not both" in house.run("approve", id, "approve", "--approve", "--reject", code=2).stderr
    assert "must be an object" in house.run("approve", id, "approve", "--reject", "--data", "1", code=2).stderr

    shown = house.run("show", id).stdout
    [url] = [line.partition(": ")[2] for line in shown.splitlines() if "or on its page: " in line]
    with urlopen(url) as page:
        assert b"An answer is wanted" in page.read()

    [link] = [one for one in house.lines("links", "list") if one["execution_id"] == id]
    assert link["made_by"].startswith("key ") and link["id"] in house.run("links", "list").stdout
    assert "is revoked" in house.run("links", "revoke", link["id"]).stdout
    with pytest.raises(HTTPError, match="401"), urlopen(url):
        raise AssertionError("it was revoked")
    assert "does not exist" in house.run("links", "rm", link["id"], code=2).stderr
    shown = house.run("show", id).stdout
    [url] = [line.partition(": ")[2] for line in shown.splitlines() if "or on its page: " in line]

    said = house.json("approve", id, "approve", "--approve", "--data", '{"limit": 5}', "--feedback", "fine")
    assert said["answered_by"].startswith("key ")
    assert "was answered by" in house.run("approve", id, "approve", "--reject", code=2).stderr
    assert id not in house.run("approvals").stdout
    [answered] = [one for one in house.lines("approvals", "--state", "answered") if one["execution_id"] == id]
    assert (answered["answered_by"], answered["answer"]["limit"]) == (said["answered_by"], 5)
    [line] = [line for line in house.run("approvals", "--state", "answered").stdout.splitlines() if id in line]
    assert said["answered_by"] in line and '"limit": 5' in line
    assert "No question expired." in house.run("approvals", "--state", "expired").stdout
    with urlopen(url) as page:
        assert b"This has been answered" in page.read()


def test_feedback_that_the_answer_has_no_field_for_is_refused(busy_house: House) -> None:
    id = busy_house.waiting("asks_plainly")
    refused = busy_house.run("approve", id, "approve", "--approve", "--feedback", "fine", code=2).stderr
    assert "no field for --feedback" in refused
    assert id in busy_house.run("approvals").stdout
    busy_house.run("approve", id, "approve", "--approve")
    assert busy_house.json("wait", id)["result"] == {"approved": True}


def test_times_are_those_of_the_clock_on_the_wall(busy_house: House) -> None:
    """`perdure show` uses the same time zone. A person who reads a time-out in another zone answers too late."""
    house = busy_house
    id = house.waiting("asks")
    [listed] = [one for one in house.lines("approvals") if one["execution_id"] == id]
    asked = datetime.fromisoformat(listed["asked_at"]).astimezone(ZoneInfo("Asia/Tokyo"))
    house.env["TZ"] = "Asia/Tokyo"
    try:
        [line] = [line for line in house.run("approvals", apart=True).stdout.splitlines() if id in line]
    finally:
        del house.env["TZ"]
    assert f"{asked:%Y-%m-%d %H:%M:%S}" in line
    house.run("approve", id, "approve", "--approve")


def test_an_answer_may_be_any_json(busy_house: House) -> None:
    id = busy_house.waiting("asks")
    assert f"{id} goes on" in busy_house.run("approve", id, "approve", "--data", "[1]").stdout


def test_who_waits_for_a_child_that_asks_is_shown_the_way_to_the_question(busy_house: House) -> None:
    id = busy_house.waiting("hands_over")
    until_true(lambda: busy_house.lines("ls", "--parent", id, "--phase", "waiting"))
    [child] = busy_house.lines("ls", "--parent", id)
    shown = busy_house.run("show", id).stdout
    assert f"for its child {child['id']} (asks), which is waiting." in " ".join(shown.split())
    assert f"  perdure why {child['id']}\n" in shown
    assert f"perdure resume {child['id']} approve" in busy_house.run("show", child["id"]).stdout
    busy_house.run("resume", child["id"], "approve", "--data", "1")
    until_true(lambda: busy_house.json("show", id)["execution"]["status"] == "completed")
    assert "Waits for" not in busy_house.run("show", id).stdout


def test_what_a_push_worker_asks_is_shown_with_the_way_to_answer_it(house: House) -> None:
    house.env["PERDURE_OUTBOUND_HOSTS"] = "192.0.2.1"
    with serving(house):
        (project,) = ask_server(house, "GET", "/api/v1/projects")["projects"]
        place = {"project_id": project["id"], "push_endpoint_url": "https://192.0.2.1/", "deployment_id": "pushed"}
        worker_id = ask_server(house, "POST", "/api/v1/workers/register", place)["worker_id"]
        id = house.run("run", "buy", "--detach").stdout.strip()
        assert ask_server(house, "GET", f"/api/v1/workers/{worker_id}/poll")[0]["execution_id"] == id
        topic = f"workflow/buy/{id}"
        question = {"event_type": "suspend_ask", "data": {"amount": 120}, "execution_id": id}
        ask_server(house, "POST", "/api/v1/events/publish", {"topic": topic, "events": [question]})
        wait = {"step_key": "ask", "wait_type": "suspend", "wait_topic": topic}
        ask_server(house, "POST", f"/internal/executions/{id}/wait", wait)
        shown = house.run("show", id).stdout
        assert 'ask: an answer, shows {"amount": 120}' in shown
        assert f"    perdure resume {id} ask --data JSON\n    or on its page: " in shown
        house.run("resume", id, "ask", "--data", "1")
        step = ask_server(house, "GET", f"/internal/executions/{id}/steps/ask")
        assert (step["outputs"]["event_type"], step["outputs"]["data"]) == ("resume_ask", 1)
