"""An embedded application that serves itself: the view of pages and commands, and the cost."""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from tests.embedded.house import reaches

from perdure import Client, Context, Registry
from perdure.embedded import Embedded, embedded
from perdure.sdk.clients.credentials import find
from perdure.sdk.transports.http import HttpTransport
from perdure.server.process.settings import Settings
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.status import Phase

registry = Registry()


@registry.workflow
async def asks(ctx: Context, amount: int) -> object:
    return await ctx.suspend("approve", {"amount": amount})


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Embedded]:
    async with embedded("app.db", registry, serve=0) as p:
        yield p


def browser(p: Embedded) -> httpx2.AsyncClient:
    assert p.url is not None
    return httpx2.AsyncClient(base_url=p.url, headers={"sec-fetch-site": "same-origin"}, timeout=60)


async def test_an_application_serves_its_executions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    async with serving() as p:
        assert p.url is not None and p.url.startswith("http://127.0.0.1:")
        handle = await p.start(asks, 7)
        await reaches(handle, Phase.WAITING)
        access = find(environ={})
        assert access.urls == (p.url,), "commands in this folder find it"
        assert access.api_key == p.api_key
        async with Client(HttpTransport(access.urls, access.api_key)) as client:
            assert [one.id for one in (await client.list()).executions] == [handle.id]
            await client.resume(handle.id, "approve", "yes")
        assert await handle.result() == "yes"
    printed = capsys.readouterr().err
    assert "signs a browser in once" in printed and "/sign-in?token=" in printed
    assert find(environ={}).urls != (p.url,)
    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.1", int(p.url.rpartition(":")[2]))).close()


async def test_its_log_has_the_address_without_a_link_and_nothing_of_the_server(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    servers_own = logging.getLogger("uvicorn.error")
    servers_own.addHandler(caplog.handler)  # what has run before may have kept it from the root
    try:
        with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, logger=servers_own.name):
            async with serving() as p, browser(p) as client:
                await client.get("/ready")
                servers_own.info("The application's own server says this.")
    finally:
        servers_own.removeHandler(caplog.handler)
    told = {"uvicorn.error", "perdure"}
    said = list(dict.fromkeys(record.message for record in caplog.records if record.name in told))
    assert len(said) == 2 and p.url is not None and p.url in said[0] and "token=" not in said[0], said
    assert "token=" not in "".join(capsys.readouterr())


async def test_the_link_signs_a_browser_in_once() -> None:
    async with serving() as p, browser(p) as client:
        assert (await client.get("/api/v1/executions")).status_code == 401
        token = p.sign_in_link().partition("token=")[2]
        assert (await client.post("/api/v1/sign-in", json={"link": token})).json()["role"] == "admin"
        assert (await client.get("/api/v1/executions")).status_code == 200
        assert (await client.post("/api/v1/sign-in", json={"link": token})).status_code == 401
        assert (await client.post("/api/v1/sign-in", json={"key": p.api_key})).status_code == 200


async def test_the_key_ends_with_its_process_and_no_store_knows_it() -> None:
    async with serving() as p:
        first = p.api_key
        assert await p.engine.projects.keys(await p.engine.projects.default()) == []
    async with serving() as p, browser(p) as client:
        assert p.api_key != first
        headers = {"authorization": f"Bearer {first}"}
        assert (await client.get("/api/v1/executions", headers=headers)).status_code == 401


async def test_it_is_ready_and_ends_with_waiting_clients() -> None:
    async with serving() as p, browser(p) as client:
        assert (await client.get("/ready")).status_code == 200
        client.headers["authorization"] = f"Bearer {p.api_key}"
        handle = await p.start(asks, 7)
        waiting = asyncio.create_task(client.get(f"/api/v1/executions/{handle.id}?wait=60"))
        assert p._server is not None
        polls = p._server.application.services.drain._polls
        while not polls:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.002)
        await p.close()
        assert (await waiting).json()["status"] in ("pending", "running")
        await p.start(asks, 8)
        await reaches(handle, Phase.WAITING)


async def test_without_serve_nothing_is_served() -> None:
    async with embedded("app.db", registry) as p:
        assert (p.url, p.api_key) == (None, None)
        with pytest.raises(RuntimeError, match="serve=8080"):
            p.sign_in_link()


async def test_a_port_that_is_taken_is_refused_and_the_file_is_free_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BadRequest, match="choose another port"):
        async with embedded("app.db", registry, serve=taken.getsockname()[1]):
            raise AssertionError
    async with serving():
        pass


async def test_it_is_never_open_to_others() -> None:
    with pytest.raises(BadRequest, match="serves this machine alone"):
        async with embedded("app.db", registry, serve=0, settings=Settings(host="0.0.0.0")):
            raise AssertionError
    with pytest.raises(BadRequest, match="port"):
        async with embedded("app.db", registry, serve=70_000):
            raise AssertionError
