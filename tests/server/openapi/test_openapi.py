"""The routes' document, against the served routes. test_contract.py compares the document with the contract."""

import json
import re
from datetime import datetime
from typing import Any

import pytest
from tests.server.openapi.test_contract import contract
from tests.server.serving import Served

from perdure.server.app import all_routes
from perdure.server.http import schemas
from perdure.wire.base import times
from perdure.wire.runs import requests

ADDED = {"key", "phase", "attempt", "tags", "progress", "forked_from", "forked_at_step", "retried_as", "due_at"}


@pytest.fixture
async def document(served: Served) -> Any:
    reply = await served.client.get("/openapi.json", headers={"authorization": ""})
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


async def test_types_and_formats_are_the_contracts(document: Any) -> None:
    found = document["components"]["schemas"]["ExecutionResponse"]["properties"]
    assert found["created_at"] == {"type": "string", "format": "date-time"}
    assert found["completed_at"] == {"type": ["string", "null"], "format": "date-time"}
    assert found["id"]["format"] == "uuid"
    assert (found["retry_count"]["type"], found["retry_count"]["format"]) == ("integer", "int32")
    assert found["payload"] == {} and found["result"] == {}
    assert set(found) >= ADDED


async def test_every_route_has_a_name_of_its_own(document: Any) -> None:
    named = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert len(named) == len(all_routes())


async def test_what_is_documented_is_whole(document: Any) -> None:
    text = json.dumps(document)
    for reference in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert document["components"]["schemas"][reference]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and not operation["summary"].endswith(".")
            names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
            assert names == re.findall(r"\{(\w+)\}", path)
            assert any(status.startswith("2") for status in operation["responses"])


async def test_traces_are_answered_in_the_kind_of_the_request(served: Served, document: Any) -> None:
    kinds = document["paths"]["/v1/traces"]["post"]["responses"]["200"]["content"]
    for kind, empty in (("application/x-protobuf", b""), ("application/json", b"{}")):
        reply = await served.client.post("/v1/traces", content=empty, headers={"content-type": kind})
        assert reply.status_code == 200 and reply.headers["content-type"] == kind and kind in kinds


async def test_an_execution_has_every_field(served: Served) -> None:
    id = await served.start()
    found = (await served.client.get(f"/api/v1/executions/{id}")).json()
    assert set(found) == set(contract()["components"]["schemas"]["ExecutionResponse"]["properties"]) | ADDED


@pytest.mark.parametrize("path", ["/openapi.json", "/api-docs/openapi.json", "/docs"])
async def test_a_document_is_sent_packed_and_only_once(served: Served, path: str) -> None:
    packed = await served.client.get(path, headers={"accept-encoding": "br, gzip;q=0.5"})
    assert packed.headers["content-encoding"] == "gzip" and int(packed.headers["content-length"]) < 100_000
    plain = await served.client.get(path, headers={"accept-encoding": "gzip;q=0.0"})
    assert "content-encoding" not in plain.headers and plain.text == packed.text
    assert plain.headers["etag"] != packed.headers["etag"] and plain.headers["vary"] == "Accept-Encoding"
    for reply in (packed, plain):
        known = {"accept-encoding": reply.request.headers["accept-encoding"], "if-none-match": reply.headers["etag"]}
        again = await served.client.get(path, headers=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", reply.headers["etag"])
    assert (await served.client.head(path)).headers["etag"] == packed.headers["etag"]


async def test_the_contracts_place_has_the_same_document(served: Served, document: Any) -> None:
    assert (await served.client.get("/api-docs/openapi.json", headers={"authorization": ""})).json() == document


async def test_the_page_names_every_route_and_loads_nothing(served: Served) -> None:
    reply = await served.client.get("/docs", headers={"authorization": ""})
    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    for route in all_routes():
        assert route.path.replace("{", "{") in reply.text
        assert route.name in reply.text
    assert "<script" not in reply.text and "http://" not in reply.text and "https://" not in reply.text


def test_field_notes_come_from_the_source() -> None:
    notes = schemas.field_notes(requests.OpenWait)
    assert notes["data"] == "The suspended step's data for the person who answers." and set(notes) == {
        "data",
        "expires_at_us",
        "answer_schema",
    }
    assert schemas.field_notes(requests.ReportReply) == {}


def test_times_are_exact() -> None:
    for at_us in (0, 1, 999_999, 1_750_000_000_000_001, times.AT_US_MAX):
        text = times.rfc3339(at_us)
        assert times.microseconds(datetime.fromisoformat(text)) == at_us
        assert text.endswith("+00:00") and len(text) == 32
