"""The floor: the least that a durable engine can do here, and what every figure of ours is divided by.

A record is one row; whoever wrote it goes on when the transaction that holds it is on disk (SQLite, WAL, FULL, one
writer thread that commits whatever has piled up). There is no state machine, no queue, no lease and no worker.

    python -m benchmarks.floor W1 --seconds 5 --conc 256        one JSON line
"""

import argparse
import asyncio
import json
import os
import queue
import sqlite3
import tempfile
import threading
import time
from typing import Any, Final

from benchmarks.figures import percentiles, run_loop

PAYLOAD: Final = {"k": "x" * 91}
"""100 bytes of JSON."""
STEPS: Final = {"W1": 1, "W2": 10, "W3": 1}
BATCH: Final = 1_000

SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA fullfsync = ON;  -- for macOS: ours waits for what its disk holds back, too
CREATE TABLE runs (id INTEGER PRIMARY KEY, state TEXT NOT NULL, input TEXT, output TEXT);
CREATE TABLE records (
  n INTEGER PRIMARY KEY, run INTEGER NOT NULL, place INTEGER NOT NULL, what TEXT NOT NULL, value TEXT);
"""


class Ledger:
    """Takes records and answers when they are on disk."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[tuple[int, int, str, str, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def record(self, run: int, place: int, what: str, value: object) -> asyncio.Future[None]:
        on_disk: asyncio.Future[None] = self._loop.create_future()
        self._inbox.put((run, place, what, json.dumps(value), on_disk))
        return on_disk

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()

    def _write(self) -> None:
        base = sqlite3.connect(self._path, isolation_level=None)
        base.executescript(SCHEMA)
        last = False
        while not last:
            group = [self._inbox.get()]
            try:
                while True:
                    group.append(self._inbox.get_nowait())
            except queue.Empty:
                pass
            taken = [one for one in group if one is not None]
            last = len(taken) < len(group)
            base.execute("BEGIN IMMEDIATE")
            base.executemany(
                "INSERT INTO runs VALUES (?, 'open', ?, NULL)",
                [(run, value) for run, _, what, value, _ in taken if what == "start"],
            )
            base.executemany(
                "INSERT INTO records (run, place, what, value) VALUES (?, ?, ?, ?)", [one[:4] for one in taken]
            )
            base.executemany(
                "UPDATE runs SET state = 'done', output = ? WHERE id = ?",
                [(value, run) for run, _, what, value, _ in taken if what == "end"],
            )
            base.execute("COMMIT")
            self._loop.call_soon_threadsafe(_tell, [one[4] for one in taken])
        base.close()


def _tell(waiting: list[asyncio.Future[None]]) -> None:
    for one in waiting:
        if not one.cancelled():
            one.set_result(None)


async def step(value: object) -> object:
    return value


async def run(ledger: Ledger, number: int, steps: int) -> None:
    """One execution: start and steps are on disk before the next line; the last step shares the commit of its end."""
    await ledger.record(number, 0, "start", PAYLOAD)
    value: object = PAYLOAD
    for place in range(1, steps + 1):
        value = await step(value)
        on_disk = ledger.record(number, place, "step", value)
        if place < steps:
            await on_disk
    await ledger.record(number, steps + 1, "end", value)


async def throughput(ledger: Ledger, workload: str, seconds: float, conc: int) -> dict[str, Any]:
    done, begin = 0, time.perf_counter()

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() - begin < seconds or not done:
            number += conc
            await run(ledger, number, STEPS[workload])
            done += 1

    await asyncio.gather(*[caller(number) for number in range(1, conc + 1)])
    rate = done / (time.perf_counter() - begin)
    return {"executions_per_s": rate, "steps_per_s": rate * STEPS[workload], "conc": conc}


async def one_caller(ledger: Ledger, seconds: float) -> dict[str, Any]:
    times: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or not times:
        start = time.perf_counter()
        await run(ledger, len(times) + 1, 1)
        times.append((time.perf_counter() - start) * 1e3)
    return percentiles(times)


async def submits(ledger: Ledger, seconds: float) -> dict[str, Any]:
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds or not done:
        await asyncio.gather(*[ledger.record(done + n, 0, "start", PAYLOAD) for n in range(1, BATCH + 1)])
        done += BATCH
    return {"submits_per_s": done / (time.perf_counter() - begin)}


async def measure(workload: str, seconds: float, conc: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="perdure-floor-") as folder:
        ledger = Ledger(os.path.join(folder, "floor.db"))
        try:
            await run(ledger, 0, 1)
            if workload == "W3":
                return await one_caller(ledger, seconds)
            if workload == "W7":
                return await submits(ledger, seconds)
            return await throughput(ledger, workload, seconds, conc)
        finally:
            ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The least that a durable engine can do on this machine.")
    parser.add_argument("workload", choices=["W1", "W2", "W3", "W7"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--conc", type=int, default=256)
    given = parser.parse_args()
    print(json.dumps(run_loop(measure(given.workload, given.seconds, given.conc))))


if __name__ == "__main__":
    main()
