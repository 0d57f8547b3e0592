"""Schedules over HTTP: the contract's three routes, and the managing routes."""

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role

PATH = "/api/v1/schedules"
NOBODY = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


async def make(served: Served, **fields: Any) -> Any:
    body = {"workflow_id": "w", "cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin", "key": "daily", **fields}
    return await served.client.post(PATH, json=body)


async def made(served: Served, **fields: Any) -> str:
    reply = await make(served, **fields)
    assert reply.status_code == 200, reply.text
    id: str = reply.json()["schedule_id"]
    return id


async def test_the_contracts_routes(served: Served, hand: Hand) -> None:
    reply = await make(served)
    assert (reply.status_code, list(reply.json())) == (200, ["schedule_id"])
    id = reply.json()["schedule_id"]
    assert (await make(served)).json() == reply.json()
    assert (await served.client.get(f"{PATH}/workflows")).json() == {"workflow_ids": ["w"]}
    [shown] = (await served.client.get(f"{PATH}/workflows/w")).json()["schedules"]
    assert shown == {
        "id": id,
        "workflow_id": "w",
        "cron": "0 9 * * MON-FRI",
        "timezone": "Europe/Berlin",
        "key": "daily",
        "status": "active",
        "next_run_at": shown["next_run_at"],
        "created_at": shown["created_at"],
        "updated_at": shown["created_at"],
        "last_run_at": None,
        "overlap": "queue",
        "missed": "latest",
        "missed_window_seconds": 86_400,
        "payload": None,
        "declared": False,
    }
    assert datetime.fromisoformat(shown["next_run_at"]) > datetime.fromisoformat(shown["created_at"])
    assert (await served.client.get(f"{PATH}/workflows/other")).json() == {"schedules": [], "next_cursor": None}
    again = await make(served, key="second", unknown="is ignored on contract routes")
    listed = (await served.client.get(f"{PATH}/workflows/w")).json()["schedules"]
    assert [one["id"] for one in listed] == [again.json()["schedule_id"], id], "newest first"


async def test_what_is_wrong_is_named(served: Served, hand: Hand) -> None:
    wrong: list[tuple[Any, str]] = [
        ({"cron": "0 9 * *"}, "cron: '0 9 * *' has 4 fields"),
        ({"cron": "61 9 * * *"}, "its minute is not one"),
        ({"cron": "30 2 31 2 *"}, "is never due"),
        ({"timezone": "Mars/Olympus"}, "timezone: 'Mars/Olympus' is not the name of a time zone"),
        ({"key": ""}, "key: is empty"),
        ({"workflow_id": "a\0"}, "workflow_id: holds"),
        ({"overlap": "never"}, "body.overlap: Invalid enum value 'never'"),
        ({"missed": "some"}, "body.missed: Invalid enum value 'some'"),
        ({"missed_window_seconds": 59}, "missed_window_seconds: must be 60 to 2,678,400, got 59"),
        ({"cron": 5}, "body.cron: Expected `str`, got `int`"),
    ]
    for fields, says in wrong:
        reply = await make(served, **fields)
        assert (reply.status_code, reply.json()["error_type"]) == (422, "BAD_VALUE"), fields
        assert says in reply.json()["error"]
        assert (await served.client.get(PATH)).json()["schedules"] == [], fields


async def test_what_nobody_has_cannot_be_scheduled(served: Served, hand: Hand) -> None:
    reply = await make(served, workflow_id="unknown")
    assert (reply.status_code, reply.json()["error_type"]) == (400, "BAD_REQUEST")
    assert "'unknown' cannot be scheduled" in reply.json()["error"]


async def test_pause_change_and_resume(served: Served, hand: Hand) -> None:
    id = await made(served)
    one = f"{PATH}/{id}"
    paused = (await served.client.patch(one, json={"status": "paused"})).json()
    assert paused["status"] == "paused"
    assert (await served.client.get(f"{PATH}/workflows")).json() == {"workflow_ids": []}
    assert (await make(served, cron="0 10 * * *")).status_code == 200
    assert (await served.client.get(one)).json()["status"] == "paused", "a new definition does not end a pause"
    fields = {"status": "active", "overlap": "skip", "missed": "all", "missed_window_seconds": 60, "payload": {"a": 1}}
    changed = (await served.client.patch(one, json=fields)).json()
    assert {name: changed[name] for name in fields} == fields
    assert changed["cron"] == "0 10 * * *"
    assert (await served.client.patch(one, json={"payload": None})).json()["payload"] is None
    wrong = await served.client.patch(one, json={"cron": "0 25 * * *"})
    assert (wrong.status_code, wrong.json()["details"]) == (422, {"path": "cron"})
    unknown = await served.client.patch(one, json={"state": "paused"})
    assert (unknown.status_code, "state" in unknown.json()["error"]) == (422, True)
    assert (await served.client.get(one)).json()["missed"] == "all"


async def test_what_comes_next(served: Served, hand: Hand) -> None:
    id = await made(served, cron="*/30 * * * *", timezone="Asia/Kolkata")
    coming = (await served.client.get(f"{PATH}/{id}/next")).json()["next"]
    times = [datetime.fromisoformat(one) for one in coming]
    assert len(times) == 10 and times[0].utcoffset() == timedelta(hours=5, minutes=30)
    assert {late - early for early, late in pairwise(times)} == {timedelta(minutes=30)}
    shown = (await served.client.get(f"{PATH}/{id}")).json()
    assert datetime.fromisoformat(shown["next_run_at"]) == times[0]
    assert len((await served.client.get(f"{PATH}/{id}/next?count=100")).json()["next"]) == 100
    for count in (0, 101):
        assert (await served.client.get(f"{PATH}/{id}/next?count={count}")).status_code == 400


async def test_an_expression_is_shown_before_there_is_a_schedule(served: Served) -> None:
    async def preview(**query: str) -> Any:
        return await served.client.get(f"{PATH}/preview", params=query)

    coming = (await preview(cron="0 9 * * MON", timezone="Europe/Berlin", count="3")).json()["next"]
    mondays = [datetime.fromisoformat(one) for one in coming]
    assert [(day.weekday(), day.hour) for day in mondays] == [(0, 9)] * 3
    assert {right - left for left, right in pairwise(mondays)} <= {timedelta(days=7, hours=h) for h in (-1, 0, 1)}
    assert len((await preview(cron="* * * * *")).json()["next"]) == 10
    for query in ({"cron": "never"}, {"cron": "0 0 31 2 *"}, {"cron": "* * * * *", "timezone": "Mars"}, {}):
        assert (await preview(**query)).status_code in {400, 422}


async def test_run_now_starts_one_and_once_per_key(served: Served, hand: Hand) -> None:
    id = await made(served)
    headers = {"idempotency-key": "once"}
    first = (await served.client.post(f"{PATH}/{id}/run", headers=headers)).json()
    assert (await served.client.post(f"{PATH}/{id}/run", headers=headers)).json() == first
    item = await hand.claim()
    assert item["id"] == first["execution_id"]
    assert item["payload"]["schedule_id"] == id and item["payload"]["last_timestamp"] is None
    [fire] = (await served.client.get(f"{PATH}/{id}/fires")).json()["fires"]
    assert (fire["by_hand"], fire["state"], fire["execution_id"]) == (True, "started", item["id"])
    second = (await served.client.post(f"{PATH}/{id}/run")).json()
    assert second["execution_id"] != first["execution_id"]
    page = (await served.client.get(f"{PATH}/{id}/fires?limit=1")).json()
    assert [one["execution_id"] for one in page["fires"]] == [second["execution_id"]] and page["has_more"]


async def test_the_list_has_pages(served: Served, hand: Hand) -> None:
    ids = [await made(served, key=f"k{n}") for n in range(5)]
    found: list[str] = []
    cursor = ""
    while True:
        page = (await served.client.get(f"{PATH}?limit=2{cursor}")).json()
        found += [one["id"] for one in page["schedules"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == ids[::-1]
    assert (await served.client.get(f"{PATH}?cursor=x")).status_code == 400
    assert (await served.client.get(f"{PATH}?workflow_id=other")).json()["schedules"] == []


async def test_what_is_deleted_is_gone(served: Served, hand: Hand) -> None:
    id = await made(served)
    assert (await served.client.delete(f"{PATH}/{id}")).status_code == 204
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/next"),
        ("GET", "/fires"),
        ("POST", "/run"),
    ):
        body: Any = {"json": {}} if method == "PATCH" else {}
        reply = await served.client.request(method, f"{PATH}/{id}{path}", **body)
        assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND"), (method, path)
        malformed = await served.client.request(method, f"{PATH}/nonsense{path}", **body)
        assert malformed.status_code == 400 and "not a schedule id" in malformed.json()["error"]


async def test_other_projects_and_readers(served: Served, hand: Hand) -> None:
    id = await made(served)
    _, headers = await served.other_project()
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/next"), ("GET", "/fires"), ("POST", "/run")):
        reply = await served.client.request(method, f"{PATH}/{id}{path}", headers=headers)
        assert reply.status_code == 404, (method, path)
        assert (
            reply.json()["error"].replace(id, NOBODY)
            == (await served.client.request(method, f"{PATH}/{NOBODY}{path}", headers=headers)).json()["error"]
        )
    assert (await served.client.get(PATH, headers=headers)).json()["schedules"] == []
    assert (await served.client.get(f"{PATH}/workflows", headers=headers)).json() == {"workflow_ids": []}
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    assert (await served.client.get(f"{PATH}/{id}", headers=reader)).status_code == 200
    for method, path in (("POST", ""), ("PATCH", f"/{id}"), ("DELETE", f"/{id}"), ("POST", f"/{id}/run")):
        reply = await served.client.request(method, f"{PATH}{path}", headers=reader, json={})
        assert reply.status_code == 403, (method, path)


async def test_a_registration_declares_schedules(served: Served) -> None:
    hand = Hand(served.client)
    body = {
        "worker_id": hand.id,
        "deployment_id": "default",
        "python": "3.11",
        "workflows": [{"id": "w"}],
        "schedules": [{"workflow_id": "w", "cron": "0 9 * * *", "timezone": "UTC", "key": "k"}],
    }
    await hand.say("register", body)
    [shown] = (await served.client.get(PATH)).json()["schedules"]
    assert (shown["key"], shown["declared"]) == ("k", True)
    for wrong, says in (
        ({"workflow_id": "other"}, "not among `workflows`"),
        ({"cron": "x"}, "has 1 fields"),
        ({"timezone": "x"}, "timezone: 'x'"),
    ):
        schedules = [{**body["schedules"][0], **wrong}]  # type: ignore[dict-item]  # a list of dicts, as above
        reply = await served.client.post(
            "/worker/v1/register", json={**body, "schedules": schedules}, headers={"perdure-protocol": "1"}
        )
        assert reply.status_code == 422 and says in reply.json()["error"]


async def test_metrics_tell_of_schedules(served: Served, hand: Hand) -> None:
    served.engine.stats.schedule_lag_seconds = 1.5
    served.engine.stats.count("schedule_fires", 3)
    text = (await served.client.get("/metrics")).text
    assert "perdure_schedule_lag_seconds 1.5" in text
    assert "perdure_schedule_fires_total 3.0" in text


@pytest.mark.slow
async def test_every_minute_for_real(served: Served, hand: Hand) -> None:
    """Only this test waits for the wall clock: up to two minutes."""
    await made(served, cron="* * * * *", timezone="UTC")
    due: list[datetime] = []
    async with asyncio.timeout(140):
        while len(due) < 2:
            await hand.beat()
            item = await hand.claim(4.0)
            if item is not None:
                due.append(datetime.fromisoformat(item["payload"]["timestamp"]))
                await hand.complete(item)
    assert due[1] - due[0] == timedelta(minutes=1)


async def test_a_calendar_has_past_and_coming_due_times(served: Served, hand: Hand) -> None:
    id = await made(served, cron="0 * * * *", timezone="UTC", key="hourly")
    await made(served, cron="0 9 * * *", timezone="UTC", key="paused", status="paused")
    now = datetime.fromisoformat((await served.client.get("/api/v1/overview")).json()["as_of"])
    start, end = now - timedelta(hours=2), now + timedelta(hours=3)
    found = (
        await served.client.get(f"{PATH}/calendar", params={"from": start.isoformat(), "to": end.isoformat()})
    ).json()
    one = next(each for each in found["schedules"] if each["schedule_id"] == id)
    assert (one["key"], one["more"], [slot["state"] for slot in one["slots"]]) == ("hourly", False, ["due"] * 3)
    dues = [datetime.fromisoformat(slot["due_at"]) for slot in one["slots"]]
    assert dues == sorted(dues)
    assert all(now < due < end and due.minute == 0 for due in dues)
    first = (await served.client.get(f"{PATH}/calendar", params={"limit": 1})).json()
    second = (await served.client.get(f"{PATH}/calendar", params={"limit": 1, "cursor": first["next_cursor"]})).json()
    keys = {each["key"] for page in (first, second) for each in page["schedules"]}
    assert (keys, second["next_cursor"]) == ({"hourly", "paused"}, None)
    for refused in ({"to": start.isoformat()}, {"to": (now + timedelta(days=9)).isoformat()}):
        reply = await served.client.get(f"{PATH}/calendar", params=refused)
        assert (reply.status_code, "at most 8 days" in reply.json()["error"]) == (400, True)
