"""The examples for FastAPI and Django run under a real server, and go on after a restart in the middle."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@contextmanager
def running(target: str, **environment: str) -> Iterator[int]:
    """The example under uvicorn; ends by SIGTERM, as a deployment ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", target, "--port", str(port), "--lifespan", "on"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "Uvicorn running" in line:
                break
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()


def test_the_fastapi_example(tmp_path: Path) -> None:
    store = str(tmp_path / "orders.db")
    with running("examples.fastapi_app:app", ORDERS_DB=store) as port:
        status, first = ask(port, "PUT", "/orders/7", {"item": "book", "amount": 30})
        assert status == 202
        receipt = {"charged": 30, "approved": True}
        assert ask(port, "GET", "/orders/7") == (200, {"status": "done", "receipt": receipt})
        assert ask(port, "PUT", "/orders/7", {"item": "book", "amount": 99}) == (202, first)
        assert ask(port, "PUT", "/orders/8", {"item": "boat", "amount": 5_000})[0] == 202
        assert ask(port, "GET", "/orders/9")[0] == 404
        assert ask(port, "GET", "/orders/8") == (200, {"status": "open"})
    with running("examples.fastapi_app:app", ORDERS_DB=store) as port:
        assert ask(port, "POST", "/orders/8/approval", True) == (200, {"approved": True})
        assert ask(port, "POST", "/orders/8/approval", False)[0] == 409
        receipt = {"charged": 5_000, "approved": True}
        assert ask(port, "GET", "/orders/8") == (200, {"status": "done", "receipt": receipt})


def test_the_django_example(tmp_path: Path) -> None:
    store = str(tmp_path / "greetings.db")
    with running("examples.django_app:application", GREETINGS_DB=store) as port:
        assert ask(port, "PUT", "/greetings/1", {"name": "Ada"})[0] == 202
        assert ask(port, "GET", "/greetings/1") == (200, {"status": "done", "text": "Hello, Ada"})
        assert ask(port, "GET", "/greetings/2")[0] == 404
        begin = time.monotonic()
        assert ask(port, "PUT", "/greetings/3", {"name": "Bob", "after_seconds": 2.0})[0] == 202
    with running("examples.django_app:application", GREETINGS_DB=store) as port:
        while (answer := ask(port, "GET", "/greetings/3")[1]) == {"status": "open"}:
            pass
        assert answer == {"status": "done", "text": "Hello, Bob"}
        assert time.monotonic() - begin >= 2.0
