"""Times from outside lie between 1970 and 9999. Older stored times fail no answer."""

from typing import Any, Final

import msgspec
import pytest
from msgspec import inspect
from tests.server.agents.test_approvals import path_of
from tests.server.requests import ROUTES, SCHEMAS, body_of, name_of, operation_of, query_of, url_of
from tests.server.serving import Hand, Served

from perdure.wire.base.operation import Request
from perdure.wire.base.times import AT_US_MAX, moment, rfc3339
from perdure.wire.runs import requests

Json = Any
WRONG: Final = (2**63 - 1, 2**70, -1, AT_US_MAX + 1_000_000)
TEXTS: Final = ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "10000-01-01T00:00:00Z", *WRONG)
CLAMPED: Final = {("Fail", "retry_delay_us"), ("StartItem", "start_at_us"), ("WorkerLoad", "held_us")}
"""The server clamps or checks such fields itself, or only adds up such spans of time."""


def test_a_stored_time_can_always_be_written() -> None:
    for at_us in (*WRONG, -(2**63), 0, AT_US_MAX):
        assert len(rfc3339(at_us)) == 32 and moment(at_us).year in (1970, 9999)


def inner(kind: inspect.Type) -> list[inspect.Type]:
    match kind:
        case inspect.Metadata(type=of):
            return inner(of)
        case inspect.UnionType(types=several):
            return [one for of in several for one in inner(of)]
        case inspect.VarTupleType(item_type=of) | inspect.ListType(item_type=of):
            return inner(of)
        case inspect.TupleType(item_types=several):
            return [one for of in several for one in inner(of)]
    return [kind]


def structs_within(kind: inspect.Type, found: dict[str, inspect.StructType]) -> None:
    for one in inner(kind):
        if isinstance(one, inspect.StructType) and one.cls.__name__ not in found:
            found[one.cls.__name__] = one
            for field in one.fields:
                structs_within(field.type, found)


def test_each_time_that_a_worker_sends_has_bounds() -> None:
    found: dict[str, inspect.StructType] = {}
    for cls in vars(requests).values():
        if isinstance(cls, type) and issubclass(cls, Request):
            structs_within(inspect.type_info(cls), found)
    checked = 0
    for name, struct in found.items():
        for field in struct.fields:
            is_time = field.name.endswith("_us") or field.name == "timer"
            if not is_time or not issubclass(struct.cls, Request) or (name, field.name) in CLAMPED:
                continue
            [number] = [one for one in inner(field.type) if isinstance(one, inspect.IntType)]
            assert (number.ge, number.le) == (0, AT_US_MAX), (name, field.name)
            checked += 1
    assert checked == 6


def times_in(schema: Json) -> list[str]:
    """The names of an object's time fields."""
    if "$ref" in schema:
        return times_in(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    found = []
    for name, part in schema.get("properties", {}).items():
        if '"date-time"' in msgspec.json.encode(part).decode():
            found.append(name)
    return found


async def test_no_operation_fails_by_a_time(served: Served, hand: Hand) -> None:
    await served.start("w")
    tried = set()
    for route in ROUTES:
        operation = operation_of(route)
        cases: list[tuple[str, dict[str, str], Json]] = []
        for one in operation.get("parameters", ()):
            if one["in"] == "query" and '"date-time"' in msgspec.json.encode(one["schema"]).decode():
                cases += [(one["name"], {one["name"]: str(text)}, None) for text in TEXTS]
        body = None if route.body_type is None else body_of(route)
        if isinstance(body, dict):
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            cases += [(name, {}, {**body, name: text}) for name in times_in(schema) for text in TEXTS]
        for name, more, sent in cases:
            params = {**query_of(route), **more}
            json = {"json": body if sent is None else sent} if body is not None else {}
            reply = await served.client.request(route.method, url_of(route), params=params, **json)
            assert reply.status_code < 500, (name_of(route), name, more, reply.text)
            tried.add((name_of(route), name))
    assert ("POST /api/v1/pauses", "until") in tried and len(tried) > 10, tried
    await all_answers(served)


async def all_answers(served: Served, *paths: str) -> None:
    for path in ("approvals", "executions", "pauses", "bulk", "workers", "stats", "schedules", "sessions", *paths):
        reply = await served.client.get(path if path.startswith("/") else f"/api/v1/{path}")
        assert reply.status_code < 500, (path, reply.text)


STEP: Final = {"type": "step", "key": "s", "name": "s", "fingerprint": "f", "ok": True, "value": 1, "started_at_us": 1}
WAIT: Final = {"type": "wait", "key": "approve", "fingerprint": "f", "data": {"a": 1}}


@pytest.mark.parametrize("at_us", WRONG)
async def test_no_report_stores_a_time_that_cannot_be_written(served: Served, hand: Hand, at_us: int) -> None:
    failed = {"type": "fail", "error": "E", "detail": {"message": "m"}, "retry_delay_us": at_us}
    sent: list[Json] = [
        {"entries": [{**STEP, "started_at_us": at_us}]},
        {"entries": [{"type": "timer", "key": "t", "at_us": at_us}]},
        {"entries": [{**WAIT, "expires_at_us": at_us}]},
        {"entries": [WAIT], "end": {"type": "suspend", "waits": ["approve"], "timer": ["timer-1", at_us]}},
        {"open_calls": [{"key": "s", "kind": "step", "since_us": at_us}]},
        {"open_calls": [{"key": "t", "kind": "timer", "due_us": at_us}]},
        {"logs": [{"level": "INFO", "text": "t", "at_us": at_us}]},
        {"end": failed},
    ]
    id = await served.start("w")
    item = await hand.claim()
    for number, fields in enumerate(sent, 1):
        one = {"execution_id": id, "attempt": item["attempt"], "number": number, "seen": 1, **fields}
        body = {"worker_id": hand.id, "epoch": hand.epoch, "items": [one]}
        reply = await served.client.post("/worker/v1/report", json=body, headers={"perdure-protocol": "1"})
        assert reply.status_code < 500, (fields, reply.text)
    of = f"/api/v1/executions/{id}"
    await all_answers(
        served, of, f"{of}/steps", f"{of}/logs", f"{of}/timeline", f"{of}/pending", f"{of}/why", path_of(id)
    )
