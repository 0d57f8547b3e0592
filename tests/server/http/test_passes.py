"""The count of parses of a start's JSON before the workflow has the value: tests count decoder calls."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import msgspec
import pytest
from tests.server.serving import serving

from perdure import Client, Context, Registry, Workflow
from perdure.embedded import embedded
from perdure.sdk.transports import http
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.worker import Worker

MARK = "the payload of this test"
registry = Registry()


@dataclass
class Text:
    text: str


@dataclass
class Product:
    name: str
    price: float
    tags: list[str]


@registry.workflow
async def has_input(ctx: Context, value: Any) -> None:
    sys.setprofile(None)


@registry.workflow
async def has_text(ctx: Context, value: Text) -> None:
    sys.setprofile(None)


@registry.workflow
async def has_products(ctx: Context, value: list[Product]) -> None:
    sys.setprofile(None)


SMALL = {"text": MARK + "x" * 70}
INPUTS: dict[str, tuple[Workflow[Any, None], object]] = {
    "100 bytes": (has_input, SMALL),
    "100 bytes, typed": (has_text, Text(SMALL["text"])),
    "text": (has_input, {"text": MARK + "x" * 400_000}),
    "text, typed": (has_text, Text(MARK + "x" * 400_000)),
    "records": (has_input, [{"name": MARK, "price": 1.25, "tags": ["a", "b"]} for _ in range(6_000)]),
    "records, typed": (has_products, [Product(MARK, 1.25, ["a", "b"]) for _ in range(6_000)]),
}


def _holds_payload(value: object) -> bool:
    return isinstance(value, bytes | memoryview | msgspec.Raw) and MARK.encode() in bytes(value)


async def parsers(client: Client, workflow: Workflow[Any, None] | str, value: object) -> list[str]:
    """The modules that call a decoder on the payload's bytes before the workflow's code begins."""
    found: list[str] = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ == "decode":
            decodes = isinstance(called.__self__, msgspec.json.Decoder) or called is msgspec.json.decode
            if decodes and any(map(_holds_payload, frame.f_locals.values())):
                found.append(frame.f_globals["__name__"].removeprefix("perdure."))

    sys.setprofile(note)
    try:
        await (await client.start(workflow, value)).result()
    finally:
        sys.setprofile(None)
    return found


@asynccontextmanager
async def over_http(database: str) -> AsyncIterator[Client]:
    async with serving(database) as served:
        transport = HttpTransport(served.server.url, served.key)
        worker = Worker(transport, registry, lease=HttpLease(transport.urls, served.key))
        await worker.start()
        async with Client(transport) as client:
            yield client
            await worker.drain()


@pytest.mark.parametrize(("workflow", "value"), INPUTS.values(), ids=INPUTS)
async def test_server_and_worker_parse_an_input_twice(
    database: str, workflow: Workflow[Any, None], value: object
) -> None:
    async with over_http(database) as client:
        # The client reads back what it has written. The server reads the request, and the worker the value.
        found = await parsers(client, workflow, value)
        assert found == ["sdk.payloads.values", "server.http.routing", "sdk.payloads.values"]


@pytest.mark.parametrize(("workflow", "value"), INPUTS.values(), ids=INPUTS)
async def test_an_embedded_worker_parses_an_input_once(
    database: str, workflow: Workflow[Any, None], value: object
) -> None:
    async with embedded(database, registry) as client:
        assert await parsers(client, workflow, value) == ["sdk.payloads.values", "sdk.payloads.values"]


async def test_the_check_of_an_input_whose_client_knows_only_the_workflows_name_parses_it_once_more(
    database: str,
) -> None:
    async with over_http(database) as client:
        found = await parsers(client, "has_text", SMALL)
        assert found == ["sdk.payloads.values", "server.http.routing", "wire.base.codec", "sdk.payloads.values"]
    async with embedded(":memory:", registry) as client:
        found = await parsers(client, "has_text", SMALL)
        assert found == ["sdk.payloads.values", "wire.base.codec", "sdk.payloads.values"]


async def test_a_server_of_an_earlier_release_sends_payloads_within_the_json(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_CLAIM", http._PROTOCOL)
    async with over_http(database) as client:
        parsed = await parsers(client, has_input, SMALL)
        assert parsed == ["sdk.payloads.values", "server.http.routing", "sdk.transports.http", "sdk.payloads.values"]
