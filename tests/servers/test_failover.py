"""Real servers and workers on one PostgreSQL: each worker knows both servers, and survives the loss of either."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx2
import psutil
import pytest
from tests import postgres
from tests.faults.app import expected, five_steps
from tests.faults.cluster import START_SECONDS, Cluster, Server
from tests.kit.polling import until

from perdure import Client
from perdure.store.drivers.migrate import migrations
from perdure.wire.base.records import Kind

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
]  # a busy machine takes its time to start eight processes one after the other
EXECUTIONS = 40
SECONDS = 60.0


class Lent:
    """A database in the shape that the cluster expects."""

    name = "postgres"
    servers_max = 8

    def __init__(self, url: str) -> None:
        self.url = url

    async def rows(self, sql: str) -> list[tuple[object, ...]]:
        raise NotImplementedError  # no test here asks

    async def close(self) -> None:
        """The lender takes the database back."""


@pytest.fixture
async def cluster(url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two servers and two workers. Lost leases stay lost for long, since no test waits for their end."""
    cluster = Cluster(tmp_path, Lent(url), servers=2, workers=2, capacity=8, settings={"lease_seconds": 60})
    await cluster.prepare()
    try:
        yield cluster
    finally:
        await cluster.stop()


async def restart(cluster: Cluster, server: Server) -> None:
    server.start()
    await cluster.until_ready(server)


class Work:
    """Executions under way, and the required state at the end."""

    def __init__(self, cluster: Cluster, client: Client) -> None:
        self.cluster = cluster
        self.client = client
        self._stopping = False
        self._task = asyncio.create_task(self._run())
        self.ids: list[str] = []

    async def _run(self) -> None:
        """Start and await executions, some at a time. An error of a call ends the test."""
        room = asyncio.Semaphore(16)
        async with asyncio.TaskGroup() as group:
            while not self._stopping:
                await room.acquire()
                group.create_task(self._one(len(self.ids), room))
                self.ids.append("")

    async def _one(self, n: int, room: asyncio.Semaphore) -> None:
        handle = await self.client.start(five_steps, n)
        self.ids[n] = handle.id
        assert await handle.result() == expected(n)
        room.release()

    async def goes_on(self, amount: int = 20) -> None:
        """Wait until `amount` more executions are started, which takes as many ends."""
        wanted = len(self.ids) + amount
        await until(lambda: len(self.ids) >= wanted or self._task.done(), SECONDS, "work goes on")
        if self._task.done():
            self._task.result()

    async def end(self) -> None:
        self._stopping = True
        async with asyncio.timeout(SECONDS):
            await self._task

    async def kinds(self) -> dict[str, list[Kind]]:
        """The kinds of the rows of each execution's journal."""
        return {id: [row.kind for row in await self.client.journal(id)] for id in self.ids}


async def test_a_killed_server_costs_no_worker_its_lease_and_no_caller_an_error(cluster: Cluster) -> None:
    await cluster.start()
    async with cluster.client(patience_seconds=SECONDS) as client:
        work = Work(cluster, client)
        for server in cluster.servers:
            await work.goes_on()
            await until(lambda: cluster.in_flight() > 0, SECONDS, "steps run")
            server.kill()
            await work.goes_on(40)
            await restart(cluster, server)
        await work.end()
        for kinds in (await work.kinds()).values():
            assert Kind.LOST not in kinds and kinds.count(Kind.STEP) == 5
    assert all("registers again" not in worker.said() for worker in cluster.workers)


@pytest.mark.slow
async def test_a_rolling_restart_of_servers_and_workers_loses_nothing(cluster: Cluster) -> None:
    await cluster.start()
    async with cluster.client(patience_seconds=SECONDS) as client:
        work = Work(cluster, client)
        for server in cluster.servers:
            await work.goes_on()
            server.terminate()
            assert await server.ended() == 0, server.said()
            await work.goes_on()
            await restart(cluster, server)
        for worker in cluster.workers:
            await work.goes_on()
            worker.terminate()
            assert await worker.ended() == 0, worker.said()
            worker.start()
            await cluster.until_serving(worker)
        await work.end()
        journals = await work.kinds()
        assert all(Kind.LOST not in kinds and kinds.count(Kind.STEP) == 5 for kinds in journals.values())
    assert all("ERROR" not in node.said() for node in (*cluster.servers, *cluster.workers))


async def in_use(cluster: Cluster) -> Server:
    """The first worker's current server."""
    process = psutil.Process(cluster.workers[0].pid)
    ports = {line.raddr.port for line in await asyncio.to_thread(process.net_connections, "tcp") if line.raddr}
    (server,) = [server for server in cluster.servers if server.port in ports]
    return server


@pytest.mark.slow
async def test_a_frozen_server_is_left_for_the_other_while_the_lease_holds(url: str, tmp_path: Path) -> None:
    settings = {"lease_seconds": 30, "beat_seconds": 3}  # a silent server is left after 8 s, or later on a slow machine
    cluster = Cluster(tmp_path, Lent(url), servers=2, workers=1, capacity=4, settings=settings)
    await cluster.prepare()
    try:
        await cluster.start()
        frozen = await in_use(cluster)
        (other,) = [server for server in cluster.servers if server is not frozen]
        async with cluster.client([other.url]) as client:
            first = await client.start(five_steps, 1)
            assert await first.result() == expected(1)
            frozen.freeze()
            results = await asyncio.gather(*[(await client.start(five_steps, n)).result() for n in range(EXECUTIONS)])
            assert results == [expected(n) for n in range(EXECUTIONS)]
            frozen.thaw()
        assert "registers again" not in cluster.workers[0].said()
    finally:
        await cluster.stop()


@pytest.fixture
async def empty() -> AsyncIterator[str]:
    """The address of a database that has nothing of ours."""
    async with postgres.fresh() as url:
        yield url


async def registered(server: Server) -> tuple[str, str]:
    """The epoch and the project that a worker is told."""
    body = {"worker_id": str(uuid4()), "deployment_id": "d", "python": "3.11", "workflows": []}
    async with httpx2.AsyncClient(base_url=server.url, timeout=SECONDS) as client:
        reply = await client.post("/worker/v1/register", json=body, headers={"perdure-protocol": "1"})
    assert reply.status_code == 200, reply.text
    return reply.json()["epoch"], reply.json()["project_id"]


async def test_servers_that_start_at_once_on_an_empty_database_agree(empty: str, tmp_path: Path) -> None:
    """One server migrates while others wait; all tell workers the same epoch and default project."""
    servers = [Server(f"server-{n}", tmp_path, empty, {"log_format": "text", "insecure_local": True}) for n in range(3)]
    for server in servers:
        server.start()
    try:
        for server in servers:
            await until(server.is_ready, START_SECONDS, f"{server.name} is ready")
        said = [server.said() for server in servers]
        newest = migrations("postgres")[-1].number
        assert sum(f"The database has schema {newest} now" in text for text in said) == 1
        places = {await registered(server) for server in servers}
        assert len(places) == 1
    finally:
        for server in servers:
            server.kill()


async def test_a_server_waits_for_its_database(tmp_path: Path) -> None:
    database = await asyncio.to_thread(postgres.start)
    url = database.url
    database.kill()
    command = [sys.executable, "-m", "perdure.cli.main", "serve", "--port", "0", "--database", url]
    server = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        assert server.stdout is not None
        assert b"It is tried for 60 seconds" in await server.stdout.readline()
        await asyncio.to_thread(database.start)
        while b"Listening on" not in (line := await server.stdout.readline()):
            assert line, "the server ended"
    finally:
        server.kill()
        await server.wait()
        database.stop()
