"""`perdure work --restart`: a parent that sees the worker die, says so, and starts another."""

import http.server
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.cli.processes import House, Terminal, end, serving, until_true, working
from tests.ports import free_port

from perdure.cli.processes import restarting
from perdure.sdk.clients.credentials import Access

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be forked there"),
    pytest.mark.slow,
]

# A step tells which process it runs in, and waits for a file.
CODE = """
import asyncio
import os
from pathlib import Path

from perdure import Context, Registry

registry = Registry()


async def body(number: int) -> int:
    with open("bodies", "a") as bodies:
        bodies.write(f"{number} {os.getpid()}\\n")
    while number and not Path("go on").exists():
        await asyncio.sleep(0.02)
    return number


@registry.workflow
async def counts(ctx: Context) -> list[int]:
    return [await ctx.step("body", body, number) for number in range(2)]
"""


def bodies(house: House) -> list[list[int]]:
    """Number and process of each step body that began."""
    path = house.folder / "bodies"
    return [[int(word) for word in line.split()] for line in path.read_text().splitlines()] if path.exists() else []


def begin(house: House) -> tuple[str, int]:
    """Start an execution whose second step waits. Returns the id, and the process of the worker."""
    id = house.run("run", "counts", "--detach").stdout.strip()
    until_true(lambda: len(bodies(house)) == 2)
    return id, bodies(house)[-1][1]


@pytest.fixture
def house(house: House) -> House:
    (house.folder / "app.py").write_text(CODE)
    return house


def test_a_worker_that_is_killed_is_followed_by_another_which_goes_on(house: House) -> None:
    with serving(house), working(house, "--restart") as parent:
        id, child = begin(house)
        assert child != parent.pid
        for count in (3, 4):
            os.kill(bodies(house)[-1][1], signal.SIGKILL)
            until_true(lambda count=count: len(bodies(house)) == count, parent)
        (house.folder / "go on").touch()
        until_true(lambda: house.json("show", id)["execution"]["status"] == "completed", parent)
        assert [number for number, _ in bodies(house)] == [0, 1, 1, 1]
        assert len({process for _, process in bodies(house)}) == 3
        assert [line["kind"] for line in house.lines("logs", id) if line.get("kind") == "lost"] == ["lost"] * 2
        assert end(parent) == 0


def test_a_worker_that_is_asked_to_end_drains_and_is_not_followed(house: House) -> None:
    with serving(house), working(house, "--restart", "--grace", "0.2") as parent:
        id, child = begin(house)
        assert end(parent) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
        assert [line["kind"] for line in house.lines("logs", id) if "kind" in line][-1] == "released"


def test_ctrl_c_reaches_a_worker_once(house: House) -> None:
    """A terminal sends Ctrl-C to both processes. A second Ctrl-C would end the worker at once."""
    with serving(house), Terminal(house, "work", "app.py", "--restart", "--grace", "60") as terminal:
        terminal.expect("Serving deployment")
        id, _ = begin(house)
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.expect("Draining")
        (house.folder / "go on").touch()
        assert terminal.close() == 0
        kinds = [line["kind"] for line in house.lines("logs", id) if "kind" in line]
        assert "step" in kinds and "lost" not in kinds


def test_a_worker_drains_when_its_parent_is_killed(house: House) -> None:
    with serving(house):
        with working(house, "--restart", "--grace", "0.2") as parent:
            id, _ = begin(house)
            parent.kill()
        until_true(lambda: [line["kind"] for line in house.lines("logs", id) if "kind" in line][-1] == "released")


def test_a_worker_that_cannot_serve_is_not_tried_again(house: House) -> None:
    (house.folder / "app.py").write_text("import no_such_thing\n")
    with serving(house):
        assert "No module named 'no_such_thing'" in house.run("work", "app.py", "--restart", code=2).stderr


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server that answers all requests with `status`, and the list of received bodies."""
    told: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.append({"path": self.path, "key": self.headers["Authorization"], **body})
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_one_server_is_told_of_a_death_whichever_can_hear() -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    with answering(503) as (busy, by_busy), answering(204) as (well, by_well), answering(204) as (spare, by_spare):
        restarting.tell(Access((gone, busy, f"{well}/below", spare), "sk_secret"), "worker-7", "an epoch")
    said = {"key": "Bearer sk_secret", "worker_id": "worker-7", "epoch": "an epoch", "died": True}
    assert by_busy == [{"path": "/worker/v1/drain", **said}]
    assert by_well == [{"path": "/below/worker/v1/drain", **said}]
    assert by_spare == []


def test_what_a_process_leaves_is_there_once() -> None:
    note = restarting.Note()
    assert note.take() is None
    note.write("a-longer-worker-id", "first")
    note.write("worker", "second epoch, on a third timeline")
    assert note.take() == ("worker", "second epoch, on a third timeline")
    assert note.take() is None
