"""Shared budgets over HTTP: declared, listed, spent from, raised, deleted, and by whom."""

import asyncio
from typing import Any

import pytest
from tests.server.agents.test_budgets import path, reserve
from tests.server.serving import Hand, Served

from perdure.sdk.clients.client import Client
from perdure.wire.base.access import Role

BUDGETS = "/api/v1/budgets"
USERS = {"per": "user", "period": "day", "calls": 1}


async def put(served: Served, name: str, body: Any, **options: Any) -> Any:
    return await served.client.put(f"{BUDGETS}/{name}", json=body, **options)


async def test_a_shared_budget_from_its_declaration_to_its_end(served: Served, hand: Hand) -> None:
    for _ in range(2):  # a repeat changes nothing
        made = (await put(served, "users", USERS)).json()
    assert made == {
        "id": made["id"],
        "name": "users",
        "per": "user",
        "period": "day",
        "on_exceed": "ask",
        "usd_micros": None,
        "tokens": None,
        "calls": 1,
    }
    assert (await served.client.get(BUDGETS)).json() == {"budgets": [made]}
    id = await served.start(user_id="ann")
    item = await hand.claim()
    assert item["budgeted"] is True
    assert await reserve(hand, item, "a", calls=1) == {"verdict": "granted"}
    refused = await reserve(hand, item, "b", calls=1)
    assert (refused["verdict"], refused["budget"]["name"], refused["budget"]["key"]) == ("busy", "users", "ann")
    settling = {"execution_id": id, "reservation_id": "a", "amounts": {"calls": 1}}
    assert await hand.say("settle", settling) == {"settled": True}
    assert (await reserve(hand, item, "b", calls=1))["asks"] is True
    listed = (await served.client.get(f"{BUDGETS}/users/balances", params={"key": "ann"})).json()
    [balance] = listed["balances"]
    assert (listed["budget"], listed["next_key"]) == (made, None)
    assert (balance["name"], balance["key"], balance["calls"]) == (
        "users",
        "ann",
        {"spent": 1, "reserved": 0, "limit": 1},
    )
    assert balance["until"].endswith("T00:00:00.000000+00:00")
    assert balance["asking_execution_id"] == id
    shown = (await served.client.get(path(balance["execution_id"]))).json()
    assert shown["calls"] == balance["calls"]
    writer = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    for change in ({"calls": 1}, {"calls": 1, "on_exceed": "ask"}, {"usd": 1}):
        refused = await served.client.post(path(balance["execution_id"], "/raise"), json=change, headers=writer)
        assert refused.status_code == 403, refused.text
    ends = await served.client.post(path(balance["execution_id"], "/raise"), json={"on_exceed": "ask"}, headers=writer)
    assert (ends.status_code, ends.json()["calls"]["limit"]) == (200, 1), "the answer to a question may end it"
    raised = await served.client.post(path(balance["execution_id"], "/raise"), json={"calls": 1})
    assert (raised.json()["calls"]["limit"], raised.json()["paused_at"]) == (2, None)
    assert (await reserve(hand, item, "b", calls=1))["verdict"] == "granted"
    assert (await served.client.delete(f"{BUDGETS}/users")).status_code in (200, 204)
    assert (await reserve(hand, item, "c", calls=1))["verdict"] == "unlimited"
    assert (await served.client.get(BUDGETS)).json() == {"budgets": []}
    for reply in (
        await served.client.delete(f"{BUDGETS}/users"),
        await served.client.get(f"{BUDGETS}/users/balances"),
        await served.client.get(path(balance["execution_id"])),
    ):
        assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"per": "user"}, 422, "body: has no limit"),
        ({"per": "users", "calls": 1}, 422, "must be `project`, `session`, `user` or `tag:NAME`"),
        ({"per": "user", "period": "week", "calls": 1}, 422, "Invalid enum value 'week'"),
        ({"per": "user", "seconds": 1}, 422, "unknown field `seconds`"),
        ({"per": "user", "usd": 1, "usd_micros": 1}, 422, "Give either `usd` or `usd_micros`"),
        ({"per": "user", "calls": -1}, 422, "calls: must be 0 to"),
        ({"per": "session", "calls": 1}, 409, "counts per user and day"),
    ],
)
async def test_what_cannot_be_is_refused(served: Served, body: Any, status: int, says: str) -> None:
    await put(served, "users", USERS)
    reply = await put(served, "users", body)
    assert (reply.status_code, says in reply.json()["error"]) == (status, True), reply.text


async def test_admins_declare_them_for_their_project(served: Served) -> None:
    writer = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    assert (await put(served, "users", USERS, headers=writer)).status_code == 403
    assert (await put(served, "users", USERS)).json()["per"] == "user"
    assert (await served.client.delete(f"{BUDGETS}/users", headers=writer)).status_code == 403
    assert len((await served.client.get(BUDGETS, headers=writer)).json()["budgets"]) == 1
    _, other = await served.other_project()
    assert (await served.client.get(BUDGETS, headers=other)).json() == {"budgets": []}
    assert (await served.client.delete(f"{BUDGETS}/users", headers=other)).status_code == 404


async def test_balances_come_in_pages_by_key(served: Served, hand: Hand) -> None:
    await put(served, "users", {"per": "user", "usd": 1.5})
    for name in ("cid", "ann", "bob"):
        await served.start(user_id=name)
        await reserve(hand, await hand.claim(), name, calls=1)
    seen, after = [], None
    while True:
        params = {"limit": 2} if after is None else {"limit": 2, "after": after}
        page = (await served.client.get(f"{BUDGETS}/users/balances", params=params)).json()
        seen += [one["key"] for one in page["balances"]]
        after = page["next_key"]
        if after is None:
            break
    assert seen == ["ann", "bob", "cid"]
    assert page["budget"]["usd_micros"] == 1_500_000


async def test_the_client_without_a_loop_manages_them(served: Served, hand: Hand) -> None:
    await served.start(user_id="ann")

    def manage() -> list[tuple[str, int | None]]:
        with Client.sync(served.server.url, served.key) as sync:
            sync.budgets.put("users", per="user", usd=0.25)
            return [(one.name, one.usd_micros) for one in sync.budgets.list()]

    assert await asyncio.to_thread(manage) == [("users", 250_000)]
    await reserve(hand, await hand.claim(), "a", usd_micros=1)

    def end() -> list[str | None]:
        with Client.sync(served.server.url, served.key) as sync:
            keys = [one.key for one in sync.budgets.balances("users")]
            sync.budgets.delete("users")
            return keys

    assert await asyncio.to_thread(end) == ["ann"]
