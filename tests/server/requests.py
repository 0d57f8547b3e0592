"""Requests for any route of the table, made from the route's document: fitting paths, queries and bodies."""

import re
from typing import Any

from perdure.server.app import all_routes
from perdure.server.http import openapi
from perdure.server.http.routing import Route

Json = Any

ROUTES = all_routes()
PROTOCOL = {"perdure-protocol": "1"}
UNKNOWN = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"
IDS = {"execution_id", "schedule_id", "project_id", "user_id", "key_id", "worker_id", "trigger_id", "webhook_id"}
"""Names in paths with ids from the server. The other names are the caller's words, with another meaning in each
project; an unwritten trace is empty."""
NOBODY = "192.0.2.1"
"""An unused address without a name to look up. A server may call the address if listed in `outbound_hosts`."""
URL = f"https://{NOBODY}/"
INSTEAD = frozenset({"usd", "from_end"})
"""Alternative fields: a body has either."""
LEFT_OUT = {"act_on_execution": ("value", "error"), "retry_execution": ("keep_later", "redo_later")}
"""Fields that conflict with others of a route, such as the first action."""
FITTING: Json = {
    "missed_window_seconds": 60,
    "cron": "0 9 * * *",
    "timezone": "Europe/Berlin",
    "email": "w@example.com",
    "workflow_type": "workflow",
    "url": URL,
    "webhook_url": URL,
    "push_endpoint_url": URL,
    "mode": "push",
    "per": "user",
    "password": "long enough",
    "new_password": "long enough",
}
"""Values for fields with further rules than a type."""
DOCUMENT: Json = openapi.document(ROUTES, version="1")
SCHEMAS: Json = DOCUMENT["components"]["schemas"]


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def operation_of(route: Route) -> Json:
    return DOCUMENT["paths"][route.path][route.method.lower()]


def url_of(route: Route, values: dict[str, str] | None = None) -> str:
    """The route's address; names missing in `values` get an unknown id."""
    return re.sub(r"\{(\w+)\}", lambda match: (values or {}).get(match[1], UNKNOWN), route.path)


def query_of(route: Route) -> dict[str, str]:
    """The query's required parameters."""
    parameters = operation_of(route).get("parameters", ())
    return {
        one["name"]: str(sample(one["schema"], one["name"]))
        for one in parameters
        if one["in"] == "query" and one["required"]
    }


def body_of(route: Route, **values: Json) -> Json:
    """A body of the right shape, with every field; None for a route without a body. `values` are values by field name;
    `any` fills free values."""
    if route.body_type is None:
        return None
    body = sample(operation_of(route)["requestBody"]["content"]["application/json"]["schema"], "", values)
    for field in LEFT_OUT.get(route.name, ()):
        del body[field]
    return body


def sample(schema: Json, name: str = "", values: Json = None) -> Json:
    """A value that fits a schema. Waits are short, and no optional reference names an execution."""
    values = values or {}
    if name in values:
        return values[name]
    if "$ref" in schema:
        return sample(SCHEMAS[schema["$ref"].rpartition("/")[2]], name, values)
    if "anyOf" in schema:
        return sample(schema["anyOf"][0], name, values)
    if "enum" in schema:
        return schema["enum"][0]
    if name in FITTING:
        return FITTING[name]
    if name.endswith("execution_id") or name == "worker_id":
        return UNKNOWN
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if "wait" in name and kind in ("integer", "number"):
        return 0.01
    if kind == "object":
        if "properties" in schema:
            fields = schema["properties"].items()
            return {field: sample(inner, field, values) for field, inner in fields if field not in INSTEAD}
        return {"a": sample(schema["additionalProperties"], "", values)}
    if kind == "array":
        return [sample(schema["items"], "", values)]
    if schema.get("format") == "date-time":
        return "2025-01-01T00:00:00+00:00"
    if schema.get("format") == "uuid":
        return UNKNOWN
    return {"string": "w", "integer": 1, "number": 1.0, "boolean": True, None: {"any": values.get("any", 1)}}[kind]
