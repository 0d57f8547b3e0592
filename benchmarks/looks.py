"""Looks at a grown store: `python -m benchmarks.looks --executions 1000000 --seconds 5`.

One server on a store with many executions, as tests/store/grown.py fills it; `--database postgres` starts a PostgreSQL
for it. Measured: GET of one execution by a load program outside Python, and pages of 50 by each filter.
"""

import argparse
import http.client
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import load
from benchmarks.crew import new_store
from benchmarks.figures import run_loop
from benchmarks.processes import Server
from tests import postgres
from tests.store.grown import fill_postgres, fill_sqlite, name_of
from tests.store.world import START_US

from perdure.store.open import open_store
from perdure.wire.base.times import rfc3339

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
    "cancelled": "status=cancelled",
    "key_part": "key_part=59",
    "tag_name": "tag=shop",
    "workflow_completed": "workflow_id=workflow-3&status=completed",
    "queue_of_workflow": "queue_name=workflow-3",
    "between": "created_after={from}&created_before={to}",
    # Without a match:
    "no_workflow": "workflow_id=none",
    "no_workflow_failed": "workflow_id=workflow-3&status=failed",
    "no_workflow_blocked": "workflow_id=workflow-3&phase=blocked",
    "no_queue": "queue_name=none",
    "no_queue_failed": "queue_name=workflow-3&status=failed",
    "no_key": "key=none",
    "no_key_part": "key_part=none",
    "no_error": "error=timeout",
    "no_after": "created_after=2100-01-01T00:00:00Z",
    "no_before": "created_before=2000-01-01T00:00:00Z",
    "no_between": "created_after={half}&created_before={half}",
    "no_workflow_between": "workflow_id=workflow-3&status=completed&created_after={half}&created_before={half}",
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


async def _fill(url: str, executions: int) -> None:
    await fill_postgres(url, executions, executions // 100)
    await postgres.admin("VACUUM ANALYZE", url=url)


def time_of(n: float) -> str:
    """When the n-th execution of a grown store was created, as a query names it."""
    return rfc3339(START_US + int(n * 1_000_000)).replace("+00:00", "Z")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=1_000_000, help="finished ones; a hundredth as many are open")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to GET one execution")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--store", help="a file that was filled before (default: a new one)")
    given = parser.parse_args()
    with new_store(given.database) as (folder, url):
        store = url or given.store or str(folder / "perdure.db")
        if url is not None:
            run_loop(_fill(url, given.executions))
        elif not Path(store).exists():
            run_loop(make(store))
            fill_sqlite(store, given.executions, given.executions // 100)
        half = given.executions // 2
        middle = name_of(half // 20 * 20)  # it has children
        words = {"parent": middle, "from": time_of(half), "to": time_of(half + 9), "half": time_of(half + 0.5)}
        server = Server(folder, store=store, environment={"PERDURE_RETENTION_DAYS": "36525"})
        try:
            server.start()
            server.wait_ready()
            filters = {name: query.format(**words) for name, query in FILTERS.items()}
            figures: dict[str, Any] = {"pages": pages(server, filters)}
            head = (
                f"GET /api/v1/executions/{middle} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
                f"Authorization: Bearer {server.key}\r\n\r\n"
            )
            if given.seconds:
                figures["gets_per_s"], figures["load_program"] = load.run(server, head.encode(), given.seconds, folder)
        finally:
            server.kill()
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
