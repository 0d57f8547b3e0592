"""Runs through the worker of an existing client: `python -m benchmarks.existing --runs 2000 --steps 2`.

A server, the worker of the package `polos-sdk` as it is in the package index (an environment of its own, made the first
time), and callers that start an execution and wait for its end, so many at a time that the worker is busy without a
pause. Both talk through forwarders that count what goes by. Measured: the server's own processor time per execution,
requests per execution by route, commits, and how long it takes from the answer to a start until the worker has been
brought the work, while the worker is busy and while it idles.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import cpu_seconds, percentiles, rss, run_loop
from benchmarks.processes import Process, Server
from benchmarks.tap import Tap
from tests.client.house import WORKER_PORT, environment, locked

from perdure.engine.engine import Engine
from perdure.store.open import open_store

PROGRAM: Final = Path(__file__).with_name("programs") / "existing_worker.py"
DEPLOYMENT: Final = "shop"
COUNTED: Final = re.compile(r"^perdure_(commit_group_verbs_(?:count|sum)) (\S+)", re.MULTILINE)
TOP: Final = 25


class Line:
    """One connection of a caller, who asks one thing after another."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._server.port)

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The answer's body. Raises RuntimeError for any other than 200."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._server.port}\r\nAuthorization: Bearer "
            f"{self._server.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", answer)
        text = await self._reader.readexactly(int(found[1]) if found else 0)
        if b" 200 " not in answer.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"{method} {path} was answered with {answer!r} {text!r}")
        return text


class House:
    """The server, the worker and the forwarders; what is measured of them."""

    def __init__(self, server: Server, steps: int) -> None:
        self.server = server
        self.body = json.dumps({"payload": {"steps": steps}, "deployment_id": DEPLOYMENT}).encode()
        self.accepted: dict[str, float] = {}
        self.brought: dict[str, float] = {}
        self.pushes = 0
        self.to_server = Tap(server.port)
        self.to_worker = Tap(WORKER_PORT, self._heard)

    def _heard(self, method: str, path: str, body: bytes) -> None:
        if path == "/execute":
            self.pushes += 1
            self.brought.setdefault(json.loads(body)["execution_id"], time.perf_counter())

    async def one(self, line: Line) -> None:
        """Start an execution and wait for its end."""
        answer = json.loads(await line.ask("POST", "/api/v1/workflows/steps/run", self.body))
        self.accepted[answer["execution_id"]] = time.perf_counter()
        while True:
            found = json.loads(await line.ask("GET", f"/api/v1/executions/{answer['execution_id']}?wait=30"))
            if found["status"] == "completed":
                return
            if found["status"] in ("failed", "cancelled"):
                raise RuntimeError(f"an execution is {found['status']}: {found['error']}")

    async def many(self, runs: int, callers: int) -> None:
        """So many executions, as many at a time as there are callers."""
        left = iter(range(runs))

        async def caller() -> None:
            line = Line(self.server)
            await line.open()
            for _ in left:
                await self.one(line)

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())

    def dispatched(self) -> dict[str, Any]:
        """How long work took from the answer to its start to its worker; forgets it."""
        times = [max(self.brought[id] - at, 0.0) * 1e3 for id, at in self.accepted.items()]
        self.accepted.clear()
        self.brought.clear()
        return percentiles(times)

    async def commits(self) -> dict[str, float]:
        """Groups and changes committed so far."""
        line = Line(self.server)
        await line.open()
        return {name: float(value) for name, value in COUNTED.findall((await line.ask("GET", "/metrics")).decode())}


async def project_of(store: str) -> str:
    """The project of a store that no server has open."""
    engine = Engine(await open_store(store))
    found = await engine.projects.default()
    await engine.stop()
    return found


async def measure(given: argparse.Namespace, server: Server, worker: Process, house: House) -> dict[str, Any]:
    await house.to_server.start()
    await house.to_worker.start()
    worker.start()
    async with asyncio.timeout(60):
        while "online" not in worker.said():
            if not worker.is_alive:
                raise RuntimeError(worker.said())
            await asyncio.sleep(0.05)
    await house.many(max(given.callers, 20), given.callers)  # imports, connections, plans of statements
    house.dispatched()
    await house.many(given.idle_runs, 1)
    figures: dict[str, Any] = {"runs": given.runs, "steps": given.steps, "callers": given.callers}
    figures["dispatch_idle"] = house.dispatched()
    house.to_server.routes.clear()
    house.to_server.connections = house.pushes = 0
    before, spent = await house.commits(), (cpu_seconds(server.pid), cpu_seconds(worker.pid))
    begin = time.perf_counter()
    if given.profile:
        profiler = await asyncio.create_subprocess_exec(*given.profile.split(), "--pid", str(server.pid))
    await house.many(given.runs, given.callers)
    took = time.perf_counter() - begin
    await asyncio.sleep(0.5)  # what the worker does not wait for
    if given.profile:
        profiler.send_signal(signal.SIGINT)
        await profiler.wait()
    after = await house.commits()
    figures |= {
        "runs_per_s": given.runs / took,
        "server_cpu_ms_per_run": 1e3 * (cpu_seconds(server.pid) - spent[0]) / given.runs,
        "worker_cpu_ms_per_run": 1e3 * (cpu_seconds(worker.pid) - spent[1]) / given.runs,
        "worker_busy_percent": 100 * (cpu_seconds(worker.pid) - spent[1]) / took,
        "dispatch_busy": house.dispatched(),
        "requests_per_run": {
            route: amount / given.runs for route, amount in house.to_server.routes.most_common() if amount > 2
        },
        "all_requests_of_the_worker_per_run": house.to_server.routes.total() / given.runs,
        "its_connections_per_run": house.to_server.connections / given.runs,
        "pushes_per_run": house.pushes / given.runs,
        "commits_per_run": (after["commit_group_verbs_count"] - before["commit_group_verbs_count"]) / given.runs,
        "changes_per_run": (after["commit_group_verbs_sum"] - before["commit_group_verbs_sum"]) / given.runs,
        "server_rss_mb": rss(server.pid) / 1e6,
    }
    return figures


def started(before: dict[str, int], after: dict[str, int], runs: int) -> dict[str, Any]:
    """Statements per execution, all and those that are there most often."""
    more = {sql: (amount - before.get(sql, 0)) / runs for sql, amount in after.items()}
    most = sorted(more.items(), key=lambda one: -one[1])[:TOP]
    return {"all": sum(more.values()), **{sql[:100]: round(amount, 2) for sql, amount in most}}


class CountedServer(Server):
    """A server whose statements are counted."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self._file = folder / "counts.json"
        at = self._command.index("perdure.cli.main")
        self._command = [*self._command[:at], "benchmarks.counted", str(self._file), *self._command[at + 1 :]]

    def counts(self) -> dict[str, int]:
        """The statements so far."""
        time.sleep(1.2)
        found: dict[str, int] = json.loads(self._file.read_text(encoding="utf-8"))
        return found


async def count(given: argparse.Namespace, server: CountedServer, worker: Process, house: House) -> dict[str, Any]:
    figures = await measure(given, server, worker, house)
    before = server.counts()
    await house.many(given.runs, given.callers)
    figures["statements_per_run"] = started(before, server.counts(), given.runs)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--callers", type=int, default=50, help="executions at a time; the worker takes 100")
    parser.add_argument("--idle-runs", type=int, default=50, help="executions one by one, before")
    parser.add_argument("--statements", action="store_true", help="count statements, too; the other figures are worse")
    parser.add_argument("--without-spans", action="store_true", help="the worker sends no spans (POLOS_OTEL_ENABLED)")
    parser.add_argument("--profile", help="a command that takes `--pid PID` of the server and ends with SIGINT")
    given = parser.parse_args()
    python = run_loop(environment())
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as name:
        folder = Path(name)
        kind = CountedServer if given.statements else Server
        server = kind(folder, environment={"PERDURE_OUTBOUND_HOSTS": "localhost,127.0.0.1"})
        project_id = run_loop(project_of(server.store))
        house = House(server, given.steps)
        variables = {
            "PATH": os.environ["PATH"],
            "POLOS_API_URL": f"http://127.0.0.1:{house.to_server.port}",
            "POLOS_PROJECT_ID": project_id,
            "POLOS_API_KEY": server.key,
            "POLOS_DEPLOYMENT_ID": DEPLOYMENT,
            "WORKER_URL_PORT": str(house.to_worker.port),
            "POLOS_OTEL_ENABLED": "false" if given.without_spans else "true",
            "PYTHONUNBUFFERED": "1",
        }
        worker = Process([str(python), str(PROGRAM)], folder / "worker.log", variables)

        async def work() -> dict[str, Any]:
            async with locked(Path(tempfile.gettempdir()) / "perdure-port-8000.lock"):
                try:
                    server.start()
                    server.wait_ready()
                    if isinstance(server, CountedServer):
                        return await count(given, server, worker, house)
                    return await measure(given, server, worker, house)
                finally:
                    worker.kill()
                    server.kill()

        figures = run_loop(work())
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
