"""Approvals through the API: what is asked, who may answer, the first answer, expiry, links."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
from tests.server.serving import Hand, Served, serving

from perdure.engine.clock import ManualClock
from perdure.wire.access import Role

Json = Any
UNKNOWN = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


async def asked(
    served: Served, hand: Hand, data: Json = None, *, key: str = "approve", expires_at_us: int | None = None
) -> str:
    """An execution that waits for an answer; its id."""
    id = await served.start("w")
    item = await hand.claim()
    assert item["id"] == id
    wait = {"type": "wait", "key": key, "fingerprint": "f", "data": data, "expires_at_us": expires_at_us}
    timer = None if expires_at_us is None else ["timer-1", expires_at_us]
    reply = await hand.report(item, entries=[wait], end={"type": "suspend", "waits": [key], "timer": timer})
    assert reply["ended"], reply
    return id


def path_of(id: str, key: str = "approve") -> str:
    return f"/api/v1/approvals/{id}/{quote(key, safe='')}"


async def submit(client: httpx2.AsyncClient, id: str, data: Json, **more: Json) -> httpx2.Response:
    headers = more.pop("headers", None)
    return await client.post(f"{path_of(id)}/submit", json={"data": data, **more}, headers=headers)


async def test_a_question_is_shown_while_it_is_open_and_answered_once(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, {"amount": 120})
    shown = (await served.client.get(path_of(id))).json()
    assert (shown["execution_id"], shown["step_key"], shown["status"]) == (id, "approve", "running")
    assert (shown["data"], shown["state"], shown["asked_by"]) == ({"amount": 120}, "open", id)
    assert shown["answered_by"] is None
    [listed] = (await served.client.get("/api/v1/approvals")).json()["approvals"]
    assert (listed["execution_id"], listed["step_key"], listed["data"]) == (id, "approve", {"amount": 120})

    first = await submit(served.client, id, {"approved": True}, question=shown["question"])
    assert first.status_code == 200, first.text
    shown = (await served.client.get(path_of(id))).json()
    assert (shown["data"], shown["state"], shown["answer"]) == (None, "answered", {"approved": True})
    assert shown["answered_by"].startswith("key ") and shown["answered_how"] == "api"
    assert shown["answered_at"] == first.json()["answered_at"]
    assert (await served.client.get("/api/v1/approvals")).json() == {"approvals": [], "next_cursor": None}

    assert (await submit(served.client, id, {"approved": True})).json() == first.json(), "the same again is no conflict"
    late = await submit(served.client, id, {"approved": False})
    assert late.status_code == 409 and "the first answer stands" in late.json()["error"]
    other = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    assert (await submit(served.client, id, {"approved": True}, headers=other)).status_code == 409
    item = await hand.claim()
    [row] = [row for row in item["rows"] if row["kind"] == "resume"]
    assert row["value"] == {"approved": True}


async def test_of_many_who_answer_at_once_one_is_first(served: Served, hand: Hand) -> None:
    id = await asked(served, hand)
    replies = await asyncio.gather(*(submit(served.client, id, {"n": n}) for n in range(12)))
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 11
    [first] = [n for n, reply in enumerate(replies) if reply.status_code == 200]
    assert (await served.client.get(path_of(id))).json()["answer"] == {"n": first}


async def test_what_an_execution_below_the_root_asks_is_found_by_the_root(served: Served, hand: Hand) -> None:
    root = await served.start("w")
    item = await hand.claim()
    child = {"workflow_id": "w", "payload": None, "accept_early": True}
    entry = {"type": "child", "key": "child", "fingerprint": "f", "item": child}
    reply = await hand.report(item, entries=[entry], end={"type": "suspend", "waits": []})
    assert reply["rows"] or reply["ended"]
    below = (await hand.claim())["id"]
    while below == root:
        below = (await hand.claim())["id"]
    wait = {"type": "wait", "key": "approve", "fingerprint": "f", "data": "below"}
    held = {"id": below, "attempt": 1}
    await hand.report(held, entries=[wait], end={"type": "suspend", "waits": ["approve"]})
    shown = (await served.client.get(path_of(root))).json()
    assert (shown["execution_id"], shown["asked_by"], shown["data"]) == (root, below, "below")
    [listed] = (await served.client.get("/api/v1/approvals")).json()["approvals"]
    assert (listed["execution_id"], listed["root_execution_id"]) == (below, root)
    assert (await submit(served.client, root, 1)).status_code == 200
    assert (await served.client.get(path_of(below))).json()["answer"] == 1


async def test_an_answer_is_for_the_question_that_was_shown(served: Served, hand: Hand) -> None:
    id = await asked(served, hand)
    other = await submit(served.client, id, 1, question=f"{id}.1")
    assert other.status_code == 409 and "asks something else" in other.json()["error"]
    assert (await served.client.get(path_of(id))).json()["state"] == "open"


async def test_what_is_not_asked_is_not_answered(served: Served, hand: Hand) -> None:
    id = await served.start("w")
    shown = await served.client.get(path_of(id))
    assert shown.json()["status"] == "pending" and shown.json()["state"] is None and shown.json()["data"] is None
    assert (await submit(served.client, id, 1)).status_code == 409
    assert (await submit(served.client, UNKNOWN, 1)).status_code == 404
    assert (await served.client.get(path_of(UNKNOWN))).status_code == 404
    assert (await served.client.get(path_of("nonsense"))).status_code == 400
    assert (await submit(served.client, "nonsense", 1)).status_code == 400
    assert (await served.client.post(f"{path_of(id)}/submit", json={})).status_code == 422


async def test_an_execution_that_ends_asks_nothing_more(served: Served, hand: Hand) -> None:
    id = await asked(served, hand)
    await served.client.post(f"/api/v1/executions/{id}/cancel")
    shown = (await served.client.get(path_of(id))).json()
    assert (shown["status"], shown["state"], shown["data"]) == ("cancelled", "closed", None)
    late = await submit(served.client, id, 1)
    assert late.status_code == 409 and "no longer waits" in late.json()["error"]


async def test_a_question_expires(database: str) -> None:
    async with serving(database, clock=ManualClock()) as served:
        clock = served.engine.clock
        assert isinstance(clock, ManualClock)
        hand = Hand(served.client)
        await hand.register()
        id = await asked(served, hand, "?", expires_at_us=clock.now_us() + 60_000_000)
        link = await link_of(served, id)
        assert (await served.client.get(path_of(id))).json()["expires_at"]
        clock.advance(60)
        for who in ({}, {"authorization": ""}):
            query = f"?link={link}" if who else ""
            late = await served.client.post(f"{path_of(id)}/submit{query}", json={"data": 1}, headers=who)
            assert late.status_code == 409 and "its time is over" in late.json()["error"]
        resumed = await served.client.post(f"/api/v1/executions/{id}/resume/approve", json={"data": 1})
        assert resumed.status_code == 409
        shown = (await served.client.get(path_of(id))).json()
        assert (shown["state"], shown["data"]) == ("expired", None)


async def test_who_resumed_a_step_is_kept_too(served: Served, hand: Hand) -> None:
    id = await asked(served, hand)
    for _ in range(2):
        assert (
            await served.client.post(f"/api/v1/executions/{id}/resume/approve", json={"data": [1]})
        ).status_code == 200
    shown = (await served.client.get(path_of(id))).json()
    assert shown["answer"] == [1] and shown["answered_by"].startswith("key ")


# --- who may ---------------------------------------------------------------------------------------------------------


async def link_of(served: Served, id: str, **fields: Json) -> str:
    reply = await served.client.post(f"{path_of(id)}/links", json={"name": "ann@example.com", **fields})
    assert reply.status_code == 200, reply.text
    parts = urlsplit(reply.json()["path"])
    assert parts.path == f"/approve/{id}/approve"
    token: str = parse_qs(parts.query)["link"][0]
    return token


async def test_without_a_key_or_a_link_nothing_is_shown_or_answered(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, "secret")
    nobody = {"authorization": ""}
    for path in (path_of(id), path_of(UNKNOWN), "/api/v1/approvals"):
        assert (await served.client.get(path, headers=nobody)).status_code == 401
    assert (await submit(served.client, id, 1, headers=nobody)).status_code == 401
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    assert (await served.client.get(path_of(id), headers=reader)).json()["data"] == "secret"
    assert (await submit(served.client, id, 1, headers=reader)).status_code == 403
    links = await served.client.post(f"{path_of(id)}/links", json={"name": "x"}, headers=reader)
    assert links.status_code == 403


async def test_another_projects_question_does_not_exist(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, "secret")
    _, headers = await served.other_project()
    assert (await served.client.get(path_of(id), headers=headers)).status_code == 404
    assert (await submit(served.client, id, 1, headers=headers)).status_code == 404
    assert (await served.client.get("/api/v1/approvals", headers=headers)).json()["approvals"] == []
    named = {"x-project-id": UNKNOWN}
    assert (await served.client.get(path_of(id), headers=named)).status_code == 404


async def test_a_link_answers_its_question_in_the_name_it_was_made_for(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, "ask")
    other = await asked(served, hand, "other")
    link = await link_of(served, id)
    nobody = {"authorization": ""}
    assert (await served.client.get(f"{path_of(id)}?link={link}", headers=nobody)).json()["data"] == "ask"
    for wrong in (path_of(other), path_of(id, "another")):
        assert (await served.client.get(f"{wrong}?link={link}", headers=nobody)).status_code == 401
    reply = await served.client.post(f"{path_of(id)}/submit?link={link}", json={"data": True}, headers=nobody)
    assert reply.json()["answered_by"] == "ann@example.com"
    shown = (await served.client.get(f"{path_of(id)}?link={link}", headers=nobody)).json()
    assert (shown["answered_how"], shown["answer"]) == ("link", True)


async def test_a_link_that_was_changed_is_none(served: Served, hand: Hand) -> None:
    id = await asked(served, hand)
    link = await link_of(served, id)
    said, _, signature = link.partition(".")
    for wrong in (
        "",
        ".",
        "x",
        said,
        f".{signature}",
        f"{said}.",
        f"{said[:-2]}AA.{signature}",
        f"{said}.{signature[:-2]}",
        "ü.ü",
    ):
        reply = await served.client.get(path_of(id), params={"link": wrong}, headers={"authorization": ""})
        assert reply.status_code == 401, wrong


async def test_a_link_expires(database: str) -> None:
    async with serving(database, clock=ManualClock()) as served:
        assert isinstance(served.engine.clock, ManualClock)
        hand = Hand(served.client)
        await hand.register()
        id = await asked(served, hand)
        link = await link_of(served, id, expires_in_seconds=60)
        served.engine.clock.advance(61)
        reply = await served.client.get(f"{path_of(id)}?link={link}", headers={"authorization": ""})
        assert reply.status_code == 401 and "expired" in reply.json()["error"]
        for seconds in (0, -1, 7_776_001):
            reply = await served.client.post(f"{path_of(id)}/links", json={"name": "x", "expires_in_seconds": seconds})
            assert reply.status_code == 422


async def test_the_list_has_pages(served: Served, hand: Hand) -> None:
    ids = [await asked(served, hand, n) for n in range(5)]
    found: list[str] = []
    cursor = ""
    while True:
        page = (await served.client.get(f"/api/v1/approvals?limit=2{cursor}")).json()
        found += [one["execution_id"] for one in page["approvals"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == ids
    for wrong in ("x", "WzEsMl0", quote("ü")):
        assert (await served.client.get(f"/api/v1/approvals?cursor={wrong}")).status_code == 400


# --- push workers ----------------------------------------------------------------------------------------------------


async def test_what_is_asked_by_an_event_is_answered_by_an_event(served: Served) -> None:
    """As push workers do it: `suspend_{key}` on the root's topic, and `resume_{key}` there."""
    id = await served.start("agent")
    topic = f"workflow/agent/{id}"

    async def publish(kind: str, data: Json) -> None:
        body = {"topic": topic, "events": [{"event_type": kind, "data": data}]}
        assert (await served.client.post("/api/v1/events/publish", json=body)).status_code == 200

    await publish("suspend_approve", {"n": 1})
    shown = (await served.client.get(path_of(id))).json()
    assert (shown["data"], shown["state"]) == ({"n": 1}, "open")
    old = shown["question"]
    assert (await submit(served.client, id, {"approved": True})).status_code == 200
    assert (await submit(served.client, id, {"approved": False})).status_code == 409
    page = (await served.client.get("/api/v1/events", params={"topic": topic})).json()
    assert [(event["event_type"], event["data"]) for event in page["events"]] == [
        ("suspend_approve", {"n": 1}),
        ("resume_approve", {"approved": True}),
    ]
    await publish("suspend_approve", {"n": 2})
    shown = (await served.client.get(path_of(id))).json()
    assert (shown["data"], shown["state"]) == ({"n": 2}, "open")
    assert (await submit(served.client, id, 1, question=old)).status_code == 409
    await publish("resume_approve", "by another program")
    shown = (await served.client.get(path_of(id))).json()
    assert (shown["state"], shown["data"]) == ("answered", None)
    assert (await submit(served.client, id, 1)).status_code == 409


async def test_step_keys_are_any_text(served: Served, hand: Hand) -> None:
    for key in ("a/b", "ä ö", "<script>", "k" * 200):
        id = await asked(served, hand, key, key=key)
        assert (await served.client.get(path_of(id, key))).json()["data"] == key
        link = await served.client.post(f"{path_of(id, key)}/links", json={"name": "x"})
        page = await served.client.get(link.json()["path"], headers={"authorization": ""})
        assert page.status_code == 200 and "An answer is wanted" in page.text
        reply = await served.client.post(f"{path_of(id, key)}/submit", json={"data": 1})
        assert reply.status_code == 200 and reply.json()["step_key"] == key
        assert (await hand.claim())["id"] == id
