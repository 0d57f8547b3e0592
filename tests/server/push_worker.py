"""An obedient push worker: a small HTTP server that remembers calls and gives set answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2
from tests.server.serving import Served

Json = Any
HANG = "hang"
"""Take a call and do not answer."""
DROP = "drop"
"""Take a call and close the connection."""
LOOPBACK = ("127.0.0.1",)


class Call(NamedTuple):
    """A received call."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        return json.loads(self.body)


class PushWorker:
    """Answers `/execute` with the result of `answer` for the body: a status, HANG or DROP."""

    def __init__(self, served: Served, deployment: str = "push", capacity: int = 10) -> None:
        self.client = served.client
        self.project_id = served.project_id
        self.deployment = deployment
        self.capacity = capacity
        self.id = ""
        self.calls: list[Call] = []
        self.answer: Callable[[Json], int | str] = lambda body: 200
        self.cancel_answer: int | str = 200
        self.health_answer: int | str = 200
        self.came = asyncio.Event()
        self.go_on = asyncio.Event()
        """Setting the event answers hanging calls with 200."""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Close the socket and all connections, as a process that is killed."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def register(self, *, online: bool = True) -> str:
        body = {
            "project_id": self.project_id,
            "mode": "push",
            "push_endpoint_url": self.url,
            "max_concurrent_executions": self.capacity,
            "deployment_id": self.deployment,
            "capabilities": {},
        }
        reply = await self.client.post("/api/v1/workers/register", json=body)
        assert reply.status_code == 200, reply.text
        self.id = reply.json()["worker_id"]
        if online:
            await self.online()
        return self.id

    async def online(self) -> None:
        reply = await self.client.post(f"/api/v1/workers/{self.id}/online")
        assert reply.status_code == 200, reply.text

    # --- what came ---------------------------------------------------------------------------------------------------

    def pushed(self, execution_id: str | None = None) -> list[Json]:
        """The bodies of the calls to `/execute`, of one execution or all."""
        bodies = [call.json for call in self.calls if call.path == "/execute"]
        return [body for body in bodies if execution_id in (None, body["execution_id"])]

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for a condition on the received calls."""
        async with asyncio.timeout(60):
            while not true():
                self.came.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self.came.wait()
                except TimeoutError:
                    continue

    async def until_pushed(self, execution_id: str, times: int = 1) -> Json:
        await self.until(lambda: len(self.pushed(execution_id)) >= times)
        return self.pushed(execution_id)[times - 1]

    # --- what it says ------------------------------------------------------------------------------------------------

    async def say(self, execution_id: str, what: str, body: Json, *, method: str = "POST") -> httpx2.Response:
        return await self.client.request(method, f"/internal/executions/{execution_id}/{what}", json=body)

    async def complete(self, execution_id: str, result: Json = "done", **fields: Json) -> httpx2.Response:
        return await self.say(execution_id, "complete", {"result": result, "worker_id": self.id, **fields})

    async def fail(self, execution_id: str, error: str = "it failed", **fields: Json) -> httpx2.Response:
        return await self.say(execution_id, "fail", {"error": error, "worker_id": self.id, **fields})

    async def step(self, execution_id: str, key: str) -> httpx2.Response:
        return await self.client.get(f"/internal/executions/{execution_id}/steps/{key}")

    # --- its server --------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.calls.append(Call(method, path, headers, body))
        status: int | str = 200
        if path == "/execute":
            status = self.answer(json.loads(body))
        elif path.startswith("/cancel/"):
            status = self.cancel_answer
        elif path == "/health":
            status = self.health_answer
        self.came.set()
        if status == DROP:
            return False
        if status == HANG:
            await self.go_on.wait()
            status = 200
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        await writer.drain()
        return True


@asynccontextmanager
async def push_worker(
    served: Served, *, register: bool = True, deployment: str = "push", capacity: int = 10
) -> AsyncIterator[PushWorker]:
    """A listening push worker, registered and online unless said otherwise."""
    worker = PushWorker(served, deployment, capacity)
    await worker.listen()
    if register:
        await worker.register()
    try:
        yield worker
    finally:
        await worker.die()
