"""Looks at a grown store: `python -m benchmarks.looks --executions 1000000 --seconds 5`.

One server on a file with many executions, as tests/store/grown.py fills it. Measured: GET of one execution by a load
program outside Python, and pages of 50 by each filter.
"""

import argparse
import http.client
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import load
from benchmarks.figures import run_loop
from benchmarks.processes import Server
from tests.store.grown import fill_sqlite, name_of

from perdure.store.open import open_store

FILTERS: Final = {
    "newest": "",
    "workflow": "workflow_id=workflow-3",
    "session": "session_id=session-25",
    "user": "user_id=user-2",
    "batch": "batch_id=batch-3",
    "parent": "parent_execution_id={parent}",
    "root": "root_execution_id={parent}",
    "queue": "queue_name=narrow",
    "deployment": "deployment_id=d",
    "tag": "tag=shop=value-3",
    "key": "key=key-59",
    "completed": "status=completed",
    "failed": "status=failed",
    "running": "status=running",
    "pending": "status=pending",
    "blocked": "phase=blocked",
    "waiting": "phase=waiting",
}
"""Of a store that tests/store/grown.py has filled."""


async def make(store: str) -> None:
    """A file with the schema."""
    await (await open_store(store)).close()


def pages(server: Server, filters: dict[str, str], times: int = 20) -> dict[str, Any]:
    """How long a page of 50 takes (median and worst, in ms), and how many are on it, by filter."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Authorization": f"Bearer {server.key}"}
    found: dict[str, Any] = {}
    for name, query in filters.items():
        took: list[float] = []
        amount = 0
        for _ in range(times):
            begin = time.perf_counter()
            connection.request("GET", f"/api/v1/executions?limit=50&{query}", headers=headers)
            answer = connection.getresponse()
            text = answer.read()
            took.append((time.perf_counter() - begin) * 1e3)
            if answer.status != 200:
                raise RuntimeError(f"{query}: {answer.status} {text[:200]!r}")
            amount = len(json.loads(text)["executions"])
        found[name] = {"p50_ms": statistics.median(took), "max_ms": max(took), "executions": amount}
    connection.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=1_000_000, help="finished ones; a hundredth as many are open")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--store", help="a file that was filled before (default: a new one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        store = given.store or str(Path(folder) / "perdure.db")
        if not Path(store).exists():
            run_loop(make(store))
            fill_sqlite(store, given.executions, given.executions // 100)
        middle = name_of(given.executions // 2 // 20 * 20)  # it has children
        server = Server(Path(folder), store=store, environment={"PERDURE_RETENTION_DAYS": "36525"})
        try:
            server.start()
            server.wait_ready()
            filters = {name: query.format(parent=middle) for name, query in FILTERS.items()}
            figures: dict[str, Any] = {"pages": pages(server, filters)}
            head = (
                f"GET /api/v1/executions/{middle} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
                f"Authorization: Bearer {server.key}\r\n\r\n"
            )
            figures["gets_per_s"], figures["load_program"] = load.run(
                server, head.encode(), given.seconds, Path(folder)
            )
        finally:
            server.kill()
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
