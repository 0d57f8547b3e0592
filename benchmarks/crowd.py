"""Many streams of one server: `python -m benchmarks.crowd --streams 1000 --seconds 10`.

A server of its own and so many real connections, each following one topic. Measured: what the server costs while
nothing happens, and how long one published event takes to reach them all.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from benchmarks.figures import cpu_seconds, rss, run_loop
from benchmarks.processes import Server

TOPIC = "crowd"


class Follower(asyncio.Protocol):
    """One stream; counts the events, and says when the next one has come."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self.events = 0
        self.at = 0.0
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        found = data.count(b"data: ")
        if found:
            self.at = time.perf_counter()
            self.events += found
            self.came.set()


async def follow(server: Server, amount: int, spread: bool) -> list[Follower]:
    """So many streams, each at the end of the topic (or, spread, of one of its own)."""
    loop = asyncio.get_running_loop()
    found: list[Follower] = []
    for number in range(amount):
        topic = f"{TOPIC}-{number}" if spread else TOPIC
        head = (
            f"GET /api/v1/events/stream?topic={topic}&last_sequence_id=0 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Authorization: Bearer {server.key}\r\n\r\n"
        )
        _, one = await loop.create_connection(lambda head=head: Follower(head.encode()), "127.0.0.1", server.port)  # type: ignore[misc]  # bound now
        found.append(one)
    return found


async def publish(server: Server, topic: str) -> float:
    """Publish one event; when that began."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = json.dumps(
        {"topic": topic, "events": [{"event_type": "text_delta", "data": {"content": "x" * 40}}]}
    ).encode()
    head = (
        f"POST /api/v1/events/publish HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Authorization: Bearer {server.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    begin = time.perf_counter()
    writer.write(head.encode() + body)
    line = await reader.readline()
    if b" 200 " not in line:
        raise RuntimeError(f"publishing was answered with {line!r}")
    writer.close()
    return begin


async def measure(server: Server, amount: int, seconds: float, rounds: int, spread: bool) -> dict[str, Any]:
    crowd = await follow(server, amount, spread)
    await asyncio.sleep(min(2.0, seconds))  # let what the start has left settle
    before, begin = cpu_seconds(server.pid), time.perf_counter()
    await asyncio.sleep(seconds)
    idle = 100 * (cpu_seconds(server.pid) - before) / (time.perf_counter() - begin)
    last: list[float] = []
    first: list[float] = []
    before, events = cpu_seconds(server.pid), 0
    for round in range(1, rounds + 1):
        for one in crowd:
            one.came.clear()
        if spread:
            begins = [await publish(server, f"{TOPIC}-{number}") for number in range(amount)]
        else:
            begins = [await publish(server, TOPIC)] * amount
        async with asyncio.timeout(60):
            for one in crowd:
                while one.events < round:
                    await one.came.wait()
                    one.came.clear()
        times = [(one.at - at) * 1e3 for one, at in zip(crowd, begins, strict=True)]
        events += amount
        first.append(min(times))
        last.append(max(times))
    spent_us = 1e6 * (cpu_seconds(server.pid) - before) / events
    for one in crowd:
        one.transport.close()
    return {
        "streams": amount,
        "idle_cpu_percent": idle,
        "rss_mb": rss(server.pid) / 1e6,
        "first_ms": statistics.median(first),
        "cpu_us_per_stream_and_event": spent_us,
        "last_ms": statistics.median(last),
        "worst_ms": max(last),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--spread", action="store_true", help="each stream has a topic of its own")
    parser.add_argument("--store", help="an existing store (default: a new file)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        environment = {"PERDURE_STREAMS_PER_KEY_MAX": str(max(given.streams, 1))}
        server = Server(Path(folder), store=given.store, environment=environment)
        try:
            server.start()
            server.wait_ready()
            figures = run_loop(measure(server, given.streams, given.seconds, given.rounds, given.spread))
        finally:
            server.kill()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
