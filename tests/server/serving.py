"""A real server on a free port, its client, and a worker moved by hand."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2
import msgspec
from tests.kit.polling import until

from perdure.engine.base.clock import Clock
from perdure.engine.engine import Engine
from perdure.server.app import Server
from perdure.server.process.settings import Settings
from perdure.store.base.interface import query, verb
from perdure.store.open import open_store
from perdure.store.verbs.runs import queries
from perdure.wire.base.access import Role

Json = Any  # what a reply says; tests look into it by name

FAST: dict[str, Any] = {"poll_seconds": 0.05}
LASTING: dict[str, Any] = {"lease_seconds": 600.0, "beat_seconds": 3.0}
"""A `Hand` renews no lease, so the lease must last on a slow machine."""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The context has no authorities, which each client would load anew."""


class Served:
    """A server in this process."""

    def __init__(self, server: Server, project_id: str, key: str, client: httpx2.AsyncClient) -> None:
        self.server = server
        self.app = server.application
        self.engine = server.application.engine
        self.project_id = project_id
        self.key = key
        self.client = client

    @property
    def address(self) -> tuple[str, int]:
        assert self.server.socket is not None
        host, port = self.server.socket.getsockname()[:2]
        return host, port

    async def key_of(self, role: Role, *, project_id: str | None = None, development: bool = False) -> str:
        return await self.engine.projects.create_key(
            project_id or self.project_id, f"{role}-{uuid4()}", role, development=development
        )

    async def other_project(self) -> tuple[str, dict[str, str]]:
        """A second project, and headers with its key."""
        id = str(uuid4())
        await self.engine.store.write(_insert_project(id=id, now_us=self.engine.clock.now_us()))
        key = await self.key_of(Role.ADMIN, project_id=id)
        return id, {"authorization": f"Bearer {key}"}

    def is_waiting(self, worker_id: str) -> bool:
        """Whether the worker's claim waits for work."""
        return self.engine.claims._waiting.is_waiting(worker_id)

    async def until_waiting(self, worker_id: str) -> None:
        await until(lambda: self.is_waiting(worker_id))

    async def until_held(self, count: int = 1) -> None:
        """Wait until the server holds `count` long polls (except claims) and streams."""
        await until(lambda: len(self.app.services.drain._polls) == count)

    async def lease_until_us(self, worker_id: str) -> int:
        known = await self.engine.store.read(queries.list_workers(project_id=self.project_id))
        [until_us] = [one.lease_until_us for one in known if one.id == worker_id]
        return until_us

    async def answer(self, path: str, status: int, says: str = "", **request: Any) -> httpx2.Response:
        """The first answer with the status and text: a slow machine's store is not well at every moment."""
        async with asyncio.timeout(60):
            while True:
                reply = await self.client.get(path, **request)
                if reply.status_code == status and says in reply.text:
                    return reply
                await asyncio.sleep(0.02)

    async def until_parted(self, connections: int) -> None:
        """Wait until `connections` are left, and parting work is done."""
        await until(lambda: self.app.services.connections() <= connections and not self.app._partings)

    async def start(self, workflow_id: str = "w", payload: Json = None, **fields: Json) -> str:
        """Start an execution that nobody takes unless a worker registers."""
        body = {"payload": payload, "accept_early": True, **fields}
        reply = await self.client.post(f"/api/v1/workflows/{workflow_id}/run", json=body)
        assert reply.status_code == 200, reply.text
        id: str = reply.json()["execution_id"]
        return id


@verb(locks="")
async def _insert_project(*, id: str, now_us: int) -> None:
    await query("insert_project", id=id, name=id, now_us=now_us)


class Hand:
    """A worker moved by hand, over HTTP."""

    def __init__(self, client: httpx2.AsyncClient, workflows: tuple[str, ...] = ("w",)) -> None:
        self.client = client
        self.id = str(uuid4())
        self.workflows = workflows
        self.deployment_id = "default"
        self.protocol = 1
        self.epoch = ""
        self.seen: dict[str, int] = {}

    async def say(self, what: str, body: Json) -> Json:
        reply = await self.client.post(f"/worker/v1/{what}", json=body, headers={"perdure-protocol": "1"})
        assert reply.status_code in (200, 204), reply.text
        return reply.json() if reply.content else None

    async def register(self) -> Json:
        reply = await self.say(
            "register",
            {
                "worker_id": self.id,
                "deployment_id": self.deployment_id,
                "python": "3.11",
                "protocol": self.protocol,
                "workflows": [{"id": id} for id in self.workflows],
            },
        )
        self.epoch = reply["epoch"]
        return reply

    def claiming(self, wait_seconds: float = 5.0) -> Json:
        return {
            "worker_id": self.id,
            "epoch": self.epoch,
            "claim_id": f"{time.monotonic_ns():020d}",
            "capacity": 1,
            "wait_seconds": wait_seconds,
        }

    async def claim(self, wait_seconds: float = 5.0) -> Json:
        reply = await self.say("claim", self.claiming(wait_seconds))
        return reply["items"][0] if reply["items"] else None

    async def report(self, item: Json, number: int = 1, **fields: Json) -> Json:
        body = {"execution_id": item["id"], "attempt": item["attempt"], "number": number, "seen": 1, **fields}
        reply = await self.say("report", {"worker_id": self.id, "epoch": self.epoch, "items": [body]})
        return reply["items"][0]

    async def complete(self, item: Json, result: Json = None) -> Json:
        return await self.report(item, end={"type": "complete", "result": result})

    async def fail(self, item: Json, error: str) -> Json:
        return await self.report(item, end={"type": "fail", "error": error, "detail": {"message": error}})

    async def beat(self) -> Json:
        return await self.say("beat", {"worker_id": self.id, "epoch": self.epoch})


@asynccontextmanager
async def serving(store: str, *, clock: Clock | None = None, **values: Any) -> AsyncIterator[Served]:
    """Run a server on a store for the length of the block."""
    settings = msgspec.convert({**FAST, "store": store, "port": 0, **values}, Settings)
    engine = Engine(await open_store(settings.store), clock=clock, settings=settings)
    server = Server(engine, settings)
    task = asyncio.create_task(server.run_until_stopped())
    ready = asyncio.create_task(server.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if not server.ready.is_set():
        await task
    project_id = await engine.projects.default()
    key = await engine.projects.create_key(project_id, "test", Role.ADMIN)
    try:
        async with httpx2.AsyncClient(
            base_url=server.url, headers={"authorization": f"Bearer {key}"}, timeout=60, verify=NO_TLS
        ) as client:
            yield Served(server, project_id, key, client)
    finally:
        server.stop()
        await task
