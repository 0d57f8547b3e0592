"""Sleeps that are due at once: `python -m benchmarks.due --sleepers 50000 --database postgres`.

A server and a worker as processes of their own. Measured from the due time on: how late the last sleeper ends, and what
a wake costs each process. W1 in the same run says how long as many new executions take.
"""

import argparse
import asyncio
import contextlib
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from benchmarks import workloads
from benchmarks.crew import Database, new_store
from benchmarks.figures import cpu_seconds, run_loop
from benchmarks.http import HttpLab, running
from msgspec import Raw
from msgspec.json import encode

from perdure import Client
from perdure.wire.runs.executions import ListFilters
from perdure.wire.runs.requests import StartItem

BATCH: Final = 500
STARTS_PER_S: Final = 800
"""So slow is the slowest machine."""


async def any_in(client: Client, *phases: str) -> bool:
    """Whether a sleeper is in one of these phases. Counts of executions end at some thousands."""
    return bool((await client.list(ListFilters(workflow_id="sleeper_until", phases=list(phases)), limit=1)).executions)


async def measure(given: argparse.Namespace, lab: HttpLab) -> dict[str, Any]:
    client, pids = lab.client, {"server": lab.server.pid, "worker": lab.worker.pid}
    figures: dict[str, Any] = {"sleepers": given.sleepers}
    if given.seconds:
        w1 = await workloads.throughput(lab, "W1", given.seconds, 256)
        figures["w1_per_s"] = w1["executions_per_s"]
    before = lab.worker_rss()
    due = datetime.now(UTC) + timedelta(seconds=given.sleepers / STARTS_PER_S + 5)
    value = Raw(encode(due.isoformat()))
    for begin in range(0, given.sleepers, BATCH):
        amount = min(BATCH, given.sleepers - begin)
        await client._transport.start([StartItem("sleeper_until", value) for _ in range(amount)])
        begin_at = due.timestamp() - 5 - (given.sleepers - begin) / STARTS_PER_S
        await asyncio.sleep(max(0.0, begin_at - time.time()))
    await asyncio.sleep(max(0.0, due.timestamp() - time.time() - 1.0))
    figures["all_asleep"] = not await any_in(client, "queued", "running")
    figures["worker_bytes_per_sleeper"] = round((lab.worker_rss() - before) / given.sleepers)
    await asyncio.sleep(max(0.0, due.timestamp() - time.time()))
    spent = {name: cpu_seconds(pid) for name, pid in pids.items()}
    database, _ = await Database(lab.server.store).read()
    while await any_in(client, "queued", "running", "waiting"):
        if time.time() > due.timestamp() + given.timeout:
            raise RuntimeError("not all sleepers have ended")
        await asyncio.sleep(0.2)
    figures["last_s_late"] = time.time() - due.timestamp()
    figures["wakes_per_s"] = given.sleepers / figures["last_s_late"]
    for name, pid in pids.items():
        figures[f"{name}_us_per_wake"] = round(1e6 * (cpu_seconds(pid) - spent[name]) / given.sleepers)
    spent_then, _ = await Database(lab.server.store).read()
    figures["database_us_per_wake"] = round(1e6 * (spent_then - database) / given.sleepers)
    return figures


async def over_client(given: argparse.Namespace, lab: HttpLab) -> dict[str, Any]:
    async with contextlib.aclosing(lab):
        return await measure(given, lab)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sleepers", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=3.0, help="of W1 before; 0: none")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after the due time to give up")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    given = parser.parse_args()
    with new_store(given.database) as (folder, store):
        options = argparse.Namespace(store=store, servers=1, workers=1)
        with running(options, folder) as (servers, workers):
            print(json.dumps(run_loop(over_client(given, HttpLab(servers, workers[0])))))


if __name__ == "__main__":
    main()
