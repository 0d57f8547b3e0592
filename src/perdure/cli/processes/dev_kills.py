"""Kills the worker of `perdure dev`, by key or at random, and follows the executions that the worker held."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from msgspec.structs import replace

from perdure.server.process.dev import DevStatus, DevWorker, Killed, KilledBy, LastKill
from perdure.wire.base.errors import Conflict, NotFound

CHAOS_SECONDS: Final = 20.0
"""Mean seconds between kills of `--chaos`; each pause is half to one and a half times as long."""


class KilledWorker:
    """The process of a serving worker."""

    def __init__(self, worker_id: str, process: asyncio.subprocess.Process) -> None:
        self.id = worker_id
        self.process = process


class Kills:
    """`held` returns a worker's executions, `say` prints an event with text and values, `changed` is called after each
    change of `status`."""

    def __init__(
        self,
        held: Callable[[str], Awaitable[Collection[str]]],
        say: Callable[..., None],
        changed: Callable[[], None],
    ) -> None:
        self._held = held
        self._say = say
        self._changed = changed
        self.status = DevStatus()
        self.serving: KilledWorker | None = None
        self.killed: asyncio.subprocess.Process | None = None
        self._kills = asyncio.Lock()
        self._awaited: Collection[str] = ()
        self._killed_at = 0.0
        self._chaos_set = asyncio.Event()

    async def kill(self, by: KilledBy, worker_id: str | None = None) -> Killed:
        """Raises Conflict while no worker serves, and NotFound for another worker's id."""
        async with self._kills:
            worker = self.serving
            if worker is None or worker.process.returncode is not None:
                raise Conflict("No worker runs at this moment; another one starts by itself. Try again in a second.")
            if worker_id not in (None, worker.id):
                raise NotFound(f"Worker {worker_id!r} does not run here; worker {worker.id!r} does.")
            held = await self._held(worker.id)
            if worker.process.returncode is not None or self.serving is not worker:
                raise Conflict("The worker has just ended by itself.")
            self.serving, self.killed = None, worker.process
            worker.process.kill()
            self._awaited, self._killed_at = held, time.monotonic()
            kills = self.status.kills + 1
            last = LastKill(
                worker_id=worker.id,
                pid=worker.process.pid,
                at_us=time.time_ns() // 1_000,
                by=by,
                held=len(held),
            )
            self.status = replace(self.status, kills=kills, workers=[], last_kill=last)
            what = "Chaos: worker" if by is KilledBy.CHAOS else "Worker"
            ran = f" It ran {_executions(len(held))}." if held else ""
            self._say(
                "killed",
                f"{what} {last.pid} is killed (SIGKILL); another one takes over.{ran}",
                pid=last.pid,
                by=by.value,
                executions=list(held),
            )
            self._changed()
            return Killed(last.worker_id, last.pid, kills)

    def serves(self, worker: KilledWorker) -> None:
        self.serving = worker
        self.status = replace(self.status, workers=[DevWorker(worker.id, worker.process.pid)])
        last = self.status.last_kill
        if last is not None and last.resumed_after_ms is None and not last.held:
            self._resumed("serves")
        else:
            self._changed()

    def ended(self) -> None:
        self.serving = None
        self.status = replace(self.status, workers=[])
        self._changed()

    def claimed(self, execution_id: str) -> None:
        last = self.status.last_kill
        if last is not None and last.resumed_after_ms is None and execution_id in self._awaited:
            self._resumed(f"goes on with {execution_id}")

    def _resumed(self, does: str) -> None:
        took = time.monotonic() - self._killed_at
        last = self.status.last_kill
        assert last is not None
        self.status = replace(self.status, last_kill=replace(last, resumed_after_ms=round(took * 1_000)))
        self._say("resumed", f"Another worker {does}, {took:.1f} s after the kill.", ms=round(took * 1_000))
        self._changed()

    def set_chaos(self, every_seconds: float | None) -> None:
        self.status = replace(self.status, chaos_seconds=every_seconds)
        self._say(
            "chaos",
            "Chaos ends." if every_seconds is None else f"Chaos: a worker is killed about every {every_seconds:g} s.",
            every_seconds=every_seconds,
        )
        self._chaos_set.set()
        self._changed()

    async def keep_chaos(self) -> None:
        while True:
            self._chaos_set.clear()
            every = self.status.chaos_seconds
            pause = None if every is None else every * random.uniform(0.5, 1.5)
            try:
                async with asyncio.timeout(pause):
                    await self._chaos_set.wait()
            except TimeoutError:
                try:
                    await self.kill(KilledBy.CHAOS)
                except Conflict:
                    continue  # no worker serves; try next time


def _executions(amount: int) -> str:
    return "1 execution" if amount == 1 else f"{amount} executions"
