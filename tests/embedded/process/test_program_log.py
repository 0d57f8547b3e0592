"""An embedded application does not change the log of its program."""

import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

PROGRAM = """
import asyncio, logging, sys
from perdure import Context, step, workflow
from perdure.embedded import embedded

log = logging.getLogger("shop")

@step
async def charge() -> None:
    log.error("in a step")

@workflow
async def order(ctx: Context) -> None:
    await charge()

async def main(*, later: bool) -> None:
    async with embedded("app.db") as p:
        log.error("in the block")
        if later:
            logging.basicConfig(format="later %(message)s", stream=sys.stderr)
        log.error("before the step")
        handle = await p.start(order)
        await handle.result()
        print([line.text for _, line in await p.logs(handle.id)])
    log.error("after the block")
"""
WEB = """
import logging, sys
from contextlib import asynccontextmanager
import uvicorn
from fastapi import FastAPI
from perdure.embedded import embedded

log = logging.getLogger("shop")

@asynccontextmanager
async def lifespan(app):
    async with embedded("app.db"):
        yield

app = FastAPI(lifespan=lifespan)

@app.get("/")
async def index() -> str:
    log.error("in a request")
    server.should_exit = True
    return "ok"

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)

server = Server(uvicorn.Config(app, port=0, host="127.0.0.1"))
server.run()
"""


def run(folder: Path, program: str) -> tuple[str, list[str]]:
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.splitlines()


def test_a_program_without_handlers_keeps_the_output_of_last_resort(tmp_path: Path) -> None:
    recorded, shown = run(tmp_path, PROGRAM + "asyncio.run(main(later=False))")
    assert recorded == "['in a step']\n"
    assert shown == ["in the block", "before the step", "in a step", "after the block"]


def test_a_program_may_set_its_log_up_later(tmp_path: Path) -> None:
    recorded, shown = run(tmp_path, PROGRAM + "asyncio.run(main(later=True))")
    assert recorded == "['in a step']\n"
    assert shown == ["in the block", "later before the step", "later in a step", "later after the block"]


def test_a_program_may_have_set_its_log_up_before(tmp_path: Path) -> None:
    before = "logging.basicConfig(format='early %(message)s')\nasyncio.run(main(later=False))"
    recorded, shown = run(tmp_path, PROGRAM + before)
    assert recorded == "['in a step']\n"
    texts = ["in the block", "before the step", "in a step", "after the block"]
    assert [line for line in shown if line.startswith("early")] == [f"early {text}" for text in texts]


def test_a_logger_that_keeps_its_lines_for_itself_records_none(tmp_path: Path) -> None:
    recorded, _ = run(tmp_path, PROGRAM + "log.propagate = False\nasyncio.run(main(later=False))")
    assert recorded == "[]\n"


def test_a_web_application_shows_its_errors(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WEB], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            port = int(process.stdout.readline())
            assert ask(port) == b'"ok"'
            assert process.wait(60) == 0
            assert "in a request" in process.stderr.read().splitlines()
        finally:
            process.kill()


def ask(port: int) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}/", timeout=60) as reply:
        body: bytes = reply.read()
    return body


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size stands for a full disk")
def test_a_full_disk_is_shown_by_the_engine_itself(tmp_path: Path) -> None:
    full = """
import os, resource

async def fill() -> None:
    async with embedded("app.db") as p:
        await (await p.start(order)).result()
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat("app.db-wal").st_size, resource.RLIM_INFINITY))
        try:
            await p.start(order)
        except Exception as error:
            print(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

asyncio.run(fill())
"""
    said, shown = run(tmp_path, PROGRAM + full)
    assert said == "Unavailable\n"
    assert any("cannot write" in line for line in shown)
