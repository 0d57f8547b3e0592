"""`perdure open`: a file that another process has open, in a browser."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from tests.cli.processes import SECONDS, House
from tests.embedded.house import reaches

from perdure import Context, Registry
from perdure.embedded import embedded
from perdure.wire.base.status import Phase

registry = Registry()


@registry.workflow
async def asks(ctx: Context) -> object:
    return await ctx.suspend("approve", {"amount": 120})


@contextmanager
def opened(house: House, *arguments: str) -> Iterator[Any]:
    process = house.start("open", *arguments, "--json", "--port", "0", stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def client_of(shown: Any) -> httpx2.Client:
    return httpx2.Client(base_url=shown["url"], headers={"authorization": f"Bearer {shown['api_key']}"}, timeout=60)


async def test_a_file_in_use_is_shown_and_not_changed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house.folder)
    async with embedded("app.db", registry) as p:
        first = await p.start(asks)
        await reaches(first, Phase.WAITING)
        with opened(house, "app.db") as shown, client_of(shown) as client:
            assert shown["store"] == os.path.join(os.path.realpath(house.folder), "app.db")
            assert shown["page"].startswith(f"{shown['url']}/sign-in?token=")
            ids = [one["id"] for one in client.get("/api/v1/executions").json()["executions"]]
            assert ids == [first.id]
            second = await p.start(asks)
            seen = client.get(f"/api/v1/executions/{second.id}")
            assert seen.status_code == 200, "what the other process commits is there at once"
            run = client.post("/api/v1/workflows/asks/run", json={"payload": None})
            assert (run.status_code, run.json()["error_type"]) == (409, "READ_ONLY"), run.text
            assert "only reads 'app.db'" in run.json()["error"]
            assert client.delete(f"/api/v1/executions/{second.id}").json()["error_type"] == "READ_ONLY"
            assert client.get("/ready").status_code == 200
            token = shown["page"].partition("token=")[2]
            with httpx2.Client(base_url=shown["url"], headers={"sec-fetch-site": "same-origin"}) as browser:
                assert browser.post("/api/v1/sign-in", json={"link": token}).json()["role"] == "read"
                assert browser.get("/api/v1/executions").status_code == 200
        await p.resume(first.id, "approve", "yes")
        assert await first.result() == "yes"


async def test_a_waiting_client_hears_of_the_other_processs_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house.folder)
    async with embedded("app.db", registry) as p:
        handle = await p.start(asks)
        await reaches(handle, Phase.WAITING)
        with opened(house, "app.db") as shown:
            headers = {"authorization": f"Bearer {shown['api_key']}"}
            async with (
                httpx2.AsyncClient(base_url=shown["url"], headers=headers, timeout=60) as client,
                client.stream("GET", f"/api/v1/executions/{handle.id}/events") as events,
            ):
                await p.resume(handle.id, "approve", "yes")
                async for line in events.aiter_lines():
                    if '"completed"' in line:
                        break
                else:
                    raise AssertionError("the stream ended before the execution")


def test_what_cannot_be_shown_is_said(house: House) -> None:
    assert "does not exist" in house.run("open", "none.db", code=2).stderr
    assert "is not a file" in house.run("open", "postgresql://db/perdure", code=2).stderr
    (house.folder / "text.db").write_text("no database, but long enough to look like one" * 20)
    assert "cannot be read" in house.run("open", "text.db", code=2).stderr
