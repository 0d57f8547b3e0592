"""Keys with the role `work` run and start workflows, and decide nothing for a person."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from tests.server.push_worker import LOOPBACK, push_worker
from tests.server.serving import LASTING, NO_TLS, Hand, Served, serving

from perdure.wire.base.access import Role

Json = Any


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    async with serving(database, outbound_hosts=list(LOOPBACK), **LASTING) as served:
        yield served


@pytest.fixture
async def worker(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """The client of a worker's key."""
    headers = {"authorization": f"Bearer {await served.key_of(Role.WORK)}"}
    async with httpx2.AsyncClient(
        base_url=str(served.client.base_url), headers=headers, timeout=60, verify=NO_TLS
    ) as it:
        yield it


def refused(reply: httpx2.Response, needed: str = "write") -> bool:
    """The refusal names the needed role."""
    says = f"This needs a key with the role '{needed}'; this one has 'work'."
    return (reply.status_code, reply.json()["error_type"], reply.json()["error"]) == (403, "FORBIDDEN", says)


async def test_a_workers_key_runs_starts_publishes_and_reads(served: Served, worker: httpx2.AsyncClient) -> None:
    hand = Hand(worker)
    await hand.register()
    id = (await worker.post("/api/v1/workflows/w/run", json={"payload": 1, "session_id": "s"})).json()["execution_id"]
    item = await hand.claim()
    await hand.beat()
    assert (await hand.complete(item, 2))["ended"]
    assert (await worker.get(f"/api/v1/executions/{id}")).json()["result"] == 2
    event = {"topic": "t", "events": [{"data": 1, "event_type": "resumed"}]}
    assert (await worker.post("/api/v1/events/publish", json=event)).status_code == 200
    message = {"messages": [{"kind": "request", "parts": []}], "version": None}
    assert (await worker.post("/internal/session/s/transcript", json=message)).status_code != 403
    assert (await worker.post("/internal/spans/batch", json={"spans": []})).status_code == 200


async def test_a_workers_key_decides_nothing(served: Served, worker: httpx2.AsyncClient) -> None:
    hand = Hand(worker)
    await hand.register()
    id = await served.start("w", budget={"usd": 1})
    item = await hand.claim()
    wait = {"type": "wait", "key": "ok", "fingerprint": "f", "data": {"refund": 1_000_000}}
    await hand.report(item, entries=[wait], end={"type": "suspend", "waits": ["ok"]})
    run = f"/api/v1/executions/{id}"
    for method, path, body in (
        ("POST", f"/api/v1/approvals/{id}/ok/submit", {"data": True}),
        ("POST", f"/api/v1/approvals/{id}/ok/links", {"name": "ceo@a.example"}),
        ("POST", f"{run}/resume/ok", {"data": True}),
        ("POST", f"{run}/act", {"key": "ok", "action": "resolve", "value": True}),
        ("POST", f"{run}/budget/raise", {"usd": 1_000_000}),
        ("POST", f"{run}/cancel", None),
        ("POST", f"{run}/retry", {}),
        ("POST", f"{run}/fork", {}),
        ("DELETE", run, None),
        ("POST", "/api/v1/slack/apps", {"api_app_id": "A1"}),
    ):
        reply = await worker.request(method, path, json=body)
        assert refused(reply), (path, reply.text)
    for method, path in (
        ("GET", "/api/v1/api-keys"),
        ("GET", "/api/v1/signing-secret"),
        ("POST", "/api/v1/pauses"),
        ("POST", "/api/v1/deployments/default/use"),
    ):
        assert refused(await worker.request(method, path, json={} if method == "POST" else None), "admin"), path
    ours = {"sec-fetch-site": "same-origin"}
    async with httpx2.AsyncClient(base_url=worker.base_url, headers=ours, verify=NO_TLS) as browser:
        await browser.post("/sign-in", data={"key": worker.headers["authorization"].split()[1]})
        assert (await browser.post(f"/approve/{id}/ok", data={"f0": "true"})).status_code == 403
    shown = (await served.client.get(f"/api/v1/approvals/{id}/ok")).json()
    assert shown["state"] == "open"


async def test_a_workers_key_answers_no_push_worker_by_an_event(served: Served, worker: httpx2.AsyncClient) -> None:
    async with push_worker(served) as pushed:
        pushed.client = worker  # it registers and says all else with its key
        await pushed.register()
        reply = await worker.post(
            "/api/v1/events/publish",
            json={"topic": "workflow/w/x", "events": [{"data": 1}, {"data": True, "event_type": "resume_ok"}]},
        )
        assert refused(reply)


async def test_a_workers_key_cancels_children_of_running_code_only(served: Served, worker: httpx2.AsyncClient) -> None:
    hand = Hand(worker)
    await hand.register()
    parent = await served.start("w")
    item = await hand.claim()
    child = await served.start("w", parent_execution_id=parent)
    grandchild = await served.start("w", parent_execution_id=child)
    assert refused(await worker.post(f"/api/v1/executions/{parent}/cancel")), "it has no parent"
    assert refused(await worker.post(f"/api/v1/executions/{grandchild}/cancel")), "its parent does not run"
    assert (await worker.post(f"/api/v1/executions/{child}/cancel")).json()["status"] == "cancelled"
    second = await served.start("w", parent_execution_id=parent)
    await hand.complete(item)
    assert refused(await worker.post(f"/api/v1/executions/{second}/cancel")), "its parent has ended"
    unknown = await worker.post("/api/v1/executions/0190a5f2-7c1e-7b3a-9d55-0242ac120002/cancel")
    assert unknown.status_code == 404
    _, theirs = await served.other_project()
    assert (await served.client.post(f"/api/v1/executions/{second}/cancel", headers=theirs)).status_code == 404


@pytest.mark.parametrize("role", [Role.WORK, Role.WRITE])
async def test_code_under_a_workers_key_answers_programs_and_not_people(
    served: Served, worker: httpx2.AsyncClient, role: Role
) -> None:
    people, signals, answering = await served.start("w"), await served.start("w"), await served.start("w")
    asker = Hand(served.client)
    await asker.register()
    for data in ({"refund": 1_000_000}, None):
        item = await asker.claim()
        wait = {"type": "wait", "key": "ok", "fingerprint": "f", "data": data}
        await asker.report(item, entries=[wait], end={"type": "suspend", "waits": ["ok"]})
    worker.headers["authorization"] = f"Bearer {await served.key_of(role)}"
    hand = Hand(worker)
    await hand.register()
    item = await hand.claim()
    assert item["id"] == answering
    entry = {"type": "answer", "fingerprint": "f", "step_key": "ok", "data": True}
    entries = [{**entry, "key": id, "execution_id": id} for id in (people, signals)]
    reply = await hand.report(item, entries=entries)
    states = [(await served.client.get(f"/api/v1/executions/{id}")).json()["phase"] for id in (people, signals)]
    assert states == (["waiting", "queued"] if role is Role.WORK else ["queued", "queued"])
    assert ("role 'write'" in str(reply)) is (role is Role.WORK)


async def test_members_have_no_role_of_workers(served: Served, worker: httpx2.AsyncClient) -> None:
    reply = await served.client.post(
        f"/api/v1/projects/{served.project_id}/members", json={"email": "a@b.example", "role": "Work"}
    )
    assert reply.status_code in (400, 422), reply.text
