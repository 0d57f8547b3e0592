"""If the server is unreachable, running steps continue, and new steps wait while the lease is in doubt."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import math
import os
import socket
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import uuid4

from msgspec import structs

from perdure.sdk.replay.calls import DurableCall
from perdure.sdk.replay.self_test import check_python
from perdure.sdk.transcripts import TranscriptReader
from perdure.sdk.transports.transport import Transport
from perdure.sdk.workers import reports
from perdure.sdk.workers.code_checks import warn_of_code
from perdure.sdk.workers.lease import Lease
from perdure.sdk.workers.long_calls import LongCalls
from perdure.sdk.workers.plain_agents import refuse_plain_agents
from perdure.sdk.workers.reporter import BACKOFF_SECONDS_MAX, Reporter, fall_back, outliving
from perdure.sdk.workers.runner import Runner
from perdure.sdk.workers.step_threads import StepThreads
from perdure.sdk.workers.unstarted import Unstarted, UnstartedRunner
from perdure.sdk.workflows.logs import keep_logs
from perdure.sdk.workflows.workflow import Registry, Workflow
from perdure.wire.base.errors import BadValue, LeaseLost, PerdureError
from perdure.wire.runs.requests import (
    WORKER_PROTOCOL,
    Claimed,
    ClaimRequest,
    DrainRequest,
    ItemReply,
    RegisterRequest,
    ReportRequest,
    StepInFlight,
)

logger = logging.getLogger("perdure.worker")


class TaskWatcher(Protocol):
    def claimed(self, execution_id: str) -> None: ...

    def body_begins(self, execution_id: str, attempt: int, key: str, started_at_us: int) -> None: ...


PARKED_MAX = 5_000
POLL_SECONDS = 20.0
FULL_SECONDS = 0.25
OURS_SECONDS = 0.75
"""Seconds during which unacknowledged work is surely this worker's. The server waits longer."""
REPORT_CHECK_SECONDS = 0.25


class Worker:
    """A worker runs at most `capacity` executions at once; suspended executions do not count. An embedded worker with
    its own store has no `lease`."""

    def __init__(
        self,
        transport: Transport,
        registry: Registry,
        *,
        deployment: str = "default",
        capacity: int = 500,
        lease: Lease | None = None,
        grace_seconds: float = 25.0,
        parks: bool = True,
    ) -> None:
        self.transport = transport
        self.registry = registry
        self.deployment = deployment
        self.capacity = capacity
        self.lease = lease
        self.grace_seconds = grace_seconds
        self.parks = parks
        self.transcripts = TranscriptReader(transport)
        self.threads = StepThreads(capacity)
        self.outside = contextvars.Context()
        """The context variables around `start`."""
        self.watcher: TaskWatcher | None = None
        self.unbegun = Unstarted()
        self.id = ""
        self.loop: asyncio.AbstractEventLoop
        self.ends_with_steps = False
        """Whether the server takes an outcome and the end returning that outcome in one report."""
        self._epoch = ""
        self._running: dict[str, Runner] = {}
        self._parked: OrderedDict[str, Runner] = OrderedDict()
        self._strangers: dict[tuple[str, int], int] = {}
        """Attempts named by a beat that never came, with the last claim sent at the first such beat."""
        self._claims_sent = 0
        self._claims_answered = 0
        self._claim_number = 0
        self._held_back: list[tuple[Runner, DurableCall]] = []
        self._room = asyncio.Event()
        self._quiet = asyncio.Event()
        self._claiming: asyncio.Task[None] | None = None
        self._draining = False
        self._registering: asyncio.Task[None] | None = None
        self._looking = False
        self._long_calls = LongCalls()
        self.reporter = Reporter(self)

    async def start(self, *, wait: bool = False) -> None:
        """Raises the server's refusals, `Unavailable` without `wait`, and `UnsupportedPython`."""
        check_python()
        self.loop = asyncio.get_running_loop()
        self.outside = contextvars.copy_context()
        _collect_less()
        refuse_plain_agents()
        warn_of_code(self.registry)
        if wait:
            await self._register_anew(refusals=True)
        else:
            await self._register(str(uuid4()))
        keep_logs()
        self._claiming = self.loop.create_task(self._claim(), name="perdure-claim")

    async def _register(self, worker_id: str) -> None:
        self.id = worker_id
        workflows, queues, schedules, triggers = self.registry.specs()
        request = RegisterRequest(
            worker_id=self.id,
            deployment_id=self.deployment,
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            workflows=workflows,
            queues=queues,
            capacity=self.capacity,
            embedded=self.lease is None,
            schedules=schedules,
            triggers=triggers,
            protocol=WORKER_PROTOCOL,
            host=socket.gethostname() or None,
            pid=os.getpid(),
        )
        sent = 0.0 if self.lease is None else self.lease.now()
        try:
            reply = await self.transport.call(request)
        except BadValue:
            # A server of an earlier release refuses what only people need.
            plain = [structs.replace(one, description=None) for one in workflows]
            reply = await self.transport.call(structs.replace(request, workflows=plain, host=None, pid=None))
        self.ends_with_steps = reply.ends_with_steps
        if reply.epoch != self._epoch:
            self._epoch = reply.epoch
            self.transcripts.forget()
        if self.lease is not None:
            self.lease.begin(self, self.id, reply, sent)

    async def add(self, workflow: Workflow[Any, Any], *, replace: bool = False) -> None:
        if replace:
            self.registry.workflows.pop(workflow.name, None)
        self.registry.add(workflow)
        warn_of_code([workflow])
        try:
            await self._register(self.id)
        except LeaseLost:
            await self.start_over()

    async def drain(self) -> None:
        """Stop claiming, let steps end within the grace period, hand the rest back."""
        if self._draining:
            return
        self._draining = True
        if self._claiming is not None:
            self._claiming.cancel()
            await asyncio.gather(self._claiming, return_exceptions=True)
            with contextlib.suppress(PerdureError, TimeoutError):
                # Ends the open claim at the server, which would get what this worker releases.
                async with asyncio.timeout(1.0):
                    last = f"{self._claim_number + 1:012d}"
                    await self.transport.call(ClaimRequest(self.id, self._epoch, last, capacity=0, wait_seconds=0.0))
        for runner in list(self._running.values()):
            runner.release_when_quiet()
        self._check_quiet()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.grace_seconds):
                await self._quiet.wait()
        for runner in list(self._running.values()):
            runner.release()
        self._check_quiet()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self._quiet.wait()
        for runner in list(self._running.values()):
            runner.drop()
        for runner in list(self._parked.values()):
            runner.drop()
        await self.reporter.close()
        if self.lease is not None:
            await self.lease.end()
        with contextlib.suppress(PerdureError):
            await self.transport.call(DrainRequest(self.id, self._epoch))
        self.threads.shutdown()

    @property
    def epoch(self) -> str:
        return self._epoch

    def runner(self, execution_id: str) -> Runner | None:
        return self._running.get(execution_id)

    @property
    def running(self) -> int:
        return len(self._running)

    def _begin(self, items: Sequence[Claimed], ours_until: float) -> None:
        """Separate from `_claim`, whose names would keep the runners during the wait for the next claim."""
        now = 0.0 if self.lease is None else self.lease.now()
        taken = [self._take(claimed, now, ours_until) for claimed in items]
        runners = [runner for runner in taken if runner is not None]
        if self.lease is not None:
            self.unbegun.add(runners)
        for runner in runners:
            with outliving(runner):
                runner.begin()

    async def _claim(self) -> None:
        """A claim also acknowledges the work of the claim before, so claims leave at once, even without room. After a
        lost reply the worker repeats the claim under the same id."""
        pause = 0.1
        arrived: str | None = None
        while not self._draining:
            if self.lease is not None and not self.lease.is_good():
                await self.lease.wait_good()
            room = self.capacity - len(self._running)
            if room <= 0:
                # Full: ask only which journals have grown, and claim when there is room.
                self._room.clear()
                if arrived is None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(FULL_SECONDS):
                            await self._room.wait()
                room = max(self.capacity - len(self._running), 0)
            worker_id = self.id
            sent = 0.0 if self.lease is None else self.lease.now()
            self._claims_sent += 1
            number = self._claims_sent
            try:
                reply = await self.transport.call(
                    ClaimRequest(
                        worker_id,
                        self._epoch,
                        claim_id=(claim_id := f"{self._claim_number:012d}"),
                        capacity=room,
                        wait_seconds=POLL_SECONDS if room else 0.0,
                        arrived=arrived,
                    )
                )
            except LeaseLost:
                arrived = None
                if worker_id == self.id:
                    await self.start_over()
                continue
            except Exception as error:
                if not isinstance(error, PerdureError):
                    logger.error("A claim failed.", exc_info=error)
                await fall_back("Claim", pause, error)
                pause = min(pause * 2, BACKOFF_SECONDS_MAX)
                continue
            pause = 0.1
            arrived = None
            if worker_id != self.id:
                continue  # an earlier registration has lost its work
            self._claim_number += 1  # An answer ends the claim, even an empty one: its batch may be gone.
            if room:
                self._claims_answered = number
            if reply.items:
                arrived = None if reply.held_us is None else claim_id
                ours_until = math.inf if reply.held_us is None else sent + reply.held_us / 1e6 + OURS_SECONDS
                self._begin(reply.items, ours_until)
            for execution_id in reply.news:
                self.fetch_rows(execution_id)

    def _take(self, claimed: Claimed, now: float, ours_until: float) -> Runner | None:
        """Returns None if the execution is here already."""
        if self.watcher is not None:
            self.watcher.claimed(claimed.id)
        known = self._running.get(claimed.id)
        if known is not None:
            if known.claimed.attempt >= claimed.attempt:
                return None  # the same delivery twice
            known.drop()
        runner = self._parked.pop(claimed.id, None)
        if runner is not None:
            runner.again(claimed, now, ours_until)
        else:
            runner = Runner(self, claimed, now, ours_until)
        if not self._looking:  # it was idle, perhaps with this execution parked
            self._looking = True
            self.loop.call_later(REPORT_CHECK_SECONDS, self._check_reports)
        self._running[claimed.id] = runner
        return runner

    def _check_reports(self) -> None:
        self._long_calls.look(self._running.values(), self.loop.time())
        for runner in self._running.values():
            if runner.has_report and runner.in_flight is None and not self.reporter.will_report(runner):
                self.reporter.dirty(runner)
        self._looking = bool(self._running)
        if self._looking:
            self.loop.call_later(REPORT_CHECK_SECONDS, self._check_reports)

    @property
    def in_flight(self) -> Sequence[StepInFlight]:
        """Steps that have run for half a second, as of the last look. Thread-safe."""
        return self._long_calls.in_flight if self._running else ()

    def fetch_rows(self, execution_id: str) -> None:
        runner = self._running.get(execution_id)
        if runner is not None:
            runner.wants_rows = True
            self.reporter.dirty(runner)

    def park(self, runner: Runner) -> None:
        self._running.pop(runner.claimed.id, None)
        if self._draining:
            runner.drop()
        else:
            runner.parked()
            self._parked[runner.claimed.id] = runner
            if len(self._parked) > PARKED_MAX:
                self._parked.popitem(last=False)[1].drop()
        self._freed()

    def forget(self, runner: Runner) -> None:
        id = runner.claimed.id
        if self._running.get(id) is runner:
            del self._running[id]
        if self._parked.get(id) is runner:
            del self._parked[id]
        self.reporter.forget(runner)
        self._freed()

    def _freed(self) -> None:
        self._room.set()
        if self._draining:
            self._check_quiet()

    def _check_quiet(self) -> None:
        if not self._running and self.reporter.is_idle:
            self._quiet.set()

    def may_start_steps(self) -> bool:
        return not self._draining and (self.lease is None or self.lease.is_good())

    def hold_back(self, runner: Runner, call: DurableCall) -> None:
        if self._draining:
            self.loop.call_soon(runner.release_when_quiet)
        else:
            self._held_back.append((runner, call))

    def on_kept(self, runners: Sequence[UnstartedRunner], replies: Sequence[ItemReply]) -> None:
        """The lease's thread has acknowledged these runners."""
        for runner, reply in zip(runners, replies, strict=True):
            if reply.lost:
                runner.drop()
            elif reply.problem is None and not runner.gone:
                runner.acknowledged()

    def on_lease(self) -> None:
        held, self._held_back = self._held_back, []
        for runner, call in held:
            runner.restart_step(call)

    def on_beat(self, holding: Sequence[tuple[str, int, int]], sent: float) -> None:
        """`holding` is the server's list of executions held here, asked at `sent` on the lease's clock.

        Unknown executions may be under way, so the worker hands them back only after the answer to a claim sent after
        the first such beat.
        """
        held = {id: (attempt, seq) for id, attempt, seq in holding}
        for id, runner in list(self._running.items()):
            attempt, seq = held.get(id, (0, 0))
            if not attempt:
                if runner.taken_at <= sent and not runner.is_ending:
                    runner.drop()
            elif attempt > runner.claimed.attempt:
                runner.drop()
            elif seq > runner.fetched and runner.in_flight is None:
                self.fetch_rows(id)
        seen, self._strangers = self._strangers, {}
        for id, (attempt, _) in held.items():
            if id not in self._running:
                last = seen.get((id, attempt), self._claims_sent)
                self._strangers[id, attempt] = last
                if self._claims_answered > last:
                    self.loop.create_task(self._hand_back(id, attempt))

    async def _hand_back(self, execution_id: str, attempt: int) -> None:
        """A failure is harmless: the next beat repeats the hand-back."""
        logger.warning("Execution %s, attempt %d, never arrived here; it is handed back.", execution_id, attempt)
        item = reports.hand_back(execution_id, attempt)
        with contextlib.suppress(PerdureError):
            await self.transport.call(ReportRequest(self.id, self._epoch, [item]))

    def drop(self, runners: Sequence[UnstartedRunner]) -> None:
        for runner in runners:
            runner.drop()

    async def start_over(self) -> None:
        if self._registering is not None:
            await asyncio.shield(self._registering)
            return
        self._registering = self.loop.create_task(self._start_over())
        try:
            await asyncio.shield(self._registering)
        finally:
            self._registering = None

    async def _start_over(self) -> None:
        lost = DrainRequest(self.id, self._epoch)
        logger.warning("Worker %s lost its lease; it drops its executions and registers again.", self.id)
        for runner in [*self._running.values(), *self._parked.values()]:
            runner.drop()
        self._held_back.clear()
        self._strangers.clear()
        await self._register_anew(refusals=False)
        # The server took this process for dead. After this drain its losses do not count towards POISONED.
        with contextlib.suppress(PerdureError):
            await self.transport.call(lost)

    async def _register_anew(self, *, refusals: bool) -> None:
        """Raises refusals only at the start. Later the key or the server may be repaired."""
        pause = 0.1
        while not self._draining:
            try:
                await self._register(str(uuid4()))
                return
            except Exception as error:  # without a registration the worker would claim nothing any more
                if refusals and not (isinstance(error, PerdureError) and error.retryable):
                    raise
                if not isinstance(error, PerdureError):
                    logger.error("A registration failed.", exc_info=error)
                await fall_back("Registration", pause, error)
                pause = min(pause * 2, BACKOFF_SECONDS_MAX)


def _collect_less() -> None:
    """Makes garbage collections rarer: with thousands of executions in memory, collections took a sixth of all time. A
    user's own thresholds stay."""
    if gc.get_threshold()[0] in (700, 2_000):
        gc.set_threshold(50_000, 20, 100)
