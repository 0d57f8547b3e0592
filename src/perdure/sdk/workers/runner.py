"""An execution runs in callbacks of the worker's event loop; only steps are tasks. Workflow code sees an outcome only
after the reply to its report, when the outcome is recorded. If the code merely returns the outcome, the same report
holds the end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from perdure.sdk.base.errors import Outdated
from perdure.sdk.base.interrupts import is_interrupt
from perdure.sdk.replay.calls import (
    AGAIN,
    DONE,
    FORKED,
    RETRIED,
    STARTING,
    STEP,
    STEP_FAILED,
    SUSPENDED,
    TIMER,
    TRANSCRIPT,
    WOKEN,
    DurableCall,
    Effects,
)
from perdure.sdk.replay.eviction import let_go
from perdure.sdk.replay.machine import Machine
from perdure.sdk.transcripts import Unread
from perdure.sdk.workers import reports, run_ends
from perdure.sdk.workers.long_calls import timer_calls
from perdure.sdk.workers.run_ends import is_over, only_starts, rest, suspension
from perdure.sdk.workers.step_runner import StepRunner
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.logs import log_findings
from perdure.sdk.workflows.steps import step_result
from perdure.wire.agents.transcripts import Transcript
from perdure.wire.base.errors import BadValue
from perdure.wire.base.records import NULL, Kind
from perdure.wire.runs.executions import LogLine, Row
from perdure.wire.runs.requests import (
    Cancelled,
    Claimed,
    CloseWait,
    Emitted,
    End,
    Entry,
    Fail,
    Hold,
    ItemReply,
    OpenCall,
    Release,
    ReportItem,
    StartChild,
    StepDone,
    Suspend,
    TimerFired,
)

if TYPE_CHECKING:
    from perdure.sdk.workers.unstarted import Unstarted
    from perdure.sdk.workers.worker import Worker
    from perdure.sdk.workflows.workflow import Workflow

logger = logging.getLogger("perdure.worker")


class Runner:
    __slots__ = (
        "_fired",
        "_held_back",
        "_readings",
        "_releasing",
        "_rows_at",
        "_timer",
        "_unread",
        "changed_inputs",
        "claimed",
        "context",
        "end",
        "entries",
        "fetched",
        "gone",
        "in_flight",
        "listed",
        "machine",
        "number",
        "open_calls",
        "ours_until",
        "step_runner",
        "taken_at",
        "unbegun",
        "wants_rows",
        "worker",
    )

    def __init__(self, worker: Worker, claimed: Claimed, taken_at: float, ours_until: float) -> None:
        self.worker = worker
        self.claimed = claimed
        self.taken_at = taken_at
        self.ours_until = ours_until
        """The end of sure ownership on the lease's clock. Later steps wait for the reply to a report."""
        self.unbegun: Unstarted | None = None
        """Set while another worker may begin the execution instead."""
        self.machine: Machine | None = None
        self.context: Context | None = None
        self.number = 0
        self.fetched = 0
        self.entries: list[Entry] = []
        self.end: End | None = None
        self.wants_rows = False
        self.in_flight: ReportItem | None = None
        self.gone = False
        self._releasing = False
        self.step_runner = StepRunner(self)
        self._held_back: Sequence[Row] = ()
        self._timer: tuple[str, asyncio.TimerHandle] | None = None
        self._fired: dict[str, None] = {}
        """Reported timers without rows yet. An empty set is three times as large."""
        self._rows_at = 0.0
        self._readings: dict[int, Transcript] = {}
        self._unread: Unread | None = None
        self.changed_inputs = 0
        self.listed: tuple[str, ...] = ()
        """The keys that the server lists as pending."""
        self.open_calls: list[OpenCall] | None = None

    def begin(self) -> None:
        claimed = self.claimed
        if self.machine is not None and self.fetched != claimed.base:
            self._forget_machine()
        if claimed.base and self.machine is None:
            # The rows before `base` left memory: read everything.
            self.wants_rows = True
            self.worker.reporter.dirty(self)
        elif claimed.ack_first:
            self._held_back = claimed.rows
            self.fetched = claimed.rows[-1].seq if claimed.rows else self.fetched
            self.wants_rows = True
            self.worker.reporter.dirty(self)
        else:
            self.feed(claimed.rows, more=claimed.more)
        if len(claimed.rows) > 1:  # the machine has them, and forgets them once consumed
            self._keep(msgspec.structs.replace(claimed, rows=[]))

    def parked(self) -> None:
        """Drop everything that the next claim brings again. Input, tags and rows would keep a whole reply in memory."""
        claimed = self.claimed
        tags = None if claimed.tags is None else claimed.tags.copy()
        self._keep(msgspec.structs.replace(claimed, payload=NULL, tags=tags, rows=[]))

    def _keep(self, claimed: Claimed) -> None:
        self.claimed = claimed
        if self.context is not None:
            self.context.claim = claimed

    def again(self, claimed: Claimed, taken_at: float, ours_until: float) -> None:
        self._keep(claimed)
        if self.context is not None:
            self.context.unlimited = False  # there may be a budget since
        self.taken_at = taken_at
        self.ours_until = ours_until
        self.in_flight = None
        self.number = 0
        self.listed = ()
        self.open_calls = None
        self.end = None
        self.entries = []
        self.step_runner.forget_failed()
        self._fired.clear()

    def _forget_machine(self) -> None:
        if self.machine is not None:
            self.machine.close()
        self.machine = self.context = None
        self.fetched = 0
        self._readings.clear()
        if self._unread is not None:
            self._unread.forget()

    def _make_machine(self) -> Machine | None:
        claimed = self.claimed
        workflow = self.workflow
        if workflow is None:
            self._finish(run_ends.unknown(claimed.workflow_id))
            return None
        try:
            value = workflow.read_input(bytes(claimed.payload))
        except BaseException as error:  # a bad input, an unreadable hint, or a user's validator
            if is_interrupt(error):
                raise
            # A bad input has no traceback: the code has not begun.
            self._finish(run_ends.failed(self, error, with_detail=not isinstance(error, BadValue)))
            return None
        seed = claimed.seed_id or claimed.id
        machine = Machine(lambda: workflow.begin(context, value), seed=seed, strict=workflow.strict)
        context = self.context = Context(
            machine, claimed, self._readings, self.worker.reporter.notify_emitted, self.worker.outside
        )
        return machine

    def feed(self, rows: Sequence[Row], *, more: bool = False, replay: bool | None = None) -> None:
        if self.gone or self.end is not None:
            return
        speaks_of_transcripts = self._unread is not None and self._unread.waits
        if rows:
            self.fetched = rows[-1].seq
            self._rows_at = self.worker.loop.time()
            for row in rows:
                if row.kind is STEP_FAILED and row.key is not None:
                    self.step_runner.note_failure(row)
                elif row.kind is STEP or row.kind is TIMER:
                    if self.entries or self.step_runner.has(row.key):  # type: ignore[arg-type]  # it has a key
                        self._given(row)
                elif (row.kind is RETRIED or row.kind is WOKEN) and row.key is not None:
                    self.step_runner.note_act(row.key)
                elif row.kind is FORKED:
                    self.step_runner.held = None  # fresh tries
                elif row.kind is TRANSCRIPT:
                    speaks_of_transcripts = True
        if speaks_of_transcripts:
            if self._unread is None:
                self._unread = Unread(self.worker.transcripts, self._readings, self._give, self.broke)
            if self._unread.holds(rows, more, replay):
                return
        self._give(rows, more, replay)

    def _given(self, row: Row) -> None:
        """The journal has an outcome, perhaps from an act. The worker's own outcome must not follow."""
        assert row.key is not None
        if row.kind is STEP:
            self.step_runner.give_up(row.key)
        ours = StepDone if row.kind is STEP else TimerFired
        self.entries = [one for one in self.entries if not (type(one) is ours and one.key == row.key)]

    def _give(self, rows: Sequence[Row], more: bool, replay: bool | None) -> None:
        if self.gone or self.end is not None:
            return
        unbegun = self.unbegun
        if unbegun is None:
            self._advance(rows, more, replay)
        elif unbegun.enter(self):
            try:
                self._advance(rows, more, replay)
            finally:
                unbegun.leave(self)
        else:
            self.drop()

    def may_begin(self) -> bool:
        """Asked before the first step, and before the first report with more than an acknowledgement."""
        unbegun, self.unbegun = self.unbegun, None
        if unbegun is None or unbegun.begin(self):
            return True
        self.drop()
        return False

    def _advance(self, rows: Sequence[Row], more: bool, replay: bool | None) -> None:
        if self.machine is None:
            self.machine = self._make_machine()
            if self.machine is None:
                return
        try:
            effects = self.machine.advance(rows, more=more, replay=replay)
        except Outdated:
            self._forget_machine()
            self.wants_rows = True
            self.worker.reporter.dirty(self)
            return
        except BaseException as error:
            if is_interrupt(error):
                raise
            self._finish(run_ends.stopped(self, error))
            return
        if self.machine.has_findings:
            self.changed_inputs += log_findings(self.context, self.machine)
        if more:
            self.wants_rows = True
            self.worker.reporter.dirty(self)
            return
        self._apply(effects)

    def _apply(self, effects: Effects) -> None:
        state = effects.state
        if state is AGAIN:
            self.worker.loop.call_soon(self.feed, ())
            return
        for call in effects.abandoned:
            self._abandon(call)
        for call in effects.started:
            if call.kind is STEP:
                self.step_runner.start(call)
            else:
                self.entries.append(call.request)  # its wire entry
        if self.step_runner.let_go is not None:
            self.step_runner.start_let_go(self.wanted())
        if state is DONE:
            self._finish(run_ends.outcome(self))
            return
        self._set_timer(effects.timer)
        if state is SUSPENDED or (state is STARTING and only_starts(self.entries)):
            self._rest(suspension(self, effects.timer, parked=self.worker.parks))
        elif self.step_runner.pauses or self.step_runner.held:
            self._rest(rest(self, effects.timer))
        if self.has_report:
            self.worker.reporter.dirty(self)

    def wanted(self) -> list[DurableCall]:
        assert self.machine is not None
        return [call for call in self.machine.outstanding() if call.kind not in (Kind.EVENT, Kind.RESUME)]

    def _abandon(self, call: DurableCall) -> None:
        if call.kind is STEP:
            self.step_runner.give_up(call.key)
        elif call.kind in (Kind.EVENT, Kind.RESUME):
            self.entries.append(CloseWait(call.key))

    def now_us(self) -> int:
        """The last row's time, plus the time since the row came."""
        assert self.machine is not None
        return self.machine.now_us + int((self.worker.loop.time() - self._rows_at) * 1_000_000)

    def _set_timer(self, timer: tuple[str, int] | None) -> None:
        if self._timer is not None:
            self._stop_timer()
        if timer is not None and timer[0] not in self._fired:
            delay = max(0.0, (timer[1] - self.now_us()) / 1_000_000)
            self._timer = (timer[0], self.worker.loop.call_later(delay, self._timer_due, timer))

    def _timer_due(self, timer: tuple[str, int]) -> None:
        self._timer = None
        if not self.gone and self.end is None:
            self._fired[timer[0]] = None
            self.entries.append(TimerFired(timer[0], timer[1]))
            self.worker.reporter.dirty(self)

    def _rest(self, end: Suspend | Hold | None) -> None:
        if end is None:
            return
        self._stop_timer()
        assert self.machine is not None
        names_timer = type(end) is Suspend and end.timer is not None and end.timer[0] is not None
        if self.listed or len(self.machine.loop.timers) > names_timer:  # the server knows a timer that the end names
            self.list_calls(timer_calls(self.machine))
        self.end = end

    def list_calls(self, calls: list[OpenCall]) -> None:
        """Tell the server about changed open calls."""
        keys = tuple(call.key for call in calls)
        if keys != self.listed:
            self.listed = keys
            self.open_calls = calls

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer[1].cancel()
            self._timer = None

    def step_done(self, done: StepDone, call: DurableCall) -> None:
        self.entries.append(done)
        machine = self.machine
        if machine is not None and machine.may_only_return and done.ok and self._only_returns(machine, call):
            assert call.read is not None
            end = run_ends.returned(self, call.read[1])
            if end is not None:
                self._finish(end)
        self.worker.reporter.dirty(self)
        if self._releasing:
            self.release_when_quiet()

    def _only_returns(self, machine: Machine, call: DurableCall) -> bool:
        """Whether the code merely returns the outcome of the step `call`."""
        is_alone = len(self.entries) == 1 and self.in_flight is None and not self.step_runner.running
        return (
            is_alone
            and call.read is not None
            and self.worker.ends_with_steps
            and not (self.gone or self.end or self.wants_rows or self._releasing or self._held_back or self._unread)
            and machine.only_returns(call, step_result.__code__)
            and (self.context is None or self.context.outbox.fits)
        )

    def _return(self, item: ReportItem, at_us: int) -> None:
        """Let the code return the step whose outcome is recorded with the end."""
        assert self.machine is not None
        try:
            self.machine.advance(reports.merge(item, ItemReply(accepted=[item.seen + 1], at_us=at_us)))
        except BaseException as error:
            if is_interrupt(error):
                raise
            logger.exception("Execution %s failed after its end.", self.claimed.id)

    def without_end(self, item: ReportItem) -> ReportItem:
        """The step alone, for an item with a step and the end returning its outcome: the server, perhaps of an earlier
        release, refuses both together."""
        if not reports.returns_step(item):
            return item
        step = msgspec.structs.replace(item, end=None)
        if item is self.in_flight:
            self.in_flight, self.end = step, None
        return step

    def _finish(self, end: End) -> None:
        self._stop_timer()
        self.step_runner.stop()
        self.end = end
        self.worker.reporter.dirty(self)

    def take_report(self) -> ReportItem | None:
        if self.in_flight is not None or self.gone:
            return None
        context = self.context
        logs: list[LogLine] = []
        stream: list[Emitted] = []
        progress: Raw | None = None
        if context is not None and (context.logs or context.pending_progress):
            logs = context.logs[:]
            del context.logs[: len(logs)]  # in place: a thread may be adding a line
            if context.pending_progress:
                progress = context.pending_progress.pop()
        if context is not None and context.outbox:
            stream = context.outbox.take(last=self.end is not None)
        open_calls, self.open_calls = self.open_calls, None
        is_bare = not (self.entries or logs or stream)
        is_bare = is_bare and self.end is None and progress is None and open_calls is None
        if is_bare and not self.wants_rows:
            return None
        if self.unbegun is not None and not is_bare and not self.may_begin():
            return None
        entries, rest, end = reports.leaving(self.entries, self.end)
        if rest and (type(self.end) is Suspend or type(self.end) is Hold) and not is_over(self.end):
            self.end = None  # or after the reply
        number = 0
        if entries or end is not None or stream or progress is not None:
            self.number += 1
            number = self.number
        self.entries = rest
        self.wants_rows = False
        claimed = self.claimed
        item = ReportItem(
            claimed.id,
            claimed.attempt,
            number,
            self.fetched,
            entries=entries,
            end=end,
            logs=logs,
            progress=progress,
            child=end is not None and claimed.parent_execution_id is not None,
            stream=stream,
            stream_of=claimed.root_execution_id if stream else None,
            changed_inputs=self.changed_inputs if logs else 0,
            open_calls=open_calls,
        )
        if logs:
            self.changed_inputs = 0
        self.in_flight = item
        return item

    def on_reply(self, item: ReportItem, reply: ItemReply) -> None:
        if item is not self.in_flight:
            return
        self.in_flight = None
        if self.gone:
            return
        if reply.lost:
            self.drop()
            return
        if reply.problem is not None:
            self._refused(item, reply)
            return
        if reply.ended:
            if type(item.end) is Suspend and item.end.parked and self._waits_on(item, reply):
                self.end = None
                self.wants_rows = False
                self.worker.park(self)
            else:
                if reports.returns_step(item):
                    self._return(item, reply.at_us)
                self.drop()
            return
        self.acknowledged()
        if item.end is not None:
            self.end = None
            if type(item.end) is Release:
                self.drop()
                return
            if is_over(item.end) and not reports.returns_step(item):  # else the code sees other rows first
                self._finish(Cancelled())  # a cancel came before it
                return
        rows = reports.merge(item, reply)
        held, self._held_back = self._held_back, ()
        if held:
            rows = [*held, *rows]
            self.fetched = held[0].seq - 1
        self.feed(rows, more=reply.more)

    def _waits_on(self, item: ReportItem, reply: ItemReply) -> bool:
        """Show the code the children started by this item. If the code does more than wait for the children, the
        execution continues at the next claim."""
        rows = reports.merge(item, reply)
        if not rows or not any(type(entry) is StartChild for entry in item.entries):
            return True
        assert self.machine is not None
        self.fetched = rows[-1].seq
        self._rows_at = self.worker.loop.time()
        return self.machine.only_waits(rows)

    def acknowledged(self) -> None:
        """The server no longer takes the execution back."""
        if self.ours_until != math.inf:
            self.ours_until = math.inf
            self.step_runner.go_on()

    def _refused(self, item: ReportItem, reply: ItemReply) -> None:
        assert reply.problem is not None
        logger.error("Execution %s: the server refused a report: %s", self.claimed.id, reply.problem.error)
        if type(item.end) is Fail or type(item.end) is Hold:
            self.drop()  # The failure itself is refused: the lease runs out and another worker tries.
            return
        self._finish(run_ends.refused(self, reply.problem))

    def release_when_quiet(self) -> None:
        self._releasing = True
        if not self.step_runner.running:
            self.release()

    def release(self) -> None:
        if self.end is None and not self.gone:
            self._finish(Release())

    def drop(self) -> None:
        if self.gone:
            return
        self.gone = True
        if self.unbegun is not None:
            self.unbegun.discard(self)
            self.unbegun = None
        if self._unread is not None:
            self._unread.forget()
            self._unread = None
        self._stop_timer()
        self.step_runner.close()
        if self.machine is not None:
            self.machine.close()
            if self.machine.error is not None:
                let_go(self.machine.error)
        self.worker.forget(self)

    def restart_step(self, call: DurableCall) -> None:
        if self.gone or self.end is not None or self.machine is None:
            return
        if any(one is call for one in self.machine.outstanding()):
            self.step_runner.start(call)

    def broke(self, error: Exception) -> None:
        """The execution must not seem to run without a worker."""
        self.in_flight = None
        if self.end is None:
            self._finish(run_ends.failed(self, error))
        else:
            self.drop()

    @property
    def has_report(self) -> bool:
        return bool(
            self.entries
            or self.end is not None
            or self.wants_rows
            or self.open_calls is not None
            or (self.context is not None and (self.context.logs or self.context.pending_progress))
        )

    @property
    def has_emitted(self) -> bool:
        return self.context is not None and bool(self.context.outbox)

    @property
    def workflow(self) -> Workflow[Any, Any] | None:
        return self.worker.registry.workflows.get(self.claimed.workflow_id)

    @property
    def is_cancelling(self) -> bool:
        return self.machine is not None and self.machine.cancel_requested

    @property
    def is_ending(self) -> bool:
        """No step starts while the runner waits for the reply to the end."""
        return self.end is not None
