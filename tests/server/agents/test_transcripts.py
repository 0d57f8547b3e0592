"""Transcripts and turns over HTTP."""

from typing import Any

import pytest
from tests.server.serving import Hand, Served

from perdure.wire.base.access import Role

TRANSCRIPT = "/internal/session/a%2Fb/transcript"


async def test_a_transcript_is_added_to_and_read(served: Served) -> None:
    reply = await served.client.get(TRANSCRIPT)
    assert (reply.status_code, reply.json()) == (200, {"version": 0, "entries": [], "next": None})
    once = {"idempotency-key": "once"}
    for _ in range(2):
        reply = await served.client.post(TRANSCRIPT, json={"messages": ["a", {"b": 1}]}, headers=once)
        assert (reply.status_code, reply.json()) == (200, {"version": 2})
    late = await served.client.post(TRANSCRIPT, json={"messages": [1], "version": 1})
    assert (late.status_code, late.json()["error_type"], late.json()["details"]) == (409, "CONFLICT", {"version": 2})
    known = (await served.client.get(TRANSCRIPT)).json()
    assert known["entries"] == [
        {"seq": 1, "message": "a", "summary_of": None},
        {"seq": 2, "message": {"b": 1}, "summary_of": None},
    ]
    assert [one["seq"] for one in (await served.client.get(f"{TRANSCRIPT}?version=1")).json()["entries"]] == [1]
    assert [one["seq"] for one in (await served.client.get(f"{TRANSCRIPT}?after=1")).json()["entries"]] == [2]
    _, other = await served.other_project()
    assert (await served.client.get(TRANSCRIPT, headers=other)).json()["version"] == 0


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 422, "messages"),
        ({"messages": "x"}, 422, "body.messages"),
        ({"messages": [], "version": -1}, 422, "body.version"),
        ({"messages": [1] * 1_001}, 422, "messages: "),
        ({"messages": ["x" * (8 << 20)]}, 422, "messages[0]: "),
        ({"messages": [1], "version": 7}, 409, "version 0, not 7"),
    ],
)
async def test_what_cannot_be_added(served: Served, body: Any, status: int, says: str) -> None:
    reply = await served.client.post(TRANSCRIPT, json=body)
    assert reply.status_code == status and says in reply.json()["error"]
    assert (await served.client.get(TRANSCRIPT)).json()["version"] == 0


async def test_a_reader_may_read_and_not_write(served: Served) -> None:
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    assert (await served.client.get(TRANSCRIPT, headers=reader)).status_code == 200
    assert (await served.client.post(TRANSCRIPT, json={"messages": []}, headers=reader)).status_code == 403


@pytest.mark.parametrize("query", ["version=-1", "version=x", "after=-1", "version=1"])
async def test_a_version_that_is_none(served: Served, query: str) -> None:
    reply = await served.client.get(f"{TRANSCRIPT}?{query}")
    assert reply.status_code in (400, 422)
    assert query.partition("=")[0] in reply.json()["error"]


async def test_turns_over_http(served: Served) -> None:
    hand = Hand(served.client)
    await hand.register()
    first = await served.start(session_id="s", on_conflict="reject")
    url, body = "/api/v1/workflows/w/run", {"payload": None, "session_id": "s"}
    busy = await served.client.post(url, json={**body, "on_conflict": "reject"})
    assert (busy.status_code, busy.json()["error_type"]) == (409, "SESSION_BUSY")
    assert busy.json()["details"] == {"execution_id": first}
    many = await served.client.post(
        "/api/v1/executions",
        json={"items": [{"workflow_id": "w", "session_id": "s", "on_conflict": one} for one in ("queue", "reject")]},
    )
    queued, refused = many.json()["items"]
    assert refused["problem"]["error_type"] == "SESSION_BUSY"
    shown = (await served.client.get(f"/api/v1/executions/{queued['execution_id']}")).json()
    assert (shown["status"], shown["phase"]) == ("pending", "queued")
    item = await hand.claim()
    assert item["id"] == first
    await hand.complete(item, "done")
    assert (await hand.claim())["id"] == queued["execution_id"]
    for wrong in ({"on_conflict": "wait"}, {"on_conflict": "queue", "delay_seconds": 5}):
        reply = await served.client.post(url, json={**body, **wrong})
        assert reply.status_code == 422 and "on_conflict" in reply.json()["error"]


async def test_a_report_is_held_to_the_same_rules(served: Served) -> None:
    hand = Hand(served.client)
    await hand.register()
    await served.start()
    item = await hand.claim()
    append = {"type": "append_messages", "key": "a", "fingerprint": None, "session_id": "s", "messages": [1] * 1_001}
    reply = await hand.report(item, entries=[append])
    assert reply["problem"]["error_type"] == "BAD_VALUE"
    reply = await hand.report(item, entries=[{"type": "read_transcript", "key": "r", "session_id": ""}])
    assert reply["problem"]["error_type"] == "BAD_VALUE"
