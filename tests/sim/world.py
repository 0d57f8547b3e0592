"""One seed, one life: scripts, workers, a server, a network and every fault; then a quiet time and the bill."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw
from tests.sim import scripts
from tests.sim.audit import Audit, SimStore, Violation, missed_waits
from tests.sim.expectation import Asked, Expectation
from tests.sim.hands import Hands
from tests.sim.loop import BOOTED_US, EPOCH_US, SimLoop, Spinning
from tests.sim.network import CALM, Cut, Network, Weather
from tests.sim.scripts import Script, Writer, start_item
from tests.sim.server import LEASE_US, Cancel, Gone, Once, Resume, Server, Start, late
from tests.sim.worker import Process, patches

import perdure.engine.base.core
import perdure.engine.base.service
import perdure.engine.engine
import perdure.engine.loops
import perdure.engine.runs.claims
import perdure.store.verbs.runs.reports
from perdure.engine.loops import Loop
from perdure.store.base.statements import Statement
from perdure.store.verbs.base import access
from perdure.store.verbs.runs import queries
from perdure.wire.base.errors import Conflict, NoDeployment, NotCancellable, NotFound, PerdureError
from perdure.wire.base.operation import Operation
from perdure.wire.base.status import FINAL
from perdure.wire.runs.events import EventData, PublishedEvents, PublishEvent
from perdure.wire.runs.requests import Started

T = TypeVar("T")

CHAOS_US = 25_000_000
QUIET_US = 240_000_000

Trace = list[tuple[int, str, tuple[object, ...]]]

Patch = tuple[ModuleType | type, str, object]


class Mutant(NamedTuple):
    """One guard taken out: other queries, or other functions."""

    name: str
    queries: dict[str, Statement] | None = None
    patches: tuple[Patch, ...] = ()
    forks: bool = False
    """The seeds fork and retry, too."""
    focus: str | None = None
    """The rare fault that this guard is against: its seeds draw more such faults."""


class Result(NamedTuple):
    seed: int
    counts: Counter[str]
    trace: Trace


class Caller:
    """Somebody outside, who asks over the same network and asks again until he knows."""

    name = "caller"

    def __init__(self, world: World) -> None:
        self._world = world

    def later(self, us: int, action: Callable[[], None]) -> None:
        self._world.loop.call_at_us(self._world.loop.us + us, action)


_store: SimStore | None = None


def shared_store() -> SimStore:
    """One store for all runs of a process, so statements stay compiled."""
    global _store
    if _store is None:
        _store = SimStore()
    return _store


class World:
    """Everything of one run."""

    def __init__(self, seed: int, mutant: Mutant | None = None, *, trace: bool = False, forks: bool = False) -> None:
        self.seed = seed
        self.random = random = Random(f"perdure {seed}")
        self.loop = SimLoop()  # type: ignore[abstract]  # what nobody asks for is not there
        self.counts: Counter[str] = Counter()
        self.trace: Trace = []
        self.tracing = trace
        self._mutant = mutant
        self._ids = 0
        self.store = shared_store()
        self.audit = Audit(self.store, self.log, self.counts, lambda: EPOCH_US + self.loop.us)
        self.audit.is_cancelled = self._is_cancelled
        self.chaos = True
        self.focus = mutant.focus if mutant is not None else None
        bad = 0.2 if self.focus else random.choice((0.0, 0.04, 0.1, 0.2))
        self.network = Network(self, Weather(bad, bad, bad, bad / 2, random.choice((2_000_000, 20_000_000))))
        self.drops_hints = random.choice((0.0, 0.0, 0.5, 1.0))
        self.small_pages = random.random() < 0.25
        self.server = Server(self)
        self.project_id = ""
        self.workers: list[Process] = []
        self._workers_made = 0
        self.caller = Caller(self)
        self._scripts: dict[str, Script] = {}
        self._started: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._asked = Asked(set(), {})
        self._answering: set[tuple[str, str]] = set()
        self.hands = Hands(self) if forks or (mutant is not None and mutant.forks) else None

    # --- what everybody uses -----------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """Ids that sort by age, as UUIDv7 do, and are alike in every run."""
        self._ids += 1
        return f"{self._ids:08x}-0000-7000-8000-000000000000"

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def log(self, what: str, *details: object) -> None:
        if self.tracing:
            self.trace.append((self.loop.us, what, details))

    def script_of(self, payload: Raw) -> Script:
        return self._scripts[msgspec.json.decode(payload)]

    def script_named(self, name: str) -> Script:
        return self._scripts[name]

    def _is_cancelled(self, id: str) -> bool:
        return bool(self.store.rows("SELECT 1 FROM executions WHERE id = ? AND cancelled_by IS NOT NULL", id))

    # --- one life ----------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Raises `Violation` when a promise is broken on the way or at the end."""
        with patched([*self._patches(), *(self._mutant.patches if self._mutant else ())]):
            self.store.begin(self.audit, (self._mutant.queries if self._mutant else None) or {})
            try:
                self._live()
            except Spinning as error:
                raise Violation("I15 idle is idle", str(error)) from error
            finally:
                self.store.audit = None
                for worker in self.workers:
                    worker.dead = True
                if self.server.up:
                    self.server.stop()
                self.loop.settle()
        return Result(self.seed, self.counts, self.trace)

    def _patches(self) -> Iterator[Patch]:
        """The engine's sources of chance and time."""
        for module in (perdure.engine.runs.claims, perdure.engine.base.service):
            yield module, "uuid7", self.new_id
        yield perdure.engine.runs.claims, "random", self.random
        for clocked in (perdure.engine.base.core, perdure.engine.loops, perdure.engine.engine):
            yield clocked, "boottime_us", lambda: BOOTED_US + self.loop.us
        yield perdure.engine.engine.Engine, "loops", lambda engine: self._loops(engine)
        yield from patches(self)
        if self.small_pages:
            yield perdure.engine.runs.claims, "JOURNAL_ROWS_MAX", 3
            yield perdure.store.verbs.runs.reports, "ROWS_MAX", 2

    def _loops(self, engine: perdure.engine.engine.Engine) -> list[Loop]:
        """Some of the engine's loops, with rounds that come late."""
        some = (engine.timers.wake, engine.timers.end_overdue, engine.reaper.reap)
        return [late(Loop(name, round), self) for name, round in zip(("wake", "overdue", "reap"), some, strict=True)]

    def _live(self) -> None:
        self.loop.run(0)
        task = self.loop.create_task(self._make_project())
        self.loop.run(0, task.done)
        self._start_server()
        self._plan()
        self.loop.run(CHAOS_US)
        self._heal()
        self.loop.run(CHAOS_US + QUIET_US, self._is_over)
        self._settle_accounts()

    async def _make_project(self) -> None:
        self.project_id = await self.store.write(access.default_project(id=self.new_id(), now_us=EPOCH_US))

    def _start_server(self) -> None:
        if self.store.away:  # it would end, and a supervisor starts it again
            self._in(500_000, self._start_server)
            return
        self.audit.server_started_us = EPOCH_US + self.loop.us
        self.server.start()

    # --- the plan ----------------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        random, writer = self.random, Writer(self.random)
        for _ in range(1 if self.focus == "lost claims" else random.randint(2, 3)):
            self._hire(random.randrange(500_000))
        roots = [writer.script(f"r{n}") for n in range(random.randint(3, 6))]
        if random.random() < 0.3:
            roots.append(writer.poison("p"))
        elif random.random() < 0.08:
            roots.append(writer.costly("c"))
        roots.append(writer.returned("e"))
        if self.focus == "last words":
            roots += [Script(f"f{n}", (scripts.Step("fails", fails=1),)) for n in range(3)]
        elif self.focus == "a topic again":
            roots += [writer.waits_again(f"a{n}") for n in range(3)]
        if self.hands is not None:
            roots = [self.hands.holding(script) for script in roots]
        for script in roots:
            self._learn(script)
            self._at(random.randrange(12_000_000), self._start, script, random.random() < 0.5)
        topics = sorted(
            {
                op.topic
                for script in self._scripts.values()
                for op in scripts.flat(script.ops)
                if isinstance(op, scripts.Event)
            }
        )
        for topic in topics:
            for n in range(random.randint(1, 3)):
                event = EventData(Raw(b'{"number":%d}' % random.randint(0, 1)), dedup_key=f"{topic}/{n}")
                self._at(random.randrange(CHAOS_US), self._publish, topic, event)
        for _ in range(random.choice((0, 0, 1, 2))):
            self._at(self._some_time(), self._kill_one)
        for _ in range(random.choice((0, 1, 2, 3))):
            self._at(self._some_time(), self._freeze_one)
        for _ in range(4 if self.focus == "late beats" else random.choice((0, 0, 1, 2))):
            self._at(self._some_time(), self._cut_one)
        for _ in range(random.choice((0, 0, 1))):
            self._at(self._some_time(), self._drain_one)
        for _ in range(random.choice((0, 0, 1))):
            self._at(self._some_time(), self._restart_server)
        if (outages := Random(f"outages {self.seed}")).random() < 0.25:
            begins = outages.randrange(1_000_000, CHAOS_US - 2_000_000)
            ends = begins + outages.choice((1_000_000, LEASE_US // 2, 2 * LEASE_US))
            self._at(begins, self._away, True)
            self._at(ends, self._away, False)
        for _ in range(2):
            self._at(self._some_time(), self._look)
        self._at(2_000_000, self._operate)
        if self.hands is not None:
            self.hands.plan(CHAOS_US)

    def _away(self, away: bool) -> None:
        """The store takes no writes, for less or more than a lease."""
        self.log("the store is away" if away else "the store is back")
        self.store.away = away and self.chaos

    def _learn(self, script: Script) -> None:
        self._scripts[script.name] = script
        for op in scripts.flat(script.ops):
            if isinstance(op, scripts.Child):
                self._learn(op.script)

    def _at(self, us: int, action: Callable[..., None], *values: Any) -> None:
        self.loop.call_at_us(us, action, *values)

    def _in(self, us: int, action: Callable[..., None], *values: Any) -> None:
        self.loop.call_at_us(self.loop.us + us, action, *values)

    def _some_time(self) -> int:
        return self.random.randrange(1_000_000, CHAOS_US - 2_000_000)

    # --- workers -----------------------------------------------------------------------------------------------------

    def _hire(self, in_us: int) -> None:
        random = self.random
        self._workers_made += 1
        worker = Process(
            self,
            f"w{self._workers_made}",
            capacity=random.randint(1, 4),
            parks=random.random() < 0.8,
            newer=not self.chaos or random.random() < 0.5,
            old=self.hands is not None and self.chaos and self.hands.hires_old(),
        )
        self.workers.append(worker)
        self._in(in_us, worker.start)

    def _living(self) -> list[Process]:
        return [worker for worker in self.workers if not worker.dead and not worker.draining]

    def kill(self, worker: Process, why: str) -> None:
        """SIGKILL: the worker's connections close, and the server may hear; a supervisor starts another worker."""
        if worker.dead:
            return
        self.count(f"killed: {why}")
        self.log(f"{worker.name} killed", why)
        worker.dead = True
        if self.random.random() < 0.7:
            self.network.call(self.caller, "gone", Gone(worker.id), lambda outcome: None, timeout_us=1_000_000)
        self._hire(self.random.randrange(200_000, 3_000_000))

    def _kill_one(self) -> None:
        if living := self._living():
            self.kill(self.random.choice(living), "chance")

    def _freeze_one(self) -> None:
        if awake := [worker for worker in self._living() if not worker.frozen]:
            us = self.random.choice((500_000, 2_000_000, LEASE_US + 2_000_000, 3 * LEASE_US))
            self.freeze(self.random.choice(awake), us)

    def freeze(self, worker: object, us: int = 2 * LEASE_US) -> None:
        """SIGSTOP, for less or more than a lease."""
        if not isinstance(worker, Process) or worker.frozen or not self.chaos:
            return
        worker.frozen = True
        self.log(f"{worker.name} frozen", us)

        def thaw() -> None:
            if worker.dead or not worker.frozen:
                return
            lost = [
                run for run in worker.running.values() if self.audit.seen[run.claimed.id].attempt > run.claimed.attempt
            ]
            self.counts["zombies"] += len(lost)
            self.log(f"{worker.name} thawed", len(lost))
            worker.thaw()

        self._in(us, thaw)

    def _cut_one(self) -> None:
        """A partition, of both ways or of the replies only."""
        if living := self._living():
            worker = self.random.choice(living)
            us = self.random.choice((1_000_000, LEASE_US, 2 * LEASE_US))
            cut = Cut(self.loop.us + us, self.random.random() < 0.5)
            self.count("partitions")
            self.log(f"{worker.name} cut off", us, cut.requests)
            self.network.cuts[worker] = cut

    def _drain_one(self) -> None:
        if living := [worker for worker in self._living() if not worker.frozen]:
            self.count("drained")
            self.random.choice(living).drain(self.random.choice((0, 1_000_000)))
            self._hire(500_000)

    def _restart_server(self) -> None:
        if not self.server.up:
            return
        self.count("server restarts")
        self.server.stop()
        self._in(self.random.choice((100_000, 2_000_000, 2 * LEASE_US)), self._start_server)

    # --- callers -----------------------------------------------------------------------------------------------------

    def _call(self, name: str, request: object, done: Callable[[object], None]) -> None:
        """Ask until there is an answer that says what happened."""

        def answered(outcome: object) -> None:
            if isinstance(outcome, PerdureError) and (outcome.retryable or isinstance(outcome, NoDeployment)):
                self.caller.later(400_000, lambda: self._call(name, request, done))
            else:
                done(outcome)

        self.network.call(self.caller, name, request, answered, timeout_us=1_500_000)

    def _start(self, script: Script, by_key: bool) -> None:
        item = start_item(script, key=script.name if by_key else None)
        request = Start(script.name, item, None if by_key else script.name)

        def started(outcome: object) -> None:
            if not isinstance(outcome, Started):
                if getattr(outcome, "error_type", "") == NoDeployment.code:
                    self.caller.later(400_000, lambda: self._start(script, by_key))
                    return
                raise Violation("I1 accepted is kept", f"{script.name} was refused: {outcome!r}")
            id = outcome.execution_id
            known = self._started.get(script.name)
            if known is not None and known != id and not self._is_retry(id, known):
                raise Violation("idempotent starts", f"{script.name} is {known} and {id}")
            if known is None:
                self._started[script.name] = id
                self.log("started", script.name, id)
                self._ask_more(script, id)
                if self.random.random() < 0.3:
                    self.count("starts asked again")
                    self._in(self.random.randrange(10_000_000), self._start, script, by_key)

        self._call("start", request, started)

    def _is_retry(self, id: str, of: str) -> bool:
        """Whether a start with the key of `of` may find `id`."""
        retried: dict[str, str] = dict(self.store.rows("SELECT id, retried_as FROM executions WHERE retried_as <> ''"))
        while of != id and of in retried:
            of = retried[of]
        return of == id

    def call_once(self, name: str, request: Operation[Any], key: str, done: Callable[[object], None]) -> None:
        self._call(name, Once(request, key), done)

    def _ask_more(self, script: Script, id: str) -> None:
        random = self.random
        for op in scripts.flat(script.ops):
            if isinstance(op, scripts.Suspended) and not op.key.startswith("asked") and random.random() < 0.5:
                self._in(random.randrange(8_000_000), self._resume, id, op.key)
        if self.chaos and random.random() < (0.8 if self.focus == "lost claims" else 0.15):
            self._in(random.randrange(12_000_000), self.cancel, id)

    def _publish(self, topic: str, event: EventData) -> None:
        def published(outcome: object) -> None:
            assert isinstance(outcome, PublishedEvents) and event.dedup_key is not None, outcome
            self._numbers[event.dedup_key] = outcome.sequence_ids[0]

        self._call("publish", PublishEvent(topic, [event]), published)

    def _resume(self, id: str, key: str) -> None:
        if (id, key) in self._answering:
            return
        self._answering.add((id, key))
        answer = f"from outside {self.random.randrange(100)}"
        request = Resume(id, key, Raw(msgspec.json.encode(answer)))

        def resumed(outcome: object) -> None:
            self._answering.discard((id, key))
            if outcome is None:
                self._asked.answers.setdefault((id, key), answer)
            elif not isinstance(outcome, Conflict | NotFound):
                raise Violation("I5 waits wake", f"an answer to {key!r} of {id} was refused: {outcome!r}")

        self._call("resume", request, resumed)

    def cancel(self, id: str) -> None:
        self._asked.cancelled.add(id)
        self.count("cancels asked")

        def cancelled(outcome: object) -> None:
            if isinstance(outcome, PerdureError) and not isinstance(outcome, NotCancellable):
                raise Violation("cancel", f"{id}: {outcome!r}")

        self._call("cancel", Cancel(id), cancelled)

    def _operate(self) -> None:
        """An operator who now and then answers what waits, and in the quiet time gives everybody what he waits for."""
        for id, key in self.store.rows(
            "SELECT execution_id, key FROM waits WHERE state = 'open' AND topic IS NULL ORDER BY execution_id, key"
        ):
            if not self.chaos or (self.random.random() < 0.3 and not key.startswith("asked")):
                self._resume(id, key)
        if not self.chaos:
            self._look_for_waits()
            for topic, match, id in self.store.rows(
                "SELECT w.topic, w.match, w.execution_id FROM waits w JOIN executions e ON e.id = w.execution_id "
                "WHERE w.state = 'open' AND w.topic IS NOT NULL AND e.phase = 'waiting' ORDER BY w.execution_id, w.key"
            ):
                number = 0 if match is None else json.loads(match)["number"]
                key = f"{topic} for {id} at {self.loop.us}"
                self._publish(topic, EventData(Raw(b'{"number":%d}' % number), dedup_key=key))
        if self.hands is not None:
            self.hands.operate()
        self._in(4_000_000 if self.chaos else 2_000_000, self._operate)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """The network is well, the server is up, no worker is frozen, and new code is there if needed."""
        self.log("healed")
        self.chaos = self.store.away = False
        self.network.weather = CALM
        self.network.cuts.clear()
        if not self.server.up:
            self._start_server()
        for worker in self._living():
            if worker.frozen:
                worker.thaw()
        if self.hands is not None:
            self._hire(0)  # forks wait for a worker of the present protocol
        if any(script.workflow == scripts.NEWER for script in self._scripts.values()):
            for worker in self._living():
                worker.drain(1_000_000)
            for _ in range(2):
                # Not before the old code is gone: what it blocks after the last registration stays blocked.
                self._hire(6_000_000 + self.random.randrange(1_000_000))

    def _is_over(self) -> bool:
        if self.hands is not None and self.hands.open:
            return False
        return len(self._started) >= self._roots_planned and all(
            seen.phase in FINAL for seen in self.audit.seen.values()
        )

    @property
    def _roots_planned(self) -> int:
        return sum("." not in name for name in self._scripts)

    def _look(self) -> None:
        """Check the doctor's invariants at any moment."""
        for name, found in now(self.store.read(queries.doctor())).items():
            if found:
                raise Violation(f"doctor: {name}", ", ".join(found))
        self._look_for_waits()

    def _look_for_waits(self) -> None:
        if missed := missed_waits(self.store):
            raise Violation("I5 waits wake", missed[0])

    def _settle_accounts(self) -> None:
        if not self._is_over():
            left = [
                f"{id} {seen.phase} (attempt {seen.attempt})"
                for id, seen in self.audit.seen.items()
                if seen.phase not in FINAL
            ]
            missing = sorted(name for name in self._scripts if "." not in name and name not in self._started)
            raise Violation("everything ends", f"{', '.join(left)}; not started: {missing}")
        self._look()
        expectation = Expectation(self.store, self._asked)
        for name, id in self._started.items():
            expectation.check(id, self._scripts[name])
        for id in self.audit.forks:
            expectation.check(id, self.script_of(Raw(self.audit.payload(id))))
        roots = self.store.rows("SELECT COUNT(*) FROM executions WHERE parent_execution_id IS NULL")[0][0]
        if roots != len(self._started) + len(self.audit.forks):
            raise Violation(
                "idempotent starts",
                f"{len(self._started)} starts and {len(self.audit.forks)} forks were made, {roots} executions exist",
            )
        self._check_events()

    def _check_events(self) -> None:
        numbers = dict(self.store.rows("SELECT dedup_key, seq FROM events WHERE dedup_key IS NOT NULL"))
        for key, seq in self._numbers.items():
            if numbers.get(key) != seq:
                raise Violation(
                    "I1 accepted is kept", f"event {key!r} was answered {seq}, the topic has {numbers.get(key)}"
                )
        made: Counter[tuple[str, int]] = Counter()
        for (data,) in self.store.rows("SELECT data FROM events WHERE dedup_key IS NULL"):
            value = json.loads(data)
            made[value["by"], value["number"]] += 1
        twice = [what for what, times in made.items() if times > 1]
        if twice:
            raise Violation("I6 effects happen once", f"published twice: {twice}")


@contextmanager
def patched(patches: list[Patch]) -> Iterator[None]:
    """Put other values into modules for a while; log nothing meanwhile."""
    before = [(module, name, getattr(module, name)) for module, name, _ in patches]
    for module, name, value in patches:
        setattr(module, name, value)
    logger = logging.getLogger("perdure")
    level, logger.level = logger.level, logging.CRITICAL + 1
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        logger.level = level
        for module, name, value in reversed(before):
            setattr(module, name, value)


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waited")


def simulate(seed: int, mutant: Mutant | None = None, *, trace: bool = False, forks: bool = False) -> Result:
    """One run, with forks or without. Raises `Violation`."""
    return World(seed, mutant, trace=trace, forks=forks).run()
