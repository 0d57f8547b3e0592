"""One workload with server, worker and client as three processes: `python -m benchmarks.http W1 --seconds 5`."""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import load, workloads
from benchmarks.figures import bytes_written, cpu_seconds, rss, run_loop
from benchmarks.processes import Server, Worker

from perdure import Client
from perdure.store.open import is_postgres


class HttpLab:
    """This process is the client, of each server."""

    def __init__(self, servers: list[Server], worker: Worker) -> None:
        self.server = servers[0]
        self.worker = worker
        self.clients: Sequence[Client] = [Client.connect(server.url, server.key) for server in servers]
        self.client = self.clients[0]

    async def aclose(self) -> None:
        for client in self.clients:
            await client.close()

    def worker_rss(self) -> int:
        return rss(self.worker.pid)

    def written(self) -> int | None:
        return None if is_postgres(self.server.store) else bytes_written(self.server.pid)


@contextlib.contextmanager
def running(given: argparse.Namespace, folder: Path) -> Iterator[tuple[list[Server], list[Worker]]]:
    """Servers and workers, ready. Several servers need a store that they can share."""
    servers = [Server(folder, store=given.store)]
    servers += [Server(folder, store=given.store, key=servers[0].key) for _ in range(1, given.servers)]
    workers = [
        Worker(servers[n % len(servers)], "benchmarks.workflows:app", folder / f"worker-{n}.log")
        for n in range(given.workers)
    ]
    try:
        for server in servers:
            server.start()
            server.wait_ready()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait_ready()
        yield servers, workers
    finally:
        for process in (*workers, *servers):
            process.kill()


async def over_client(given: argparse.Namespace, servers: list[Server], worker: Worker) -> dict[str, Any]:
    lab, server = HttpLab(servers, worker), servers[0]
    async with contextlib.aclosing(lab):
        match given.workload:
            case "idle":
                await asyncio.sleep(min(given.seconds, 2.0))  # let what the start has left settle
                server_cpu = await workloads.idle(
                    given.seconds, lambda: cpu_seconds(server.pid), lambda: rss(server.pid)
                )
                return {**server_cpu, "worker_rss_mb": lab.worker_rss() / 1e6}
            case "W3":
                return await workloads.one_caller(lab, given.seconds, given.count or 1_000)
            case "W4":
                return await workloads.family(lab, given.seconds, given.count or 100)
            case "parking":
                return await workloads.parking(lab, given.seconds)
            case "stream":
                return await workloads.stream(lab, given.seconds, given.count or 1)
            case "W5":
                return await workloads.sleepers(lab, given.count or 2_000)
            case "W7":
                return await workloads.submits(lab, given.seconds)
            case _:
                async with lock_waits(server.store) as waits:
                    figures = await workloads.throughput(lab, given.workload, given.seconds, given.conc)
                return {**figures, **waits}


@contextlib.asynccontextmanager
async def lock_waits(store: str) -> AsyncIterator[dict[str, float]]:
    """The part of PostgreSQL's busy sessions that wait for somebody's lock, seen fifty times a second."""
    figures: dict[str, float] = {}
    if not is_postgres(store):
        yield figures
        return
    import asyncpg

    seen: list[tuple[int, int]] = []

    async def look() -> None:
        connection = await asyncpg.connect(store)
        while True:
            row = await connection.fetchrow(
                "SELECT count(*) FILTER (WHERE wait_event_type = 'Lock'), count(*) FROM pg_stat_activity "
                "WHERE state <> 'idle' AND application_name LIKE 'perdure %'"
            )
            assert row is not None
            seen.append((row[0], row[1]))
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield figures
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    if busy := sum(all_of for _, all_of in seen):
        figures["lock_wait_percent"] = 100 * sum(waiting for waiting, _ in seen) / busy


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    if given.workload == "ready":
        server = Server(folder, store=given.store)
        begin = time.perf_counter()
        server.start()
        try:
            server.wait_ready()
            return {"ready_s": time.perf_counter() - begin}
        finally:
            server.kill()
    with running(given, folder) as (servers, workers):
        if given.workload != "W7":
            return run_loop(over_client(given, servers, workers[0]))
        server = servers[0]
        for worker in workers:
            worker.end()
        figures = run_loop(over_client(given, servers, workers[0]))
        figures["plain_per_s"], figures["load_program"] = load.plain(server, given.seconds, folder)
        figures["batched_per_s"] = load.batches(server, given.seconds, given.count or 1_000)
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=["W1", "W2", "W3", "W4", "W5", "W7", "parking", "stream", "ready", "idle"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--conc", type=int, default=256)
    parser.add_argument("--count", type=int, help="children, sleepers, calls, streams or the size of a batch")
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--store", help="an existing store (default: a new file)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        print(json.dumps(measure(given, Path(folder))))


if __name__ == "__main__":
    main()
