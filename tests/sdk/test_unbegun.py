"""What a blocked event loop does not begin, another worker runs."""

import asyncio
import contextlib
import math
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.kit.polling import until
from tests.server.serving import Served

from perdure import Context, Registry
from perdure.sdk.clients.client import Client
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.unstarted import BLOCKED_SECONDS, Unstarted, UnstartedRunner
from perdure.sdk.workers.worker import Worker


class Loop:
    """A loop that runs its callbacks when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def call_soon_threadsafe(self, call: Any) -> None:
        self.calls.append(call)

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Execution:
    unbegun: Unstarted | None = None

    def __init__(self, number: int, *, cancelling: bool = False) -> None:
        self.claimed = SimpleNamespace(id=str(number), cancelling=cancelling)
        self.ours_until = math.inf


class Blocked:
    """Executions of a worker whose loop does not answer."""

    def __init__(self, amount: int) -> None:
        self.unbegun = Unstarted()
        self.loop = Loop()
        self.runners = [cast(UnstartedRunner, Execution(n)) for n in range(amount)]
        self.unbegun.add(self.runners)

    def is_blocked(self, blocks: float) -> bool:
        """Whether the loop is blocked `blocks` times BLOCKED_SECONDS after the start."""
        return self.unbegun.is_blocked(cast(asyncio.AbstractEventLoop, self.loop), blocks * BLOCKED_SECONDS)

    def hand_back(self, blocks: float, *, others_wait: bool = True) -> tuple[list[int], list[int]]:
        """The numbers of the runs that go, and of the runs whose delivery is acknowledged."""
        found = self.unbegun.hand_back(blocks * BLOCKED_SECONDS, others_wait=others_wait)
        assert found is not None
        given, kept = ([self.runners.index(one) for one in some] for some in (found.given, found.kept))
        return given, kept

    def run(self, *numbers: int) -> None:
        """Run the code of these numbers up to the first call."""
        for n in numbers:
            assert self.unbegun.enter(self.runners[n])
            self.unbegun.leave(self.runners[n])


def test_a_loop_that_answers_is_not_blocked() -> None:
    worker = Blocked(1)
    for blocks in (0, 1, 2):
        assert not worker.is_blocked(blocks)
        worker.loop.run()
    assert not worker.is_blocked(2)
    assert [worker.is_blocked(blocks) for blocks in (2.9, 3)] == [False, True]


def test_a_loop_is_not_blocked_by_a_machine_that_runs_neither_thread() -> None:
    worker = Blocked(1)
    assert [worker.is_blocked(blocks) for blocks in (0, 2, 2.5, 3)] == [False, False, False, True]


def test_without_executions_the_loop_is_not_asked() -> None:
    worker = Blocked(0)
    assert not worker.is_blocked(0) and not worker.is_blocked(1)
    assert not worker.loop.calls


def test_if_one_execution_blocks_all_others_go_back() -> None:
    worker = Blocked(3)
    assert worker.unbegun.enter(worker.runners[0])
    assert not worker.is_blocked(0)
    assert worker.hand_back(1) == ([1, 2], [])
    worker.unbegun.leave(worker.runners[0])
    assert [worker.unbegun.enter(one) for one in worker.runners[1:]] == [False, False]
    assert worker.unbegun.begin(worker.runners[0])
    assert not worker.unbegun.begin(worker.runners[1])


def test_executions_that_block_in_turn_are_shared() -> None:
    """Code that has run is not run elsewhere while other code runs."""
    worker = Blocked(10)
    assert not worker.is_blocked(0)
    worker.run(0, 1)
    assert worker.unbegun.enter(worker.runners[2])
    assert worker.is_blocked(1)
    assert worker.hand_back(1) == ([6, 7, 8, 9], [])
    assert not worker.is_blocked(1.9)
    worker.unbegun.leave(worker.runners[2])
    assert worker.unbegun.enter(worker.runners[3])
    assert worker.is_blocked(2)
    assert worker.hand_back(2) == ([5], [])


def test_if_a_step_blocks_executions_go_whose_code_has_run() -> None:
    worker = Blocked(3)
    worker.run(0, 1, 2)
    assert worker.unbegun.begin(worker.runners[0])
    assert not worker.is_blocked(0)
    assert worker.hand_back(1) == ([1, 2], [])


def test_if_no_other_worker_waits_only_those_go_that_the_server_may_take_back() -> None:
    """The server is then told once which runs stay."""
    worker = Blocked(3)
    assert not worker.is_blocked(0)
    assert worker.hand_back(1, others_wait=False) == ([], [])
    for one in worker.runners[:2]:
        one.ours_until = 1.0
    assert worker.unbegun.enter(worker.runners[0])
    assert worker.unbegun.begin(worker.runners[2])
    assert worker.hand_back(2, others_wait=False) == ([1], [0])
    assert worker.hand_back(3, others_wait=False) == ([], [])


def test_an_execution_that_is_cancelled_stays() -> None:
    unbegun = Unstarted()
    unbegun.add([cast(UnstartedRunner, Execution(0, cancelling=True))])
    assert not unbegun


@asynccontextmanager
async def working(served: Served, app: Registry) -> AsyncIterator[Worker]:
    """A worker over HTTP in a thread of its own, so that the worker may block."""
    workers: list[Worker] = []
    ready, ends = threading.Event(), asyncio.Event()

    async def work() -> None:
        transport = HttpTransport(served.server.url, served.key)
        worker = Worker(transport, app, lease=HttpLease([served.server.url], served.key), grace_seconds=5)
        await worker.start()
        workers.append(worker)
        ready.set()
        await ends.wait()
        await worker.drain()
        await transport.close()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        assert await asyncio.to_thread(ready.wait, 60)
        await served.until_waiting(workers[0].id)
        yield workers[0]
    finally:
        workers[0].loop.call_soon_threadsafe(ends.set)
        await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("where", ["code", "step"])
async def test_others_go_on_while_one_blocks_its_worker(served: Served, where: str) -> None:
    app = Registry()
    gate = threading.Event()
    ran: list[tuple[str, int]] = []

    def blocks(part: str, number: int) -> None:
        ran.append((part, number))
        if number == 0 and part == where:
            assert gate.wait(60)

    async def note(number: int) -> None:
        blocks("step", number)

    @app.workflow
    async def crowd(ctx: Context, number: int) -> int:
        blocks("code", number)
        await ctx.step("note", note, number)
        return number

    async with (
        working(served, app),
        working(served, app),
        Client(HttpTransport(served.server.url, served.key)) as client,
    ):
        try:
            handles = await asyncio.gather(*[client.start(crowd, n) for n in range(5)])
            assert [await one.result(timeout=60) for one in handles[1:]] == [1, 2, 3, 4]
        finally:
            gate.set()
        assert await handles[0].result(timeout=60) == 0
        assert (await handles[0].get()).attempt == 1
    assert sorted(number for part, number in ran if part == "step") == [0, 1, 2, 3, 4]
    assert ran.count(("code", 0)) == 1


APP = """
import os, time
from pathlib import Path
from perdure import Context, Registry

app = Registry()
folder = Path(__file__).parent

def note(line: str) -> None:
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{os.getpid()} {line}\\n".encode())  # one write: lines of two processes do not mix
    os.close(log)

async def body(number: int) -> None:
    note(f"step {number}")

@app.workflow
async def blocks(ctx: Context, number: int) -> None:
    is_first = not (folder / "log").exists()
    note(f"code {number}")
    time.sleep(0.02)
    while is_first and not (folder / "gate").exists():
        time.sleep(0.02)
    await ctx.step("body", body, number)
"""
AMOUNT = 12


@pytest.mark.slow
async def test_a_process_begins_what_another_one_that_is_blocked_has_not(served: Served, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    log = tmp_path / "log"

    @contextlib.contextmanager
    def process(name: str) -> Iterator[int]:
        environment = {**os.environ, "PERDURE_URL": served.server.url, "PERDURE_API_KEY": served.key}
        command = [sys.executable, "-c", "from perdure.cli.main import app; app()", "work", "app.py"]
        with (
            (tmp_path / name).open("wb") as told,
            subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=told) as worker,
        ):
            try:
                yield worker.pid
            finally:
                worker.kill()

    def owners(part: str) -> dict[int, list[int]]:
        """The processes in which this part of each execution began, by the execution's number."""
        found: dict[int, list[int]] = {}
        for pid, of, number in map(str.split, log.read_text().splitlines() if log.exists() else []):
            if of == part:
                found.setdefault(int(number), []).append(int(pid))
        return found

    async with Client(HttpTransport(served.server.url, served.key)) as client:
        with process("blocked") as blocked:
            await until(lambda: bool(served.engine.claims.waiting_for()))
            handles = await asyncio.gather(*[client.start("blocks", n) for n in range(AMOUNT)])
            await until(lambda: bool(owners("code")))  # the file is there before its first line
            [first] = owners("code")
            moved = [one for n, one in enumerate(handles) if n != first]
            with process("other") as other:
                await asyncio.gather(*[one.result(timeout=240) for one in moved])
                assert owners("code")[first] == [blocked]
                (tmp_path / "gate").touch()
                await handles[first].result(timeout=240)
        assert owners("step") == {n: [blocked if n == first else other] for n in range(AMOUNT)}
        assert (await handles[first].get()).attempt == 1
        assert all([(await one.get()).attempt > 1 for one in moved])
    assert "it has not begun go back to their queue" in (tmp_path / "blocked").read_text()
