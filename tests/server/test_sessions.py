"""Sessions over HTTP: what agents remember of them."""

from typing import Any

import pytest
from tests.server.serving import Served

MEMORY = "/internal/session/a%2Fb/memory"


async def test_memory_as_existing_clients_use_it(served: Served) -> None:
    reply = await served.client.get(MEMORY)
    assert (reply.status_code, reply.json()) == (200, {"messages": [], "version": 0, "summary": None})
    body = {"summary": "so far", "messages": [{"role": "user", "content": "hi"}], "unknown": "is ignored"}
    for version in (1, 2):
        reply = await served.client.put(MEMORY, json=body)
        assert (reply.status_code, reply.json()) == (200, {"version": version})
    known = (await served.client.get(MEMORY)).json()
    assert known == {"messages": body["messages"], "version": 2, "summary": "so far"}
    _, other = await served.other_project()
    assert (await served.client.get(MEMORY, headers=other)).json()["version"] == 0


async def test_a_concurrent_writer_is_told(served: Served) -> None:
    assert (await served.client.put(MEMORY, json={"messages": [1], "version": 0})).status_code == 200
    late = await served.client.put(MEMORY, json={"messages": [2], "version": 0})
    assert (late.status_code, late.json()["error_type"], late.json()["details"]) == (409, "CONFLICT", {"version": 1})
    late = await served.client.put(MEMORY, json={"messages": [2]}, headers={"if-match": '"7"'})
    assert late.status_code == 409
    assert (await served.client.get(MEMORY)).json()["messages"] == [1]
    reply = await served.client.put(MEMORY, json={"messages": [2]}, headers={"if-match": '"1"'})
    assert (reply.status_code, reply.json()) == (200, {"version": 2})


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        ({"summary": "s"}, {}, 422, "messages"),
        ({"messages": [], "version": -1}, {}, 422, "body.version"),
        ({"messages": [], "version": 2**63}, {}, 422, "body.version"),
        ({"messages": "x" * (8 << 20)}, {}, 422, "messages: "),
        ({"messages": [], "summary": "x" * (2 << 20)}, {}, 422, "summary: "),
        ({"messages": []}, {"if-match": "*"}, 400, "If-Match"),
    ],
)
async def test_what_cannot_be_kept(served: Served, body: Any, headers: dict[str, str], status: int, says: str) -> None:
    reply = await served.client.put(MEMORY, json=body, headers=headers)
    assert reply.status_code == status and says in reply.json()["error"]
    assert (await served.client.get(MEMORY)).json()["version"] == 0
