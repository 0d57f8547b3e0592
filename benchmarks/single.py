"""W3 over HTTP beside the least: `python -m benchmarks.single --database postgres`.

One caller, one execution after another, from start to result; and, in turns with it, one request to a bare server
(benchmarks/floor_http.py) that has one row on disk before it answers. An execution is two requests of the client and
one of the worker, and two commits.
"""

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import workloads
from benchmarks.crew import new_store
from benchmarks.figures import percentiles, run_loop
from benchmarks.floor import PAYLOAD
from benchmarks.http import HttpLab, running
from benchmarks.processes import FloorServer

from perdure.sdk.transports.connection import ServerConnections

BODY: Final = json.dumps({"execution_id": 1, "value": PAYLOAD}).encode()


async def one_commit(floor: FloorServer, seconds: float) -> dict[str, Any]:
    server = ServerConnections(floor.url)
    head = f"POST /api/v1/events/publish HTTP/1.1\r\nhost: {server.host_header}\r\ncontent-length: {len(BODY)}\r\n\r\n"
    request = head.encode() + BODY
    times: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or not times:
        start = time.perf_counter()
        answer = await server.request(request, 30.0)
        times.append((time.perf_counter() - start) * 1e3)
        assert answer.status == 200
    await server.close()
    return percentiles(times)


async def measure(given: argparse.Namespace, lab: HttpLab, floor: FloorServer) -> dict[str, Any]:
    ours, least = [], []
    for _ in range(given.turns):
        ours.append((await workloads.one_caller(lab, given.seconds, 1_000_000))["p50_ms"])
        least.append((await one_commit(floor, given.seconds))["p50_ms"])
    ratios = [mine / floors for mine, floors in zip(ours, least, strict=True)]
    return {
        "p50_ms": statistics.median(ours),
        "floor_p50_ms": statistics.median(least),
        "ratio": statistics.median(ratios),
    }


async def both(given: argparse.Namespace, lab: HttpLab, floor: FloorServer) -> dict[str, Any]:
    async with contextlib.aclosing(lab):
        return await measure(given, lab, floor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    given = parser.parse_args()
    with new_store(given.database) as (folder, store), contextlib.ExitStack() as opened:
        floor = FloorServer(Path(folder), store)
        floor.start()
        opened.callback(floor.kill)
        floor.wait_ready()
        plan = argparse.Namespace(store=store, servers=1, workers=1)
        servers, workers = opened.enter_context(running(plan, folder))
        print(json.dumps(run_loop(both(given, HttpLab(servers, workers[0]), floor))))


if __name__ == "__main__":
    main()
