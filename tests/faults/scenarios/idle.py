"""Thousands of clients wait at a server for an event that does not come, by long polls and streams. The clients cost
next to nothing, hold no connection to the database, and are all told when an event comes after all.

`FAULTS_IDLE_SECONDS` makes the wait longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import Counter

import psutil
from tests.faults.cluster import Server
from tests.faults.run import Broken, Run
from tests.faults.stores import Peers
from tests.kit.polling import until

CPU_SHARE_MAX = 0.02
GROWTH_MAX = 0.03
"""Growth of the server's memory, over the second half of the time."""
CONNECTIONS_MAX = 12
WAIT_SECONDS = 60
OPENED_AT_ONCE = 50
BUSY = """
SELECT COUNT(*), COUNT(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity
WHERE application_name LIKE 'perdure %' AND datname = current_database() AND pid <> pg_backend_pid()"""


async def idle(run: Run) -> None:
    clients = run.pick(200, 1_000, 2_000)
    seconds = float(os.environ.get("FAULTS_IDLE_SECONDS", run.pick(20, 60, 300)))
    async with Peers(run, 1) as [peer]:
        ids = [await peer.start() for _ in range(20)]
    settings = {
        "streams_per_key_max": clients,
        "stream_seconds_max": 86_400,
        "connections_max": clients + 100,
        "poll_seconds_max": WAIT_SECONDS,
    }
    cluster = await run.start_cluster(servers=1, workers=0, settings=settings)
    [server] = cluster.servers
    crowd = _Crowd(server, cluster.key)
    try:
        await crowd.gather(clients, ids)
        await _stay(run, server, crowd, seconds)
        await _wake(run, crowd, ids)
    finally:
        await crowd.leave()
    run.figures["counts"] = dict(sorted(crowd.counts.items()))
    await cluster.stop()
    if "Traceback" in server.said():
        raise Broken(f"the server met what it did not expect: {server.said()[-2_000:]}")


async def _stay(run: Run, server: Server, crowd: _Crowd, seconds: float) -> None:
    """Let time pass, and measure the cost."""
    process = psutil.Process(server.pid)
    await asyncio.sleep(3)  # what connecting has left to do; it must not count
    began, used = time.monotonic(), _cpu(process)
    memory: list[int] = []
    most = busy_most = looks = busy_looks = 0
    while time.monotonic() < began + seconds:
        await asyncio.sleep(min(1.0, seconds / 20))
        memory.append(process.memory_info().rss)
        if run.database.servers_max > 1:
            [[connections, busy]] = await run.database.rows(BUSY)
            most, busy_most, looks = max(most, connections), max(busy_most, busy), looks + 1
            busy_looks += busy > 0
    share = (_cpu(process) - used) / (time.monotonic() - began)
    half, last = sum(memory[len(memory) // 2 :][:3]) / 3, sum(memory[-3:]) / 3
    run.figures["CPU of the server"] = f"{share:.2%} of a core over {seconds:g} s"
    run.figures["its memory"] = (
        f"{memory[0] / 1e6:.1f} MB at first, {half / 1e6:.1f} half-way, {last / 1e6:.1f} at last"
    )
    if looks:
        run.figures["connections to the database"] = f"{most} at most; {busy_looks} of {looks} looks saw one in use"
    wrong = [
        what
        for what, so in {
            f"{crowd.open} of {crowd.wanted} clients are connected": crowd.open != crowd.wanted,
            f"the server used {share:.2%} of a core": share > CPU_SHARE_MAX,
            f"its memory grew from {half:,.0f} to {last:,.0f}": last > half * (1 + GROWTH_MAX),
            f"it had {most} connections to the database, {busy_most} of them in use": most > CONNECTIONS_MAX
            or busy_most > CONNECTIONS_MAX // 2,
        }.items()
        if so
    ]
    if wrong:
        raise Broken("; ".join(wrong))


async def _wake(run: Run, crowd: _Crowd, ids: list[str]) -> None:
    """Make the awaited events happen: all clients hear of them."""
    client = run.client()
    await client.publish("idle", {"n": 1})
    for id in ids:
        await client.cancel(id)
    await until(lambda: crowd.told == crowd.wanted, 60, f"all {crowd.wanted} clients are told")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class _Crowd:
    """Clients with a connection each: a third streams a topic, a third an execution, a third polls."""

    def __init__(self, server: Server, key: str) -> None:
        self._server = server
        self._key = key
        self._tasks: list[asyncio.Task[None]] = []
        self._opening = asyncio.Semaphore(OPENED_AT_ONCE)
        self.counts: Counter[str] = Counter()
        self.wanted = 0
        self.open = 0
        self.told = 0

    async def gather(self, amount: int, ids: list[str]) -> None:
        """Connect all clients. Returns when each has been heard out, or waits for an answer."""
        self.wanted = amount
        for n in range(amount):
            id = ids[n // 3 % len(ids)]
            what, path = [
                ("streams of a topic", "/api/v1/events/stream?topic=idle"),
                ("streams of an execution", f"/api/v1/executions/{id}/events"),
                ("polls for a result", f"/api/v1/executions/{id}?wait={WAIT_SECONDS}"),
            ][n % 3]
            self._tasks.append(asyncio.create_task(self._client(what, path)))
        await until(lambda: self.open == amount, 120, f"{amount} clients are connected")

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, what: str, path: str) -> None:
        async with self._opening:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        try:
            self.open += 1
            self.counts[what] += 1
            ask = self._poll if what.startswith("polls") else self._stream
            await ask(reader, writer, path)
            self.told += 1
        finally:
            self.open -= 1
            writer.transport.abort()

    def _request(self, path: str) -> bytes:
        return (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._key}\r\n"
            "Accept: text/event-stream, application/json\r\n\r\n"
        ).encode()

    async def _poll(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        """Ask until the execution is final, over one connection."""
        while True:
            writer.write(self._request(path))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = re.search(rb"content-length: (\d+)", head.lower())
            assert length is not None, head
            answer = json.loads(await reader.readexactly(int(length[1])))
            self.counts["answers to polls"] += 1
            if answer["status"] == "cancelled":
                return

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        """Read until something comes that is no keep-alive."""
        writer.write(self._request(path))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        while line := await reader.readline():
            if line.startswith(b"data:"):
                return
            self.counts["keep-alive lines"] += line.startswith(b":")
        raise Broken(f"the stream {path} ended")
