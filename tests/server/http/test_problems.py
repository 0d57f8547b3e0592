"""Every route has one JSON shape for errors, and no caller's fault counts as the server's.

Each test goes over the whole table on one server, including new routes.
"""

import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from tests.server.requests import IDS, NOBODY, PROTOCOL, ROUTES, UNKNOWN, body_of, name_of, query_of, url_of
from tests.server.serving import Served, serving
from tests.server.users import person

from perdure.server.access.auth import Failures
from perdure.server.http.routing import Route
from perdure.wire.base.access import Caller, Role
from perdure.wire.runs.executions import GetExecution

KEYED = [route for route in ROUTES if route.role is not None]
GUARDED = [route for route in ROUTES if route.caller is not Caller.ANYONE]
WITH_BODY = [route for route in ROUTES if route.body_type is not None]


TOLD_ANYWAY = {"worker_heartbeat": "a worker that is not known is told to register anew"}
"""Routes that answer a missing thing without 404, and why."""


@contextmanager
def at(route: Route) -> Iterator[None]:
    """Name the route in failures of the block."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{name_of(route)}: {error}") from error


@pytest.fixture
async def signing_up(database: str) -> AsyncIterator[Served]:
    """A server on which there may be users."""
    async with serving(database, signup=True, auth_failures_max=100_000, outbound_hosts=[NOBODY]) as served:
        yield served


def check_shape(reply: httpx2.Response, status: int, error_type: str | None = None) -> None:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    assert set(body) <= {"error", "error_type", "details"}
    assert body["error"] and re.fullmatch(r"[A-Z_]+", body["error_type"])
    assert error_type in (None, body["error_type"])


async def test_no_key_no_entry(served: Served) -> None:
    for route in GUARDED:
        served.app.services.gate._failures = Failures(20, time.monotonic)
        for header in ("", "Bearer sk_x", "Bearer us_x", "Basic eDp5"):
            with at(route):
                reply = await served.client.request(route.method, url_of(route), headers={"authorization": header})
                check_shape(reply, 401, "UNAUTHORIZED")
                assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_a_role_below_the_routes_is_refused(served: Served) -> None:
    keys = {role: await served.key_of(role) for role in (Role.READ, Role.WRITE)}
    for route in KEYED:
        below = {Role.WRITE: Role.READ, Role.ADMIN: Role.WRITE}.get(route.role or Role.READ)
        if below is not None:
            with at(route):
                headers = {"authorization": f"Bearer {keys[below]}"}
                reply = await served.client.request(
                    route.method, url_of(route, {"project_id": served.project_id}), headers=headers
                )
                check_shape(reply, 403, "FORBIDDEN")


async def test_another_project_does_not_exist(served: Served) -> None:
    for route in KEYED:
        for header in ("X-Project-ID", "Project-ID"):
            with at(route):
                reply = await served.client.request(route.method, url_of(route), headers={header: UNKNOWN, **PROTOCOL})
                check_shape(reply, 404, "NOT_FOUND")


async def ask_for(served: Served, route: Route, values: dict[str, str]) -> httpx2.Response:
    """A fitting request for things with these names."""
    return await served.client.request(
        route.method, url_of(route, values), params=query_of(route), json=body_of(route), headers=PROTOCOL
    )


async def test_what_no_id_names_does_not_exist(served: Served) -> None:
    """Routes with an id in the path answer 404, in upper case as well. Answers under a word may be empty."""
    for route in KEYED:
        ids = (IDS & {*route.path_names} - {"project_id"}) if route.name not in TOLD_ANYWAY else set()
        for id in (UNKNOWN, UNKNOWN.upper()) if route.path_names else ():
            own = {"project_id": served.project_id, "key_id": "nokeyhas", "trace_id": id.replace("-", "")}
            with at(route):
                reply = await ask_for(served, route, dict.fromkeys(route.path_names, id) | own)
                assert reply.status_code < 500
                if ids or reply.status_code >= 400:
                    check_shape(reply, 404 if ids else reply.status_code)


async def test_an_id_that_can_be_none_is_malformed(served: Served) -> None:
    for route in KEYED:
        for name in IDS & {*route.path_names}:
            with at(route):
                reply = await ask_for(served, route, {"project_id": served.project_id, name: "not-an-id"})
                check_shape(reply, 400)


async def test_the_wrong_method_says_which_are_right(served: Served) -> None:
    for route in ROUTES:
        served_here = {other.method for other in ROUTES if other.path == route.path}
        wrong = min({"PATCH", "PUT", "DELETE", "POST"} - served_here)
        with at(route):
            reply = await served.client.request(wrong, url_of(route))
            check_shape(reply, 405, "METHOD_NOT_ALLOWED")
            assert route.method in reply.headers["allow"].split(", ")
            assert reply.json()["details"] == {"allow": reply.headers["allow"].split(", ")}


@pytest.mark.parametrize(
    "path", ["/nope//", "/nope", "/api/v1/executions/", "/api/v1/workflows//run", "/docs/x", "/%ff"]
)
async def test_there_is_nothing_elsewhere(served: Served, path: str) -> None:
    reply = await served.client.get(path)
    check_shape(reply, 400 if path == "/%ff" else 404)


async def as_whoever(served: Served, route: Route, user: dict[str, str], **request: Any) -> httpx2.Response:
    """Ask as somebody who may: the admin's key, or a user where a key is nobody."""
    headers = {**PROTOCOL, **request.pop("headers", {}), **(user if route.caller is Caller.USER else {})}
    url = url_of(route, {"project_id": served.project_id})
    return await served.client.request(route.method, url, headers=headers, **request)


NO_JSON = {
    "empty": b"",
    "cut": b"{",
    "word": b"nonsense",
    "utf-16": b"\xff\xfe{\x00}\x00",
    "bom": b"\xef\xbb\xbf{}",
}
NO_SHAPE = {"null": b"null", "array": b"[]", "number": b"1", "text": b'"x"'}
EITHER = {
    "trailing": b"{}x",
    "latin-1": b'{"\xff": 1}',
    "deep": b"[" * 10_000,
    "deeper": b'{"a":' * 3_000,
}
"""Wrong in two ways; whichever is found first is told."""


async def test_a_body_that_is_none(signing_up: Served) -> None:
    async with person(signing_up) as somebody:
        user = somebody.within("")
        for route in WITH_BODY:
            for bodies, statuses in ((NO_JSON, {400}), (NO_SHAPE, {422}), (EITHER, {400, 422})):
                for what, body in bodies.items():
                    if route.bodiless and not body:
                        continue
                    with at(route):
                        reply = await as_whoever(
                            signing_up, route, user, content=body, headers={"content-type": "application/json"}
                        )
                        assert reply.status_code in statuses, (what, reply.text)
                        check_shape(reply, reply.status_code)
                        assert "body" in reply.json()["error"]


async def test_only_json_is_taken(signing_up: Served) -> None:
    async with person(signing_up) as somebody:
        user = somebody.within("")
        for route in WITH_BODY:
            for headers in (
                {"content-type": "text/plain"},
                {"content-type": "application/x-www-form-urlencoded"},
                {"content-type": "application/json; charset=utf-16"},
                {"content-type": "application/json", "content-encoding": "gzip"},
                {"content-type": "application/json", "content-encoding": "br"},
            ):
                with at(route):
                    reply = await as_whoever(signing_up, route, user, content=b"{}", headers=headers)
                    check_shape(reply, 415, "UNSUPPORTED_MEDIA_TYPE")
            for content_type in ("application/json; charset=utf-8", "Application/JSON;charset=UTF-8", None):
                headers = {} if content_type is None else {"content-type": content_type}
                with at(route):
                    reply = await as_whoever(signing_up, route, user, content=b"[]", headers=headers)
                    check_shape(reply, 422)


def _values(node: Any) -> Any:
    """Wrong values for a schema's field."""
    return [None, True, -1, 2**31, 2**63, 2**64, 1.5, "x", "\0", "x" * 3_000, [], {}, [[]], [{}], {"a": {}}]


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
async def test_wrong_types_are_the_callers_fault(signing_up: Served, route: Route, stride: int) -> None:
    """Every field of every body with each `stride`-th wrong value, alone: a 4xx that names a field, or an answer. Never
    5xx. The next field begins with the next value."""
    base = body_of(route)
    async with person(signing_up) as somebody:
        for at, path in enumerate(_paths(base)):
            for value in _values(base)[at % stride :: stride]:
                body = json.loads(json.dumps(base))
                node = body
                for part in path[:-1]:
                    node = node[part]
                node[path[-1]] = value
                reply = await as_whoever(signing_up, route, somebody.within(""), json=body)
                assert reply.status_code < 500, (path, value, reply.text)
                if reply.status_code >= 400:
                    check_shape(reply, reply.status_code)


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Any:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, inner in items:
        yield (*path, name)
        yield from _paths(inner, (*path, name))


async def test_what_we_got_wrong_is_logged_and_not_told(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*args: object, **values: object) -> None:
        raise RuntimeError("the inner secret")

    monkeypatch.setitem(served.engine.services.methods, GetExecution, fail)
    reply = await served.client.get(f"/api/v1/executions/{UNKNOWN}")
    check_shape(reply, 500, "INTERNAL_ERROR")
    assert "secret" not in reply.text
    id = reply.json()["details"]["error_id"]
    assert [record for record in caplog.records if getattr(record, "error_id", None) == id]


async def test_head_answers_as_get_without_a_body(served: Served) -> None:
    id = await served.start()
    for path in ("/health", f"/api/v1/executions/{id}", f"/api/v1/executions/{id}/events", "/docs"):
        reply = await served.client.head(path)
        assert reply.status_code == 200 and reply.content == b""
    assert (await served.client.head("/api/v1/executions/x")).status_code == 400


async def test_head_takes_nothing(served: Served) -> None:
    """Work is handed to nobody who asks for the headers alone."""
    reply = await served.client.head(f"/api/v1/workers/{UNKNOWN}/poll")
    assert reply.status_code == 405 and "HEAD" not in reply.headers["allow"]
