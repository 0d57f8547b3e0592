"""For your tests: a store in a temporary file, a clock that you move, and a crash at every commit.

    def test_order_survives_every_crash() -> None:
        report = crash_everywhere(order, 7)
        assert report.result == "order 7 is paid"

    async def test_order_waits_a_day() -> None:
        async with harness() as p:
            handle = await p.start(order, 7)
            await p.advance(days=1)
            assert await handle.result() == "order 7 is paid"

A composition root: one of the few files that see both wings.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from perdure.embedded import Embedded, LocalTransport
from perdure.engine.clock import ManualClock
from perdure.engine.engine import Engine
from perdure.sdk.client import Client, Handle
from perdure.sdk.worker import Worker
from perdure.sdk.workflow import Registry, Workflow
from perdure.store.sqlite import SQLiteStore
from perdure.store.verbs import moves
from perdure.wire.errors import Conflict, PerdureError
from perdure.wire.records import Kind, Row

I = TypeVar("I")  # noqa: E741  # as in perdure.sdk.workflow
R = TypeVar("R")

During = Callable[[Client, Handle[Any]], Awaitable[None]]
"""What the outside world does while the workflow runs: answers, events. Called anew in every life."""

_WORKFLOW_VERBS = frozenset({"start", "claim", "report", "wake_due", "resume", "publish", "cancel"})
_QUIET_SECONDS = 0.02
_LIVES_MAX = 2_000


class Harness(Embedded):
    """An embedded Perdure whose time stands still until you move it."""

    clock: ManualClock

    async def advance(self, seconds: float = 0.0, **more: float) -> None:
        """Move time on, by seconds or by what `timedelta` takes (`days=1`), and let what is due happen."""
        self.clock.advance(seconds + timedelta(**more).total_seconds())
        self.engine.wake_loops()


@asynccontextmanager
async def harness(registry: Registry | None = None, *, capacity: int = 100) -> AsyncIterator[Harness]:
    """Perdure in a temporary file, with a `ManualClock`, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(SQLiteStore(str(Path(folder) / "test.db")), clock=ManualClock())
        await engine.start()
        try:
            transport = LocalTransport(engine, await engine.projects.default())
            worker = Worker(transport, registry if registry is not None else Registry.declared(), capacity=capacity)
            await worker.start()
            client = Harness(engine, worker, transport, declared=registry is None)
            assert isinstance(engine.clock, ManualClock)
            client.clock = engine.clock
            try:
                yield client
            finally:
                await asyncio.shield(worker.drain())
                await client.close()
        finally:
            await engine.stop()


class CrashReport(NamedTuple, Generic[R]):
    """What `crash_everywhere` found, when it found nothing wrong."""

    result: R
    crashes: int
    """How many different moments the process died at, twice each: before the commit, and after it unheard."""
    bodies: int
    """How often step bodies ran in all lives."""
    repeats: int
    """Bodies that ran again because the crash came before their outcome was recorded."""


def crash_everywhere(
    workflow: Workflow[I, R], input: I, *, registry: Registry | None = None, during: During | None = None
) -> CrashReport[R]:
    """Run a workflow again and again, killing everything at its 1st, 2nd, 3rd … commit, and let it recover.

    Each time the process dies either right before the commit (nothing of it happened) or right after it (it happened
    and nobody heard), a new one opens the same file, and the execution goes on. Raises `AssertionError` when a result
    differs from the undisturbed one, or when a step ran again whose outcome had been recorded. Time is jumped over.

    `during(client, handle)` plays the outside world: it is called in every life, so an answer may be given twice (the
    `Conflict` of the second is ignored).
    """
    registry = registry if registry is not None else Registry.declared()
    if workflow.name not in registry.workflows:
        registry = Registry(*registry, workflow)
    undisturbed = _Trial(workflow, input, registry, during, crash_at=0, after=False)
    expected = undisturbed.run()
    bodies, repeats = undisturbed.bodies, 0
    for crash_at in range(1, undisturbed.commits + 1):
        for after in (False, True):
            trial = _Trial(workflow, input, registry, during, crash_at=crash_at, after=after)
            result = trial.run()
            where = f"killed {'after' if after else 'before'} commit {crash_at} of {undisturbed.commits}"
            if result != expected:
                raise AssertionError(f"{workflow.name}, {where}: the result is {result!r} instead of {expected!r}.")
            bodies += trial.bodies
            repeats += trial.check(where)
    return CrashReport(expected[1], undisturbed.commits, bodies, repeats)


class _Crash(Exception):
    """The process died."""


class _CrashingStore(SQLiteStore):
    """Dies at a chosen commit of a workflow's verb: from then on nothing is written, and nobody is answered."""

    def __init__(self, path: str, crash_at: int, after: bool) -> None:
        super().__init__(path)
        self.commits = 0
        self.crashed = asyncio.Event()
        self._crash_at = crash_at
        self._after = after
        self._changes = self._writer.total_changes()

    def _commit(self, group: Any, outcomes: Any, hints: Any, started: float) -> None:
        changed, self._changes = self._writer.total_changes() - self._changes, self._writer.total_changes()
        if changed and any(verb.name in _WORKFLOW_VERBS for verb, _ in group):
            self.commits += 1
            if self.commits == self._crash_at:
                self._writer.execute("COMMIT" if self._after else "ROLLBACK")
                self._on_loop(self.crashed.set)
                return
        super()._commit(group, outcomes, hints, started)

    def abandon(self) -> None:
        """Let go of the file as a killed process does."""
        self._closed = True
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self._reader.close()
        self._writer.close()
        assert self._lock is not None
        self._lock.release()


class _Trial:
    """One execution, in as many lives as it takes; at most one of them ends with a crash."""

    def __init__(
        self,
        workflow: Workflow[Any, Any],
        input: Any,
        registry: Registry,
        during: During | None,
        *,
        crash_at: int,
        after: bool,
    ) -> None:
        self.workflow = workflow
        self.input = input
        self.registry = registry
        self.during = during
        self.crash_at = crash_at
        self.after = after
        self.commits = 0
        self.begun: list[tuple[str, str, int]] = []
        self.journals: dict[str, list[Row]] = {}
        self.clock = ManualClock()

    @property
    def bodies(self) -> int:
        return len(self.begun)

    def run(self) -> tuple[str, Any]:
        """The outcome: how it ended, and with what."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "trial.db")
            try:
                return asyncio.run(self._life(path, self.crash_at))
            except _Crash:
                return asyncio.run(self._life(path, 0))

    def check(self, where: str) -> int:
        """How many bodies ran twice. Raises when one of them ran after its outcome was recorded."""
        recorded = {
            (id, row.key): row.attempt for id, rows in self.journals.items() for row in rows if row.kind is Kind.STEP
        }
        tries = {(id, row.key) for id, rows in self.journals.items() for row in rows if row.kind is Kind.STEP_FAILED}
        for id, key, attempt in self.begun:
            if (id, key) not in tries and attempt > recorded.get((id, key), attempt):
                raise AssertionError(f"{self.workflow.name}, {where}: step {key!r} ran again after it was recorded.")
        return len(self.begun) - len({(id, key) for id, key, _ in self.begun})

    async def _life(self, path: str, crash_at: int) -> tuple[str, Any]:
        store = _CrashingStore(path, crash_at, self.after)
        engine = Engine(store, clock=self.clock)
        tasks: list[asyncio.Task[Any]] = []
        died = asyncio.create_task(store.crashed.wait())
        try:
            living = asyncio.create_task(self._live(engine, tasks))
            tasks.append(living)
            await asyncio.wait({living, died}, return_when=asyncio.FIRST_COMPLETED)
            if store.crashed.is_set():
                raise _Crash
            outcome = living.result()
            self.commits = store.commits
            return outcome
        finally:
            died.cancel()
            # What a kill does: no drain, no farewell. (Their `finally` blocks may run, but reach no store any more.)
            store._closed = True
            everything = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
            store.abandon()

    async def _live(self, engine: Engine, tasks: list[asyncio.Task[Any]]) -> tuple[str, Any]:
        await engine.start()
        transport = LocalTransport(engine, await engine.projects.default())
        worker = Worker(transport, self.registry, capacity=1_000)
        worker.on_step = lambda id, key, attempt: self.begun.append((id, key, attempt))
        await worker.start()
        client = Client(transport)
        handle = await client.start(self.workflow, self.input, key="crash-everywhere")
        if self.during is not None:
            tasks.append(asyncio.create_task(self._play(client, handle, self.during)))
        moving = asyncio.create_task(self._move_time(engine))
        try:
            outcome = ("completed", await handle.result())
        except PerdureError as error:
            outcome = (type(error).__name__, str(error).replace(handle.id, "…"))
        moving.cancel()
        await self._read_journals(client, handle.id)
        return outcome

    async def _play(self, client: Client, handle: Handle[Any], during: During) -> None:
        with contextlib.suppress(Conflict):
            await during(client, handle)

    async def _move_time(self, engine: Engine) -> None:
        """Whenever nothing but time is missing, jump to the next moment at which something is due."""
        for _ in range(_LIVES_MAX):
            before = engine.store.groups
            await asyncio.sleep(_QUIET_SECONDS)
            if engine.store.groups != before:
                continue
            due = await engine.store.read(moves.next_due())
            if due is not None and due > self.clock.now_us():
                self.clock.advance((due - self.clock.now_us()) / 1e6)
                engine.wake_loops()

    async def _read_journals(self, client: Client, root: str) -> None:
        waiting = [root]
        while waiting:
            id = waiting.pop()
            rows: list[Row] = []
            while page := await client.journal(id, after=rows[-1].seq if rows else 0):
                rows += page
            self.journals[id] = rows
            waiting += [
                bytes(row.value).decode().strip('"') for row in rows if row.kind is Kind.CHILD_STARTED and row.ok
            ]
