"""Steps that fork with `multiprocessing` signal their children only, never their worker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.processes import House, end, serving, working

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be forked there")

CODE = """
import multiprocessing
import os
import signal
import time

from perdure import Context, Registry, step

registry = Registry()
fork = multiprocessing.get_context("fork")


@step
def pool() -> list[int]:
    with fork.Pool(2) as pool:
        return pool.map(abs, [-1, -2])


@step
async def pool_on_the_loop() -> list[int]:
    with fork.Pool(1) as pool:
        return pool.map(abs, [-1, -2])


@step
def terminated() -> int | None:
    child = fork.Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode


def runs(begun: object) -> None:
    begun.set()
    while True:
        time.sleep(0.01)


@step
def interrupted() -> int | None:
    begun = fork.Event()
    child = fork.Process(target=runs, args=(begun,))
    child.start()
    begun.wait()
    os.kill(child.pid, signal.SIGINT)
    child.join()
    return child.exitcode


def handles() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    os.kill(os.getpid(), signal.SIGTERM)


@step
def handled() -> int | None:
    child = fork.Process(target=handles)
    child.start()
    child.join()
    return child.exitcode


@registry.workflow
async def forks(ctx: Context) -> list[object]:
    return [await pool(), await terminated(), os.getpid()]


@registry.workflow
async def forks_otherwise(ctx: Context) -> list[object]:
    return [await pool_on_the_loop(), await interrupted(), await handled(), os.getpid()]
"""
PLAIN_LOOP = "import sys\nsys.modules['uvloop'] = None\n"


def run(house: House, worker: subprocess.Popen[str], workflow: str, times: int) -> None:
    for _ in range(times):
        *outcomes, pid = json.loads(house.run("run", workflow, "--quiet").stdout)
        assert outcomes == ([[1, 2], -15] if workflow == "forks" else [[1, 2], 1, 7])
        assert pid == worker.pid
    assert worker.poll() is None


@pytest.fixture(params=["uvloop", "asyncio"])
def house(tmp_path: Path, request: pytest.FixtureRequest) -> House:
    house = House(tmp_path)
    (house.folder / "app.py").write_text(CODE if request.param == "uvloop" else PLAIN_LOOP + CODE)
    return house


def test_a_pool_and_a_terminated_process_leave_the_worker_working(house: House) -> None:
    with serving(house), working(house) as worker:
        run(house, worker, "forks", 5)
        run(house, worker, "forks_otherwise", 2)
        assert end(worker) == 0


@pytest.mark.slow
def test_they_leave_it_working_in_fifty_of_fifty_runs(house: House) -> None:
    with serving(house), working(house, "--restart") as parent:
        pids = {json.loads(house.run("run", "forks", "--quiet").stdout)[-1] for _ in range(50)}
        assert len(pids) == 1 and parent.pid not in pids
