"""The execution routes, against the real engine."""

import asyncio
import random
import re
import string
from datetime import datetime
from typing import Any

import pytest
from httpx2 import Response
from tests.server.serving import Hand, Served

from perdure.store.base.interface import Verb
from perdure.store.verbs.runs import queries
from perdure.wire.base.access import Role
from perdure.wire.runs.executions import Finished

UNKNOWN = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


async def test_run_get_and_complete(served: Served, hand: Hand) -> None:
    started = await served.client.post("/api/v1/workflows/w/run", json={"payload": {"a": 1}, "user_id": "u"})
    assert started.status_code == 200
    id = started.json()["execution_id"]
    before = (await served.client.get(f"/api/v1/executions/{id}")).json()
    assert (before["status"], before["phase"]) == ("pending", "queued")
    assert before["result"] is None and before["started_at"] is None and before["completed_at"] is None

    item = await hand.claim()
    assert item["id"] == id and item["payload"] == {"a": 1}
    running = (await served.client.get(f"/api/v1/executions/{id}")).json()
    assert running["status"] == "running" and running["assigned_to_worker"] == hand.id
    assert running["started_at"] is not None
    await hand.complete(item, {"b": [2]})

    done = (await served.client.get(f"/api/v1/executions/{id}")).json()
    assert (done["status"], done["phase"], done["result"]) == ("completed", "completed", {"b": [2]})
    assert done["user_id"] == "u" and done["attempt"] == 1 and done["retry_count"] == 0
    for name in ("created_at", "started_at", "completed_at"):
        assert datetime.fromisoformat(done[name]).tzinfo is not None


async def test_the_longest_names_fit_into_every_index_and_longer_ones_are_refused(served: Served) -> None:
    """PostgreSQL allows 2,704 bytes for an index row that does not compress."""
    dice = random.Random(1)

    def text(count: int) -> str:
        return "".join(dice.choices(string.ascii_letters + string.digits, k=count))

    name, key, topic, conversation = text(256), text(512), text(512), text(512)
    keys = ("queue_name", "concurrency_key", "session_id", "user_id", "key", "otel_traceparent")
    fields: dict[str, Any] = dict.fromkeys(keys, key)
    whole = {**fields, "tags": {name: key}, "queue_concurrency_limit": 1, "on_conflict": "queue"}
    header = {"idempotency-key": text(512)}
    body = {"payload": 1, "accept_early": True, **whole}
    started = await served.client.post(f"/api/v1/workflows/{name}/run", json=body, headers=header)
    assert started.status_code == 200, started.text
    for one in (*keys, "tags"):
        longer = {**body, one: {name: text(513)} if one == "tags" else text(513)}
        reply = await served.client.post(f"/api/v1/workflows/{name}/run", json=longer)
        assert reply.status_code == 422 and one in reply.json()["error"], reply.text
    hand = Hand(served.client, (name,))
    await hand.register()
    item = await hand.claim()
    assert item["id"] == started.json()["execution_id"]
    step = {"type": "step", "key": key, "name": key, "fingerprint": None, "ok": True, "value": 1, "started_at_us": 1}
    wait = {"type": "wait", "key": text(512), "fingerprint": None, "topic": topic}
    told = {"type": "publish", "key": text(512), "fingerprint": None, "topic": topic, "events": [{"dedup_key": key}]}
    child = {"type": "child", "key": text(512), "fingerprint": None, "item": {"workflow_id": name, **fields}}
    assert (await hand.report(item, entries=[step, wait, told, child], end={"type": "complete", "result": 1}))["ended"]
    message = {"agent_id": name, "role": "user", "content": "x"}
    reply = await served.client.post(f"/internal/conversation/{conversation}/add", json=message)
    assert reply.status_code == 200, reply.text


async def test_payload_and_result_come_back_byte_for_byte(served: Served, hand: Hand) -> None:
    text = '{"b":  1e5, "a": 123456789012345678901234567890, "a": -0.0,"é":"\\u00e9\\u0000",\n "x":[ ]}'
    started = await served.client.post(
        "/api/v1/workflows/w/run", content=f'{{"payload": {text}}}', headers={"content-type": "application/json"}
    )
    id = started.json()["execution_id"]
    assert f'"payload":{text},' in (await served.client.get(f"/api/v1/executions/{id}")).text
    claimed = await served.client.post("/worker/v1/claim", json=hand.claiming(), headers={"perdure-protocol": "1"})
    assert f'"payload":{text}' in claimed.text


async def test_get_waits_until_final(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    poll = asyncio.create_task(served.client.get(f"/api/v1/executions/{id}?wait=60"))
    await served.until_held()
    assert not poll.done()
    await hand.complete(item, 7)
    async with asyncio.timeout(60):
        assert (await poll).json()["result"] == 7
        assert (await served.client.get(f"/api/v1/executions/{id}?wait=60")).json()["status"] == "completed"


async def test_a_wait_that_sees_no_end_answers_with_the_present(served: Served) -> None:
    id = await served.start()
    assert (await served.client.get(f"/api/v1/executions/{id}?wait=0.1")).json()["status"] == "pending"
    reply = await served.client.post("/api/v1/executions/wait", json={"ids": [id], "wait_seconds": 0.1})
    assert reply.json() == {"finished": [], "missing": []}


async def test_wait_for_many_answers_with_the_first(served: Served, hand: Hand) -> None:
    ids = [await served.start() for _ in range(3)]
    item = await hand.claim()
    poll = asyncio.create_task(served.client.post("/api/v1/executions/wait", json={"ids": ids, "wait_seconds": 20}))
    await served.until_held()
    await hand.complete(item, 1)
    assert [one["id"] for one in (await poll).json()["finished"]] == [item["id"]]


async def test_a_wait_asks_the_store_only_for_what_may_have_ended(
    served: Served, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    finished = queries.finished

    def noted(*, project_id: str, ids: list[str]) -> Verb[tuple[list[Finished], list[str]]]:
        asked.append(ids)
        return finished(project_id=project_id, ids=ids)

    monkeypatch.setattr(queries, "finished", noted)
    ids = [await served.start() for _ in range(3)]
    item = await hand.claim()
    await hand.complete(item, 1)
    reply = await served.client.post("/api/v1/executions/wait", json={"ids": ids, "wait_seconds": 20})
    assert [one["id"] for one in reply.json()["finished"]] == [item["id"]] == asked.pop()
    await served.client.delete(f"/api/v1/executions/{item['id']}")
    reply = await served.client.post("/api/v1/executions/wait", json={"ids": ids, "wait_seconds": 20})
    assert reply.json() == {"finished": [], "missing": [item["id"]]}


async def test_wait_names_what_is_missing(served: Served) -> None:
    reply = await served.client.post("/api/v1/executions/wait", json={"ids": [UNKNOWN], "wait_seconds": 20})
    assert reply.json() == {"finished": [], "missing": [UNKNOWN]}


async def test_independent_starts_answer_each_for_itself(served: Served, hand: Hand) -> None:
    items = [
        {"workflow_id": "w", "payload": 1},
        {"workflow_id": "nobody", "payload": 2},
        {"workflow_id": "w", "priority": 5_000},
        {"workflow_id": "w", "key": "k", "start_at": "2999-01-01T00:00:00+01:00"},
        {"workflow_id": "w", "key": "k"},
    ]
    answers = (await served.client.post("/api/v1/executions", json={"items": items})).json()["items"]
    assert "execution_id" in answers[0]
    assert answers[1]["problem"]["error_type"] == "WORKFLOW_NOT_FOUND"
    assert answers[2]["problem"]["error_type"] == "BAD_VALUE"
    assert answers[3]["execution_id"] == answers[4]["execution_id"] and answers[4]["existing"]
    assert await hand.claim() is not None
    assert await hand.claim(0.2) is None, "it starts in 2999"


async def test_a_key_with_another_input_is_409_and_names_its_execution(served: Served, hand: Hand) -> None:
    async def run(payload: object) -> Response:
        return await served.client.post("/api/v1/workflows/w/run", json={"key": "k", "payload": payload})

    first = await run({"a": 1, "b": 2})
    again = await run({"b": 2, "a": 1})
    assert (again.status_code, again.json()["execution_id"]) == (200, first.json()["execution_id"])
    other = await run([])
    assert (other.status_code, other.json()["error_type"]) == (409, "CONFLICT")
    assert other.json()["details"] == {"key": "k", "execution_id": first.json()["execution_id"]}
    item = {"workflow_id": "w", "key": "k", "payload": {"a": 1, "b": 2}}
    batch = await _batch(served, {"workflows": [item, item | {"payload": 0}]})
    assert (batch.status_code, batch.json()["error_type"]) == (409, "CONFLICT")


async def test_a_batch_is_all_or_nothing(served: Served, hand: Hand) -> None:
    items: list[dict[str, Any]] = [{"workflow_id": "w", "payload": n} for n in range(3)]
    body = {"workflows": items, "user_id": "u"}
    ids = [one["execution_id"] for one in (await _batch(served, body)).json()["executions"]]
    found = [(await served.client.get(f"/api/v1/executions/{id}")).json() for id in ids]
    assert [one["payload"] for one in found] == [0, 1, 2]
    assert len({one["batch_id"] for one in found}) == 1 and found[0]["batch_id"] is not None
    assert len({one["session_id"] for one in found}) == 1 and found[0]["session_id"] is not None
    assert {one["user_id"] for one in found} == {"u"}

    refused = await _batch(served, {"workflows": [*items, {"workflow_id": "nobody", "payload": 0}]})
    assert refused.status_code == 404 and refused.json()["error_type"] == "WORKFLOW_NOT_FOUND"
    assert (await _batch(served, {"workflows": []})).status_code == 400
    assert len((await served.client.get("/api/v1/executions")).json()["executions"]) == 3


async def _batch(served: Served, body: Any) -> Any:
    return await served.client.post("/api/v1/workflows/batch_run", json=body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/workflows/w/run", {"payload": 1, "accept_early": True}),
        ("/api/v1/workflows/batch_run", {"workflows": [{"workflow_id": "w", "payload": 1, "accept_early": True}]}),
        ("/api/v1/executions", {"items": [{"workflow_id": "w", "accept_early": True}]}),
        ("/api/v1/events/publish", {"topic": "t", "events": [{"data": 1}, {"data": 2}]}),
    ],
    ids=["run", "batch_run", "executions", "publish"],
)
async def test_the_same_idempotency_key_gets_the_first_answer(served: Served, path: str, body: Any) -> None:
    headers = {"idempotency-key": "abc"}
    first = await served.client.post(path, json=body, headers=headers)
    again = await served.client.post(path, json=body, headers=headers)
    assert first.status_code == again.status_code == 200
    without = [name for name in first.json() if name != "created_at"]
    assert [first.json()[name] for name in without] == [again.json()[name] for name in without]
    other = await served.client.post(path, json=body, headers={"idempotency-key": "other"})
    assert other.json() != first.json()


async def test_an_idempotency_key_belongs_to_one_request(served: Served) -> None:
    headers = {"idempotency-key": "abc"}
    body = {"payload": 1, "accept_early": True}
    assert (await served.client.post("/api/v1/workflows/w/run", json=body, headers=headers)).status_code == 200
    for path, other in (("w", {**body, "payload": 2}), ("another", body)):
        reply = await served.client.post(f"/api/v1/workflows/{path}/run", json=other, headers=headers)
        assert (reply.status_code, reply.json()["error_type"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    bad = await served.client.post("/api/v1/workflows/w/run", json=body, headers={"idempotency-key": ""})
    assert bad.status_code == 422 and "Idempotency-Key" in bad.json()["error"]


async def test_list_filters_and_pages(served: Served) -> None:
    ids = [await served.start("w" if n % 2 else "v", n, tags={"n": str(n)}, user_id="u") for n in range(6)]
    await served.client.post(f"/api/v1/executions/{ids[0]}/cancel")

    async def listed(query: str) -> list[str]:
        reply = await served.client.get(f"/api/v1/executions?{query}")
        assert reply.status_code == 200, reply.text
        return [one["id"] for one in reply.json()["executions"]]

    assert await listed("") == ids[::-1]
    assert await listed("workflow_id=w") == [ids[5], ids[3], ids[1]]
    assert await listed("status=cancelled") == [ids[0]]
    assert await listed("status=pending,running&phase=queued") == ids[:0:-1]
    assert await listed("phase=waiting&phase=cancelled") == [ids[0]]
    assert await listed("tag=n%3D4&user_id=u") == [ids[4]]
    assert await listed("created_after=2999-01-01T00:00:00Z") == []
    assert await listed("created_before=2999-01-01T00:00:00%2B01:00&limit=1") == [ids[5]]

    seen: list[str] = []
    cursor = ""
    while True:
        page = (await served.client.get(f"/api/v1/executions?limit=4{cursor}")).json()
        seen += [one["id"] for one in page["executions"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]


async def test_a_workflows_key_finds_its_execution(served: Served) -> None:
    id = await served.start(key="order/7")
    found = (await served.client.get("/api/v1/executions?workflow_id=w&key=order/7")).json()["executions"]
    assert [one["id"] for one in found] == [id] and found[0]["key"] == "order/7"
    assert (await served.client.get("/api/v1/executions?workflow_id=w&key=x")).json()["executions"] == []


async def test_a_bad_query_names_its_parameter(served: Served) -> None:
    for query in (
        "limit=0",
        "limit=501",
        "limit=x",
        "status=done",
        "phase=x",
        "cursor=x",
        "colour=red",
        "created_after=yesterday",
        "created_after=2020-01-01T00:00:00",
        "limit=1&limit=2",
        "workflow_id=%ff",
    ):
        reply = await served.client.get(f"/api/v1/executions?{query}")
        assert reply.status_code == 400, query
        assert query.partition("=")[0] in reply.json()["error"] or "%ff" in query


async def test_cancel(served: Served, hand: Hand) -> None:
    id = await served.start()
    said = {"note": "by mistake", "of_another_version": 1}
    reply = (await served.client.post(f"/api/v1/executions/{id}/cancel", json=said)).json()
    assert (reply["execution_id"], reply["status"]) == (id, "cancelled")
    found = (await served.client.get(f"/api/v1/executions/{id}")).json()
    assert found["cancelled_by"] == "user" and found["cancelled_at"] == reply["cancelled_at"]
    why = (await served.client.get(f"/api/v1/executions/{id}/why")).json()
    assert re.match(r"Key '.+' \(.+\) cancelled it \('by mistake'\) at ", why["sentence"])
    again = await served.client.post(f"/api/v1/executions/{id}/cancel")
    assert (again.status_code, again.json()["error_type"]) == (400, "CANCELLATION_ERROR")

    id = await served.start()
    await hand.claim()
    form = {"content-type": "application/x-www-form-urlencoded"}  # as of `curl -d ''`
    reply = (await served.client.post(f"/api/v1/executions/{id}/cancel", headers=form)).json()
    assert reply["status"] == "running"
    assert (await served.client.get(f"/api/v1/executions/{id}")).json()["phase"] == "cancelling"


async def test_delete_takes_only_what_is_final(served: Served) -> None:
    id = await served.start()
    assert (await served.client.delete(f"/api/v1/executions/{id}")).status_code == 409
    await served.client.post(f"/api/v1/executions/{id}/cancel")
    gone = await served.client.delete(f"/api/v1/executions/{id}")
    assert gone.status_code == 204 and gone.content == b""
    assert (await served.client.get(f"/api/v1/executions/{id}")).status_code == 404


async def test_steps_and_logs(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    step = {
        "type": "step",
        "key": "fetch",
        "name": "fetch",
        "fingerprint": "f",
        "ok": True,
        "value": {"x": 1},
        "started_at_us": item["created_at_us"],
    }
    await hand.report(item, entries=[step], logs=[{"at_us": item["created_at_us"], "level": 20, "text": "hello"}])
    page = (await served.client.get(f"/api/v1/executions/{id}/steps?after_log=0")).json()
    assert [row["kind"] for row in page["steps"]] == ["claimed", "step"]
    assert page["steps"][1]["value"] == {"x": 1} and page["steps"][1]["key"] == "fetch"
    assert [line["text"] for line in page["logs"]] == ["hello"]
    assert not page["has_more"]
    rest = (await served.client.get(f"/api/v1/executions/{id}/steps?after=1&limit=1")).json()
    assert [row["seq"] for row in rest["steps"]] == [2] and rest["has_more"]
    logs = (await served.client.get(f"/api/v1/executions/{id}/logs")).json()
    assert [line["n"] for line in logs["logs"]] == [1]

    waiting = asyncio.create_task(served.client.get(f"/api/v1/executions/{id}/steps?after=2&wait=20"))
    await served.until_held()
    await hand.report(item, 2, seen=2, end={"type": "complete", "result": None})
    assert [row["kind"] for row in (await waiting).json()["steps"]] == ["completed"]


async def test_a_suspended_step_is_answered(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    await hand.report(item, entries=[{"type": "wait", "key": "ask/a", "fingerprint": None}])
    reply = await served.client.post(f"/api/v1/executions/{id}/resume/ask%2Fa", json={"data": {"yes": True}})
    said = reply.json()
    assert (said["execution_id"], said["step_key"], said["state"]) == (id, "ask/a", "answered")
    assert said["answered_by"].startswith("key ") and said["answered_at"]
    rows = (await served.client.get(f"/api/v1/executions/{id}/steps")).json()["steps"]
    assert [(row["kind"], row["key"], row["value"]) for row in rows if row["kind"] == "resume"] == [
        ("resume", "ask/a", {"yes": True})
    ]
    again = await served.client.post(f"/api/v1/executions/{id}/resume/ask%2Fa", json={"data": {"yes": True}})
    assert (again.status_code, again.json()) == (200, reply.json())
    assert (await served.client.get(f"/api/v1/executions/{id}/steps")).json()["steps"] == rows
    other = await served.client.post(f"/api/v1/executions/{id}/resume/ask%2Fa", json={"data": 1})
    assert other.status_code == 409 and "was answered by" in other.json()["error"]


async def test_whoever_answers_before_a_step_asks_is_told(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    path = f"/api/v1/executions/{id}/resume/approve_refund_call_7"
    reply = await served.client.post(path, json={"data": {"approved": True}})
    assert (reply.status_code, reply.json()["state"]) == (200, "early")
    wait = {"type": "wait", "key": "approve_refund_call_7", "fingerprint": None, "data": {"euros": 1_000_000}}
    await hand.report(item, entries=[wait])
    shown = (await served.client.get(f"/api/v1/approvals/{id}/approve_refund_call_7")).json()
    assert (shown["state"], shown["answer"], shown["asked"]) == ("open", None, {"euros": 1_000_000})
    assert shown["early"]["answer"] == {"approved": True} and shown["early"]["answered_by"].startswith("key ")
    refused = await served.client.post(path, json={"data": {"approved": True}})
    assert refused.status_code == 409 and "`question`" in refused.json()["error"]
    named = {"data": {"approved": False}, "question": shown["question"]}
    assert (await served.client.post(path, json=named)).json()["state"] == "answered"
    shown = (await served.client.get(f"/api/v1/approvals/{id}/approve_refund_call_7")).json()
    assert (shown["asked"], shown["answer"]) == ({"euros": 1_000_000}, {"approved": False})


async def test_a_tree_is_listed_without_its_root(served: Served) -> None:
    root = await served.start()
    child = await served.start(parent_execution_id=root)
    grandchild = await served.start(parent_execution_id=child)
    for query, ids in ((f"root_execution_id={root}", [grandchild, child]), (f"parent_execution_id={root}", [child])):
        found = (await served.client.get(f"/api/v1/executions?{query}")).json()["executions"]
        assert [one["id"] for one in found] == ids
        assert {one["root_execution_id"] for one in found} == {root}
    assert (await served.client.get(f"/api/v1/executions/{root}")).json()["root_execution_id"] is None


async def test_ids_in_upper_case_name_the_same(served: Served, hand: Hand) -> None:
    id = await served.start()
    child = await served.start(parent_execution_id=id.upper())
    loud = f"/api/v1/executions/{id.upper()}"
    for path in ("", "?wait=0.01", "/steps", "/logs", "/waits"):
        assert (await served.client.get(loud + path)).status_code == 200, path
    assert (await served.client.get(loud)).json()["id"] == id
    listed = await served.client.get(f"/api/v1/executions?root_execution_id={id.upper()}")
    assert [one["id"] for one in listed.json()["executions"]] == [child]
    item = {"workflow_id": "w", "payload": 1, "parent_execution_id": id.upper()}
    (started,) = (await served.client.post("/api/v1/executions", json={"items": [item]})).json()["items"]
    shown = (await served.client.get(f"/api/v1/executions/{started['execution_id']}")).json()
    assert shown["parent_execution_id"] == id
    reply = await served.client.post(f"{loud}/resume/k", json={"data": 1})
    assert reply.json()["execution_id"] == id
    headers = {"x-project-id": served.project_id.upper()}
    assert (await served.client.post(f"{loud}/cancel", headers=headers)).json()["execution_id"] == id
    waited = await served.client.post("/api/v1/executions/wait", json={"ids": [id.upper()], "wait_seconds": 0})
    assert [one["id"] for one in waited.json()["finished"]] == [id]
    stream = await served.client.get(f"{loud}/events")
    assert f'"id":"{id}"' in stream.text.rpartition("event: end")[2]
    assert (await served.client.delete(f"/api/v1/executions/{child.upper()}")).status_code == 204


async def test_a_wait_that_names_a_wrong_id_leaves_nothing_behind(served: Served) -> None:
    id = await served.start()
    reply = await served.client.post("/api/v1/executions/wait", json={"ids": [id, "x"], "wait_seconds": 1})
    assert reply.status_code == 400
    assert served.engine.end_listeners._listeners == {}


async def test_erase_takes_a_users_final_executions(served: Served) -> None:
    ids = [await served.start(user_id="u") for _ in range(2)]
    await served.client.post(f"/api/v1/executions/{ids[0]}/cancel")
    reply = await served.client.post("/api/v1/executions/erase", json={"user_id": "u"})
    assert reply.json() == {"erased": 1, "open": 1}
    write = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    assert (await served.client.post("/api/v1/executions/erase", json={}, headers=write)).status_code == 403
    assert (await served.client.post("/api/v1/executions/erase", json={})).status_code == 400


async def test_ids_are_malformed_unknown_or_anothers(served: Served) -> None:
    for method, path in (
        ("GET", "/api/v1/executions/{id}"),
        ("GET", "/api/v1/executions/{id}?wait=1"),
        ("GET", "/api/v1/executions/{id}/steps"),
        ("GET", "/api/v1/executions/{id}/logs"),
        ("GET", "/api/v1/executions/{id}/events"),
        ("POST", "/api/v1/executions/{id}/cancel"),
        ("POST", "/api/v1/executions/{id}/resume/s"),
        ("DELETE", "/api/v1/executions/{id}"),
    ):
        body = {"json": {"data": 1}} if "resume" in path else {}
        for id in ("x", "%00", "1" * 36, UNKNOWN.replace("-", "")):
            reply = await served.client.request(method, path.format(id=id), **body)  # type: ignore[arg-type]
            assert (reply.status_code, reply.json()["error_type"]) == (400, "BAD_REQUEST"), (path, id)
        unknown = await served.client.request(method, path.format(id=UNKNOWN), **body)  # type: ignore[arg-type]
        assert (unknown.status_code, unknown.json()["error_type"]) == (404, "NOT_FOUND"), path

        mine = await served.start()
        _, other = await served.other_project()
        theirs = await served.client.request(method, path.format(id=mine), headers=other, **body)  # type: ignore[arg-type]
        assert theirs.status_code == 404, path
        assert theirs.json()["error"].replace(mine, UNKNOWN) == unknown.json()["error"]


async def test_contract_routes_ignore_unknown_fields_and_added_ones_refuse_them(served: Served) -> None:
    body = {"payload": 1, "accept_early": True, "colour": "red", "batch_id": None}
    assert (await served.client.post("/api/v1/workflows/w/run", json=body)).status_code == 200
    item = {"workflow_id": "w", "accept_early": True}
    refused = await served.client.post("/api/v1/executions", json={"items": [{**item, "colour": "red"}]})
    assert refused.status_code == 422 and "body.items[0]" in refused.json()["error"]
    assert "colour" in refused.json()["error"]
    fine = await served.client.post(
        "/api/v1/executions", json={"items": [{**item, "root_execution_id": None, "otel_traceparent": "x"}]}
    )
    assert fine.status_code == 200


async def test_a_parent_that_is_no_uuid_counts_as_none(served: Served) -> None:
    id = await served.start(parent_execution_id="x", root_execution_id="y")
    found = (await served.client.get(f"/api/v1/executions/{id}")).json()
    assert found["parent_execution_id"] is None and found["root_execution_id"] is None
    child = await served.start(parent_execution_id=id, step_key="s")
    found = (await served.client.get(f"/api/v1/executions/{child}")).json()
    assert (found["parent_execution_id"], found["root_execution_id"], found["step_key"]) == (id, id, "s")
