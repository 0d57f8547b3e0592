"""Server and worker end on request, even in a loop without signals, such as on Windows."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEAF = """
import asyncio, sys
import perdure.cli.processes.serve

class Deaf(asyncio.SelectorEventLoop):
    def add_signal_handler(self, sig, callback, *args):
        raise NotImplementedError
    def remove_signal_handler(self, sig):
        raise NotImplementedError

perdure.cli.processes.serve.loop_factory = lambda: Deaf
from perdure.cli.main import app
app(sys.argv[1:])
"""
APP = """
from perdure import Context, workflow

@workflow
async def w(ctx: Context) -> None: ...
"""
WAITS = """
import asyncio, sys
from perdure import Context, step, workflow

@step
async def waits() -> None:
    print("The step runs.", file=sys.stderr, flush=True)
    await asyncio.Event().wait()

@workflow
async def w(ctx: Context) -> None:
    await waits()
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="what asks there is no signal")


@contextmanager
def start(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    variables = {**os.environ, "PERDURE_LOG_FORMAT": "text"}
    command = [sys.executable, "-c", DEAF, *arguments]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=variables) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_loop_without_signals_is_woken_for_them(asked: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with start(tmp_path, "serve", "--insecure-local", "--port", "0") as server:
        assert server.stderr is not None
        url = next(line for line in server.stderr if "Listening on " in line).split("Listening on ")[1].strip()[:-1]
        with start(tmp_path, "work", "app.py", "--url", url) as worker:
            assert worker.stderr is not None
            assert any("Serving deployment" in line for line in worker.stderr)
            worker.send_signal(asked)
            assert worker.wait(30) == 0
            [line] = worker.stderr.readlines()
            assert "Draining: 0 executions have up to 25 s to end their steps" in line
            assert "A second signal ends the worker at once." in line
        server.send_signal(asked)
        assert server.wait(30) == 0
        [line] = server.stderr.readlines()
        assert "Stopping: open requests have up to 20 s to finish. A second signal ends the server at once." in line


def test_a_second_signal_ends_a_worker_at_once_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(WAITS)
    with start(tmp_path, "serve", "--insecure-local", "--port", "0") as server:
        assert server.stderr is not None
        url = next(line for line in server.stderr if "Listening on " in line).split("Listening on ")[1].strip()[:-1]
        with start(tmp_path, "work", "app.py", "--url", url) as worker:
            assert worker.stderr is not None
            assert any("Serving deployment" in line for line in worker.stderr)
            request = urllib.request.Request(f"{url}/api/v1/workflows/w/run", b'{"payload": null}', method="POST")
            request.add_header("content-type", "application/json")
            with urllib.request.urlopen(request, timeout=30):
                pass
            assert any("The step runs." in line for line in worker.stderr)
            worker.send_signal(signal.SIGTERM)
            assert any("Draining: 1 executions" in line for line in worker.stderr)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 1
            assert "A second signal: the worker ends at once." in worker.stderr.read()
