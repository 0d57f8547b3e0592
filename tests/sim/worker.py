"""A simulated worker: what `worker`, `runner` and `lease` of sdk/workers say to the server, and when.

It registers, claims, acknowledges first where it is told to, checks its lease right before each step, reports with
numbers until it is answered, replays, parks, pauses between tries, cleans up when cancelled, and drains. Everything it
does goes through `later` and the network, so that a freeze stops it between any two of its actions and a kill ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, structs
from tests.sim import scripts
from tests.sim.audit import Violation
from tests.sim.machine import Ask, Machine, NeedsNewer, StepFailed
from tests.sim.network import Pending

from perdure.wire.base.errors import LeaseLost, PerdureError, Unavailable
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import (
    WORKER_PROTOCOL,
    BeatReply,
    BeatRequest,
    Block,
    Cancelled,
    Claimed,
    ClaimReply,
    ClaimRequest,
    CloseWait,
    Complete,
    DrainRequest,
    End,
    Entry,
    Fail,
    ItemReply,
    QueueSpec,
    RegisterReply,
    RegisterRequest,
    Release,
    ReportItem,
    ReportReply,
    ReportRequest,
    StepDone,
    Suspend,
    TimerFired,
    WorkflowSpec,
)

if TYPE_CHECKING:
    from tests.sim.world import World

MARGIN = 0.1
UNREACHABLE_US = 1_000_000
SLEPT_IN_WORKER_US = 10_000_000
REPORTS_IN_FLIGHT = 2
POLL_SECONDS = 10.0
FULL_US = 1_000_000
OURS_US = 750_000
POISON_BODIES_MAX = 6
"""Five crashes, and the first delivery, which starts before it is acknowledged."""
RELEASE_NUMBER = 1_000_000
"""The report number of a release of something that this worker does not know: higher than any that it ever used."""


class Worker:
    """One process with one registration at a time."""

    protocol = WORKER_PROTOCOL

    def __init__(self, world: World, name: str, *, capacity: int, version: int, parks: bool) -> None:
        self.world = world
        self.name = name
        self.capacity = capacity
        self.version = version
        self.parks = parks
        self.dead = False
        self.frozen = False
        self.draining = False
        self.running: dict[str, Run] = {}
        self.parked: dict[str, Run] = {}
        self.id = ""
        self.epoch = ""
        self.lease_us = 0
        self.deadline_us = 0
        self.unreachable_since_us: int | None = None
        self._backlog: list[Callable[[], None]] = []
        self._dirty: dict[Run, None] = {}
        self._flushing = False
        self._reports = 0
        self._held_back: list[tuple[Run, Ask]] = []
        self._claim_id = ""
        self._arrived: str | None = None
        self._claiming: Pending | None = None
        self._claims_sent = 0
        self._claim_due = False
        self._strangers: dict[str, tuple[int, int]] = {}
        """What the server says is held here and this worker does not know: (attempt, claims sent when it was seen)."""

    # --- time, freezes and death -------------------------------------------------------------------------------------

    def later(self, us: int, action: Callable[[], None]) -> None:
        """Do something after a while; when frozen, once thawed; when dead, never."""
        self.world.loop.call_at_us(self.world.loop.us + us, self._do, action)

    def _do(self, action: Callable[[], None]) -> None:
        if self.dead:
            return
        if self.frozen:
            self._backlog.append(action)
        else:
            action()

    def thaw(self) -> None:
        self.frozen = False
        backlog, self._backlog = self._backlog, []
        for action in backlog:
            self.later(0, action)

    def log(self, what: str, *details: object) -> None:
        self.world.log(f"{self.name} {what}", *details)

    # --- registration and lease --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Register under a new id."""
        if self.draining:
            return
        id = self.id = self.world.new_id()
        sent_us = self.world.loop.us
        self.log("registers", id)
        request = RegisterRequest(
            worker_id=id,
            deployment_id="sim",
            python="3.11",
            workflows=[WorkflowSpec("plain"), WorkflowSpec("wakes", wake_on_cancel=True)],
            queues=[QueueSpec(scripts.NARROW, scripts.NARROW_PER_KEY, scripts.NARROW_TOTAL)],
            capacity=self.capacity,
            protocol=self.protocol,
        )

        def registered(outcome: object) -> None:
            if id != self.id or self.draining:
                return
            if not isinstance(outcome, RegisterReply):
                self.later(300_000, self.start)
                return
            self.epoch = outcome.epoch
            self.lease_us = outcome.lease_us
            since_us = self.world.loop.us if self.world.mutant("deadline_from_reply") else sent_us
            self.deadline_us = since_us + outcome.lease_us
            self.unreachable_since_us = None
            self.later(outcome.beat_us, lambda: self._beat(id, outcome.beat_us, 100_000))
            self._claim_id = self.world.new_id()
            self._arrived = None
            self._claim_soon()

        self.world.network.call(self, "register", request, registered, timeout_us=2_500_000)

    def _beat(self, id: str, beat_us: int, pause_us: int) -> None:
        if id != self.id:
            return
        sent_us = self.world.loop.us

        def answered(outcome: object) -> None:
            if id != self.id:
                return
            if not isinstance(outcome, BeatReply):
                if self.unreachable_since_us is None:
                    self.unreachable_since_us = self.world.loop.us
                self.later(pause_us, lambda: self._beat(id, beat_us, min(2 * pause_us, 1_000_000)))
                return
            if outcome.lost:
                self.start_over()
                return
            since_us = self.world.loop.us if self.world.mutant("deadline_from_reply") else sent_us
            self.deadline_us = max(self.deadline_us, since_us + self.lease_us)
            self.unreachable_since_us = None
            self._compare(outcome.holding, sent_us)
            self._release_held_back()
            self.later(beat_us, lambda: self._beat(id, beat_us, 100_000))

        self.world.network.call(self, "beat", BeatRequest(id, self.epoch), answered, timeout_us=2_500_000)

    def _compare(self, holding: Sequence[tuple[str, int, int]], sent_us: int) -> None:
        """What the server says is held here: the rest is lost, longer journals are fetched, strangers handed back."""
        held = {id: (attempt, seq) for id, attempt, seq in holding}
        for id, run in list(self.running.items()):
            there = held.get(id)
            if there is None:
                if run.taken_us <= sent_us:
                    run.drop()
            elif there[0] > run.claimed.attempt:
                run.drop()
            elif there[1] > run.fetched and run.in_flight is None:
                self.fetch_news(id)
        if self.world.mutant("strangers_are_kept"):
            return
        for id, (attempt, _) in held.items():
            if id in self.running:
                self._strangers.pop(id, None)
                continue
            seen = self._strangers.get(id)
            if seen is None or seen[0] != attempt:
                self._strangers[id] = (attempt, self._claims_sent)
            elif self._claims_answered > seen[1] or self.world.mutant("hands_back_early"):
                # Handed out to a claim that nobody listens to any more: a later claim was answered without it.
                self.world.count("strangers handed back")
                self.log("hands back", id, attempt)
                del self._strangers[id]
                item = ReportItem(id, attempt, RELEASE_NUMBER, 0, [], Release())
                request = ReportRequest(self.id, self.epoch, [item])
                self.world.network.call(self, "report", request, lambda outcome: None, timeout_us=2_000_000)
        for id in [id for id in self._strangers if id not in held]:
            del self._strangers[id]

    def is_sure(self) -> bool:
        """Whether the lease surely holds at this moment."""
        if self.draining:
            return False
        if self.world.mutant("no_lease_check"):
            return True
        now_us = self.world.loop.us
        if now_us >= self.deadline_us - MARGIN * self.lease_us:
            return False
        gone = self.unreachable_since_us
        return gone is None or now_us - gone <= UNREACHABLE_US

    def hold_back(self, run: Run, ask: Ask) -> None:
        self.world.count("steps held back")
        self.log("holds back", run.claimed.id, ask.key)
        if self.draining:
            self.later(0, run.release)
        else:
            self._held_back.append((run, ask))

    def _release_held_back(self) -> None:
        held, self._held_back = self._held_back, []
        for run, ask in held:
            run.restart(ask)
        self._claim_soon()

    def start_over(self) -> None:
        """The registration is gone, and with it everything that runs here."""
        if self.draining:
            return
        self.world.count("registrations lost")
        self.log("starts over")
        for run in [*self.running.values(), *self.parked.values()]:
            run.drop()
        self._held_back.clear()
        self._dirty.clear()
        self._strangers.clear()
        self._claiming = None
        self.deadline_us = 0
        self.start()

    # --- claims ------------------------------------------------------------------------------------------------------

    _claims_answered = 0

    def _claim_soon(self, us: int = 0) -> None:
        if not self._claim_due:
            self._claim_due = True
            self.later(us, self._claim)

    def _claim(self) -> None:
        self._claim_due = False
        if self._claiming is not None or self.draining or not self.is_sure():
            return
        room = max(self.capacity - len(self.running), 0)
        id = self.id
        wait = POLL_SECONDS if room else 0.0
        claim_id = self._claim_id
        request = ClaimRequest(id, self.epoch, claim_id, room, wait, self._arrived)
        self._claims_sent += 1
        number = self._claims_sent
        sent_us = self.world.loop.us

        def answered(outcome: object) -> None:
            if (id != self.id and not self.world.mutant("takes_old_answers")) or self.draining:
                return
            self._claiming = None
            if isinstance(outcome, LeaseLost):
                self.start_over()
                return
            if not isinstance(outcome, ClaimReply):
                self._claim_soon(200_000)
                return
            self._arrived = None if outcome.held_us is None else claim_id
            if room:
                self._claims_answered = number
            # An answer ends this id, an empty one too: had it a batch that is gone by now, it would never get another.
            if outcome.items or not self.world.mutant("keeps_claim_id"):
                self._claim_id = self.world.new_id()
            ours_until_us = 1 << 62 if outcome.held_us is None else sent_us + outcome.held_us + OURS_US
            for claimed in outcome.items:
                self._take(claimed, ours_until_us)
            for execution_id in sorted(outcome.news):
                self.fetch_news(execution_id)
            self._claim_soon(0 if outcome.items or len(self.running) < self.capacity else FULL_US)

        self._claiming = self.world.network.call(
            self, "claim", request, answered, timeout_us=int(wait * 1e6) + 2_000_000
        )

    def _take(self, claimed: Claimed, ours_until_us: int) -> None:
        known = self.running.get(claimed.id)
        if known is not None:
            if known.claimed.attempt == claimed.attempt:
                return
            known.drop()
        self.log("takes", claimed.id, claimed.attempt, claimed.base, len(claimed.rows), claimed.ack_first)
        parked = self.parked.pop(claimed.id, None)
        run = parked if parked is not None else Run(self)
        run.ours_until_us = ours_until_us
        self.running[claimed.id] = run
        run.begin(claimed)

    def fetch_news(self, execution_id: str) -> None:
        run = self.running.get(execution_id)
        if run is not None:
            run.wants_rows = True
            self.dirty(run)

    def park(self, run: Run) -> None:
        self.running.pop(run.claimed.id, None)
        if self.draining:
            run.drop()
        else:
            self.parked[run.claimed.id] = run
        self._freed()

    def forget(self, run: Run) -> None:
        id = run.claimed.id
        if self.running.get(id) is run:
            del self.running[id]
        if self.parked.get(id) is run:
            del self.parked[id]
        self._dirty.pop(run, None)
        self._freed()

    def _freed(self) -> None:
        if self.draining:
            self._check_quiet()
        else:
            self._claim_soon()

    # --- reports -----------------------------------------------------------------------------------------------------

    def dirty(self, run: Run) -> None:
        self._dirty[run] = None
        if not self._flushing and self._reports < REPORTS_IN_FLIGHT:
            self._flushing = True
            self.later(0, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._dirty and self._reports < REPORTS_IN_FLIGHT:
            runs: list[Run] = []
            items: list[ReportItem] = []
            for run in list(self._dirty):
                del self._dirty[run]
                item = run.take_report()
                if item is not None:
                    runs.append(run)
                    items.append(item)
            if not items:
                return
            self._reports += 1
            self._report(runs, ReportRequest(self.id, self.epoch, items), 100_000)

    def _report(self, runs: list[Run], request: ReportRequest, pause_us: int) -> None:
        """Send a report until it is answered; the same one, with the same numbers."""

        def answered(outcome: object) -> None:
            if request.worker_id != self.id:
                self._reported()
                return
            if isinstance(outcome, LeaseLost):
                self._reported()
                self.start_over()
                return
            if isinstance(outcome, PerdureError):
                assert outcome.retryable, outcome
                again = request
                if self.world.mutant("new_number_on_repeat"):
                    again = structs.replace(
                        request, items=[structs.replace(item, number=item.number + 1) for item in request.items]
                    )
                self.later(pause_us, lambda: self._report(runs, again, min(2 * pause_us, 2_000_000)))
                return
            assert isinstance(outcome, ReportReply)
            if any(
                answer.problem is not None and answer.problem.error_type == Unavailable.code for answer in outcome.items
            ):
                self.later(pause_us, lambda: self._report(runs, request, min(2 * pause_us, 2_000_000)))
                return
            for run, answer in zip(runs, outcome.items, strict=True):
                run.on_reply(answer)
                if not run.gone and run.has_news:
                    self.dirty(run)
            self._reported()

        self.world.network.call(self, "report", request, answered, timeout_us=2_000_000)

    def _reported(self) -> None:
        self._reports -= 1
        if self._dirty and not self._flushing:
            self._flushing = True
            self.later(0, self._flush)
        if self.draining:
            self._check_quiet()

    # --- the end -----------------------------------------------------------------------------------------------------

    def drain(self, grace_us: int) -> None:
        """Stop claiming, let steps end within the grace, hand the rest back, end the registration."""
        if self.draining:
            return
        self.log("drains")
        self.draining = True
        for run in list(self.running.values()):
            if not run.is_busy:
                run.release()
        self._check_quiet()

        def over() -> None:
            for run in list(self.running.values()):
                run.release()
            self.later(3_000_000, self._leave)

        self.later(grace_us, over)

    def _check_quiet(self) -> None:
        if not self.running and not self._reports:
            self._leave()

    def _leave(self) -> None:
        if self.dead:
            return
        request = DrainRequest(self.id, self.epoch)
        self.world.network.call(self, "drain", request, lambda outcome: None, timeout_us=2_000_000)
        for run in [*self.running.values(), *self.parked.values()]:
            run.gone = True
        self.dead = True
        self.log("left")


class Run:
    """One execution in a worker's hands."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.world = worker.world
        self.claimed: Claimed
        self.taken_us = 0
        self.ours_until_us = 0
        """From then on no step begins before the server has acknowledged a report."""
        self._unsure: list[Ask] = []
        self.machine: Machine | None = None
        self.number = 0
        self.fetched = 0
        self.entries: list[Entry] = []
        self.end: End | None = None
        self.wants_rows = False
        self.in_flight: ReportItem | None = None
        self.gone = False
        self._steps: dict[str, object] = {}
        self._pauses: dict[str, int] = {}
        self._tries: dict[str, int] = {}
        self._held_rows: Sequence[Row] = ()
        self._timer: object = None
        self._fired: set[str] = set()
        self._rows_us = 0

    # --- rows in -----------------------------------------------------------------------------------------------------

    def begin(self, claimed: Claimed) -> None:
        """Start, or (parked before) go on, with the journal that came with the claim."""
        self.claimed = claimed
        self.taken_us = self.world.loop.us
        self.number = 0
        self.end = None
        self.entries = []
        self._unsure.clear()
        self._tries.clear()
        self._fired.clear()
        if self.machine is not None and self.fetched != claimed.base:
            self._forget_machine()
        if claimed.base and self.machine is None:
            self.wants_rows = True
            self.worker.dirty(self)
            return
        if self.machine is not None:
            self.world.count("parked and continued")
        if claimed.ack_first:
            self.world.count("acknowledged first")
            self._held_rows = claimed.rows
            self.fetched = claimed.rows[-1].seq if claimed.rows else self.fetched
            self.wants_rows = True
            self.worker.dirty(self)
        else:
            self.feed(claimed.rows, more=claimed.more)

    def _forget_machine(self) -> None:
        self.machine = None
        self.fetched = 0

    def feed(self, rows: Sequence[Row], *, more: bool = False) -> None:
        if self.gone or self.end is not None:
            return
        if rows:
            self.fetched = rows[-1].seq
            self._rows_us = self.world.loop.us
        claimed = self.claimed
        if self.machine is None:
            self.machine = Machine(
                self.world.script_of(claimed.payload),
                self.worker.version,
                claimed.retry_count,
                claimed.id,
                claimed.parent_execution_id,
            )
        if self.machine.begun and any(row.kind is Kind.RETRIED for row in rows):
            # An earlier attempt's failure was taken back: what this machine has seen is no longer the record.
            self._forget_machine()
            self.wants_rows = True
            self.worker.dirty(self)
            return
        fresh, abandoned = self.machine.advance(rows, more=more)
        if more:
            self.wants_rows = True
            self.worker.dirty(self)
            return
        for ask in abandoned:
            if ask.kind is Kind.STEP:
                self._steps.pop(ask.key, None)
                self._pauses.pop(ask.key, None)
            elif ask.kind in (Kind.EVENT, Kind.RESUME):
                self.entries.append(CloseWait(ask.key))
        for ask in fresh:
            if ask.kind is Kind.STEP:
                self._start_step(ask)
            elif ask.entry is not None:
                self.entries.append(ask.entry)
        if self.machine.done:
            self._finish(self._outcome())
            return
        timer = self.machine.timer()
        self._set_timer(timer)
        if self.machine.is_suspended:
            self._suspend(timer)
        elif self._pauses:
            self._suspend_for_pause(timer)
        if self.entries or self.end is not None:
            self.worker.dirty(self)

    # --- timers and suspension ---------------------------------------------------------------------------------------

    def _now_us(self) -> int:
        """Store time as far as this worker knows."""
        assert self.machine is not None
        return self.machine.now_us + self.world.loop.us - self._rows_us

    def _set_timer(self, timer: tuple[str, int] | None) -> None:
        mark = self._timer = object()
        if timer is None or (timer[0] in self._fired and not self.world.mutant("fires_twice")):
            return
        key, due_us = timer

        def due() -> None:
            if self._timer is mark and not self.gone and self.end is None:
                self._fired.add(key)
                self.entries.append(TimerFired(key, due_us))
                self.worker.dirty(self)

        self.worker.later(max(0, due_us - self._now_us()), due)

    def _suspend(self, timer: tuple[str, int] | None) -> None:
        assert self.machine is not None
        if self.machine.cancel_requested or self.in_flight is not None:
            return
        if any(isinstance(entry, TimerFired) for entry in self.entries):
            return
        self._timer = None
        self.end = Suspend(self.machine.waits(), timer, self.worker.parks)

    def _suspend_for_pause(self, timer: tuple[str, int] | None) -> None:
        """Every step is between two tries and the next one is long off."""
        assert self.machine is not None
        working = [ask for ask in self.machine.outstanding() if ask.kind not in (Kind.EVENT, Kind.RESUME, Kind.TIMER)]
        if len(working) != len(self._pauses):
            return
        first = min(self._pauses.values())
        if first - self._now_us() <= SLEPT_IN_WORKER_US or self.machine.cancel_requested or self.in_flight is not None:
            return
        if any(not isinstance(entry, StepDone) for entry in self.entries):
            return
        self._timer = None
        key_and_due: tuple[str | None, int] = (None, first)
        if timer is not None and timer[1] < first:
            key_and_due = timer
        self.world.count("suspended between tries")
        self.end = Suspend(self.machine.waits(), key_and_due, parked=False)

    # --- steps -------------------------------------------------------------------------------------------------------

    def _start_step(self, ask: Ask) -> None:
        assert self.machine is not None and ask.step is not None
        until_us = self.machine.not_before.pop(ask.key, 0)
        if until_us > self._now_us():
            self._pause(ask, until_us)
            return
        mark = self._steps[ask.key] = object()
        self.worker.later(0, lambda: self._body(ask, mark))

    def _pause(self, ask: Ask, until_us: int) -> None:
        self._pauses[ask.key] = until_us

        def over() -> None:
            if self._pauses.get(ask.key) == until_us and not self.gone and self.end is None:
                del self._pauses[ask.key]
                self._start_step(ask)

        self.worker.later(max(0, until_us - self._now_us()), over)

    def _body(self, ask: Ask, mark: object) -> None:
        """One try of a step. The lease is checked right before it, with nothing in between."""
        assert self.machine is not None and ask.step is not None
        step = ask.step
        if self.gone or self._steps.get(ask.key) is not mark:
            return
        # The first two do harm only without this rule, too.
        mutants = ("hands_back_early", "takes_old_answers", "begins_unsure")
        waits = not any(self.world.mutant(one) for one in mutants)
        if self.world.loop.us >= self.ours_until_us and waits:
            del self._steps[ask.key]
            self.world.count("steps that waited for an acknowledgement")
            self._unsure.append(ask)
            self.wants_rows = True
            self.worker.dirty(self)
            return
        if not self.worker.is_sure():
            del self._steps[ask.key]
            self.worker.hold_back(self, ask)
            return
        tries = max(self.machine.tries.get(ask.key, 0), self._tries.get(ask.key, 0)) + 1
        claimed = self.claimed
        self.worker.log("runs", claimed.id, claimed.attempt, ask.key, tries)
        keys_id = claimed.keys_id if self.worker.protocol >= WORKER_PROTOCOL else None  # an older one does not know it
        idempotency_key = f"{keys_id or claimed.id}:{ask.key}"
        bodies = self.world.audit.body(claimed.id, claimed.attempt, ask.key, self.worker.id, idempotency_key)
        if step.poison and bodies > POISON_BODIES_MAX:
            raise Violation("I9 poison is contained", f"{claimed.id} takes {bodies} workers with it")
        if step.poison or bodies <= step.kills:
            self.world.kill(self.worker, "poison")
            return
        started_us = self._now_us()
        self.worker.later(int(step.takes * 1e6), lambda: self._body_ends(ask, mark, step, tries, started_us))

    def _body_ends(self, ask: Ask, mark: object, step: scripts.Step, tries: int, started_us: int) -> None:
        if self.gone or self._steps.get(ask.key) is not mark:
            return
        del self._steps[ask.key]
        fails = tries <= step.fails or self.claimed.retry_count < step.fragile
        if not fails:
            value = Raw(msgspec.json.encode(f"{self.machine.script.name}:{ask.key}" if self.machine else ""))
            self.entries.append(StepDone(ask.key, ask.key, None, True, value, started_us, tries))
        elif tries >= step.tries:
            value = Raw(b'{"type":"Boom","message":"failed for good"}')
            self.entries.append(StepDone(ask.key, ask.key, None, False, value, started_us, tries))
        else:
            until_us = self._now_us() + int(step.pause * 1e6)
            value = Raw(msgspec.json.encode({"type": "Boom", "message": "failed", "retry_at_us": until_us}))
            self._tries[ask.key] = tries
            self._pause(ask, until_us)
            self.entries.append(StepDone(ask.key, ask.key, None, False, value, started_us, tries, last=False))
        self.worker.dirty(self)

    def restart(self, ask: Ask) -> None:
        if not self.gone and self.end is None and self.machine is not None:
            self._start_step(ask)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _outcome(self) -> End:
        machine = self.machine
        assert machine is not None
        error = machine.error
        if error is None:
            return Complete(Raw(msgspec.json.encode(machine.result)))
        if isinstance(error, NeedsNewer):
            return Block("the code is too old", Raw(b'{"type":"Diverged"}'))
        if isinstance(error, StepFailed):
            detail = Raw(b'{"type":"StepFailed"}')
            if self.claimed.retry_count < machine.script.retries and not machine.cancel_requested:
                delay_us = self.world.random.choice((0, 0, 700_000, 3_000_000))
                unread = [*(self.in_flight.entries if self.in_flight is not None else ()), *self.entries]
                failed = [one.key for one in unread if isinstance(one, StepDone) and one.last and not one.ok]
                taken = [error.key, *machine.failed_beside, *failed]
                if len(taken) > 1:
                    self.world.count("failures taken back together")
                if self.world.mutant("takes_back_one"):
                    taken = taken[:1]
                return Fail(f"step {error.key} failed", detail, delay_us, taken)
            return Fail(f"step {error.key} failed", detail)
        return Cancelled()

    def _finish(self, end: End) -> None:
        self._timer = None
        self._steps.clear()
        self._pauses.clear()
        self.end = end
        self.worker.dirty(self)

    # --- reports -----------------------------------------------------------------------------------------------------

    def take_report(self) -> ReportItem | None:
        if self.in_flight is not None or self.gone or not self.has_news:
            return None
        end = self.end
        entries = self.entries
        if isinstance(end, Complete | Fail | Cancelled | Block):
            entries = [entry for entry in entries if isinstance(entry, StepDone)]
        number = 0
        if entries or end is not None:
            self.number += 1
            number = self.number
        self.entries = []
        self.wants_rows = False
        item = ReportItem(self.claimed.id, self.claimed.attempt, number, self.fetched, entries, end)
        self.in_flight = item
        return item

    def on_reply(self, reply: ItemReply) -> None:
        item, self.in_flight = self.in_flight, None
        if self.gone or item is None or item.attempt != self.claimed.attempt:
            return
        if reply.lost:
            self.drop()
            return
        assert reply.problem is None, reply.problem
        if reply.ended:
            if isinstance(item.end, Suspend) and item.end.parked:
                self.end = None
                self.wants_rows = False
                self.worker.park(self)
            else:
                self.drop()
            return
        self.ours_until_us = 1 << 62
        unsure, self._unsure = self._unsure, []
        for ask in unsure:
            self.restart(ask)
        if item.end is not None:
            self.end = None
            if not isinstance(item.end, Suspend):
                if isinstance(item.end, Release):
                    self.drop()
                else:
                    self._finish(Cancelled())
                return
            self.world.count("suspends refused")
        rows = merge(item, reply)
        held, self._held_rows = self._held_rows, ()
        if held:
            rows = [*held, *rows]
        self.feed(rows, more=reply.more)

    def release(self) -> None:
        if self.end is None and not self.gone:
            self._finish(Release())

    def drop(self) -> None:
        if self.gone:
            return
        self.worker.log("drops", self.claimed.id, self.claimed.attempt)
        self.gone = True
        self._timer = None
        self._steps.clear()
        self._pauses.clear()
        self.worker.forget(self)

    @property
    def has_news(self) -> bool:
        return bool(self.entries or self.end is not None or self.wants_rows)

    @property
    def is_busy(self) -> bool:
        return bool(self._steps)


def merge(item: ReportItem, reply: ItemReply) -> list[Row]:
    """All rows that a reply stands for, in order: those it carries, and the item's own steps and timers."""
    if reply.more:
        return reply.rows
    own: list[Row] = []
    for entry, seq in zip(item.entries, reply.accepted, strict=False):
        if not seq:
            continue
        if isinstance(entry, StepDone):
            kind = Kind.STEP if entry.last else Kind.STEP_FAILED
            own.append(
                Row(
                    seq,
                    reply.at_us,
                    kind,
                    item.attempt,
                    entry.key,
                    entry.name,
                    None,
                    entry.ok,
                    entry.value,
                    entry.started_at_us,
                    entry.tries,
                )
            )
        elif isinstance(entry, TimerFired):
            own.append(Row(seq, reply.at_us, Kind.TIMER, item.attempt, entry.key))
    return sorted([*reply.rows, *own], key=lambda row: row.seq)
