"""The cost of open pages: `python -m benchmarks.followers --streams 100 --rate 500 --seconds 20`.

A server, a worker and a client start so many executions a second. The server's time is measured without streams, and
with so many streams of `/api/v1/live`: half of them opened at once, the others one after another.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.crowd import Follower
from benchmarks.figures import cpu_seconds, rss, run_loop
from benchmarks.processes import Server, Worker
from benchmarks.workflows import PAYLOAD
from msgspec import Raw

from perdure import Client
from perdure.wire.runs.requests import StartItem

PATH: Final = "/api/v1/live?watch=list,counts,inbox,queues&limit=100"
ROUND_SECONDS: Final = 0.1
VALUE: Final = Raw(json.dumps(PAYLOAD).encode())


async def load(client: Client, rate: int, seconds: float) -> int:
    """Start `rate` executions a second, and answer how many were started."""
    begin, started = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        due = int((passed + ROUND_SECONDS) * rate) - started
        if due > 0:
            await client._transport.start([StartItem("noop1", VALUE) for _ in range(due)])
            started += due
        await asyncio.sleep(ROUND_SECONDS)
    return started


async def follow(server: Server, amount: int) -> list[Follower]:
    loop = asyncio.get_running_loop()
    head = (
        f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.key}\r\n\r\n".encode()
    )
    found: list[Follower] = []
    for number in range(amount):
        _, one = await loop.create_connection(lambda: Follower(head), "127.0.0.1", server.port)
        found.append(one)
        if number >= amount // 2:
            await asyncio.sleep(2.0 / amount)
    return found


async def measured(client: Client, server: Server, given: argparse.Namespace) -> tuple[float, float]:
    """Percent of a core, and executions a second."""
    before, begin = cpu_seconds(server.pid), time.perf_counter()
    started = await load(client, given.rate, given.seconds)
    passed = time.perf_counter() - begin
    return 100 * (cpu_seconds(server.pid) - before) / passed, started / passed


async def measure(server: Server, given: argparse.Namespace) -> dict[str, Any]:
    async with Client.connect(server.url, server.key) as client:
        await load(client, given.rate, 3.0)
        rounds: list[dict[str, Any]] = []
        for _ in range(given.rounds):
            alone, rate_alone = await measured(client, server, given)
            crowd: Sequence[Follower] = await follow(server, given.streams)
            await load(client, given.rate, 2.0)
            followed, rate = await measured(client, server, given)
            rounds.append(
                {
                    "alone_cpu_percent": alone,
                    "followed_cpu_percent": followed,
                    "rates": [rate_alone, rate],
                    "events": sum(one.events for one in crowd),
                }
            )
            for one in crowd:
                one.transport.close()
        added = sorted(one["followed_cpu_percent"] - one["alone_cpu_percent"] for one in rounds)
        return {
            "streams": given.streams,
            "added_cpu_percent": added[len(added) // 2],
            "rss_mb": rss(server.pid) / 1e6,
            "rounds": rounds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", help="an existing store (default: a new file)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        server = Server(Path(folder), store=given.store)
        worker = Worker(server, "benchmarks.workflows:app", Path(folder) / "worker.log")
        try:
            server.start()
            server.wait_ready()
            worker.start()
            worker.wait_ready()
            figures = run_loop(measure(server, given))
        finally:
            worker.kill()
            server.kill()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
