"""No caller stops the others: limits of a request, and work that ends with its caller."""

import asyncio
import json
from typing import Any

import pytest
from tests.server.serving import Hand, Served

from perdure.store.base.interface import Verb
from perdure.wire.runs.executions import NAMES_MAX
from perdure.wire.runs.workflows import tool_name

NAME_FILTERS = [f"{no}{name}" for name in ("workflow_id", "queue_name", "deployment_id") for no in ("", "not_")]
MANY = [f"{n:03}".ljust(200, "\u05d0") for n in range(NAMES_MAX + 1)]
LISTS = {
    "/api/v1/executions": {},
    "/api/v1/executions/summaries": {},
    "/api/v1/executions/count": {},
    "/api/v1/executions/histogram": {"over": "created"},
    "/api/v1/executions/errors": {},
    "/api/v1/executions/facets": {"of": "user_id"},
    "/api/v1/live": {"watch": "list"},
}


@pytest.mark.parametrize("name", NAME_FILTERS)
async def test_a_filter_has_at_most_fifty_names(served: Served, name: str) -> None:
    for path, more in LISTS.items():
        reply = await served.client.get(path, params={**more, name: ",".join(one[:20] for one in MANY)})
        assert (reply.status_code, reply.json()["details"]["path"]) == (422, f"query.{name}"), (path, reply.text)
        assert "has 51 names; the limit is 50" in reply.json()["error"]
    for path in ("/api/v1/bulk/preview", "/api/v1/bulk"):
        body = {"action": "cancel", "filters": {name: ",".join(MANY)}}
        reply = await served.client.post(path, json=body)
        assert (reply.status_code, reply.json()["details"]["path"]) == (422, f"filters.{name}"), reply.text
        body["filters"] = {name: ",".join(MANY[:-1])}
        assert (await served.client.post(path, json=body)).json()["error_type"] == "NOTHING_MATCHES"


async def test_a_filter_has_at_most_fifty_tags(served: Served) -> None:
    for amount, status in ((50, 200), (51, 422)):
        tags = json.dumps({f"t{n}": "x" for n in range(amount)})
        assert (await served.client.get("/api/v1/executions", params={"tags": tags})).status_code == status


async def test_fifty_names_find_what_they_name(served: Served) -> None:
    hand = Hand(served.client, ("order", "other"))
    await hand.register()
    ids = [await served.start(name) for name in ("order", "other", "order")]
    some = ",".join([*MANY[:48], "order", "other"])
    for filters in ({"workflow_id": some}, {"queue_name": some}, {"workflow_id": some, "queue_name": some}):
        reply = await served.client.post("/api/v1/bulk/preview", json={"action": "cancel", "filters": filters})
        assert (reply.json()["count"], reply.json()["newest"]) == (3, ids[-1])
        filters["not_workflow_id"] = "other"
        reply = await served.client.post("/api/v1/bulk/preview", json={"action": "cancel", "filters": filters})
        assert reply.json()["count"] == 2


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /api/v1/executions?key=none",
        "GET /api/v1/search?q=none",
        "POST /api/v1/bulk/preview",
    ],
)
async def test_a_scan_ends_when_its_caller_leaves(
    served: Served, monkeypatch: pytest.MonkeyPatch, request_line: str
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    scan = served.engine.store.scan

    async def endless(verb: Verb[Any]) -> Any:
        if not verb.project_id:
            return await scan(verb)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    monkeypatch.setattr(served.engine.store, "scan", endless)
    body = b'{"action": "cancel", "filters": {"key": "none"}}' if request_line.startswith("POST") else b""
    _, writer = await asyncio.open_connection(*served.address)
    writer.write(
        f"{request_line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    async with asyncio.timeout(60):
        await begun.wait()
        writer.close()
        await ended.wait()


async def test_a_project_has_a_limit_of_workflows(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts names. Known names may be registered again, even by another deployment."""
    monkeypatch.setattr("perdure.store.verbs.runs.deployments.WORKFLOWS_MAX", 5)
    hand = Hand(served.client, tuple(f"w-{n}" for n in range(5)))
    await hand.register()
    hand.deployment_id = "newer"
    await hand.register()
    more = Hand(served.client, ("w-5",))
    body = {"worker_id": more.id, "deployment_id": "d", "python": "3.11", "workflows": [{"id": "w-5"}]}
    reply = await served.client.post("/worker/v1/register", json=body, headers={"perdure-protocol": "1"})
    assert (reply.status_code, reply.json()["details"]) == (422, {"path": "workflows"})
    assert "would have 6 workflows, agents and tools of different names; the limit is 5" in reply.json()["error"]
    deployed = "/api/v1/workers/deployments/push/workflows"
    assert (await served.client.post("/api/v1/workers/deployments", json={"deployment_id": "push"})).is_success
    for id, status in (("w-6", 422), ("w-0", 200)):
        reply = await served.client.post(deployed, json={"workflow_id": id, "workflow_type": "workflow"})
        assert reply.status_code == status, reply.text
    _, other = await served.other_project()
    reply = await served.client.post("/worker/v1/register", json=body, headers={**other, "perdure-protocol": "1"})
    assert reply.status_code == 200


async def test_the_schemas_of_a_registration_have_a_limit(served: Served) -> None:
    schema = {"type": "object", "description": "x" * 60_000}
    workflows = [{"id": f"w-{n}", "description": {"input_schema": schema, "output_schema": schema}} for n in range(70)]
    body = {"worker_id": Hand(served.client).id, "deployment_id": "d", "python": "3.11", "workflows": workflows}
    for amount, status in ((70, 413), (69, 200)):
        body["workflows"] = workflows[:amount]
        reply = await served.client.post("/worker/v1/register", json=body, headers={"perdure-protocol": "1"})
        assert reply.status_code == status, reply.text
    page = await served.client.get("/api/v1/startable")
    assert 8 <= len(page.json()) <= 10 and "next-cursor" in page.headers, "a page is about 1 MiB"
    found = await served.client.get("/api/v1/startable", params={"tool": "run_w-68"})
    assert [one["workflow_id"] for one in found.json()] == ["w-68"]


async def test_a_tool_is_found_by_any_name(served: Served) -> None:
    names = ("plain", "billing/send mail", "\u05d0" * 60, "a" * 200, "null", "run_x", "Plain_0a1b2c")
    await Hand(served.client, names).register()
    for name in names:
        found = await served.client.get("/api/v1/startable", params={"tool": tool_name(name)})
        assert [one["workflow_id"] for one in found.json()] == [name]
    for tool in ("run_", "plain", "run_none_0a1b2c", "run_" + "a" * 200):
        assert (await served.client.get("/api/v1/startable", params={"tool": tool})).json() == []
