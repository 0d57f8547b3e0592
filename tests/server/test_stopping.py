"""Server and worker end when they are asked to, in a loop that takes no signals as well: those of Windows are so."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEAF = """
import asyncio, sys
import perdure.cli.serve

class Deaf(asyncio.SelectorEventLoop):
    def add_signal_handler(self, sig, callback, *args):
        raise NotImplementedError
    def remove_signal_handler(self, sig):
        raise NotImplementedError

perdure.cli.serve.loop_factory = lambda: Deaf
from perdure.cli.main import app
app(sys.argv[1:])
"""
APP = """
from perdure import Context, workflow

@workflow
async def w(ctx: Context) -> None: ...
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="what asks there is no signal")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "PERDURE_LOG_FORMAT": "text"}
    return subprocess.Popen(
        [sys.executable, "-c", DEAF, *arguments], cwd=folder, stderr=subprocess.PIPE, text=True, env=variables
    )


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
            assert (worker.wait(30), worker.stderr.read()) == (0, "")
        server.send_signal(asked)
        assert server.wait(30) == 0
