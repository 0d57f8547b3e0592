"""The OpenAPI 3.1 document of a table of routes."""

from collections.abc import Sequence
from typing import Final, get_origin

from msgspec import Struct

from perdure.server.access.cookies import COOKIE
from perdure.server.http.bodies import VALUES
from perdure.server.http.problems import Reply
from perdure.server.http.routing import Route
from perdure.server.http.schemas import REF, Json, Schemas
from perdure.server.http.streams import EventStream
from perdure.wire.base.access import Caller
from perdure.wire.runs.starts import INPUT_CHECK

_ERROR: Final[Json] = {
    "type": "object",
    "description": "The one error body",
    "required": ["error", "error_type"],
    "properties": {
        "error": {"type": "string", "description": "Text for a person: what happened, to what, what to do"},
        "error_type": {"type": "string", "description": "Upper-case code for a program"},
        "details": {"type": ["object", "null"], "description": "More, for a program; the path of a field"},
    },
}
_HEADERS: Final[dict[str, Json]] = {
    "X-Project-ID": {
        "required": False,
        "description": "The project of a signed-in user's request, unless the path has it; may repeat the one of a key "
        "(Project-ID is taken too). Another one is 404",
        "schema": {"type": "string"},
    },
    "Idempotency-Key": {
        "required": False,
        "description": "The same key with the same request: the first answer again; with another request: 409",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    "Last-Event-ID": {
        "required": False,
        "description": "Go on after the event with this id",
        "schema": {"type": "string"},
    },
    "Content-Encoding": {
        "required": False,
        "description": "`gzip`, when the body is packed",
        "schema": {"type": "string", "enum": ["gzip", "identity"]},
    },
    "If-Match": {
        "required": False,
        "description": "The version that was read; another one by now is 409",
        "schema": {"type": "string"},
    },
    INPUT_CHECK: {
        "required": False,
        "description": "The check of inputs that the client has made; the server makes another one",
        "schema": {"type": "string"},
    },
    "Perdure-Protocol": {
        "required": True,
        "description": "The version that the worker speaks",
        "schema": {"type": "string", "enum": ["1"]},
    },
}
_NEXT_CURSOR: Final[Json] = {
    "description": "The `cursor` of the following page; not there after the last",
    "schema": {"type": "string"},
}
_PROBLEMS: Final[dict[int, str]] = {
    400: "Malformed, or against the rules",
    401: "No key and no session, or a wrong one",
    403: "The role does not allow it, or the page may not call",
    404: "Unknown here; what belongs to another project is unknown here too",
    408: "The request took too long to arrive",
    409: "The state does not allow it",
    413: "Too large",
    415: "Not JSON in UTF-8, or compressed",
    422: "A value that cannot be kept, or of another shape; the error names its path",
    429: "Too many wrong keys or passwords, or too many streams",
    503: "Nothing happened, or it is not known: try again with the same Idempotency-Key",
}


def document(routes: Sequence[Route], *, version: str) -> Json:
    schemas = Schemas()
    schemas.named["ErrorResponse"] = _ERROR
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Perdure API v1",
            "version": version,
            "description": "Durable execution: workflows and agents that never lose their place.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer_auth": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Bearer <token>: an API key (sk_...) or a session token (us_...)",
                },
                "cookie_auth": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": "The session of a user who has signed in, over TLS with the prefix __Host-; "
                    "X-Project-ID names the project. A request that changes something needs an "
                    "Origin or Sec-Fetch-Site of this server",
                },
            },
            "schemas": schemas.named,
        },
    }


def _operation(route: Route, schemas: Schemas) -> Json:
    summary, _, description = route.doc.partition("\n\n")
    operation: Json = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": " ".join(summary.split()).removesuffix("."),
    }
    if description:
        operation["description"] = description
    parameters = _parameters(route, schemas)
    if parameters:
        operation["parameters"] = parameters
    if route.body_type is not None:
        content = {"application/json": {"schema": schemas.add(route.body_type)}}
        operation["requestBody"] = {"required": not route.bodiless, "content": content}
    if route.raw_body:
        operation["requestBody"] = {"required": True, "content": {kind: {} for kind in route.raw_body}}
    operation["responses"] = _responses(route, schemas)
    operation["security"] = [] if route.caller is Caller.ANYONE else [{"bearer_auth": []}, {"cookie_auth": []}]
    if route.asks:
        operation["security"] = [{}, {"bearer_auth": []}, {"cookie_auth": []}]
    if route.role is not None:
        operation["x-role"] = route.role.value
    return operation


def _parameters(route: Route, schemas: Schemas) -> list[Json]:
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.path_names
    ]
    if route.caller is not Caller.ANYONE:
        found.append({"name": "X-Project-ID", "in": "header", **_HEADERS["X-Project-ID"]})
    if route.idempotent:
        found.append({"name": "Idempotency-Key", "in": "header", **_HEADERS["Idempotency-Key"]})
    found.extend({"name": name, "in": "header", **_HEADERS[name]} for name in route.headers)
    if route.query_type is not None:
        for name, required, schema in schemas.parameters(route.query_type):
            parameter: Json = {"name": name, "in": "query", "required": required}
            if "description" in schema:
                parameter["description"] = schema.pop("description")
            parameter["schema"] = schema
            if schema.get("type") == "array":
                parameter["explode"] = False
            found.append(parameter)
    return found


def _responses(route: Route, schemas: Schemas) -> Json:
    responses: Json = {}
    if route.reply_type is type(None):
        responses["204"] = {"description": "Done; there is nothing to tell"}
    elif route.reply_type is EventStream:
        text = "Server-sent events: id:, event: and data: lines; a comment when silent; ends with the execution"
        responses["200"] = {
            "description": "Success",
            "content": {"text/event-stream": {"schema": {"type": "string", "description": text}}},
        }
    elif get_origin(route.reply_type) is list or (
        isinstance(route.reply_type, type) and issubclass(route.reply_type, Struct) and route.reply_type is not Reply
    ):
        content = {"application/json": {"schema": schemas.add(route.reply_type)}}
        responses["200"] = {"description": "Success", "content": content}
        if route.paged:
            responses["200"]["headers"] = {"Next-Cursor": _NEXT_CURSOR}
    else:
        kinds = route.raw_body or (route.media_type,)  # it answers in the body's kind
        responses["200"] = {"description": "Success", "content": {kind: {} for kind in kinds}}
    problem = {"application/json": {"schema": {"$ref": REF + "ErrorResponse"}}}
    for status in _statuses(route):
        responses[str(status)] = {"description": _PROBLEMS[status], "content": problem}
    if "413" in responses and route.body_bytes_max < VALUES:
        responses["413"]["description"] += f": more than {route.body_bytes_max:,} bytes"
    responses["500"] = {"description": "Server fault", "content": problem}
    return responses


def _statuses(route: Route) -> list[int]:
    statuses = {400, 403, 503}
    if route.caller is not Caller.ANYONE or route.asks:
        statuses |= {401, 404, 429}
    elif route.body_type is not None:
        statuses |= {401, 429}  # signing in
    if route.path_names:
        statuses |= {404, 422}
    if route.query_type is not None:
        statuses |= {422}
    if route.body_type is not None or route.raw_body:
        statuses |= {408, 409, 413, 415, 422}
    if route.method != "GET":
        statuses |= {409, 422}
    return sorted(statuses)
