"""One project's lists beside hostile callers of another: `python -m benchmarks.hostile --database postgres`.

A server on a grown store (tests/store/grown.py). Another process makes the hostile callers: lists and previews with
50 names in each filter, searches, MCP calls of unknown tools, and bulk jobs, also held ones. They have a key of the
large project, which has 1,200 workflows with large schemas. The lists of a small project are measured without them and
beside them.
"""

import argparse
import asyncio
import http.client
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import Any, Final
from urllib.parse import urlencode
from uuid import uuid4

from benchmarks.crew import new_store
from benchmarks.figures import percentiles, run_loop
from benchmarks.looks import make
from benchmarks.processes import ROOT, Server
from tests.store.grown import fill_postgres, fill_sqlite

from perdure.engine.engine import Engine
from perdure.store.base.interface import query, verb
from perdure.store.open import open_store
from perdure.wire.base.access import Role

BAR_MS: Final = 100.0
NAMES: Final = ",".join(f"workflow-{n}" for n in range(50))
FILTERS: Final = {f"{no}{of}": NAMES for of in ("workflow_id", "queue_name", "deployment_id") for no in ("", "not_")}
LISTS: Final = ("executions?limit=50", "executions/count", "executions/summaries?limit=50", "executions?key_part=none")
JSON_HEAD: Final = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"


@verb(locks="")
async def insert_project(*, id: str) -> None:
    await query("insert_project", id=id, name=id, now_us=2)


async def small_project(store: str) -> str:
    """A second project's key."""
    opened = await open_store(store)
    try:
        await opened.write(insert_project(id="small"))
        return await Engine(opened).projects.create_key("small", "small", Role.ADMIN, development=False)
    finally:
        await opened.close()


def hostile_requests() -> list[tuple[str, bytes]]:
    bulk = {"action": "cancel", "filters": {"workflow_id": NAMES}}
    tool = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "run_none_0a1b2c", "arguments": {}}}
    filters = {"filters": FILTERS, "action": "cancel"}
    held = {"action": "delete", "filters": {"workflow_id": NAMES}, "hold_seconds": 300}
    return [
        (f"GET /api/v1/executions?limit=500&{urlencode(FILTERS)}", b""),
        (f"GET /api/v1/executions/count?{urlencode({'not_workflow_id': NAMES, 'not_queue_name': NAMES})}", b""),
        ("POST /api/v1/bulk/preview", json.dumps(filters).encode()),
        ("GET /api/v1/search?q=none", b""),
        ("POST /mcp", json.dumps(tool).encode()),
        ("POST /api/v1/bulk", json.dumps(bulk).encode()),
        ("POST /api/v1/bulk", json.dumps(held).encode()),
    ]


async def attack(port: int, key: str, callers: int, seconds: float) -> Counter[str]:
    """How often the server answered with which status. Every fourth request is left before its answer."""
    answers: Counter[str] = Counter()
    until = time.monotonic() + seconds

    async def call(number: int) -> None:
        for n, (line, body) in enumerate(itertools.islice(itertools.cycle(hostile_requests()), number, None)):
            if time.monotonic() > until:
                return
            kind = line.split("?")[0]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
                f"{JSON_HEAD}Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            try:
                if (number + n) % 4 == 3:
                    await asyncio.sleep(0.05)
                    answers[f"{kind} left"] += 1
                else:
                    status = await asyncio.wait_for(reader.readline(), until - time.monotonic() + 1)
                    answers[f"{kind} {status[9:12].decode()}"] += 1
            except (OSError, TimeoutError):
                answers[f"{kind} unanswered"] += 1
            finally:
                writer.close()

    await asyncio.gather(*(call(number) for number in range(callers)))
    return answers


def register(server: Server) -> None:
    """1,200 workflows of the large project, with 70 MB of schemas."""
    schema = {"type": "object", "description": "x" * 59_000}
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json", "Perdure-Protocol": "1"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for batch in range(10):
        workflows = [{"id": f"large-{batch}-{n}", "description": {"input_schema": schema}} for n in range(120)]
        body = {"worker_id": str(uuid4()), "deployment_id": f"large-{batch}", "python": "3.11", "workflows": workflows}
        connection.request("POST", "/worker/v1/register", json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"The registration of batch {batch} was answered with {answer.status}: {said.decode()}")
    connection.close()


def lists(server: Server, key: str, seconds: float) -> dict[str, Any]:
    """Times of a small project's lists, with a pause of 10 ms between them."""
    took: list[float] = []
    statuses: Counter[int] = Counter()
    until = time.monotonic() + seconds
    for name in itertools.cycle(LISTS):
        if time.monotonic() > until:
            break
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        begin = time.perf_counter()
        connection.request("GET", f"/api/v1/{name}", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        answer.read()
        took.append((time.perf_counter() - begin) * 1e3)
        statuses[answer.status] += 1
        connection.close()
        time.sleep(0.01)
    return {**percentiles(took), "max_ms": max(took), "statuses": statuses}


def beside(server: Server, key: str, callers: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.hostile", "--seconds", str(seconds + 4), "--callers", str(callers)]
    attackers = subprocess.Popen(
        [*command, "--attack", str(server.port), server.key], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        time.sleep(3)
        found = lists(server, key, seconds)
        said, _ = attackers.communicate(timeout=120)
    finally:
        attackers.kill()
        attackers.wait()
    return {**found, "hostile": json.loads(said)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--executions", type=int, default=100_000, help="finished ones of the large project")
    parser.add_argument("--callers", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--attack", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.attack is not None:
        print(json.dumps(run_loop(attack(int(given.attack[0]), given.attack[1], given.callers, given.seconds))))
        return
    with new_store(given.database) as (folder, url):
        store = url or str(folder / "perdure.db")
        if url is None:
            run_loop(make(store))
            fill_sqlite(store, given.executions, given.executions // 100)
        else:
            run_loop(fill_postgres(url, given.executions, given.executions // 100))
        key = run_loop(small_project(store))
        server = Server(folder, store=store, environment={"PERDURE_RETENTION_DAYS": "36525"})
        try:
            server.start()
            server.wait_ready()
            register(server)
            alone = lists(server, key, given.seconds)
            crowded = beside(server, key, given.callers, given.seconds)
        finally:
            server.kill()
    bar = max(BAR_MS, 2 * alone["p99_ms"])
    met = crowded["p99_ms"] <= bar and set(crowded["statuses"]) == {200}
    print(json.dumps({"alone": alone, "beside": crowded, "bar_ms": bar, "met": met, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
