"""Callers: they start executions under keys, repeat requests until answered, and compare results with the expected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.faults.ledger import Ledger

from perdure import Client
from perdure.sdk.clients.client import Handle
from perdure.sdk.workflows.workflow import Workflow
from perdure.wire.base.errors import PerdureError, Unavailable, UnknownOutcome

PAUSE_SECONDS = 0.1
STUCK_SECONDS = 300.0
"""An execution that has not ended so long after the start is reported as stuck: waiting longer would hang the run."""
Extra = Callable[[Handle[Any], int], Awaitable[object]]


class Load:
    """Executions of a workflow with the inputs 0, 1, 2 …, a bounded number of executions open at once."""

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        workflow: Workflow[int, Any],
        expected: Callable[[int], Any],
        *,
        open_max: int = 300,
        also: Extra | None = None,
        first: int = 0,
        may_be_poisoned: bool = False,
    ) -> None:
        """The first input is `first`. `may_be_poisoned`: the faults may take five workers from an execution. The caller
        runs `also` after the start, while the execution runs; `also` may raise like clients do."""
        self.client = client
        self.ledger = ledger
        self.workflow = workflow
        self.expected = expected
        self.also = also
        self.first = first
        self.may_be_poisoned = may_be_poisoned
        self.poisoned: list[str] = []
        self.wrong: list[str] = []
        """Wrong results."""
        self.seconds: dict[str, float] = {}
        """Seconds from the first attempt to start until the result, by execution."""
        self.started = 0
        self.done = 0
        self.stopping = False
        self._room = asyncio.Semaphore(open_max)

    async def run(self, count: int) -> None:
        """Start that many (fewer, when `stopping` is set meanwhile), and come back when all have ended."""
        async with asyncio.TaskGroup() as group:
            for n in range(self.first, self.first + count):
                await self._room.acquire()
                if self.stopping:
                    return
                self.started += 1
                group.create_task(self._one(n))

    async def _one(self, n: int) -> None:
        key = f"{self.workflow.name}-{n}"
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                await self._life(n, key)
        except TimeoutError:
            self.wrong.append(f"{key} has not ended after {STUCK_SECONDS:g} s")
        finally:
            self._room.release()
        self.done += 1

    async def _life(self, n: int, key: str) -> None:
        """Run an execution from the first attempt to start until the result."""
        began = time.monotonic()
        handle = await self._told("start", key, lambda: self.client.start(self.workflow, n, key=key))
        if self.also is not None:
            also = self.also
            await self._told("also", key, lambda: also(handle, n))
        result = await self._result(handle)
        if self.may_be_poisoned and str(result).startswith("EXECUTION_FAILED: POISONED"):
            self.poisoned.append(handle.id)
        elif result != self.expected(n):
            self.wrong.append(f"{key} ({handle.id}) came to {result!r}, not to {self.expected(n)!r}")
        self.seconds[handle.id] = time.monotonic() - began

    async def _told(self, what: str, key: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until the answer is yes: each try is a line in the ledger."""
        what = f"{what} {self.workflow.name}"
        answer: list[Any] = []
        while True:
            await self.ledger.ask(what, key, _kept(answer, ask))
            if answer:
                return answer[0]
            await asyncio.sleep(PAUSE_SECONDS)

    async def _result(self, handle: Handle[Any]) -> Any:
        while True:
            try:
                return await handle.result()
            except (Unavailable, UnknownOutcome):
                await asyncio.sleep(PAUSE_SECONDS)
            except PerdureError as error:
                return f"{error.code}: {error.message}"


async def _kept(answer: list[Any], ask: Callable[[], Awaitable[Any]]) -> str:
    answer.append(await ask())
    return str(answer[0])
