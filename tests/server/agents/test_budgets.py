"""Budgets over HTTP: given at a start, looked at, raised; and the two routes of workers."""

from typing import Any

import pytest
from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role

NOBODY = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


def path(id: str, rest: str = "") -> str:
    return f"/api/v1/executions/{id}/budget{rest}"


async def reserve(hand: Hand, item: Any, name: str, **amounts: int) -> Any:
    body = {"worker_id": hand.id, "epoch": hand.epoch, "execution_id": item["id"], "attempt": item["attempt"]}
    return await hand.say("reserve", {**body, "reservation_id": name, "amounts": amounts})


@pytest.mark.parametrize(("used", "flagged"), [(500_000, False), (500_001, True), (10**12, True)])
async def test_a_settlement_far_above_its_reservation_is_logged_and_counts(
    served: Served, hand: Hand, caplog: pytest.LogCaptureFixture, used: int, flagged: bool
) -> None:
    id = await served.start(budget={"usd_micros": 1_000_000})
    await reserve(hand, await hand.claim(), "a", usd_micros=5_000)
    settling = {"execution_id": id, "reservation_id": "a", "amounts": {"usd_micros": used}}
    assert await hand.say("settle", settling) == {"settled": True}
    assert (await served.client.get(path(id))).json()["usd_micros"]["spent"] == used, "the money is spent"
    assert ("was settled with" in caplog.text) is flagged


async def test_a_budget_from_its_start_to_its_end(served: Served, hand: Hand) -> None:
    id = await served.start(budget={"usd_micros": 1_000_000, "calls": 2, "on_exceed": "finish"})
    item = await hand.claim()
    assert item["budgeted"] is True
    assert await reserve(hand, item, "a", usd_micros=600_000, calls=1) == {"verdict": "granted"}
    settling = {"execution_id": id, "reservation_id": "a", "amounts": {"usd_micros": 250_000, "calls": 1}}
    assert await hand.say("settle", settling) == {"settled": True}
    assert await hand.say("settle", settling) == {"settled": False}
    await reserve(hand, item, "b", usd_micros=50_000, calls=1)
    shown = (await served.client.get(path(id))).json()
    assert shown == {
        "execution_id": id,
        "usd_micros": {"spent": 250_000, "reserved": 50_000, "limit": 1_000_000},
        "tokens": {"spent": 0, "reserved": 0, "limit": None},
        "calls": {"spent": 1, "reserved": 1, "limit": 2},
        "seconds": {"spent": shown["seconds"]["spent"], "reserved": 0, "limit": None},
        "on_exceed": "finish",
        "paused_at": None,
        "asking_execution_id": None,
        "name": None,
        "key": None,
        "until": None,
    }
    assert (await reserve(hand, item, "c", calls=1))["verdict"] == "busy"
    key = {"idempotency-key": "once"}
    for _ in range(2):
        reply = await served.client.post(path(id, "/raise"), json={"calls": 3, "on_exceed": "ask"}, headers=key)
        assert (reply.status_code, reply.json()["calls"]["limit"], reply.json()["on_exceed"]) == (200, 5, "ask")
    assert (await reserve(hand, item, "c", calls=1))["verdict"] == "granted"


async def test_changes_are_events_but_no_listed_topic(served: Served) -> None:
    id = await served.start(budget={"calls": 1})
    assert (await served.client.post(path(id, "/raise"), json={"calls": 1})).status_code == 200
    event = {"topic": "budget/approved", "events": [{"data": 1}]}
    assert (await served.client.post("/api/v1/events/publish", json=event)).status_code == 200
    listed = (await served.client.get("/api/v1/topics")).json()["topics"]
    assert [one["topic"] for one in listed] == ["budget/approved"]
    assert (await served.client.get("/api/v1/search?q=budget")).json()["topics"] == ["budget/approved"]
    kept = (await served.client.get("/api/v1/events", params={"topic": f"budget/{id}"})).json()["events"]
    assert [one["event_type"] for one in kept] == ["budget_changed"]


async def test_executions_without_one_have_none(served: Served) -> None:
    id = await served.start()
    for method, where in (("GET", path(id)), ("GET", path(NOBODY)), ("POST", path(id, "/raise"))):
        reply = await served.client.request(method, where, json={"calls": 1} if method == "POST" else None)
        assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND")
    assert (await served.client.get(path("x"))).status_code == 400


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({}, "budget: has no limit"),
        ({"tokens": -1}, "budget.tokens: must be 0 to"),
        ({"tokens": 1 << 60}, "budget.tokens: must be 0 to"),
        ({"tokens": 1.5}, "body.budget.tokens: Expected `int | null`, got `float`"),
        ({"tokens": 1, "on_exceed": "stop"}, "body.budget.on_exceed: Invalid enum value 'stop'"),
        (
            {"dollars": 1},
            "body.budget: Object contains unknown field `dollars`; it takes `usd_micros`, `tokens`, `calls`, "
            "`seconds`, `on_exceed`, `usd`",
        ),
        ({"usd": 1, "usd_micros": 1}, "body.budget: Give either `usd` or `usd_micros`"),
        ({"usd": -1}, "body.budget.usd: Expected `float` >= 0.0"),
    ],
)
async def test_a_budget_that_cannot_be_is_refused(served: Served, budget: Any, says: str) -> None:
    body = {"payload": None, "accept_early": True, "budget": budget}
    reply = await served.client.post("/api/v1/workflows/w/run", json=body)
    assert (reply.status_code, reply.json()["error_type"]) == (422, "BAD_VALUE")
    assert says in reply.json()["error"]


async def test_money_may_be_given_in_dollars(served: Served) -> None:
    id = await served.start(budget={"usd": 1.5})
    assert (await served.client.get(path(id))).json()["usd_micros"]["limit"] == 1_500_000
    raised = await served.client.post(path(id, "/raise"), json={"usd": 0.0000015})
    assert raised.json()["usd_micros"]["limit"] == 1_500_002


async def test_what_cannot_be_changed_is_refused(served: Served) -> None:
    id = await served.start(budget={"calls": 1})
    for body, status, says in (
        ({}, 400, "Nothing is said to change"),
        ({"tokens": 1}, 400, "no limit of 'tokens'"),
        ({"calls": -1}, 422, "calls: must be 0 to"),
        ({"more": 1}, 422, "unknown field `more`"),
    ):
        reply = await served.client.post(path(id, "/raise"), json=body)
        assert reply.status_code == status, reply.text
        assert says in reply.json()["error"]
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    assert (await served.client.post(path(id, "/raise"), json={"calls": 1}, headers=reader)).status_code == 403
    assert (await served.client.get(path(id), headers=reader)).status_code == 200


async def test_only_whoever_holds_an_execution_reserves(served: Served, hand: Hand) -> None:
    id = await served.start(budget={"calls": 1})
    item = await hand.claim()
    for change, error_type in (
        ({"attempt": 9}, "LEASE_LOST"),
        ({"worker_id": NOBODY}, "LEASE_LOST"),
        ({"epoch": "another"}, "LEASE_LOST"),
        ({"execution_id": NOBODY}, "NOT_FOUND"),
        ({"execution_id": "x"}, "BAD_REQUEST"),
        ({"reservation_id": ""}, "BAD_VALUE"),
        ({"amounts": {"calls": -1}}, "BAD_VALUE"),
    ):
        body = {"worker_id": hand.id, "epoch": hand.epoch, "execution_id": id, "attempt": item["attempt"]}
        body |= {"reservation_id": "a", "amounts": {"calls": 1}, **change}
        reply = await served.client.post("/worker/v1/reserve", json=body, headers={"perdure-protocol": "1"})
        assert reply.json()["error_type"] == error_type, reply.text
    assert (await served.client.get(path(id))).json()["calls"] == {"spent": 0, "reserved": 0, "limit": 1}
    _, other = await served.other_project()
    assert (await served.client.get(path(id), headers=other)).status_code == 404
    assert (await served.client.post(path(id, "/raise"), json={"calls": 1}, headers=other)).status_code == 404
