"""What is common to the programs here: numbers, the machine they were taken on, and the processes that took part."""

import asyncio
import importlib.metadata
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parent.parent


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop where there is one, as our server and our workers do."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def percentiles(times_ms: Sequence[float]) -> dict[str, Any]:
    """p50, p95 and p99 of some times."""
    if len(times_ms) < 2:
        return {"p50_ms": times_ms[0], "p95_ms": times_ms[0], "p99_ms": times_ms[0], "calls": len(times_ms)}
    cuts = statistics.quantiles(times_ms, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98], "calls": len(times_ms)}


def measured(module: str, *arguments: str, timeout: float = 1_800) -> dict[str, Any]:
    """The JSON line that one of our programs prints, run as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=timeout,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def rss(pid: int | None = None) -> int:
    """Bytes of memory that a process holds."""
    size: int = psutil.Process(pid).memory_info().rss
    return size


def cpu_seconds(pid: int | None = None) -> float:
    """Processor time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def bytes_written(pid: int | None = None) -> int | None:
    """Bytes that a process has sent to storage, where the system counts them."""
    try:
        text = Path(f"/proc/{pid or 'self'}/io").read_text(encoding="ascii")
    except OSError:
        return None
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("write_bytes"))


def file_bytes(store: str) -> int:
    """Bytes of a store and its write-ahead log."""
    return sum(os.path.getsize(name) for name in (store, store + "-wal") if os.path.exists(name))


def sync_seconds(folder: str, times: int = 50) -> float:
    """How long a write of 4 KiB and its fdatasync (or what is as good) take here, the median."""
    file = os.open(os.path.join(folder, "sync.probe"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, b"\0" * 4_096 * times, 0)
        _sync(file)
        took: list[float] = []
        for n in range(times):
            begin = time.perf_counter()
            os.pwrite(file, b"x" * 4_096, 4_096 * n)
            _sync(file)
            took.append(time.perf_counter() - begin)
        return statistics.median(took)
    finally:
        os.close(file)


def _sync(file: int) -> None:
    if sys.platform == "darwin":  # which has no fdatasync, and whose fsync leaves what the disk itself holds back
        import fcntl

        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        getattr(os, "fdatasync", os.fsync)(file)


def machine(folder: str) -> dict[str, Any]:
    """The machine and the versions, without which a figure says nothing."""
    import apsw

    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": processor,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": [round(load, 1) for load in os.getloadavg()],
        "fdatasync_ms": round(sync_seconds(folder) * 1e3, 3),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": {"ours": apsw.sqlite_lib_version(), "floor": sqlite3.sqlite_version},
        "versions": {name: importlib.metadata.version(name) for name in ("perdure", "apsw", "msgspec", "uvicorn")},
    }
