"""A stand-in for the worker of an existing client: `python -m benchmarks.stand_in --runs 400 --other ../before/src`.

It sends what the worker of `polos-sdk` 0.1.15 sends for a run (benchmarks/existing.py has the real one), over new
connections as often as that does when it is busy, and at a rate that is given: so two servers, the one of this clone
and one of another (`--other`, its folder `src`), can be asked the same at the same moment. Only what they cost then is
comparable on a machine that others use as well. `--floor` asks benchmarks/floor_http.py, too, which does as little as a
server of this kind can.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.existing import DEPLOYMENT, project_of
from benchmarks.figures import cpu_seconds, run_loop
from benchmarks.processes import FloorServer, Listening, Server, free_port

KEPT_MAX: Final = 20
"""Connections that the worker keeps."""


class Worker:
    """Registers at one server, takes what it brings, and starts runs itself."""

    def __init__(self, server: Listening, project_id: str, steps: int, fresh: float) -> None:
        self._server = server
        self._project_id = project_id
        self._steps = steps
        self._fresh = fresh
        self._kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._random = random.Random(1)
        self._runs: set[asyncio.Task[None]] = set()
        self.port = free_port()
        self.id = ""
        self.requests = self.connections = 0

    async def open(self) -> None:
        """Register, and listen."""
        await asyncio.start_server(self._called, "127.0.0.1", self.port)
        registration = {
            "deployment_id": DEPLOYMENT,
            "project_id": self._project_id,
            "mode": "push",
            "capabilities": {"runtime": "python", "workflow_ids": ["steps"]},
            "max_concurrent_executions": 100,
            "push_endpoint_url": f"http://localhost:{self.port}",
        }
        workers = "/api/v1/workers"
        self.id = json.loads(await self.ask("POST", f"{workers}/register", registration))["worker_id"]
        await self.ask("POST", f"{workers}/deployments", {"deployment_id": DEPLOYMENT})
        workflow = {"workflow_id": "steps", "workflow_type": "workflow", "trigger_on_event": False, "scheduled": False}
        await self.ask("POST", f"{workers}/deployments/{DEPLOYMENT}/workflows", workflow)
        await self.ask("POST", f"{workers}/{self.id}/online", {})

    async def ask(self, method: str, path: str, value: object = None, wanted: bytes = b" 200 ") -> bytes:
        """The answer's body, over a connection that was kept or a new one."""
        self.requests += 1
        if self._kept and self._random.random() >= self._fresh:
            reader, writer = self._kept.pop()
        else:
            self.connections += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        body = b"" if value is None else json.dumps(value).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._server.port}\r\nAccept: */*\r\n"
            "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: python-httpx/0.28.1\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {self._server.key}\r\n"
            f"X-Project-ID: {self._project_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer, text = await _read(reader)
        if wanted not in answer.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"{method} {path} was answered with {answer!r} {text!r}")
        if len(self._kept) < KEPT_MAX:
            self._kept.append((reader, writer))
        else:
            writer.close()
        return text

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head, body = await _read(reader)
            except (asyncio.IncompleteReadError, asyncio.CancelledError):  # it let go, or all is over
                writer.close()
                return
            if head.startswith(b"POST /execute"):
                id = json.loads(body)["execution_id"]
                task = asyncio.create_task(self._execute(id))
                self._runs.add(task)
                task.add_done_callback(self._runs.discard)
            said = b'{"status":"accepted"}'
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(said))
            writer.write(said)

    async def _execute(self, id: str) -> None:
        """A run, as the worker tells of it."""

        async def look(key: str) -> None:
            await self.ask("GET", f"/internal/executions/{id}/steps/{key}", wanted=b" 404 ")

        async def save(key: str, **more: object) -> None:
            await self.ask("POST", f"/internal/executions/{id}/steps", {"step_key": key, **more, "success": True})

        async def publish(kind: str, **data: object) -> None:
            data["_metadata"] = {"execution_id": id, "workflow_id": "steps"}
            event = {"event_type": kind, "data": data}
            ids = {"execution_id": id, "root_execution_id": id}
            topic = f"workflow/steps/{id}"
            await self.ask("POST", "/api/v1/events/publish", {"topic": topic, "events": [event], **ids})

        await look("publish_start")
        await publish("workflow_start", payload={"steps": self._steps})
        await save("publish_start")
        for number in range(self._steps):
            key = f"step {number}"
            await look(key.replace(" ", "%20"))
            said = {"func": "one", "args": [], "kwargs": {}, "max_retries": 2, "base_delay": 1.0, "max_delay": 10.0}
            await asyncio.gather(
                save(key, outputs={"sum": 2}),
                publish("step_start", step_key=key, step_type="run", data=said),
                publish("step_finish", step_key=key, step_type="run", data={"result": {"sum": 2}}),
            )
        await look("publish_finish")
        await publish("workflow_finish", result={"steps": self._steps})
        await save("publish_finish")
        result = {"result": {"steps": self._steps}, "worker_id": self.id}
        await self.ask("POST", f"/internal/executions/{id}/complete", result)

    async def run(self) -> None:
        """Start a run and wait for its end."""
        start = {"payload": {"steps": self._steps}, "deployment_id": DEPLOYMENT}
        id = json.loads(await self.ask("POST", "/api/v1/workflows/steps/run", start))["execution_id"]
        found = json.loads(await self.ask("GET", f"/api/v1/executions/{id}?wait=30"))
        if found["status"] != "completed":
            raise RuntimeError(f"A run is {found['status']}.")


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    _, found, rest = head.lower().partition(b"content-length: ")
    return head, await reader.readexactly(int(rest.partition(b"\r\n")[0])) if found else b""


async def measure(given: argparse.Namespace, workers: list[Worker], servers: list[Listening]) -> list[dict[str, Any]]:
    async def many(runs: int) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(runs):
                await asyncio.sleep(begin + number / given.rate - loop.time())
                for worker in workers:
                    group.create_task(worker.run())

    for worker in workers:
        await worker.open()
    await many(50)  # imports, plans of statements
    found: list[dict[str, Any]] = []
    before = [
        (cpu_seconds(server.pid), one.requests, one.connections) for server, one in zip(servers, workers, strict=True)
    ]
    began = time.perf_counter()
    await many(given.runs)
    took = time.perf_counter() - began
    for server, one, (cpu, requests, connections) in zip(servers, workers, before, strict=True):
        found.append(
            {
                "server": type(server).__name__,
                "server_cpu_ms_per_run": 1e3 * (cpu_seconds(server.pid) - cpu) / given.runs,
                "requests_per_run": (one.requests - requests) / given.runs,
                "connections_per_run": (one.connections - connections) / given.runs,
                "runs_per_s": given.runs / took,
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rate", type=float, default=15.0, help="runs a second, at each server")
    parser.add_argument("--fresh", type=float, default=0.7, help="the share of requests over new connections")
    parser.add_argument("--other", help="the folder `src` of another clone, whose server is asked the same")
    parser.add_argument("--floor", action="store_true", help="the same of a server that does as little as it can")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as name:
        servers: list[Listening] = []
        workers: list[Worker] = []
        for source in [None, *([given.other] if given.other else [])]:
            folder = Path(name) / str(len(servers))
            folder.mkdir()
            environment = {"PERDURE_OUTBOUND_HOSTS": "localhost"}
            if source is not None:
                environment["PYTHONPATH"] = source
            ours = Server(folder, environment=environment)
            workers.append(Worker(ours, run_loop(project_of(ours.store)), given.steps, given.fresh))
            servers.append(ours)
        if given.floor:
            servers.append(FloorServer(Path(name)))
            workers.append(Worker(servers[-1], "", given.steps, given.fresh))
        try:
            for server in servers:
                server.start()
                server.wait_ready()
            figures = run_loop(measure(given, workers, servers))
        finally:
            for server in servers:
                server.kill()
    for one in figures:
        print(json.dumps(one))


if __name__ == "__main__":
    main()
