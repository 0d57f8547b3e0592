"""One workload with engine and worker in this process: `python -m benchmarks.embedded W1 --seconds 5`."""

import argparse
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.figures import bytes_written, cpu_seconds, rss, run_loop
from benchmarks.workflows import app

from perdure import Client
from perdure.embedded import LocalTransport, embedded
from perdure.engine.engine import Engine
from perdure.store.open import is_postgres, open_store


class EmbeddedLab:
    """Everything in this process."""

    def __init__(self, client: Client, written: Callable[[], int | None] = bytes_written) -> None:
        self.client = client
        self.clients: Sequence[Client] = [client]
        self._written = written

    def worker_rss(self) -> int:
        return rss()

    def written(self) -> int | None:
        return self._written()


def nobody_counts() -> int | None:
    """What PostgreSQL writes is written by processes of its own."""
    return None


async def submits(store: str, seconds: float) -> dict[str, Any]:
    """W7: an engine without a worker."""
    async with embedded(store, app):
        pass  # so that the workflows are known
    engine = Engine(await open_store(store))
    await engine.start()
    try:
        client = Client(LocalTransport(engine, await engine.projects.default()))
        return await workloads.submits(EmbeddedLab(client), seconds)
    finally:
        await engine.stop()


@contextlib.asynccontextmanager
async def _lab(store: str, parks: bool) -> AsyncIterator[EmbeddedLab]:
    async with embedded(store, app, parks=parks) as p:
        yield EmbeddedLab(p, nobody_counts if is_postgres(store) else bytes_written)


async def measure(given: argparse.Namespace, store: str) -> dict[str, Any]:
    if given.workload == "W7":
        return await submits(store, given.seconds)
    async with _lab(store, given.parks) as lab:
        match given.workload:
            case "ready":
                print("ready", flush=True)
                return {}
            case "idle":
                return await workloads.idle(given.seconds, cpu_seconds, rss)
            case "W3":
                return await workloads.one_caller(lab, given.seconds, given.count or 1_000)
            case "W4":
                return await workloads.family(lab, given.seconds, given.count or 100)
            case "parking":
                return await workloads.parking(lab, given.seconds)
            case "stream":
                return await workloads.stream(lab, given.seconds, given.count or 1)
            case "W5":
                return await workloads.sleepers(lab, given.count or 2_000)
            case _:
                return await workloads.throughput(lab, given.workload, given.seconds, given.conc)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=["W1", "W2", "W3", "W4", "W5", "W7", "parking", "stream", "ready", "idle"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--conc", type=int, default=256)
    parser.add_argument("--count", type=int, help="children, sleepers, calls or streams, where the workload has them")
    parser.add_argument("--no-parks", dest="parks", action="store_false")
    parser.add_argument("--store", help="an existing store (default: a new file)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        print(json.dumps(run_loop(measure(given, given.store or str(Path(folder) / "perdure.db")))))


if __name__ == "__main__":
    main()
