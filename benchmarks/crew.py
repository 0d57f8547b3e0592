"""Many workers of one server: `python -m benchmarks.crew --workers 200 --seconds 20 --database postgres`.

The workers are real ones, each with a lease and a claim of its own, in one process. Two things are measured: the
processor time and the writes of the server (and of PostgreSQL) while all workers wait; and W1 with one worker, with
all, and with one beside so many of another deployment, in turns, with the processor time that server and database spend
on an execution.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
from benchmarks import workloads
from benchmarks.figures import ROOT, bytes_written, cpu_seconds, run_loop
from benchmarks.processes import Server
from benchmarks.workflows import app
from tests import postgres
from tests.databases import migrated

from perdure import Client
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.worker import Worker
from perdure.store.open import is_postgres
from perdure.wire.runs.deployments import UseDeployment

SETTLE_SECONDS: Final = 4.0
STARTS_AT_ONCE: Final = 20


class Crew:
    """A process with so many workers."""

    def __init__(self, server: Server, amount: int, deployment: str = "default") -> None:
        command = [sys.executable, "-m", "benchmarks.crew", "--crew", server.url, server.key, str(amount), deployment]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def end(self) -> None:
        self._process.communicate(timeout=120)


async def serve(url: str, key: str, amount: int, deployment: str) -> None:
    """Until standard input ends."""
    workers: list[Worker] = []
    for _ in range(amount):
        transport = HttpTransport([url], key)
        workers.append(Worker(transport, app, deployment=deployment, lease=HttpLease([url], key, transport.leave)))
    for first in range(0, amount, STARTS_AT_ONCE):
        await asyncio.gather(*[worker.start() for worker in workers[first : first + STARTS_AT_ONCE]])
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*[worker.drain() for worker in workers])


class Database:
    """The processes and the log of PostgreSQL. A file has neither."""

    def __init__(self, store: str) -> None:
        self._store = store

    async def read(self) -> tuple[float, int]:
        """Seconds of all its processes, and bytes of its log."""
        if not is_postgres(self._store):
            return 0.0, 0
        import asyncpg

        connection = await asyncpg.connect(self._store)
        try:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            written = await connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::BIGINT")
            parent = psutil.Process(pid).parent()
            assert parent is not None
            spent = sum(cpu_seconds(one.pid) for one in [parent, *parent.children()] if one.pid != pid)
        finally:
            await connection.close()
        return spent, written


async def idle(server: Server, seconds: float) -> dict[str, Any]:
    database = Database(server.store)
    cpu, written, begin = cpu_seconds(server.pid), bytes_written(server.pid) or 0, time.perf_counter()
    spent, logged = await database.read()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - begin
    spent_then, logged_then = await database.read()
    return {
        "idle_cpu_percent": 100 * (cpu_seconds(server.pid) - cpu) / took,
        "database_cpu_percent": 100 * (spent_then - spent) / took,
        "written_kb_per_s": ((bytes_written(server.pid) or 0) - written + logged_then - logged) / took / 1e3,
    }


class Lab:
    """What a workload needs of a lab."""

    def __init__(self, server: Server) -> None:
        self.client = Client.connect(server.url, server.key)
        self.clients: Sequence[Client] = [self.client]

    def worker_rss(self) -> int:
        return 0

    def written(self) -> int | None:
        return None


async def rate(server: Server, seconds: float, conc: int) -> tuple[float, float]:
    """Executions per second, and the microseconds of processor time that server and database spend on one."""
    lab = Lab(server)
    await lab.client._transport.call(UseDeployment("default"))
    database = Database(server.store)
    spent = cpu_seconds(server.pid) + (await database.read())[0]
    begin = time.perf_counter()
    figures = await workloads.throughput(lab, "W1", seconds, conc)
    took = time.perf_counter() - begin
    spent = cpu_seconds(server.pid) + (await database.read())[0] - spent
    await lab.client.close()
    per_s = float(figures["executions_per_s"])
    return per_s, 1e6 * spent / (per_s * took)


async def measure(server: Server, given: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {"workers": given.workers}
    rates: dict[str, list[float]] = {"one": [], "all": [], "beside": []}
    costs: dict[str, list[float]] = {kind: [] for kind in rates}
    for turn in range(given.turns):
        for kind, found in rates.items():
            crews = [] if kind != "beside" else [await asyncio.to_thread(Crew, server, given.workers, "other")]
            crews.append(await asyncio.to_thread(Crew, server, given.workers if kind == "all" else 1))
            await asyncio.sleep(SETTLE_SECONDS)
            if kind == "all" and not turn and given.idle_seconds:
                figures |= await idle(server, given.idle_seconds)
            if given.seconds:
                per_s, cost = await rate(server, given.seconds, given.conc)
                found.append(per_s)
                costs[kind].append(cost)
                print(f"turn {turn + 1} of {given.turns}, {kind}: {per_s:,.0f}/s, {cost:.0f} µs", file=sys.stderr)
            for crew in crews:
                await asyncio.to_thread(crew.end)
    if given.seconds:
        for kind, found in rates.items():
            figures[f"{kind}_per_s"] = statistics.median(found)
            figures[f"{kind}_us"] = statistics.median(costs[kind])
            figures[f"{kind}_to_one"] = statistics.median(
                many / one for one, many in zip(rates["one"], found, strict=True)
            )
    return figures


async def _make_postgres(server: postgres.Server) -> str:
    url = server.database_url(await postgres.make(server=server))
    await migrated(url)
    return url


@contextlib.contextmanager
def new_store(database: str) -> Iterator[tuple[Path, str | None]]:
    """A folder, and the address of a database on a PostgreSQL of its own. None: a file in the folder."""
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="perdure-bench-")))
        store = None
        if database == "postgres":
            started = opened.enter_context(postgres.running(postgres.SAFE | {"shared_buffers": "1GB"}))
            store = run_loop(_make_postgres(started))
        yield folder, store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run of W1; 0: none")
    parser.add_argument("--idle-seconds", type=float, default=20.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--conc", type=int, default=256)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--crew", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.crew is not None:
        url, key, amount, deployment = given.crew
        return run_loop(serve(url, key, int(amount), deployment))
    with new_store(given.database) as (folder, store), contextlib.ExitStack() as opened:
        server = Server(folder, store=store)
        opened.callback(server.kill)
        server.start()
        server.wait_ready()
        print(json.dumps(run_loop(measure(server, given))))


if __name__ == "__main__":
    main()
