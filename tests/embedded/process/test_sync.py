"""An embedded application for code without an event loop."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest

from perdure import Client, Context, Registry
from perdure.embedded import embedded_sync
from perdure.store.drivers.file_lock import StoreInUse
from perdure.wire.base.errors import BadRequest, Unavailable

registry = Registry()


@registry.workflow
async def doubles(ctx: Context, amount: int) -> int:
    return await ctx.step("double", _double, amount)


async def _double(amount: int) -> int:
    return 2 * amount


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_it_runs_workflows_and_serves_its_pages() -> None:
    with embedded_sync("app.db", registry, serve=0) as p:
        assert p.start(doubles, 21).result(timeout=60) == 42
        assert p.url is not None
        with httpx2.Client(base_url=p.url, timeout=60) as browser:
            assert browser.get("/").status_code == 200
            headers = {"authorization": f"Bearer {p.api_key}"}
            answered = browser.get("/api/v1/executions", headers=headers)
        assert [one["result"] for one in answered.json()["executions"]] == [42]
        assert p.sign_in_link().startswith(f"{p.url}/sign-in?token=")
        with Client.sync() as client:
            assert len(client.stats.overview().workflows) == 1, "clients in this folder find it"
        results: list[int] = []
        threads = [threading.Thread(target=lambda n=n: results.append(p.start(doubles, n).result())) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(results) == [0, 2, 4, 6]
        url = p.url
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url)
    with pytest.raises(Unavailable):
        p.start(doubles, 1)
    assert not [one for one in threading.enumerate() if one.name == "perdure-client"]


def test_without_serve_it_has_no_page() -> None:
    with embedded_sync("app.db", registry) as p:
        assert (p.url, p.api_key) == (None, None)
        with pytest.raises(RuntimeError, match="serve=8080"):
            p.sign_in_link()


def test_what_cannot_be_opened_leaves_nothing_behind() -> None:
    with embedded_sync("app.db", registry), pytest.raises(StoreInUse):
        embedded_sync("app.db", registry)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadRequest, match=str(taken.getsockname()[1])):
            embedded_sync("app.db", registry, serve=taken.getsockname()[1])
    assert not [one for one in threading.enumerate() if one.name == "perdure-client"]
    with embedded_sync("app.db", registry) as p:
        assert p.start(doubles, 1).result() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_program_that_forgets_to_close_it_ends_and_a_fork_is_refused() -> None:
    program = """
import os
from perdure import workflow
from perdure.embedded import embedded_sync
from perdure import Unavailable

@workflow
async def hello(ctx, name):
    return f"Hello, {name}."

p = embedded_sync("app.db")
print(p.start(hello, "Mara").result(), flush=True)
if os.fork() == 0:
    try:
        p.start(hello, "Jon")
    except Unavailable as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "Hello, Mara.",
        "The parent process has this application open; use a server, or open it after the fork.",
    ]
    assert ended.stderr == ""
