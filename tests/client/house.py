"""An existing client, its worker and a real server: processes that talk over real sockets.

The package is installed, unmodified and with what it needs pinned, into an environment of its own beside the clone's;
it is built once and kept. Its worker listens on port 8000 whatever it is told, so one such house stands at a time on a
machine (a lock sees to that).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import httpx2
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).with_name("programs")
PINS = ROOT / "requirements" / "existing-client.txt"
CACHE = ROOT / ".cache"
ENVIRONMENT = CACHE / f"existing-client-py{sys.version_info[0]}.{sys.version_info[1]}"
WORKER_PORT = 8000
Json = Any


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock that a single process on the machine can have."""
    with path.open("w") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield


async def environment() -> Path:
    """The interpreter of an environment with the package, made if absent or if its pins differ."""
    CACHE.mkdir(exist_ok=True)
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / "done"
    async with locked(CACHE / "environment.lock"):
        if not done.exists() or done.read_text() != PINS.read_text():
            uv = [sys.executable, "-m", "uv"]
            await _run([*uv, "venv", "--clear", "--python", sys.executable, str(ENVIRONMENT)])
            await _run([*uv, "pip", "install", "--python", str(python), "--require-hashes", "-r", str(PINS)])
            done.write_text(PINS.read_text())
    return python


async def _run(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


class House:
    """The processes of a test."""

    def __init__(self, python: Path, store: str, folder: Path, *, with_key: bool) -> None:
        self.python = python
        self.store = store
        self.folder = folder
        self.with_key = with_key
        self.port = 0
        self.project_id = ""
        self.key = ""
        self.worker_key = ""
        """A key of the role `work`."""
        self.log = folder / "log"
        self.gates = folder / "gates"
        self.gates.mkdir()
        self.log.touch()
        self.server: asyncio.subprocess.Process | None = None
        self.worker: asyncio.subprocess.Process | None = None
        self.client: Client | None = None
        self._files: list[IO[bytes]] = []

    # --- the server --------------------------------------------------------------------------------------------------

    async def start_server(self) -> None:
        if not self.port:
            self.port = free_port()
        arguments = ["--host", "127.0.0.1", "--port", str(self.port)]
        if not self.with_key:
            arguments.append("--insecure-local")
        variables = {"PERDURE_OUTBOUND_HOSTS": "localhost,127.0.0.1"} if self.with_key else {}
        self.server = await self._spawn(
            "server",
            [str(Path(sys.executable).with_name("perdure")), "serve", "--database", self.store, *arguments],
            variables,
        )
        async with asyncio.timeout(60):
            while not await self._is_ready():
                assert self.server.returncode is None, self.said("server")
                await asyncio.sleep(0.05)

    async def _is_ready(self) -> bool:
        try:
            async with httpx2.AsyncClient() as client:
                return (await client.get(f"{self.url}/ready")).status_code == 200
        except httpx2.TransportError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def variables(self) -> dict[str, str]:
        found = {
            "POLOS_API_URL": self.url,
            "POLOS_PROJECT_ID": self.project_id,
            "POLOS_DEPLOYMENT_ID": "shop",
            "POLOS_WAIT_THRESHOLD_SECONDS": "0",
            "MODULES": "app triggers",
            "LOG": str(self.log),
            "GATES": str(self.gates),
            "PYTHONUNBUFFERED": "1",
        }
        if self.with_key:
            return {**found, "POLOS_API_KEY": self.key}
        return {**found, "POLOS_LOCAL_MODE": "true"}

    # --- its worker and its client -----------------------------------------------------------------------------------

    async def start_worker(self) -> None:
        variables = self.variables() | ({"POLOS_API_KEY": self.worker_key} if self.with_key else {})
        self.worker = await self._spawn("worker", [str(self.python), str(PROGRAMS / "worker.py")], variables)
        async with asyncio.timeout(60):
            while "online" not in self.said("worker").splitlines():
                assert self.worker.returncode is None, self.said("worker")
                await asyncio.sleep(0.05)

    async def start_client(self) -> None:
        process = await asyncio.create_subprocess_exec(
            str(self.python),
            str(PROGRAMS / "client.py"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._file("client"),
            env={**_clean(), **self.variables()},
            limit=1 << 24,
        )
        self.client = Client(process)

    async def kill(self, name: str) -> None:
        """SIGKILL, as a crash is."""
        process: asyncio.subprocess.Process | None = getattr(self, name)
        assert process is not None
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def stop_server(self) -> None:
        assert self.server is not None
        self.server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(40):
            await self.server.wait()

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()
        for name in ("worker", "server"):
            if getattr(self, name) is not None:
                await self.kill(name)
        for file in self._files:
            file.close()

    async def _spawn(self, name: str, command: list[str], variables: dict[str, str]) -> asyncio.subprocess.Process:
        file = self._file(name)
        return await asyncio.create_subprocess_exec(
            *command, stdout=file, stderr=subprocess.STDOUT, env={**_clean(), **variables}, cwd=self.folder
        )

    def _file(self, name: str) -> IO[bytes]:
        file = (self.folder / f"{name}.out").open("wb")
        self._files.append(file)
        return file

    def said(self, name: str) -> str:
        path = self.folder / f"{name}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- what happened -----------------------------------------------------------------------------------------------

    def noted(self, word: str = "") -> list[str]:
        """Lines that user code wrote and that begin with `word`."""
        return [line for line in self.log.read_text().splitlines() if line.startswith(word)]

    def open(self, gate: str) -> None:
        (self.gates / gate).touch()

    async def api(self, method: str, path: str, **options: Any) -> Json:
        headers = {"authorization": f"Bearer {self.key}"} if self.with_key else {}
        async with httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=30) as client:
            reply = await client.request(method, path, **options)
            assert reply.status_code < 300, reply.text
            return reply.json() if reply.content else None

    async def until_phase(self, id: str, phase: str, seconds: float = 60.0) -> Json:
        async with asyncio.timeout(seconds):
            while (found := await self.api("GET", f"/api/v1/executions/{id}"))["phase"] != phase:  # noqa: ASYNC110  # over HTTP
                await asyncio.sleep(0.05)
        return found

    async def ask(self, do: str, **fields: Any) -> Json:
        """Have the client do something. Returns the client's answer, or raises the client's error as ClientError."""
        assert self.client is not None
        return await self.client.ask(do, **fields)


class ClientError(Exception):
    """What the client raised."""


class Client:
    """The client's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._number = 0
        self._reading = asyncio.create_task(self._read())

    async def ask(self, do: str, **fields: Any) -> Json:
        self._number += 1
        number = self._number
        self._waiting[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"number": number, "do": do, **fields}).encode() + b"\n")
        async with asyncio.timeout(90):
            reply = await self._waiting[number]
        if "error" in reply:
            raise ClientError(reply["error"])
        return reply["value"]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.startswith(b"{"):
                reply = json.loads(line)
                self._waiting.pop(reply["number"]).set_result(reply)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ClientError("the client's process ended"))

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


def _clean() -> dict[str, str]:
    """Variables of the process, without those meant for another program."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PERDURE_", "POLOS_", "VIRTUAL_ENV", "PYTHONPATH"))
    }


@asynccontextmanager
async def house(store: str, folder: Path, *, with_key: bool) -> AsyncIterator[House]:
    """A server, a worker and a client; everything is over with the block."""
    from perdure.engine.engine import Engine
    from perdure.store.open import open_store
    from perdure.wire.base.access import Role

    python = await environment()
    async with locked(Path(tempfile.gettempdir()) / "perdure-port-8000.lock"):
        house = House(python, store, folder, with_key=with_key)
        engine = Engine(await open_store(store))
        house.project_id = await engine.projects.default()
        if with_key:
            house.key = await engine.projects.create_key(house.project_id, "sdk", Role.WRITE)
            house.worker_key = await engine.projects.create_key(house.project_id, "worker", Role.WORK)
        else:
            house.project_id = str(uuid4())  # any will do
        await engine.stop()
        try:
            await house.start_server()
            await house.start_worker()
            await house.start_client()
            yield house
        finally:
            await house.close()
            for name in ("server", "worker", "client"):
                print(f"--- {name}\n{house.said(name)[-8_000:]}")  # noqa: T201  # shown when the test fails
