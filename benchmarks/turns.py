"""This checkout and another one in short turns, all processes up all the time: `python -m benchmarks.turns W1 OTHER`.

On a shared machine the speed changes from minute to minute, and more than a change of code that matters. Turns of two
seconds meet the same minute, and the ratios of many pairs have a small standard error. OTHER is the folder of a
checkout with its own `.venv`; this file runs there, too. With this checkout as OTHER, `--workers 2` tells what a second
worker adds.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.crew import Database, new_store
from benchmarks.figures import cpu_seconds, run_loop
from benchmarks.http import HttpLab, running

HERE = Path(__file__).resolve().parents[1]


class Side:
    """The server, the worker and the client of one checkout."""

    def __init__(self, folder: Path, workload: str, database: str, *options: str) -> None:
        self.folder = folder
        python = folder / ".venv/bin/python"
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        self._process = subprocess.Popen(
            [python, "-P", __file__, workload, "--side", "--database", database, *options],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rates: list[float] = []
        self.costs: list[list[float]] = []

    def turn(self, seconds: float) -> None:
        """One burst: note its executions/s, and the microseconds of processor time per execution of each process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        self.rates.append(answer["per_s"])
        self.costs.append([1e6 * each / answer["per_s"] / seconds for each in answer["cpu"]])

    def end(self) -> None:
        self._process.communicate()

    def said(self) -> str:
        spent = [statistics.median(each) for each in zip(*self.costs, strict=True)]
        rate = statistics.median(self.rates)
        names = ("server", "worker", "client", "database")
        cost = ", ".join(f"{name} {each:.0f}" for name, each in zip(names, spent, strict=True)) + " µs"
        return f"{self.folder}: {rate:,.0f} executions/s; processor time of each: {cost}"


def serve_turns(workload: str, database: str, amount: int) -> None:
    """One side: a burst for each line of standard input."""

    async def bursts() -> None:
        lab, postgres = HttpLab(servers, workers[0]), Database(servers[0].store)

        async def used() -> list[float]:
            of_workers = sum(cpu_seconds(worker.pid) for worker in workers)
            return [cpu_seconds(servers[0].pid), of_workers, cpu_seconds(os.getpid()), (await postgres.read())[0]]

        while line := await asyncio.to_thread(sys.stdin.readline):
            before = await used()
            if workload == "W3":
                alone = await workloads.one_caller(lab, float(line), 1_000_000)
                figures: dict[str, Any] = {"executions_per_s": 1e3 / alone["p50_ms"]}
            else:
                figures = await workloads.throughput(lab, workload, float(line), 256)
            cpu = [now - then for now, then in zip(await used(), before, strict=True)]
            print(json.dumps({"per_s": figures["executions_per_s"], "cpu": cpu}), flush=True)
        await lab.aclose()

    with new_store(database) as (folder, store):
        given = argparse.Namespace(store=store, servers=1, workers=amount)
        with running(given, folder) as (servers, workers):
            run_loop(bursts())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=["W1", "W2", "W3"])
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--workers", type=int, default=1, help="of this checkout; the other has one")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        return serve_turns(given.workload, given.database, given.workers)
    if given.other is None:
        parser.error("name the folder of the other checkout")
    other = Side(given.other.resolve(), given.workload, given.database)
    here = Side(HERE, given.workload, given.database, "--workers", str(given.workers))
    for number in range(given.turns + 1):
        for side in (other, here) if number % 2 else (here, other):
            side.turn(given.seconds)
    for side in (other, here):
        del side.rates[0], side.costs[0]  # warming up
        side.end()
        print(side.said())
    ratios = [ours / theirs for theirs, ours in zip(other.rates, here.rates, strict=True)]
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    print(f"here / other: {statistics.mean(ratios):.3f} ± {error:.3f} (median {statistics.median(ratios):.3f})")


if __name__ == "__main__":
    main()
