"""Real processes to kill, freeze and start again: `perdure serve` × n, `perdure work` × m, and one database."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.faults.database import Database
from tests.faults.effects import Effect, Effects
from tests.kit.polling import until
from tests.ports import free_port

from perdure import Client
from perdure.engine.engine import Engine
from perdure.sdk.transports.http import HttpTransport
from perdure.store.open import open_store
from perdure.wire.base.access import Role

ROOT = Path(__file__).parents[2]
PERDURE = [sys.executable, "-m", "perdure.cli.main"]
START_SECONDS = 300.0
END_SECONDS = 60.0


class Node:
    """A process. The output goes to a log shared by all lives of the process."""

    def __init__(self, name: str, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.pids: list[int] = []
        """Process ids of all lives; the last id belongs to the present life."""
        self.program = PERDURE
        self._command = list(command)
        self.environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._said = 0

    def start(self) -> None:
        """Start the process without waiting."""
        self._said = self.log.stat().st_size if self.log.exists() else 0
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.program, *self._command],
                cwd=ROOT,
                env={**environment, **self.environment, "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent(),
            )
        self.pids.append(self._process.pid)

    @property
    def pid(self) -> int:
        return self.pids[-1]

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """Ask the process to end; `ended` waits for the end."""
        assert self._process is not None
        self._process.terminate()

    async def ended(self, seconds: float = END_SECONDS) -> int:
        """Wait for the end of the process. Returns the exit code. Raises TimeoutError."""
        assert self._process is not None
        process = self._process
        await until(lambda: process.poll() is not None, seconds, f"{self.name} has ended")
        return process.wait()

    def said(self) -> str:
        """The log of the present life."""
        with self.log.open("rb") as log:
            log.seek(self._said)
            return log.read().decode(errors="replace")


class Server(Node):
    """`perdure serve`, on a fixed port."""

    def __init__(self, name: str, folder: Path, store: str, settings: Mapping[str, object]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {f"PERDURE_{setting.upper()}": str(value) for setting, value in settings.items()}
        super().__init__(name, folder, ["serve", "--database", store, "--port", str(self.port)], environment)

    async def is_ready(self) -> bool:
        """Whether the server takes requests and its store takes writes."""
        return (await self._get("/ready")).startswith(b"HTTP/1.1 200")

    async def is_red(self) -> bool:
        """Whether the server says that its store takes no writes. The request for `/ready` makes the server look."""
        return all([(await self._get(path)).startswith(b"HTTP/1.1 503") for path in ("/ready", "/health")])

    async def is_green(self) -> bool:
        """Whether the server says that all is well."""
        return all([(await self._get(path)).startswith(b"HTTP/1.1 200") for path in ("/ready", "/health")])

    async def counted(self, key: str) -> dict[str, int]:
        """The counters of the server's metrics page in the present life. Empty if the server does not answer."""
        page = (await self._get("/metrics", key)).decode()
        lines = [line.rpartition(" ") for line in page.splitlines() if line.startswith("perdure_") and "{" not in line]
        return {name: int(float(number)) for name, _, number in lines}

    async def _get(self, path: str, key: str | None = None) -> bytes:
        authorization = "" if key is None else f"Authorization: Bearer {key}\r\n"
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}Connection: close\r\n\r\n"
        try:
            async with asyncio.timeout(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(request.encode())
                    return await reader.read()
                finally:
                    writer.close()
        except OSError:  # a time-out is one too
            return b""


class Worker(Node):
    """`perdure work` for the servers named by the worker's variables."""

    def is_serving(self) -> bool:
        """Whether the worker is registered, in the present life."""
        return "Serving deployment" in self.said()


class Cluster:
    """The processes of a run. `server_stores` and `worker_urls` may be changed before `start`, to lead through proxies;
    all servers have `settings`."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        *,
        servers: int = 1,
        workers: int = 3,
        capacity: int = 4,
        step_seconds: float = 0.05,
        app: str = "tests.faults.app",
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        restart: bool = False,
    ) -> None:
        """`restart`: each worker has a parent, which is the process that is known here."""
        self.folder = folder
        self.database = database
        self.effects = Effects(folder / "effects.tsv")
        self.settings: dict[str, object] = {"log_format": "text", **(settings or {})}
        self.environment = dict(environment or {})
        """More of it, for workers."""
        self.app = app
        self.capacity = capacity
        self.restart = restart
        self.step_seconds = step_seconds
        self.key = ""
        self.server_stores = [database.url] * min(servers, database.servers_max)
        self.servers: list[Server] = []
        self.workers: list[Worker] = []
        self._workers_wanted = workers
        self.worker_urls: Callable[[int], Sequence[str]] = self._urls_from

    def _urls_from(self, n: int) -> list[str]:
        """All servers, each worker with another one first."""
        urls = [server.url for server in self.servers]
        return [urls[(n + i) % len(urls)] for i in range(len(urls))]

    async def prepare(self) -> None:
        """Make the database and the servers' ports, so that proxies can be put between."""
        self.key = await make_key(self.database.url)
        self.servers = [
            Server(f"server-{n}", self.folder, store, self.settings) for n, store in enumerate(self.server_stores)
        ]

    async def start(self) -> None:
        """Start everything; comes back when all servers are ready and all workers registered."""
        if not self.servers:
            await self.prepare()
        for server in self.servers:
            server.start()
        for server in self.servers:
            await self.until_ready(server)
        self.workers = [self.make_worker(n) for n in range(self._workers_wanted)]
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            await self.until_serving(worker)

    async def until_ready(self, server: Server) -> None:
        """Wait until a started server takes requests. Raises AssertionError if the server ended instead."""

        async def settled() -> bool:
            return not server.alive or await server.is_ready()

        await until(settled, START_SECONDS, f"{server.name} is ready")
        assert server.alive, server.said()

    async def until_serving(self, worker: Worker) -> None:
        """Wait until a started worker is registered. Raises AssertionError if the worker ended instead."""
        await until(lambda: not worker.alive or worker.is_serving(), START_SECONDS, f"{worker.name} is registered")
        assert worker.alive, worker.said()

    def make_worker(self, n: int) -> Worker:
        """One more worker, not started yet."""
        environment = {
            "PERDURE_URL": ",".join(self.worker_urls(n)),
            "PERDURE_API_KEY": self.key,
            "FAULTS_EFFECTS": str(self.effects.path),
            "FAULTS_STEP_SECONDS": str(self.step_seconds),
            **self.environment,
        }
        command = ["work", self.app, "--capacity", str(self.capacity)]
        if self.restart:
            command.append("--restart")
        return Worker(f"worker-{n}", self.folder, command, environment)

    def client(self, urls: Sequence[str] | None = None, *, patience_seconds: float = 5.0) -> Client:
        """A client of all servers."""
        return Client(
            HttpTransport(urls or [server.url for server in self.servers], self.key, patience_seconds=patience_seconds)
        )

    def all_in_flight(self) -> list[Effect]:
        """Step bodies that run in any worker."""
        return self.effects.in_flight(worker.pid for worker in self.workers)

    def in_flight(self, workers: Sequence[Worker] | None = None) -> int:
        """The number of running step bodies, in `workers` or in all workers."""
        return len(self.effects.in_flight(worker.pid for worker in workers or self.workers))

    async def stop(self) -> None:
        """End everything in order: workers drain, then the servers. Whoever does not end in time is killed."""
        for nodes in (self.workers, self.servers):
            living = [node for node in nodes if node.alive]
            for node in living:
                node.thaw()
                node.terminate()
            for node in living:
                with contextlib.suppress(TimeoutError):
                    await node.ended()
        self.kill()

    def kill(self) -> None:
        """End whatever still lives, at once."""
        for node in (*self.workers, *self.servers):
            node.kill()


async def make_key(store: str) -> str:
    """Bring a store up to date and make a key in it."""
    opened = await open_store(store)
    try:
        engine = Engine(opened)
        return await engine.projects.create_key(await engine.projects.default(), "faults", Role.ADMIN)
    finally:
        await opened.close()


def _die_with_parent() -> Callable[[], None] | None:
    """The kernel of Linux ends the child when the parent dies, however the parent dies."""
    if sys.platform != "linux":
        return None
    import resource

    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(1, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # some end by abort()

    return ask
