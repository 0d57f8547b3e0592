"""Workers die by SIGKILL in the middle of agents' runs: what is recorded is not called again.

The agents stream from the provider of the tests, which counts their requests and is not killed, and somebody follows
each of them: in the end he has heard every word once.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.agents.asking import signature
from tests.agents.provider import Provider, serving
from tests.kit.polling import until
from tests.server.serving import Served

from perdure.agents import events
from perdure.engine.base.service import Scope
from perdure.sdk.clients.client import Client, Handle
from perdure.store.verbs.runs.transitions import LOSSES_MAX
from perdure.wire.agents.approvals import ListApprovals
from perdure.wire.base.errors import Conflict, NotFound
from perdure.wire.base.records import OUTCOMES, Kind
from perdure.wire.runs.executions import Row

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = 6
"""The number of runs under way at any time."""
PROGRESS = 10
"""Calls that begin between two kills, so that most runs get on."""


SCRIPTS: dict[str, Any] = {
    "pay": [
        {
            "text": "this is to be noted twice",
            "tools": [["note", {"n": 1}], ["note", {"n": 2}]],
            "token_seconds": 0.005,
        },
        {"tools": [["pay", {"cents": 7}]], "token_seconds": 0.01},
        {"text": "seven cents are paid for {rest}", "token_seconds": 0.005},
    ]
}


class Workers:
    """Two workers. Now and then a worker dies."""

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
def workers(url: str, key: str, calls: Path, provider_url: str) -> Iterator[Workers]:
    env = {
        **os.environ,
        "PERDURE_URL": url,
        "PERDURE_API_KEY": key,
        "CALLS_FILE": str(calls),
        "PROVIDER_URL": provider_url,
    }
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
    open_ = (await served.engine.serve(Scope(served.project_id), ListApprovals())).items
    for question in open_:
        with suppress(Conflict, NotFound):
            await client.resume(question.execution_id, question.step_key, {"approved": True})


async def rows_of(client: Client, id: str) -> list[Row]:
    rows: list[Row] = []
    while page := await client.journal(id, after=rows[-1].seq if rows else 0):
        rows.extend(page)
    return rows


async def may_be_lost(client: Client, ids: Iterable[str]) -> bool:
    """Whether each execution can lose its worker once more without being POISONED.

    An execution with that many losses has to record something first. Chance alone would end some runs, and hide a loss
    that counts twice.
    """
    for id in ids:
        losses = 0
        for row in await rows_of(client, id):
            losses = 0 if row.kind in OUTCOMES else losses + (row.kind is Kind.LOST)
        if losses >= LOSSES_MAX - 1:
            return False
    return True


async def heard(handle: Handle[Any]) -> dict[str, str]:
    """What each step of an agent has said, to a client that drops what a lost attempt had sent."""
    said: dict[str, str] = {}
    async for one in events(handle):
        said[one.item.key] = ("" if one.item.restarted else said.get(one.item.key, "")) + one.text
    return {key: text for key, text in said.items() if text}


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
    provider = Provider(SCRIPTS)
    started: list[str] = []
    open_: set[str] = set()
    killed = 0

    def begun() -> int:
        return provider.asked.total() + calls.read_bytes().count(b"\n")

    async def caller(number: int) -> None:
        while killed < kills:
            handle = await client.start("payer", f"pay {number}")
            started.append(handle.id)
            open_.add(handle.id)
            said = await heard(handle)
            assert await handle.result() == f"seven cents are paid for {number}"
            assert said == {"model:1": "this is to be noted twice", "model:3": f"seven cents are paid for {number}"}
            open_.remove(handle.id)

    async def allowing() -> None:
        while True:
            await allow(client, served)
            await asyncio.sleep(0.05)  # nobody is told of a new question

    async with serving(provider) as url, asyncio.TaskGroup() as tasks:
        with workers(f"http://{host}:{port}", served.key, calls, url) as pool:
            for _ in range(2):
                await pool.spawn()
            helping = tasks.create_task(allowing())
            running = [tasks.create_task(caller(number)) for number in range(RUNS)]
            while killed < kills:
                before = begun()
                await until(lambda before=before: begun() >= before + PROGRESS)  # type: ignore[misc]  # mypy infers no lambda with a default
                await asyncio.sleep(dice.uniform(0.0, 0.1))
                while not await may_be_lost(client, list(open_)):  # noqa: ASYNC110  # nobody is told of what was recorded
                    await asyncio.sleep(0.01)
                pool.kill(dice.choice(pool.alive))
                killed += 1
                await pool.spawn()
            await asyncio.gather(*running)
            helping.cancel()

    attempts_of: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for line in calls.read_text().splitlines():
        id, attempt, key = line.split(" ", 2)
        attempts_of[id, key].append(int(attempt))
    for call in provider.made():
        assert call.streamed
        id, number, key = signature(call)
        attempts_of[id, key].append(number)
    for id in started:
        for row in await rows_of(client, id):
            if row.kind is Kind.STEP and row.key is not None:
                attempts = attempts_of[id, row.key]
                assert attempts, f"{row.key} of {id} is recorded and was never called"
                assert max(attempts) == row.attempt, f"{row.key} of {id} was called again after it was recorded"
                assert len(set(attempts)) == len(attempts), f"{row.key} of {id} was called twice by one attempt"
    repeated = Counter(key for (_, key), attempts in attempts_of.items() if len(attempts) > 1)
    print(f"{len(started)} runs, {killed} kills; in flight and repeated: {dict(repeated)}")  # noqa: T201  # what a person wants to know of a long run
    await client.close()
