"""The routes of push workers: accepted requests, refusals, and known workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from tests.kit.polling import until
from tests.server.http.test_streams import following
from tests.server.push_worker import LOOPBACK, PushWorker, push_worker
from tests.server.serving import Served, serving

from perdure.server.http import topic_followers
from perdure.wire.base.access import Role

Json = Any
REGISTER = "/api/v1/workers/register"


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    async with serving(database, outbound_hosts=LOOPBACK) as served:
        yield served


@pytest.fixture
async def worker(served: Served) -> AsyncIterator[PushWorker]:
    async with push_worker(served) as worker:
        yield worker


async def held(served: Served, worker: PushWorker) -> str:
    """An execution that the worker holds."""
    id = await served.start("w", deployment_id="push", accept_early=False)
    await worker.until_pushed(id)
    return id


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"mode": "pull"}, 400, "body.mode: must be 'push'"),
        ({"push_endpoint_url": None}, 400, "body.push_endpoint_url"),
        ({"push_endpoint_url": "ftp://a.example"}, 400, "body.push_endpoint_url"),
        ({"push_endpoint_url": "https://a.example/in?token=x"}, 400, "body.push_endpoint_url: must have no query"),
        ({"push_endpoint_url": "http://169.254.169.254/"}, 422, "body.push_endpoint_url"),
        ({"max_concurrent_executions": 0}, 400, "body.max_concurrent_executions"),
        ({"deployment_id": None}, 400, "no deployment"),
        ({"deployment_id": ""}, 422, "deployment_id: is empty"),
        ({"project_id": str(uuid4())}, 404, "project"),
        ({"project_id": 5}, 422, "body.project_id"),
    ],
)
async def test_what_is_wrong_with_a_registration_is_named(served: Served, fields: Json, status: int, says: str) -> None:
    body = {
        "project_id": served.project_id,
        "push_endpoint_url": "http://127.0.0.1:9",
        "deployment_id": "d",
        "unknown": "is ignored on contract routes",
        **fields,
    }
    reply = await served.client.post(REGISTER, json=body)
    assert reply.status_code == status, reply.text
    assert says.lower() in reply.json()["error"].lower()


async def test_a_worker_is_known_until_it_is_replaced(served: Served, worker: PushWorker) -> None:
    async def beat(id: str) -> Json:
        return (await served.client.post(f"/api/v1/workers/{id}/heartbeat")).json()

    assert await beat(worker.id) == {"re_register": False}
    assert await beat(str(uuid4())) == {"re_register": True}
    old = worker.id
    await worker.register()
    assert await beat(old) == {"re_register": True}
    assert (await served.client.post(f"/api/v1/workers/{old}/online")).status_code == 404
    assert (await served.client.post("/api/v1/workers/nonsense/online")).status_code == 400
    assert (await served.client.post("/api/v1/workers/nonsense/heartbeat")).status_code == 400
    status = await served.client.get("/api/v1/workers/status?deployment_id=push")
    assert status.json() == {"online_count": 1, "has_workers": True}


async def test_a_worker_serves_once_it_has_said_that_it_is_online(served: Served) -> None:
    async with push_worker(served, register=False) as worker:
        await worker.register(online=False)
        for ids in ([], [worker.id]):
            active = (await served.client.get("/api/v1/workers/active")).json()
            status = (await served.client.get("/api/v1/workers/status?deployment_id=push")).json()
            assert active == {"worker_ids": ids}
            assert status == {"online_count": len(ids), "has_workers": bool(ids)}
            await worker.online()


async def test_workers_of_another_project_do_not_exist(served: Served, worker: PushWorker) -> None:
    id = await held(served, worker)
    _, other = await served.other_project()
    client = served.client
    assert (await client.post(f"/api/v1/workers/{worker.id}/heartbeat", headers=other)).json()["re_register"]
    assert (await client.post(f"/api/v1/workers/{worker.id}/online", headers=other)).status_code == 404
    assert (await client.get(f"/api/v1/workers/{worker.id}/poll", headers=other)).status_code == 404
    assert (await client.get("/api/v1/workers/active", headers=other)).json() == {"worker_ids": []}
    bodies: dict[str, Json] = {
        "complete": {"result": 1, "worker_id": worker.id},
        "fail": {"error": "e", "worker_id": worker.id},
        "confirm-cancellation": {"worker_id": worker.id},
        "wait": {"step_key": "s", "wait_type": "time", "wait_until": "2030-01-01T00:00:00"},
        "steps": {"step_key": "s", "success": True},
    }
    for what, body in bodies.items():
        reply = await client.post(f"/internal/executions/{id}/{what}", json=body, headers=other)
        assert (reply.status_code, reply.json()["error_type"]) == (404, "NOT_FOUND"), what
        missing = await client.post(f"/internal/executions/{uuid4()}/{what}", json=body)
        assert missing.status_code == 404, what
        malformed = await client.post(f"/internal/executions/nonsense/{what}", json=body)
        assert malformed.status_code == 400, what
    put = await client.put(f"/internal/executions/{id}/otel-span-id", json={"otel_span_id": "a"}, headers=other)
    assert put.status_code == 404
    for path in ("steps", "steps/s"):
        assert (await client.get(f"/internal/executions/{id}/{path}", headers=other)).status_code == 404


async def test_a_reader_says_nothing(served: Served, worker: PushWorker) -> None:
    id = await held(served, worker)
    reader = {"authorization": f"Bearer {await served.key_of(Role.READ)}"}
    for path in (REGISTER, f"/api/v1/workers/{worker.id}/online", f"/internal/executions/{id}/complete"):
        assert (await served.client.post(path, json={}, headers=reader)).status_code == 403
    assert (await served.client.get(f"/api/v1/workers/{worker.id}/poll", headers=reader)).status_code == 403
    assert (await served.client.get(f"/internal/executions/{id}/steps", headers=reader)).status_code == 200


async def test_steps_by_key(served: Served, worker: PushWorker) -> None:
    id = await held(served, worker)
    for key in ("plain", "with space", "a/b/c", "llm_generate:1", "é%"):
        missing = await worker.step(id, key.replace("%", "%25").replace(" ", "%20"))
        assert (missing.status_code, missing.json()["error_type"]) == (404, "NOT_FOUND")
        saved = await worker.say(id, "steps", {"step_key": key, "outputs": {"k": key}, "success": True})
        assert saved.status_code == 200
        found = (await worker.step(id, key.replace("%", "%25").replace(" ", "%20"))).json()
        assert found == {
            "step_key": key,
            "outputs": {"k": key},
            "error": None,
            "success": True,
            "source_execution_id": None,
            "output_schema_name": None,
        }
    encoded = await served.client.get(f"/internal/executions/{id}/steps/a%2Fb%2Fc")
    assert encoded.json()["outputs"] == {"k": "a/b/c"}
    await worker.say(id, "steps", {"step_key": "bad", "error": {"message": "no"}, "success": False})
    listed = (await served.client.get(f"/internal/executions/{id}/steps")).json()["steps"]
    assert [one["step_key"] for one in listed] == ["a/b/c", "bad", "llm_generate:1", "plain", "with space", "é%"]
    assert listed[1] == {
        "step_key": "bad",
        "outputs": None,
        "error": {"message": "no"},
        "success": False,
        "source_execution_id": None,
    }
    nothing = await worker.say(id, "steps", {"step_key": "nothing", "success": True})
    assert nothing.status_code == 200
    assert (await worker.step(id, "nothing")).json()["outputs"] is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"wait_type": "luck"}, "body.wait_type: must be 'time', 'event' or 'suspend'"),
        ({"wait_type": "time"}, "body.wait_until: a wait for a time needs one"),
        ({"wait_type": "time", "wait_until": "soon"}, "body.wait_until: 'soon' is not a time"),
        ({"wait_type": "event"}, "body.wait_topic"),
        ({"wait_type": "time", "wait_until": "2030-01-01T00:00:00", "step_key": ""}, "body.step_key: is empty"),
    ],
)
async def test_what_is_wrong_with_a_wait_is_named(served: Served, worker: PushWorker, fields: Json, says: str) -> None:
    id = await held(served, worker)
    reply = await worker.say(id, "wait", {"step_key": "s", "expires_at": None, **fields})
    assert (reply.status_code, reply.json()["error_type"]) == (422, "BAD_VALUE")
    assert says in reply.json()["error"]


async def test_native_and_push_workers_do_not_share_a_deployment(served: Served, worker: PushWorker) -> None:
    body = {"worker_id": str(uuid4()), "deployment_id": "push", "python": "3.11", "workflows": [{"id": "w"}]}
    reply = await served.client.post("/worker/v1/register", json=body, headers={"perdure-protocol": "1"})
    assert (reply.status_code, reply.json()["error_type"]) == (409, "CONFLICT")


@pytest.mark.parametrize("url", ["http://[", "file:///etc/passwd", "http://169.254.169.254/", "https://a.example/\0"])
async def test_where_a_child_sends_its_end_is_checked(served: Served, worker: PushWorker, url: str) -> None:
    id = await held(served, worker)
    child = {"payload": 1, "webhook_url": url}
    of = {"parent_execution_id": id, "root_execution_id": id, "step_key": "c"}
    for path, body in (
        ("/api/v1/workflows/kid/run", {**child, **of}),
        ("/api/v1/workflows/batch_run", {"workflows": [{"workflow_id": "kid", **child}], **of}),
    ):
        reply = await served.client.post(path, json=body)
        assert (reply.status_code, reply.json()["details"]) == (422, {"path": "webhook_url"}), path
    assert (await worker.step(id, "c")).status_code == 404


@pytest.mark.parametrize("end", ["complete", "fail"])
async def test_the_state_of_an_execution_is_shown_in_its_trace(served: Served, worker: PushWorker, end: str) -> None:
    id = await served.start("w", deployment_id="push", initial_state={"count": 40})
    await worker.until_pushed(id)
    said = {"result": 1} if end == "complete" else {"error": "no", "retryable": False}
    reply = await worker.say(id, end, {**said, "worker_id": worker.id, "final_state": {"count": 42}})
    assert reply.status_code == 200, reply.text
    (root,) = (await served.client.get(f"/api/v1/traces/{id.replace('-', '')}")).json()["spans"]
    assert (root["initial_state"], root["final_state"]) == ({"count": 40}, {"count": 42})


async def test_any_workflow_may_be_started_for_push_workers(served: Served, worker: PushWorker) -> None:
    id = await served.start("never-registered", deployment_id="push", accept_early=False)
    assert (await worker.until_pushed(id))["workflow_id"] == "never-registered"


async def test_a_rest_of_a_path_is_one_name(served: Served) -> None:
    id = await served.start("w")
    for path in (f"/internal/executions/{id}/steps/", f"/internal/executions/{id}/steps//"):
        assert (await served.client.get(path)).status_code == 404
    assert (await served.client.post(f"/internal/executions/{id}/steps/a/b", json={})).status_code == 405


# --- the finish event, which a worker publishes before it reports the result ---------------------------------------


def run_stream(id: str) -> str:
    return f"/api/v1/events/stream?workflow_id=w&workflow_run_id={id}"


async def publish(served: Served, id: str, event_type: str, data: Json) -> None:
    body = {"topic": f"workflow/w/{id}", "events": [{"event_type": event_type, "data": data}], "execution_id": id}
    assert (await served.client.post("/api/v1/events/publish", json=body)).status_code == 200


def of(id: str) -> Json:
    return {"result": 1, "_metadata": {"execution_id": id, "workflow_id": "w"}}


@pytest.mark.parametrize("published", ["before it is followed", "while it is followed"])
async def test_a_program_that_leaves_at_the_finish_event_leaves_a_completed_run(
    served: Served, worker: PushWorker, published: str
) -> None:
    """Such a program runs its own worker. A returned run stays in the queue: no other worker is there."""
    id = await held(served, worker)
    await publish(served, id, "workflow_start", of(id))
    if published == "before it is followed":
        await publish(served, id, "workflow_finish", of(id))

    async def program() -> None:
        async with following(served, run_stream(id)) as stream:
            for event_type in ("workflow_start", "workflow_finish"):
                event = await stream.next()
                assert event is not None and (event.data["event_type"], event.data["data"]) == (event_type, of(id))
                read.append(event_type)
        await worker.say(id, "confirm-cancellation", {"worker_id": worker.id})
        await worker.die()

    def is_kept() -> bool:
        """Whether a stream waits for the end of the run, and not for an event."""
        waiting = served.engine.notifier._waiting
        of_run, of_topic = ("written", id), ("topic", served.project_id, f"workflow/w/{id}")
        return len(waiting.get(of_run, ())) > len(waiting.get(of_topic, ()))

    read: list[str] = []
    leaving = asyncio.create_task(program())
    await until(lambda: bool(read))
    if published == "while it is followed":
        await publish(served, id, "workflow_finish", of(id))
    await until(lambda: leaving.done() or is_kept())
    assert read == ["workflow_start"]
    await worker.say(id, "steps", {"step_key": "publish_finish", "success": True})
    assert (await worker.complete(id, {"n": 1})).status_code == 200
    await leaving
    found = (await served.client.get(f"/api/v1/executions/{id}")).json()
    assert (found["phase"], found["result"]) == ("completed", {"n": 1})


async def test_a_run_that_is_handed_back_keeps_its_finish_event_no_longer(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_followers, "REPORT_SECONDS", 600.0)
    id = await held(served, worker)
    worker.answer = lambda body: 429
    async with following(served, run_stream(id)) as stream:
        await publish(served, id, "agent_finish", of(id))
        await worker.say(id, "confirm-cancellation", {"worker_id": worker.id})
        event = await stream.next()
        assert event is not None and event.data["event_type"] == "agent_finish"


async def test_a_finish_event_is_not_kept_for_long(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_followers, "REPORT_SECONDS", 0.02)
    id = await held(served, worker)
    async with following(served, run_stream(id)) as stream:
        await publish(served, id, "workflow_finish", of(id))
        event = await stream.next()
        assert event is not None and event.data["event_type"] == "workflow_finish"
    assert (await served.client.get(f"/api/v1/executions/{id}")).json()["phase"] == "running"


async def test_other_events_of_a_run_are_sent_at_once(
    served: Served, worker: PushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of children, and events that only look like the run's finish event."""
    monkeypatch.setattr(topic_followers, "REPORT_SECONDS", 600.0)
    id = await held(served, worker)
    child = str(uuid4())
    events = [("step_finish", of(id)), ("tool_finish", of(child)), ("workflow_finish", None), ("agent_finish", [id])]
    async with following(served, run_stream(id)) as stream:
        for event_type, data in events:
            await publish(served, id, event_type, data)
            event = await stream.next()
            assert event is not None and (event.data["event_type"], event.data["data"]) == (event_type, data)
