"""One workload with server, worker and client as three processes: `python -m benchmarks.http W1 --seconds 5`."""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import load, workloads
from benchmarks.figures import bytes_written, cpu_seconds, rss, run_loop
from benchmarks.processes import Server, Worker

from perdure import Client


class HttpLab:
    """This process is the client."""

    def __init__(self, server: Server, worker: Worker) -> None:
        self.server = server
        self.worker = worker
        self.client = Client.connect(server.url, server.key)

    def worker_rss(self) -> int:
        return rss(self.worker.pid)

    def written(self) -> int | None:
        return bytes_written(self.server.pid)


@contextlib.contextmanager
def running(folder: Path, store: Path | None = None) -> Iterator[tuple[Server, Worker]]:
    """A server and a worker, ready."""
    server = Server(folder, store=store)
    worker = Worker(server, "benchmarks.workflows:app", folder / "worker.log")
    server.start()
    try:
        server.wait_ready()
        worker.start()
        worker.wait_ready()
        yield server, worker
    finally:
        worker.kill()
        server.kill()


async def over_client(given: argparse.Namespace, server: Server, worker: Worker) -> dict[str, Any]:
    lab = HttpLab(server, worker)
    async with lab.client:
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
            case "W5":
                return await workloads.sleepers(lab, given.count or 2_000)
            case "W7":
                return await workloads.submits(lab, given.seconds)
            case _:
                return await workloads.throughput(lab, given.workload, given.seconds, given.conc)


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    if given.workload == "ready":
        server = Server(folder)
        begin = time.perf_counter()
        server.start()
        try:
            server.wait_ready()
            return {"ready_s": time.perf_counter() - begin}
        finally:
            server.kill()
    with running(folder, given.store) as (server, worker):
        if given.workload != "W7":
            return run_loop(over_client(given, server, worker))
        worker.end()
        figures = run_loop(over_client(given, server, worker))
        figures["plain_per_s"], figures["load_program"] = load.plain(server, given.seconds, folder)
        figures["batched_per_s"] = load.batches(server, given.seconds, given.count or 1_000)
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=["W1", "W2", "W3", "W4", "W5", "W7", "ready", "idle"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--conc", type=int, default=256)
    parser.add_argument("--count", type=int, help="children, sleepers, calls or the size of a batch")
    parser.add_argument("--store", type=Path, help="an existing store (default: a new one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        print(json.dumps(measure(given, Path(folder))))


if __name__ == "__main__":
    main()
