"""Pages of other origins: which may read answers, and what of them."""

import json
from typing import Any

import pytest
from tests.kit.polling import until
from tests.server.http.test_limits import RUN, wire
from tests.server.requests import ROUTES
from tests.server.serving import Served, serving

from perdure.server.access import cors
from perdure.server.http import openapi
from perdure.server.http.bodies import USUAL
from perdure.server.process.settings import load
from perdure.wire.base.errors import BadRequest

WAIT = "/api/v1/executions/wait"
PAGE = "https://app.example.com"
OTHER = "https://evil.example"
ORIGINS: dict[str, Any] = {"origins": [PAGE, "http://localhost:5173"]}


def asking(method: str = "POST", headers: str = "authorization, content-type", origin: str = PAGE) -> dict[str, str]:
    """The headers of a preflight request."""
    return {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
        "authorization": "",
    }


async def test_a_page_of_a_listed_origin_may_ask_and_read(database: str) -> None:
    async with serving(database, **ORIGINS) as served:
        told = await served.client.options(RUN, headers=asking())
        assert told.status_code == 200
        assert told.headers["access-control-allow-origin"] == PAGE
        assert told.headers["access-control-allow-credentials"] == "true"
        assert "origin" in told.headers["vary"].lower()
        started = await served.client.post(RUN, json={"payload": 1, "accept_early": True}, headers={"origin": PAGE})
        assert started.status_code == 200
        assert started.headers["access-control-allow-origin"] == PAGE and "Origin" in started.headers["vary"]
        assert "Retry-After" in started.headers["access-control-expose-headers"]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_each_method_and_header_of_the_routes_may_be_sent(database: str, method: str) -> None:
    named = {name for route in ROUTES for name in route.headers} | set(openapi._HEADERS)
    async with serving(database, **ORIGINS) as served:
        told = await served.client.options(RUN, headers=asking(method, ", ".join(sorted(named)).lower()))
        assert told.status_code == 200, told.text
        assert (await served.client.options(RUN, headers=asking(method, "x-other"))).status_code == 400
    assert {route.method for route in ROUTES} <= set(cors.METHODS)


async def test_a_page_reads_errors_too(database: str) -> None:
    async with serving(database, **ORIGINS, in_flight_bytes_max=1_024) as served, wire(served) as slow:
        page = {"origin": PAGE}
        await slow.send(slow.head("POST", RUN, "Content-Length: 1000") + b" " * 900)
        await until(lambda: served.app.services.in_flight.bytes == 900)
        for status, reply in (
            (401, await served.client.get("/api/v1/executions", headers={**page, "authorization": "Bearer no"})),
            (404, await served.client.get("/nothing", headers=page)),
            (405, await served.client.put("/health", headers=page)),
            (413, await served.client.post(WAIT, content=b" " * (USUAL + 1), headers=page)),
            (422, await served.client.post(RUN, json={}, headers=page)),
            (503, await served.client.post(RUN, content=b" " * 900, headers=page)),
        ):
            assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, PAGE)
            assert reply.json()["error_type"]


async def test_a_page_follows_streams(database: str) -> None:
    async with serving(database, **ORIGINS, stream_comment_seconds=0.05) as served:
        id = await served.start()
        url = f"/api/v1/executions/{id}/events"
        async with served.client.stream("GET", url, headers={"origin": PAGE}) as reply:
            assert reply.headers["access-control-allow-origin"] == PAGE
            seen = ""
            async for chunk in reply.aiter_text():
                seen += chunk
                if "still here" in seen:
                    break
        assert seen.startswith("retry:")


async def test_a_page_of_another_origin_may_not(database: str) -> None:
    async with serving(database, **ORIGINS) as served:
        told = await served.client.options(RUN, headers=asking(origin=OTHER))
        assert told.status_code == 400 and "access-control-allow-origin" not in told.headers
        refused = await served.client.get("/health", headers={"origin": OTHER})
        assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers


async def test_without_the_setting_no_page_may(served: Served) -> None:
    assert (await served.client.options(RUN, headers=asking(origin="http://localhost:5173"))).status_code == 405
    reply = await served.client.get("/health", headers={"origin": "http://localhost:5173"})
    assert reply.status_code == 200 and not [name for name in reply.headers if name.startswith("access-control")]


async def test_other_callers_get_the_same_answers_as_ever(database: str) -> None:
    async with serving(database, **ORIGINS) as served, wire(served) as line:
        id = await served.start()
        await line.send(line.head("GET", f"/api/v1/executions/{id}"))
        status, headers, body = await line.reply()
        assert (status, json.loads(body)["id"]) == (200, id) and "access-control-allow-origin" not in headers
        assert headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["*", "null", "app.example.com", "https://app.example.com/page", "https://*.x.com"])
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(BadRequest, match="origins"):
        load(environ={"PERDURE_ORIGINS": origin})


def test_origins_are_taken_as_browsers_write_them() -> None:
    settings = load(environ={"PERDURE_ORIGINS": "https://App.Example.com/, http://[::1]:3000"})
    assert cors.checked_origins(settings.origins) == ("https://app.example.com", "http://[::1]:3000")
