"""Approvals through the API: what is asked, who may answer, the first answer, expiry, links."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest
from tests.server.push_worker import LOOPBACK, PushWorker, push_worker
from tests.server.serving import Hand, Served, serving

from perdure.engine.base.clock import ManualClock
from perdure.sdk.clients.sync import SyncClient
from perdure.wire.agents.approvals import ANSWER_SCHEMA_BYTES_MAX
from perdure.wire.base.access import Role

Json = Any
UNKNOWN = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"
OURS = {"sec-fetch-site": "same-origin"}
"""A browser's header for a form of our pages."""


async def asked(
    served: Served,
    hand: Hand,
    data: Json = None,
    *,
    key: str = "approve",
    expires_at_us: int | None = None,
    execution_key: str | None = None,
    **wait: Json,
) -> str:
    """Start an execution that waits for an answer; returns the id."""
    id = await served.start("w", key=execution_key)
    item = await hand.claim()
    assert item["id"] == id
    wait |= {"type": "wait", "key": key, "fingerprint": "f", "data": data, "expires_at_us": expires_at_us}
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
    id = await asked(served, hand, {"amount": 120}, execution_key="order-48300")
    shown = (await served.client.get(path_of(id))).json()
    assert (shown["execution_id"], shown["step_key"], shown["status"]) == (id, "approve", "waiting")
    assert (shown["data"], shown["state"], shown["asked_by"]) == ({"amount": 120}, "open", id)
    assert shown["answered_by"] is None
    with SyncClient(served.server.url, served.key) as client:
        [read] = (await asyncio.to_thread(client.approvals)).items
    assert (read.execution_id, read.step_key, bytes(read.data)) == (id, "approve", b'{"amount":120}')
    assert read.question == shown["question"]
    [listed] = (await served.client.get("/api/v1/approvals")).json()["approvals"]
    assert (listed["execution_id"], listed["step_key"], listed["data"]) == (id, "approve", {"amount": 120})
    assert listed["key"] == "order-48300"

    first = await submit(served.client, id, {"approved": True}, question=shown["question"])
    assert first.status_code == 200, first.text
    shown = (await served.client.get(path_of(id))).json()
    assert (shown["data"], shown["state"], shown["answer"]) == (None, "answered", {"approved": True})
    assert (shown["status"], shown["asked"]) == ("pending", {"amount": 120})
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


async def test_a_question_says_what_its_code_expects(served: Served, hand: Hand) -> None:
    schema = {"type": "object", "properties": {"way": {"enum": ["land", "air"]}}, "required": ["way"]}
    id = await asked(served, hand, answer_schema=schema)
    assert (await served.client.get(path_of(id))).json()["answer_schema"] == schema
    assert "answer_schema" not in (await served.client.get("/api/v1/approvals")).json()["approvals"][0]
    plain = await asked(served, hand)
    assert (await served.client.get(path_of(plain))).json()["answer_schema"] is None
    assert (await submit(served.client, id, "anything")).status_code == 422
    assert (await submit(served.client, plain, "anything")).status_code == 200
    assert (await submit(served.client, id, {"way": "air"})).status_code == 200
    wait = {"type": "wait", "key": "a", "fingerprint": "f", "data": 1, "answer_schema": "x" * ANSWER_SCHEMA_BYTES_MAX}
    refused = await hand.report(await hand.claim(), entries=[wait])
    assert "answer_schema: 16,386 bytes" in refused["problem"]["error"]


async def test_answered_and_expired_questions_are_listed_page_by_page(served: Served, hand: Hand) -> None:
    ids = [await asked(served, hand, {"n": n}, key=f"a/{n}", execution_key=f"order-{n}") for n in range(3)]
    past = await asked(served, hand, expires_at_us=served.engine.clock.now_us() + 1, execution_key="late")
    for n, id in enumerate(ids):
        assert (await served.client.post(f"{path_of(id, f'a/{n}')}/submit", json={"data": n})).status_code == 200
    seen, cursor = [], None
    while True:
        query = {"state": "answered", "limit": "2", **({} if cursor is None else {"cursor": cursor})}
        page = (await served.client.get("/api/v1/approvals", params=query)).json()
        seen += page["approvals"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [(one["execution_id"], one["key"], one["answer"], one["state"]) for one in seen] == [
        (id, f"order-{n}", n, "answered") for n, id in reversed(list(enumerate(ids)))
    ]
    assert seen[0]["answered_by"].startswith("key ") and seen[0]["answered_how"] == "api" and seen[0]["answered_at"]
    [expired] = (await served.client.get("/api/v1/approvals", params={"state": "expired"})).json()["approvals"]
    assert (expired["execution_id"], expired["key"], expired["state"]) == (past, "late", "expired")
    assert expired["answered_by"] is None
    wrong = await served.client.get("/api/v1/approvals", params={"state": "closed"})
    assert wrong.status_code in (400, 422) and "state" in wrong.text


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
    assert (listed["execution_id"], listed["root_execution_id"], listed["key"]) == (below, root, None)
    for id in (root, below):
        [question] = (await served.client.get(f"/api/v1/executions/{id}/questions")).json()["questions"]
        assert (question["execution_id"], question["data"]) == (below, "below")
        assert question["question"] == shown["question"]
    assert (await submit(served.client, root, 1)).status_code == 200
    assert (await served.client.get(path_of(below))).json()["answer"] == 1
    assert (await served.client.get(f"/api/v1/executions/{root}/questions")).json() == {"questions": []}
    assert (await served.client.get(f"/api/v1/executions/{UNKNOWN}/questions")).status_code == 404


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
    assert reply.json()["answered_by"].endswith(" for 'ann@example.com'")
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


class Asking:
    """A push worker with an execution that asks as the existing client does."""

    def __init__(self, served: Served, worker: PushWorker, id: str) -> None:
        self.served = served
        self.worker = worker
        self.id = id
        self.topic = f"workflow/agent/{id}"

    async def publish(self, kind: str, data: Json, asking: str | None = None) -> None:
        body = {"topic": self.topic, "events": [{"event_type": kind, "data": data}]}
        if asking is not None:
            body |= {"execution_id": asking, "root_execution_id": self.id}
        assert (await self.served.client.post("/api/v1/events/publish", json=body)).status_code == 200

    async def ask(self, data: Json, id: str | None = None, key: str = "approve") -> None:
        await self.publish(f"suspend_{key}", data, id or self.id)

    async def wait(self, id: str | None = None, key: str = "approve") -> None:
        said = {
            "step_key": key,
            "wait_type": "suspend",
            "wait_until": None,
            "wait_topic": self.topic,
            "expires_at": None,
        }
        assert (await self.worker.say(id or self.id, "wait", said)).status_code == 200

    async def children(self, count: int) -> list[str]:
        """Executions below the asking one, held by the worker."""
        body = {
            "workflows": [{"workflow_id": "tool", "payload": n} for n in range(count)],
            **{"parent_execution_id": self.id, "root_execution_id": self.id, "step_key": "tools"},
            **{"wait_for_subworkflow": True, "deployment_id": "push"},
        }
        reply = await self.served.client.post("/api/v1/workflows/batch_run", json=body)
        ids = [one["execution_id"] for one in reply.json()["executions"]]
        for id in ids:
            await self.worker.until_pushed(id)
        return ids

    async def shown(self, id: str | None = None, key: str = "approve") -> Json:
        return (await self.served.client.get(path_of(id or self.id, key))).json()

    async def answer(self, id: str | None = None, key: str = "approve") -> Json:
        """The outcome of a step; None without an outcome."""
        step = await self.worker.step(id or self.id, quote(key))
        return None if step.status_code == 404 else step.json()["outputs"]["data"]


@asynccontextmanager
async def asking(database: str, **settings: Json) -> AsyncIterator[Asking]:
    async with serving(database, outbound_hosts=LOOPBACK, **settings) as served, push_worker(served) as worker:
        id = await served.start("agent", deployment_id="push")
        await worker.until_pushed(id)
        yield Asking(served, worker, id)


async def test_what_is_asked_by_an_event_is_answered_by_an_event(database: str) -> None:
    """Push workers publish `suspend_{key}` on the root's topic, and get `resume_{key}` there."""
    async with asking(database) as one:
        client = one.served.client
        await one.ask({"n": 1})
        shown = await one.shown()
        assert (shown["data"], shown["state"], shown["asked_by"]) == ({"n": 1}, "open", one.id)
        [listed] = (await client.get("/api/v1/approvals")).json()["approvals"]
        assert (listed["question"], listed["data"]) == (shown["question"], {"n": 1})
        assert (await submit(client, one.id, {"approved": True})).status_code == 200
        assert (await submit(client, one.id, {"approved": False})).status_code == 409
        page = (await client.get("/api/v1/events", params={"topic": one.topic})).json()
        assert [(event["event_type"], event["data"]) for event in page["events"]] == [
            ("suspend_approve", {"n": 1}),
            ("resume_approve", {"approved": True}),
        ]
        await one.ask({"n": 2}, key="another")
        shown = await one.shown(key="another")
        assert (shown["data"], shown["state"]) == ({"n": 2}, "open")
        late = await client.post(
            f"{path_of(one.id, 'another')}/submit", json={"data": 1, "question": listed["question"]}
        )
        assert late.status_code == 409
        await one.publish("resume_another", "by another program")
        shown = await one.shown(key="another")
        assert (shown["state"], shown["data"], shown["answer"]) == ("answered", None, "by another program")
        assert shown["answered_by"].startswith("key ") and shown["answered_at"] and shown["answered_how"] == "api"
        assert (await client.post(f"{path_of(one.id, 'another')}/submit", json={"data": 1})).status_code == 409


@pytest.mark.parametrize("by_event", [False, True], ids=["by the API", "by an event"])
async def test_an_answer_outlives_the_worker_that_asked(database: str, by_event: bool) -> None:
    async with asking(database) as one:
        await one.ask({"n": 1})
        if by_event:
            await one.publish("resume_approve", {"approved": True})
        else:
            assert (await submit(one.served.client, one.id, {"approved": True})).status_code == 200
        await one.worker.register()  # it has died before its wait
        await one.worker.until_pushed(one.id, 2)
        assert await one.answer() == {"approved": True}
        await one.ask({"n": 1})
        await one.wait()
        await one.worker.until_pushed(one.id, 3)
        shown = await one.shown()
        assert (shown["state"], shown["answer"]) == ("answered", {"approved": True})
        assert (await submit(one.served.client, one.id, {"approved": False})).status_code == 409


async def test_a_link_that_is_made_when_the_question_is_seen_stays_good(database: str) -> None:
    async with asking(database) as one:
        await one.ask({"n": 1})
        link = await link_of(one.served, one.id)
        before = await one.shown()
        await one.wait()
        assert (await one.shown())["question"] == before["question"]
        nobody = {"authorization": ""}
        page = await one.served.client.get(f"/approve/{one.id}/approve?link={link}", headers=nobody)
        assert page.status_code == 200 and "An answer is wanted" in page.text
        reply = await one.served.client.post(
            f"{path_of(one.id)}/submit?link={link}", json={"data": True}, headers=nobody
        )
        assert reply.status_code == 200, reply.text
        await one.worker.until_pushed(one.id, 2)


async def test_of_two_who_ask_under_one_key_the_one_that_was_shown_is_answered(database: str) -> None:
    async with asking(database, insecure_local=True) as one:
        client = one.served.client
        small, large = await one.children(2)
        await one.ask({"_form": {"fields": [{"key": "small", "type": "boolean"}]}}, small)
        await one.ask({"_form": {"fields": [{"key": "large", "type": "integer"}]}}, large)
        for id in (small, large):
            await one.wait(id)
        questions = {id: (await one.shown(id))["question"] for id in (small, large)}
        link = await client.post(f"{path_of(large)}/links", json={"name": "ann@example.com"})
        # The page of the run shows the first; whoever has it open answers that one, whatever became of others.
        page = f"/approve/{one.id}/approve"
        assert questions[small] in (await client.get(page)).text
        form = {"question": questions[large], "f0": "7"}
        assert (await client.post(page, data=form, headers=OURS)).status_code == 303
        await one.worker.until_pushed(large, 2)
        assert (await one.answer(large), await one.answer(small)) == ({"large": 7}, None)
        late = await client.post(page, data={**form, "f0": "8"}, headers=OURS)
        assert late.status_code == 409 and "has been answered" in late.text and "small" not in late.text
        assert "has been answered" in (await client.get(link.json()["path"])).text
        assert (await one.shown(small))["state"] == "open"
        again = await submit(client, one.id, {"large": 7}, question=questions[large])
        assert again.status_code == 409, "the page's answer is not the API's"
        assert (await submit(client, one.id, {"small": True}, question=questions[small])).status_code == 200
        await one.worker.until_pushed(small, 2)
        assert (await one.answer(large), await one.answer(small)) == ({"large": 7}, {"small": True})


async def test_the_link_that_the_existing_client_prints_leads_to_any_key(database: str) -> None:
    key = "review/draft 1"
    async with asking(database, insecure_local=True) as one:
        client = one.served.client
        await one.ask({"n": 1}, key=key)
        for path in (f"/approve/{one.id}/{key}", f"/approve/{one.id}/{quote(key, safe='')}"):
            page = await client.get(path)
            assert page.status_code == 200 and "An answer is wanted" in page.text
        plain = f"/api/v1/approvals/{one.id}/{key}"
        shown = (await client.get(plain)).json()
        assert (shown["step_key"], shown["data"]) == (key, {"n": 1})
        link = (await client.post(f"{plain}/links", json={"name": "x"})).json()["path"]
        assert (await client.get(link.replace("%2F", "/"))).status_code == 200
        assert (await client.post(f"{plain}/submit", json={"data": "yes"})).status_code == 200
        assert await one.answer(key=key) == "yes"
        await one.ask({"n": 2}, key=f"{key}/")
        sent = {"question": (await one.shown(key=f"{key}/"))["question"], "answer": '"on the page"'}
        done = await client.post(f"/approve/{one.id}/{key}/", data=sent, headers=OURS)
        assert done.status_code == 303, done.text
        assert await one.answer(key=f"{key}/") == "on the page"


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


async def test_an_edited_answer_names_its_editor_and_needs_an_admin(served: Served, hand: Hand) -> None:
    id = await asked(served, hand, {"amount": 120})
    assert (await submit(served.client, id, "no")).status_code == 200
    by = (await served.client.get(path_of(id))).json()["answered_by"]
    writer = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    edit = {"edits": {"steps": {"approve": "yes"}}}
    refused = await served.client.post(f"/api/v1/executions/{id}/fork", json=edit, headers=writer)
    assert refused.status_code == 403 and "'admin'" in refused.json()["error"]
    fork = (await served.client.post(f"/api/v1/executions/{id}/fork", json=edit)).json()["execution_id"]
    said = (await served.client.get(path_of(fork))).json()
    editor = said["answered_by"]
    assert editor.startswith("edited by ") and editor.endswith(f', before: "no" by {by}')
    [inbox, _] = (await served.client.get("/api/v1/approvals", params={"state": "answered"})).json()["approvals"]
    assert (inbox["execution_id"], inbox["answer"], inbox["answered_by"]) == (fork, "yes", editor)
    kept = await served.client.post(f"/api/v1/executions/{fork}/fork", json={}, headers=writer)
    assert kept.status_code == 200, kept.text
