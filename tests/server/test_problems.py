"""One JSON shape for all errors, over every route; and nothing the caller does is our fault."""

import json
import re
from typing import Any

import httpx2
import pytest
from tests.server.serving import Served

from perdure.server.app import all_routes
from perdure.server.routing import Route
from perdure.wire.access import Role

ROUTES = all_routes()
KEYED = [route for route in ROUTES if route.role is not None]
WITH_BODY = [route for route in ROUTES if route.body_type is not None]
PROTOCOL = {"perdure-protocol": "1"}
UNKNOWN = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def url_of(route: Route) -> str:
    return re.sub(r"\{\w+\}", UNKNOWN, route.path)


def check_shape(reply: httpx2.Response, status: int, error_type: str | None = None) -> None:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    assert set(body) <= {"error", "error_type", "details"}
    assert body["error"] and re.fullmatch(r"[A-Z_]+", body["error_type"])
    assert error_type in (None, body["error_type"])


@pytest.mark.parametrize("route", KEYED, ids=name_of)
async def test_no_key_no_entry(served: Served, route: Route) -> None:
    reply = await served.client.request(route.method, url_of(route), headers={"authorization": ""})
    check_shape(reply, 401, "UNAUTHORIZED")
    assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", KEYED, ids=name_of)
async def test_a_role_below_the_routes_is_refused(served: Served, route: Route) -> None:
    assert route.role is not None
    below = {Role.WRITE: Role.READ, Role.ADMIN: Role.WRITE}.get(route.role)
    if below is None:
        return
    headers = {"authorization": f"Bearer {await served.key_of(below)}"}
    reply = await served.client.request(route.method, url_of(route), headers=headers)
    check_shape(reply, 403, "FORBIDDEN")


@pytest.mark.parametrize("route", KEYED, ids=name_of)
@pytest.mark.parametrize("header", ["X-Project-ID", "Project-ID"])
async def test_another_project_does_not_exist(served: Served, route: Route, header: str) -> None:
    reply = await served.client.request(route.method, url_of(route), headers={header: UNKNOWN, **PROTOCOL})
    check_shape(reply, 404, "NOT_FOUND")


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
async def test_the_wrong_method_says_which_are_right(served: Served, route: Route) -> None:
    served_here = {other.method for other in ROUTES if other.path == route.path}
    reply = await served.client.request(min({"PATCH", "PUT"} - served_here), url_of(route))
    check_shape(reply, 405, "METHOD_NOT_ALLOWED")
    assert route.method in reply.headers["allow"].split(", ")
    assert reply.json()["details"] == {"allow": reply.headers["allow"].split(", ")}


@pytest.mark.parametrize(
    "path", ["/nope//", "/nope", "/api/v1/executions/", "/api/v1/workflows//run", "/docs/x", "/%ff"]
)
async def test_there_is_nothing_elsewhere(served: Served, path: str) -> None:
    reply = await served.client.get(path)
    check_shape(reply, 400 if path == "/%ff" else 404)


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"{}x", 400),
        (b"nonsense", 400),
        (b"\xff\xfe{\x00}\x00", 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"\xff": 1}', 400),
        (b"null", 422),
        (b"[]", 422),
        (b"1", 422),
        (b'"x"', 422),
        (b"[" * 100_000, 422),
        (b'{"a":' * 100_000, 400),
    ],
    ids=[
        "empty",
        "cut",
        "trailing",
        "word",
        "utf-16",
        "bom",
        "latin-1",
        "null",
        "array",
        "number",
        "text",
        "deep",
        "deeper",
    ],
)
async def test_a_body_that_is_none(served: Served, route: Route, body: bytes, status: int) -> None:
    reply = await served.client.request(
        route.method, url_of(route), content=body, headers={"content-type": "application/json", **PROTOCOL}
    )
    assert reply.status_code in (status, 400, 422)
    check_shape(reply, reply.status_code)
    assert "body" in reply.json()["error"]


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
async def test_only_json_is_taken(served: Served, route: Route) -> None:
    for headers in (
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "br"},
    ):
        reply = await served.client.request(route.method, url_of(route), content=b"{}", headers={**headers, **PROTOCOL})
        check_shape(reply, 415, "UNSUPPORTED_MEDIA_TYPE")
    for content_type in ("application/json; charset=utf-8", "Application/JSON;charset=UTF-8", None):
        headers = PROTOCOL if content_type is None else {"content-type": content_type, **PROTOCOL}
        reply = await served.client.request(route.method, url_of(route), content=b"[]", headers=headers)
        check_shape(reply, 422)


def _values(node: Any) -> Any:
    """Wrong values for a schema's field."""
    return [None, True, -1, 2**31, 2**63, 2**64, 1.5, "x", "\0", "x" * 3_000, [], {}, [[]], [{}], {"a": {}}]


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
async def test_wrong_types_are_the_callers_fault(served: Served, route: Route) -> None:
    """Every field of every body with every wrong value, alone: a 4xx that names a field, or an answer; never 5xx."""
    document = (await served.client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    operation = document["paths"][route.path][route.method.lower()]
    base = _sample(operation["requestBody"]["content"]["application/json"]["schema"], schemas)
    for path in list(_paths(base)):
        for value in _values(base):
            body = json.loads(json.dumps(base))
            node = body
            for part in path[:-1]:
                node = node[part]
            node[path[-1]] = value
            reply = await served.client.request(route.method, url_of(route), json=body, headers=PROTOCOL)
            assert reply.status_code < 500, (path, value, reply.text)
            if reply.status_code >= 400:
                check_shape(reply, reply.status_code)


def _sample(schema: Any, schemas: Any) -> Any:
    if "$ref" in schema:
        return _sample(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return _sample(schema["anyOf"][0], schemas)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        if "properties" in schema:
            return {
                name: UNKNOWN if name.endswith("execution_id") else 0.01 if "wait" in name else _sample(inner, schemas)
                for name, inner in schema["properties"].items()
            }
        return {"a": _sample(schema["additionalProperties"], schemas)}
    if kind == "array":
        if "prefixItems" in schema:
            return [_sample(inner, schemas) for inner in schema["prefixItems"]]
        return [_sample(schema["items"], schemas)]
    if schema.get("format") == "date-time":
        return "2025-01-01T00:00:00+00:00"
    return {"string": "w", "integer": 1, "number": 1.0, "boolean": True, None: {"any": 1}}[kind]


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

    monkeypatch.setattr(served.engine.executions, "get", fail)
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
