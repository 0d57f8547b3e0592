"""Workers die by SIGKILL in the middle of agents' runs: what is recorded is not called again."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.server.serving import Served

from perdure import ExecutionFailed
from perdure.sdk.client import Client
from perdure.wire.errors import Conflict, NotFound
from perdure.wire.records import Kind, Row

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = 6
"""Under way at any time."""
PROGRESS = 500
"""Bytes that the log grows between two kills: some ten calls, so that most runs get on."""


class Workers:
    """Two workers, one of which dies now and then."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program
        self.alive: list[int] = []

    async def spawn(self) -> None:
        assert self._program.stdin is not None and self._program.stdout is not None
        self._program.stdin.write("one\n")
        self._program.stdin.flush()
        self.alive.append(int(await asyncio.to_thread(self._program.stdout.readline)))

    def kill(self, pid: int) -> None:
        self.alive.remove(pid)
        os.kill(pid, signal.SIGKILL)


@contextmanager
def workers(url: str, key: str, calls: Path) -> Iterator[Workers]:
    env = {**os.environ, "PERDURE_URL": url, "PERDURE_API_KEY": key, "CALLS_FILE": str(calls)}
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.agents.killed"],
        cwd=ROOT,
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    found = Workers(program)
    try:
        yield found
    finally:
        for pid in found.alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        program.kill()
        program.communicate()


async def allow(client: Client, served: Served) -> None:
    """Say yes to whatever is asked."""
    open_, _ = await served.engine.approvals.list(served.project_id)
    for question in open_:
        with suppress(Conflict, NotFound):
            await client.resume(question.execution_id, question.step_key, {"approved": True})


async def rows_of(client: Client, id: str) -> list[Row]:
    rows: list[Row] = []
    while page := await client.journal(id, after=rows[-1].seq if rows else 0):
        rows.extend(page)
    return rows


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(8, marks=pytest.mark.slow),
        pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(1_800)]),
    ],
)
async def test_no_recorded_call_is_made_again_whoever_dies(served: Served, tmp_path: Path, kills: int) -> None:
    calls = tmp_path / "calls"
    calls.touch()
    dice = random.Random(kills)
    host, port = served.address
    client = Client.connect(f"http://{host}:{port}", served.key)
    done: list[str] = []
    poisoned: list[str] = []
    killed = 0
    with workers(f"http://{host}:{port}", served.key, calls) as pool:
        for _ in range(2):
            await pool.spawn()

        async def caller(number: int) -> None:
            while killed < kills:
                handle = await client.start("payer", f"run {number}")
                done.append(handle.id)
                try:
                    assert await handle.result() == "paid"
                except ExecutionFailed as error:  # it may lose five workers before it can record anything
                    assert "POISONED" in str(error)
                    poisoned.append(handle.id)

        async def allowing() -> None:
            while True:
                await allow(client, served)
                await asyncio.sleep(0.05)  # nobody is told of a new question

        helping = asyncio.create_task(allowing())
        running = [asyncio.create_task(caller(number)) for number in range(RUNS)]
        while killed < kills:
            begun = calls.stat().st_size
            await served.until(lambda begun=begun: calls.stat().st_size > begun + PROGRESS)  # type: ignore[misc]  # mypy infers no lambda with a default
            await asyncio.sleep(dice.uniform(0.0, 0.1))
            pool.kill(dice.choice(pool.alive))
            killed += 1
            await pool.spawn()
        await asyncio.gather(*running)
        helping.cancel()

    begun_by: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for line in calls.read_text().splitlines():
        id, key, attempt = line.split(" ")
        begun_by[id, key].append(int(attempt))
    assert len(poisoned) < len(done) / 4
    for id in done:
        for row in await rows_of(client, id):
            if row.kind is Kind.STEP and row.key is not None:
                attempts = begun_by[id, row.key]
                assert attempts, f"{row.key} of {id} is recorded and was never called"
                assert max(attempts) == row.attempt, f"{row.key} of {id} was called again after it was recorded"
    repeated = Counter(key for (_, key), attempts in begun_by.items() if len(attempts) > 1)
    said = f"{len(done)} runs ({len(poisoned)} poisoned), {killed} kills; in flight and repeated: {dict(repeated)}"
    print(said)  # noqa: T201  # what a person wants to know of a long run
    await client.close()
