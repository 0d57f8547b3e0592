"""A NUL character, which PostgreSQL keeps in no text, is refused at every door, before the store is asked."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from tests.server.requests import NOBODY, PROTOCOL, ROUTES, UNKNOWN, body_of, query_of, url_of
from tests.server.serving import Served, serving
from tests.server.users import browser, member

Json = Any


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    async with serving(database, outbound_hosts=(NOBODY,)) as served:
        yield served


def with_nul(value: Json) -> Iterator[Json]:
    """Copies of the value, each with a NUL in place of another text."""
    if isinstance(value, str):
        yield "\0"
    elif isinstance(value, list):
        for n, one in enumerate(value):
            for changed in with_nul(one):
                yield [*value[:n], changed, *value[n + 1 :]]
    elif isinstance(value, dict):
        for name, one in value.items():
            for changed in with_nul(one):
                yield {**value, name: changed}


async def test_in_any_text_of_a_body_or_path(served: Served) -> None:
    found: list[str] = []

    def note(reply: httpx2.Response, what: Json) -> None:
        if reply.status_code >= 500:
            found.append(f"{reply.request.method} {reply.request.url.path} {what}: {reply.status_code}")

    for route in ROUTES:
        if "sign-out" in route.path:
            continue
        if route.body_type is not None:
            for body in with_nul(body_of(route)):
                url = url_of(route)
                note(
                    await served.client.request(route.method, url, json=body, params=query_of(route), headers=PROTOCOL),
                    body,
                )
        for name in route.path_names:
            url = url_of(route, {name: "%00"})
            body = body_of(route)
            sent = {} if body is None else {"json": body}
            note(await served.client.request(route.method, url, params=query_of(route), headers=PROTOCOL, **sent), name)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", ["user_id", "session_id"])
async def test_in_whose_executions_are_erased(served: Served, name: str) -> None:
    reply = await served.client.post("/api/v1/executions/erase", json={name: "\0"})
    assert reply.status_code == 422
    assert f"{name}: holds a NUL character" in reply.json()["error"]


@pytest.mark.parametrize("project_id", ["\0", "no id", UNKNOWN])
async def test_in_the_project_of_a_link(served: Served, project_id: str) -> None:
    said = json.dumps([project_id, UNKNOWN, "s", "q", "n", 1]).encode()
    link = base64.urlsafe_b64encode(said).decode().rstrip("=") + ".AA"
    async with browser(served) as client:
        assert (await client.get(f"/approve/{UNKNOWN}/s?link={link}")).status_code == 401


async def test_in_the_project_that_a_page_names(served: Served) -> None:
    async with member(served) as ann:
        for path in ("/api/v1/executions", "/api/v1/events/stream"):
            reply = await ann.client.get(f"{path}?topic=t&project_id=%00")
            assert reply.status_code == 400, reply.text
            assert "query.project_id: holds a NUL character" in reply.json()["error"]
