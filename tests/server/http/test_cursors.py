"""Every list of the contract goes on by a cursor: what comes or goes meanwhile neither shifts nor repeats an entry."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from tests.server.serving import Hand, Served

from perdure.store.verbs.agents import sessions
from perdure.store.verbs.insight import trace_queries, workflow_runs

NAMES = ["ä/1", "b", "c", "d", "e.f"]
"""Unordered names, of which one is not ASCII."""


class List(NamedTuple):
    """A list, and a way to add an entry in front."""

    path: str
    field: str | None
    """The name of the entries' field; None: the answer is an array, and the cursor a header."""
    name: Callable[[Any], Any]
    """The identity of an entry."""
    add: Callable[[Served, Hand, str], Awaitable[Any]]


async def start(served: Served, hand: Hand, name: str) -> str:
    """An ended root execution."""
    id = await served.start(payload={"input": name})
    await hand.complete(await hand.claim())
    return id


async def send_trace(served: Served, hand: Hand, name: str) -> str:
    """Send journals and foreign spans in turn; most spans share a future moment, the last has a later one."""
    if name in NAMES[::2]:
        return (await start(served, hand, name)).replace("-", "")
    trace_id = f"{sum(name.encode()):032x}"
    moment = f"{2999 if name in NAMES else 3000}-01-01T00:00:00Z"
    span = {"trace_id": trace_id, "span_id": "s", "name": "n", "span_type": "t", "started_at": moment}
    assert (await served.client.post("/internal/spans/batch", json={"spans": [span]})).status_code == 200
    return trace_id


async def schedule(served: Served, hand: Hand, name: str) -> str:
    body = {"workflow_id": "w", "cron": "0 9 * * *", "timezone": "UTC", "key": name}
    id: str = (await served.client.post("/api/v1/schedules", json=body)).json()["schedule_id"]
    return id


async def register(served: Served, path: str, name: str, **fields: Any) -> None:
    """The same name in two deployments."""
    for deployment in ("v1", "v2"):
        await served.client.post("/api/v1/workers/deployments", json={"deployment_id": deployment})
        reply = await served.client.post(path.format(deployment), json={**fields, "deployment_id": deployment})
        assert reply.status_code == 200, reply.text


async def workflow(served: Served, hand: Hand, name: str) -> None:
    path = "/api/v1/workers/deployments/{}/workflows"
    await register(served, path, name, workflow_id=name, workflow_type="workflow")


async def agent(served: Served, hand: Hand, name: str) -> None:
    await register(served, "/api/v1/agents/register", name, id=name, provider="p", model="m")


async def tool(served: Served, hand: Hand, name: str) -> None:
    await register(served, "/api/v1/tools/register", name, id=name)


async def topic(served: Served, hand: Hand, name: str) -> None:
    reply = await served.client.post("/api/v1/events/publish", json={"topic": name, "events": [{"data": 1}]})
    assert reply.status_code == 200, reply.text


LISTS = [
    List("traces", "traces", lambda one: one["trace_id"], send_trace),
    List("sessions", "sessions", lambda one: one["execution_id"], start),
    List("workflows/runs?workflow_type=agent", None, lambda one: one["id"], start),
    List("workflows", None, lambda one: (one["workflow_id"], one["deployment_id"]), workflow),
    List("agents", None, lambda one: (one["id"], one["deployment_id"]), agent),
    List("tools", None, lambda one: (one["id"], one["deployment_id"]), tool),
    List("schedules/workflows/w", "schedules", lambda one: one["id"], schedule),
    List("topics", "topics", lambda one: one["topic"], topic),
]


@pytest.fixture
async def hand(served: Served) -> Hand:
    """A worker whose workflow is an agent."""
    hand = Hand(served.client)
    body = {"worker_id": hand.id, "deployment_id": "default", "python": "3.11"}
    hand.epoch = (await hand.say("register", {**body, "workflows": [{"id": "w", "type": "agent"}]}))["epoch"]
    return hand


async def pages(served: Served, kind: List, **query: Any) -> AsyncIterator[Sequence[Any]]:
    """The names on each page."""
    path = f"/api/v1/{kind.path}{'&' if '?' in kind.path else '?'}"
    cursor = None
    while True:
        wanted = query if cursor is None else {**query, "cursor": cursor}
        reply = await served.client.get(path + "&".join(f"{name}={quote(str(wanted[name]))}" for name in wanted))
        assert reply.status_code == 200, reply.text
        found = reply.json()
        yield [kind.name(one) for one in (found if kind.field is None else found[kind.field])]
        cursor = reply.headers.get("next-cursor") if kind.field is None else found["next_cursor"]
        if cursor is None:
            return


@pytest.mark.parametrize("kind", LISTS, ids=lambda kind: kind.path)
async def test_pages_do_not_shift(served: Served, hand: Hand, kind: List) -> None:
    for name in NAMES:
        await kind.add(served, hand, name)
    [whole] = [page async for page in pages(served, kind)]
    assert len(whole) == len(set(whole)) >= len(NAMES)
    found: list[Any] = []
    async for page in pages(served, kind, limit=2):
        assert len(page) == 2 or len(found) + len(page) == len(whole), "whole pages, but for the last one"
        if not found:
            await kind.add(served, hand, "a")
        found += page
    assert found == whole
    [now] = [page async for page in pages(served, kind)]
    assert len(now) > len(whole) and now[-len(whole) :] == whole, "what came meanwhile stands before all others"
    for wrong in ("x", "W10", "WyJ-Iix7fV0", "Wy0xLCIiXQ", "é"):
        reply = await served.client.get(f"/api/v1/{kind.path}{'&' if '?' in kind.path else '?'}cursor={wrong}")
        assert (reply.status_code, reply.json()["error_type"]) == (400, "BAD_REQUEST"), wrong


@pytest.mark.parametrize("kind", LISTS[:3], ids=lambda kind: kind.path)
async def test_a_list_goes_on_beyond_what_it_looks_at_for_one_page(
    served: Served, hand: Hand, kind: List, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        await kind.add(served, hand, name)
    [whole] = [page async for page in pages(served, kind)]
    for module in (trace_queries, sessions, workflow_runs):
        monkeypatch.setattr(module, "LIST_DEPTH", 2)
    found = [one async for page in pages(served, kind, limit=4) for one in page]
    assert found == whole
    if kind.field == "traces":
        journals = [one async for page in pages(served, kind, limit=1, root_span_type="agent") for one in page]
        assert journals == [one for one in whole if not one.startswith("0000")]
