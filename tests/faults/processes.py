"""Real processes for the fault tests: a server on a fixed port and file, workers, and a side file of what steps did.

python -m tests.faults.processes serve FOLDER PORT
python -m tests.faults.processes work FOLDER PORT
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from perdure import Context, Registry, current_step, step, workflow

STEPS = 5
STEP_SECONDS = 0.05
ROOT = Path(__file__).parents[2]


def expected(n: int) -> list[int]:
    """What an execution must come to, worked out without Perdure."""
    values = [n]
    for i in range(STEPS):
        values.append((values[-1] * 31 + i * 7 + 1) % 1_000_003)
    return values[1:]


@step
async def advance(value: int, i: int) -> int:
    note("begin")
    await asyncio.sleep(STEP_SECONDS)
    result = (value * 31 + i * 7 + 1) % 1_000_003
    note("end")
    return result


@workflow
async def five_steps(ctx: Context, n: int) -> list[int]:
    values = [n]
    for i in range(STEPS):
        values.append(await advance(values[-1], i))
    return values[1:]


def note(what: str) -> None:
    """One line in the side file by one write: who runs which step under which attempt."""
    info = current_step()
    attempt = 0 if info.context is None else info.context.attempt
    line = f"{what}\t{info.execution_id}\t{info.key}\t{attempt}\t{os.getpid()}\n".encode()
    descriptor = os.open(os.environ["PERDURE_SIDE_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


class Processes:
    """A server and some workers that can be killed and started again."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.port = free_port()
        self.side = folder / "side.tsv"
        self.side.touch()
        self.server = self._start("serve")
        self.access = self._wait_for_access()
        self.workers = [self._start("work") for _ in range(workers)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _start(self, what: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PERDURE_SIDE_FILE": str(self.side)}
        with (self.folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.faults.processes", what, str(self.folder), str(self.port)],
                env=environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def _wait_for_access(self) -> dict[str, str]:
        path = self.folder / "access.json"
        wait_until(path.exists, 30.0, "the server is up")
        access: dict[str, str] = json.loads(path.read_text())
        return access

    def kill_worker(self, n: int) -> int:
        """SIGKILL one worker and start another in its place; gives the pid of the dead one."""
        worker = self.workers[n]
        worker.kill()
        worker.wait()
        self.workers[n] = self._start("work")
        return worker.pid

    def kill_server(self) -> None:
        """SIGKILL the server and start it again on the same file and port."""
        self.server.kill()
        self.server.wait()
        self.server = self._start("serve")

    def in_flight(self, pid: int | None = None) -> int:
        """How many steps have begun and not ended, in one worker or in all that live."""
        pids = {str(worker.pid) for worker in self.workers} if pid is None else {str(pid)}
        open_steps = 0
        for line in self.side.read_text().splitlines():
            what, *_, by = line.split("\t")
            if by in pids:
                open_steps += 1 if what == "begin" else -1
        return open_steps

    def progress(self) -> int:
        """How much has happened: the side file's size."""
        return self.side.stat().st_size

    def stop(self) -> None:
        """End everything: workers drain, then the server."""
        for process in (*self.workers, self.server):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look again every 10 ms, for a bounded time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:g} s and it is not so that {what}")
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


async def serve(folder: Path, port: int) -> None:
    from perdure.server.app import Server
    from perdure.server.app import serve as serve_until_stopped
    from perdure.server.settings import Settings
    from perdure.wire.access import Role

    async def ready(server: Server) -> None:
        path = folder / "access.json"
        if not await asyncio.to_thread(path.exists):
            engine = server.application.engine
            key = await engine.projects.create_key(
                await engine.projects.default(), "faults", Role.ADMIN, development=True
            )
            written = folder / "access.tmp"
            written.write_text(json.dumps({"key": key}))
            written.rename(path)

    # A short lease: a worker that dies while the server is down is noticed by nothing else.
    settings = Settings(store=str(folder / "perdure.db"), port=port, lease_seconds=2.0, beat_seconds=0.5)
    await serve_until_stopped(settings, on_ready=ready)


async def work(folder: Path, port: int) -> None:
    import signal

    from perdure.sdk.http import HttpTransport
    from perdure.sdk.lease import Lease
    from perdure.sdk.worker import Worker

    key = json.loads((folder / "access.json").read_text())["key"]
    url = f"http://127.0.0.1:{port}"
    worker = Worker(HttpTransport([url], key), Registry(five_steps), lease=Lease([url], key), capacity=3)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await worker.start(wait=True)
    await stop.wait()
    await worker.drain()


if __name__ == "__main__":
    asyncio.run({"serve": serve, "work": work}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3])))
