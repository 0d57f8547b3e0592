"""Helpers for users' tests: a temporary store, a clock that skips waits, and a crash at every commit.

    async def test_an_order_survives_a_crash_anywhere():
        report = await crash_everywhere(order, Order(id=7))
        assert report.result == "receipt-7"

The crash is not a SIGKILL: engine and worker stop inside the test's process. Step bodies in flight are cancelled and
can notice. Functions in threads run to the end, and their outcomes are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

from perdure.embedded import Embedded, LocalTransport
from perdure.engine.base.clock import ManualClock
from perdure.engine.base.service import Scope
from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.sdk.base.errors import ExecutionCancelled, ExecutionFailed
from perdure.sdk.clients.client import Client, Handle
from perdure.sdk.replay.inner_loop import FAR_US
from perdure.sdk.workers.worker import Worker
from perdure.sdk.workflows.logs import TOLD
from perdure.sdk.workflows.steps import StepCall, running_step
from perdure.sdk.workflows.workflow import Registry, Workflow
from perdure.store.base.interface import Verb
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.store.verbs.clock import schedules, triggers
from perdure.store.verbs.runs import queries, transitions
from perdure.store.verbs.steering import pauses
from perdure.wire.base.errors import Conflict, NotFound, Unavailable
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.runs.executions import Execution, ListExecutions

__all__ = ["Bench", "CrashReport", "ManualClock", "OrderDecides", "StepRanAgain", "crash_everywhere", "embedded"]

I = TypeVar("I")  # noqa: E741  # as in client.py
R = TypeVar("R")
T = TypeVar("T")

During = Callable[[Client, Handle[Any]], Awaitable[None]]

LOOK_SECONDS: Final = 0.002
QUIET_LOOKS: Final = 3
BLOCKED_LOOK_SECONDS: Final = 0.02
KEY: Final = "crash-everywhere"
CRASHES_MAX: Final = 10_000
CHANGES: Final = frozenset(
    {
        *("start", "report", "report_and_dispatch", "record_steps", "claim", "wake_due", "end_overdue"),
        *("publish", "resume", "cancel", "act", "fork", "work_job", "pause", "unpause", "end_due"),
    }
)
"""The verbs that change an execution."""


class Bench(Embedded):
    """An embedded client whose clock the test controls."""

    clock: ManualClock

    async def advance(self, seconds: float) -> None:
        """Move the clock on; the engine then does the due work."""
        self.clock.advance(seconds)
        self.engine.wake_loops()

    async def settle(self) -> None:
        """Wait until all work waits for time or for a call from outside."""
        quiet = 0
        while quiet < QUIET_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            quiet = quiet + 1 if await self._is_quiet() else 0

    async def skip_to_due(self) -> bool:
        """Move the clock to the next due moment. Returns False if no execution waits for time.

        Schedules alone do not move time, since schedules have no end.
        """
        next_due = await self.engine.store.read(transitions.next_due())
        due_us = min([*await self._batches_due(), FAR_US if next_due is None else next_due])
        if due_us >= FAR_US:  # an endless timer, or a turn that waits for the earlier ones
            return False
        slots = await self.engine.store.read(schedules.due_schedules(now_us=self.clock.now_us(), limit=1))
        if slots.next_at_us is not None:
            due_us = min(due_us, slots.next_at_us)
        await self.advance(max(0, due_us - self.clock.now_us()) / 1e6)
        return True

    async def _batches_due(self) -> list[int]:
        watched = await self.engine.store.read(triggers.watched_topics())
        return [one.due_at_us for one in watched if one.due_at_us is not None]

    async def _is_quiet(self) -> bool:
        if self.worker.running:
            return False
        due_us = await self.engine.store.read(transitions.next_due())
        if due_us is not None and due_us <= self.clock.now_us():
            return False
        if (await self.engine.store.read(schedules.due_schedules(now_us=self.clock.now_us(), limit=1))).schedules:
            return False
        if any(due_us <= self.clock.now_us() for due_us in await self._batches_due()):
            return False
        for pause in await self.engine.store.read(pauses.pauses_to_work()):
            if pause.state != "holding" or (pause.until_us or 1 << 62) <= self.clock.now_us():
                return False
        counts = await self.engine.store.read(queries.counts())
        # An execution in phase `running` is on its way to the worker, on a busy machine for longer than QUIET_LOOKS.
        # Time must not skip to the end of its run_timeout_seconds.
        on_its_way = any(phase == Phase.RUNNING for _, _, phase, _ in counts["phases"])
        return not counts["queued"] and not on_its_way

    async def _skip_time(self) -> None:
        while True:
            await self.settle()
            await self.skip_to_due()


@asynccontextmanager
async def embedded(
    registry: Registry | None = None,
    *,
    path: str | Path | None = None,
    clock: ManualClock | None = None,
    settings: EngineSettings | None = None,
    skip_time: bool = True,
    parks: bool = True,
) -> AsyncIterator[Bench]:
    """Run workflows in this process, on a temporary store, until the block ends.

    With `skip_time` the clock moves to the next due moment whenever nothing else is left to do. Otherwise only
    `advance` moves time.
    """
    async with (
        _store_file(path) as file,
        _bench(SQLiteStore(file), registry, clock, settings, skip_time=skip_time, parks=parks) as bench,
    ):
        yield bench


_empty_store: list[bytes] = []
"""The first store made. A copy takes a tenth of the time."""


@asynccontextmanager
async def _store_file(path: str | Path | None) -> AsyncIterator[str]:
    if path is not None:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="perdure-test-") as folder:
        file = Path(folder) / "perdure.db"
        if _empty_store:
            file.touch(mode=0o600)
            file.write_bytes(_empty_store[0])
        else:
            await SQLiteStore(str(file)).close()
            _empty_store.append(file.read_bytes())
        yield str(file)


@asynccontextmanager
async def _bench(
    store: SQLiteStore,
    registry: Registry | None,
    clock: ManualClock | None = None,
    settings: EngineSettings | None = None,
    skip_time: bool = True,
    parks: bool = True,
) -> AsyncIterator[Bench]:
    clock = clock or ManualClock()
    engine = Engine(store, clock=clock, settings=settings)
    await engine.start()
    skipping: asyncio.Task[None] | None = None
    try:
        transport = LocalTransport(engine, await engine.projects.default())
        found = registry if registry is not None else Registry.declared()
        worker = Worker(transport, found, grace_seconds=5.0, parks=parks)
        await worker.start()
        bench = Bench(engine, worker, transport, declared=registry is None)
        bench.clock = clock
        if skip_time:
            skipping = asyncio.create_task(bench._skip_time(), name="perdure-skip-time")
        try:
            yield bench
        finally:
            if skipping is not None:
                skipping.cancel()
                await asyncio.gather(skipping, return_exceptions=True)
            if isinstance(store, _Doomed) and store.is_dead:
                for runner in [*worker._running.values(), *worker._parked.values()]:
                    runner.drop()
            await asyncio.shield(worker.drain())
            await bench.close()
    finally:
        await engine.stop()


class StepRanAgain(AssertionError):
    """A step with a recorded outcome ran again. Unless Perdure has a bug, the step's key depends on unrecorded data."""


class OrderDecides(UserWarning):
    """Nothing tells some concurrent calls apart, so a replay takes them in the order of creation: right for tasks from
    a list, wrong for tasks from a set."""


class CrashReport(Generic[R]):
    """The workflow's result, and the survived crashes."""

    def __init__(self, outcome: _Outcome, crashes: list[tuple[str, int, str]], repeated: Counter[str]) -> None:
        self._outcome = outcome
        self.crashes = crashes
        """Each is ("before" or "after", number of the change, name of the change)."""
        self.repeated = repeated
        """The steps that ran again because of a crash before the record, by key. Outside effects of such steps need
        `current_step().idempotency_key`."""

    @property
    def result(self) -> R:
        """The result of every run. If every run failed, raises the error of the runs."""
        if self._outcome.error is not None:
            raise self._outcome.error
        result: R = self._outcome.result
        return result

    def __repr__(self) -> str:
        return f"<CrashReport: {len(self.crashes)} crashes, always {self._outcome.words()}>"


async def crash_everywhere(
    workflow: Workflow[I, R],
    input: I | None = None,
    *,
    during: During | None = None,
    registry: Registry | None = None,
    settings: EngineSettings | None = None,
    timeout: float = 60.0,
    **options: Any,
) -> CrashReport[R]:
    """Run a workflow with a crash right before and right after each of its commits in turn.

    Asserts after each crash that the outcome equals the outcome without a crash, that no recorded step ran again
    (`StepRanAgain`), and that the store keeps its invariants. Warns with `OrderDecides` about indistinguishable
    concurrent calls. `timeout` (seconds) limits a run before its crash and again after the crash.

    `during(client, handle)` acts for the outside world, by publishing events and answering questions. A crash calls
    `during` again, so the function must be repeatable (`dedup_key=`; a second answer to a question is ignored).
    `options` go to `Client.start`.

    >>> async def test_order() -> None:
    ...     report = await crash_everywhere(order, 7)
    ...     assert report.result == "receipt-7"
    """
    plan = _Plan(workflow, input, during, registry, settings, timeout=timeout, options=options)
    told = TOLD.copy()
    TOLD.clear()
    try:
        report = await _crash_everywhere(plan)
    finally:
        said = [f"Workflow {name!r}: {text}" for name, text in TOLD]
        TOLD.update(told)
        for text in said:
            warnings.warn(text, OrderDecides, stacklevel=2)
    return report


async def _crash_everywhere(plan: _Plan) -> CrashReport[Any]:
    expected = await plan.run(None)
    crashes: list[tuple[str, int, str]] = []
    repeated: Counter[str] = Counter()
    moments: tuple[Literal["before", "after"], ...] = ("before", "after")
    for moment in moments:
        for number in range(1, CRASHES_MAX):
            crash = _Crash(moment, number)
            outcome = await plan.run(crash)
            if not crash.happened:
                break
            crashes.append((moment, number, crash.what))
            repeated.update(plan.repeated)
            if outcome.key() != expected.key():
                raise AssertionError(
                    f"With a crash {moment} change {number} ({crash.what}) the execution ended with {outcome.words()}; "
                    f"without one it ends with {expected.words()}."
                )
    return CrashReport(expected, crashes, repeated)


class _Outcome:
    def __init__(self, result: Any, error: ExecutionFailed | None, ids: Iterable[str] = ()) -> None:
        self.result = result
        self.error = error
        self._ids = ids
        """Ids of executions that an error may name. The ids differ in each run."""

    def key(self) -> object:
        if self.error is None:
            return self.result
        said = str(self.error)
        for id in self._ids:
            said = said.replace(id, "(id)")
        return type(self.error), self.error.type, said

    def words(self) -> str:
        if self.error is None:
            return f"the result {self.result!r}"
        return "cancelled" if isinstance(self.error, ExecutionCancelled) else f"the error {self.error}"


class _Crash:
    def __init__(self, moment: Literal["before", "after"], number: int) -> None:
        self.moment = moment
        self.number = number
        self.happened = False
        self.what = ""


class _Plan:
    def __init__(
        self,
        workflow: Workflow[Any, Any],
        input: Any,
        during: During | None,
        registry: Registry | None,
        settings: EngineSettings | None,
        timeout: float,
        options: dict[str, Any],
    ) -> None:
        self.workflow = workflow
        self.input = input
        self.during = during
        self.registry = registry
        self.settings = settings
        self.timeout = timeout
        self.options = {"key": KEY, **options}
        self.repeated: Counter[str] = Counter()

    async def run(self, crash: _Crash | None) -> _Outcome:
        clock = ManualClock()
        ran: Counter[tuple[str, str]] = Counter()
        recorded: set[tuple[str, str]] = set()
        what = "without a crash"
        async with _store_file(None) as file, _bodies(ran):
            if crash is not None:
                store = _Doomed(file, crash)
                async with _bench(store, self.registry, clock, self.settings) as bench:
                    ending = asyncio.create_task(self._to_the_end(bench, again=False))
                    dying = asyncio.create_task(store.died.wait())
                    await asyncio.wait({ending, dying}, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
                    dying.cancel()
                    if not store.is_dead:
                        return await _outcome(ending, self.timeout, "before it was killed")
                    ending.cancel()
                    await asyncio.gather(ending, return_exceptions=True)
                recorded = await _recorded(file)
                what = f"after a crash {crash.moment} change {crash.number} ({crash.what})"
            before = ran.copy()
            async with _bench(SQLiteStore(file), self.registry, clock, self.settings) as bench:
                ending = asyncio.create_task(self._to_the_end(bench, again=crash is not None))
                outcome = await _outcome(ending, self.timeout, what)
                broken = {name: ids for name, ids in (await bench.engine.store.read(queries.doctor())).items() if ids}
        ran_since = ran - before
        for id, key in recorded:
            if ran_since[id, key]:
                raise StepRanAgain(f"Step {key!r} of execution {id} was recorded, and ran again {what}.")
        assert not broken, f"The store is broken {what}: {broken}"
        self.repeated = Counter(key for _, key in ran_since.keys() & before.keys())
        return outcome

    async def _to_the_end(self, bench: Bench, *, again: bool) -> _Outcome:
        handle: Handle[Any] = await bench.start(self.workflow, self.input, **self.options)
        helping = asyncio.create_task(self._help(bench, handle, again))
        waiting = asyncio.create_task(handle.result())
        try:
            await asyncio.wait({helping, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if helping.done() and helping.exception() is not None:
                await helping
            return _Outcome(await waiting, None)
        except ExecutionFailed as error:
            executions = await _all_executions(bench.engine, await bench.engine.projects.default())
            return _Outcome(None, error, [one.id for one in executions])
        finally:
            for task in (helping, waiting):
                task.cancel()
            await asyncio.gather(helping, waiting, return_exceptions=True)

    async def _help(self, bench: Bench, handle: Handle[Any], again: bool) -> None:
        """Call `during`, then watch for a blocked or held execution, which would never end."""
        if self.during is not None:
            with contextlib.suppress(*((Conflict, NotFound) if again else ())):
                await self.during(bench, handle)
        while True:
            await asyncio.sleep(BLOCKED_LOOK_SECONDS)
            execution = await handle.get()
            if execution.phase is Phase.BLOCKED or execution.phase is Phase.HELD:
                raise AssertionError(f"The execution is {execution.phase}: {execution.error}")


async def _outcome(ending: asyncio.Task[_Outcome], timeout: float, what: str) -> _Outcome:
    done, _ = await asyncio.wait({ending}, timeout=timeout)
    if not done:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        raise AssertionError(f"The execution did not end within {timeout:g} s {what}.")
    return ending.result()


class _Doomed(SQLiteStore):
    """A store whose process dies at a change. A dead store does not answer, but refuses the drain, because the end of
    the process waits for the drain."""

    def __init__(self, path: str, crash: _Crash) -> None:
        super().__init__(path)
        self._crash = crash
        self._changes = 0
        self.died = asyncio.Event()

    @property
    def is_dead(self) -> bool:
        return self._crash.happened

    async def write(self, verb: Verb[T]) -> T:
        name = verb.name
        counts = name in CHANGES and name not in ("claim", "wake_due")
        if self._is_due(counts, "before", name):
            await self._for_ever(name)
        result = await super().write(verb)
        if name == "claim":
            counts = bool(result[0])  # type: ignore[index]  # most claims find nothing
        elif name == "wake_due":
            counts = bool(result)
        if self._is_due(counts, "after", name):
            await self._for_ever(name)
        return result

    async def write_all(self, verbs: Sequence[Verb[T]]) -> Sequence[T | Exception]:
        changes = [verb.name for verb in verbs if verb.name in CHANGES]
        what = "end_overdue" if "end_overdue" in changes else "report"
        if self._is_due(bool(changes), "before", what):
            await self._for_ever(what)
        result = await super().write_all(verbs)
        if self._is_due(bool(changes), "after", what):
            await self._for_ever(what)
        return result

    def _is_due(self, counts: bool, moment: str, what: str) -> bool:
        """Whether the process is dead. Dies at the planned change."""
        if not self.is_dead and counts and moment == self._crash.moment:
            self._changes += 1
            if self._changes == self._crash.number:
                self._crash.happened = True
                self._crash.what = what
                self.listen(lambda hints: None)
                self.died.set()
        return self.is_dead

    @staticmethod
    async def _for_ever(what: str) -> None:
        if what == "drain":
            raise Unavailable("The process is dead.")
        await asyncio.get_running_loop().create_future()


async def _recorded(file: str) -> set[tuple[str, str]]:
    engine = Engine(SQLiteStore(file))
    try:
        project_id = await engine.projects.default()
        found: set[tuple[str, str]] = set()
        for execution in await _all_executions(engine, project_id):
            after = 0
            while rows := (await engine.executions.journal(project_id, execution.id, after, 1_000))[0]:
                after = rows[-1].seq
                found.update((execution.id, row.key) for row in rows if row.kind is Kind.STEP and row.ok and row.key)
        return found
    finally:
        await engine.store.close()


async def _all_executions(engine: Engine, project_id: str) -> list[Execution]:
    found: list[Execution] = []
    cursor: str | None = None
    while True:
        page = await engine.serve(Scope(project_id), ListExecutions(cursor=cursor, limit=500))
        found.extend(page.executions)
        cursor = page.next_cursor
        if cursor is None:
            return found


@asynccontextmanager
async def _bodies(ran: Counter[tuple[str, str]]) -> AsyncIterator[None]:
    call = StepCall.call

    def counted(step: StepCall) -> Any:
        info = running_step.get()
        if info is not None:
            ran[info.execution_id, info.key] += 1
        return call(step)

    StepCall.call = counted  # type: ignore[method-assign, assignment]  # all bodies are called through it
    try:
        yield
    finally:
        StepCall.call = call  # type: ignore[method-assign]  # as above
