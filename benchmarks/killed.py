"""W6: SIGKILL half-way through 200 executions of ten 20 ms steps, at most 20 at once; then a restart.

    python -m benchmarks.killed embedded        the process with everything in it is killed
    python -m benchmarks.killed http            the worker is

Prints one JSON line: recorded steps that ran again (must be 0), bodies that ran twice, seconds from the restart until
all were done.
"""

import argparse
import asyncio
import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import apsw
from benchmarks.figures import ROOT, run_loop
from benchmarks.processes import Server, Worker
from benchmarks.workflows import SIDE_FILE, app, slow10

from perdure import Client
from perdure.embedded import embedded
from perdure.store.open import is_postgres

STEPS: Final = 10
AT_ONCE: Final = 20
STEP_SECONDS: Final = 0.02


async def run_all(client: Client, executions: int) -> None:
    handles = [await client.start(slow10, STEP_SECONDS, key=f"w6-{n}") for n in range(executions)]
    await asyncio.gather(*[handle.result() for handle in handles])


async def embedded_process(store: str, executions: int) -> None:
    """The process that is killed: starts all unless they are there, and waits for them."""
    async with embedded(store, app, capacity=AT_ONCE) as p:
        await run_all(p, executions)


STEPS_RECORDED: Final = "SELECT execution_id, key FROM journal WHERE kind = 'step'"


def recorded(store: str) -> set[tuple[str, str]]:
    """(execution, key) of every step that is on disk."""
    if is_postgres(store):
        return asyncio.run(_recorded_in_postgres(store))
    base = apsw.Connection(store, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return {(str(id), str(key)) for id, key in base.execute(STEPS_RECORDED).fetchall()}
    finally:
        base.close()


async def _recorded_in_postgres(store: str) -> set[tuple[str, str]]:
    import asyncpg

    connection = await asyncpg.connect(store)
    try:
        return {(str(id), str(key)) for id, key in await connection.fetch(STEPS_RECORDED)}
    finally:
        await connection.close()


class Side:
    """What the bodies wrote: `pid execution key`, one line a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[tuple[str, str, str]]:
        found = []
        whole, _, _ = self.path.read_text(encoding="ascii").rpartition("\n")  # the rest is still being written
        for line in whole.splitlines():
            pid, execution, key = line.split(" ")
            found.append((pid, execution, key))
        return found

    def wait_for(self, lines: int) -> None:
        while len(self.lines()) < lines:
            time.sleep(0.005)


def verdict(
    side: Side, before: set[tuple[str, str]], killed_pid: int, executions: int, seconds: float
) -> dict[str, Any]:
    lines = side.lines()
    runs = collections.Counter((execution, key) for _, execution, key in lines)
    assert len(runs) == executions * STEPS, f"{len(runs)} steps ran instead of {executions * STEPS}"
    again = sum(1 for pid, execution, key in lines if int(pid) != killed_pid and (execution, key) in before)
    return {
        "executions": executions,
        "steps_recorded_before": len(before),
        "recorded_steps_run_again": again,
        "bodies_run_twice": sum(1 for times in runs.values() if times > 1),
        "restart_to_done_s": seconds,
        "work_left_s": (executions * STEPS - len(before)) * STEP_SECONDS / AT_ONCE,
    }


def over_embedded(folder: Path, executions: int, store: str | None) -> dict[str, Any]:
    side, store = Side(folder / "side"), store or str(folder / "perdure.db")
    command = [sys.executable, "-m", "benchmarks.killed", "embedded", "--child", store]
    command += ["--executions", str(executions)]
    environment = {**os.environ, SIDE_FILE: str(side.path)}
    first = subprocess.Popen(command, cwd=ROOT, env=environment)
    side.wait_for(executions * STEPS // 2)
    first.kill()
    first.wait()
    before = recorded(store)
    begin = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    return verdict(side, before, first.pid, executions, time.perf_counter() - begin)


def over_http(folder: Path, executions: int, store: str | None) -> dict[str, Any]:
    side, server = Side(folder / "side"), Server(folder, store=store)
    environment = {SIDE_FILE: str(side.path)}
    workers = [
        Worker(
            server, "benchmarks.workflows:app", folder / f"worker-{n}.log", capacity=AT_ONCE, environment=environment
        )
        for n in range(2)
    ]
    server.start()
    try:
        server.wait_ready()
        workers[0].start()
        workers[0].wait_ready()

        async def scene() -> tuple[set[tuple[str, str]], float]:
            async with Client.connect(server.url, server.key) as client:
                work = asyncio.create_task(run_all(client, executions))
                await asyncio.to_thread(side.wait_for, executions * STEPS // 2)
                await asyncio.to_thread(workers[0].kill)
                before = await asyncio.to_thread(recorded, server.store)
                begin = time.perf_counter()
                workers[1].start()
                await work
                return before, time.perf_counter() - begin

        before, seconds = run_loop(scene())
        return verdict(side, before, workers[0].pid, executions, seconds)
    finally:
        for process in (*workers, server):
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["embedded", "http"])
    parser.add_argument("--executions", type=int, default=200)
    parser.add_argument("--store", help="an existing store (default: a new file)")
    parser.add_argument("--child", metavar="STORE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        run_loop(embedded_process(given.child, given.executions))
        return
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        over = over_embedded if given.mode == "embedded" else over_http
        print(json.dumps(over(Path(folder), given.executions, given.store)))


if __name__ == "__main__":
    main()
