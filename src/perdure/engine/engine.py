"""Connects store, clock and notifier with the services, and distributes the store's hints."""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from perdure.engine.agents.approvals import Approvals
from perdure.engine.agents.budgets import Budgets
from perdure.engine.base.callers import Callers
from perdure.engine.base.clock import Clock, boottime_us
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Services
from perdure.engine.base.settings import EngineSettings
from perdure.engine.base.snapshots import Snapshots
from perdure.engine.clock.schedules import ScheduleService
from perdure.engine.clock.triggers import Triggers
from perdure.engine.insight.folding import Folding
from perdure.engine.insight.journals import Journals
from perdure.engine.insight.live import Live
from perdure.engine.insight.matches import Matches
from perdure.engine.insight.statistics import Statistics
from perdure.engine.insight.traces import Traces
from perdure.engine.loops import Housekeeping, Loop, Loops, Reaper, Timers
from perdure.engine.outside.dispatch import Dispatcher
from perdure.engine.outside.exports import Exports
from perdure.engine.outside.push import Push
from perdure.engine.outside.webhooks import Webhooks
from perdure.engine.people.accounts import Accounts
from perdure.engine.people.projects import Projects
from perdure.engine.people.signing import Signing
from perdure.engine.runs.beats import Beats
from perdure.engine.runs.claims import Claims
from perdure.engine.runs.events import Events
from perdure.engine.runs.executions import Executions
from perdure.engine.runs.fallback_poller import FallbackPoller
from perdure.engine.runs.streams import Streams
from perdure.engine.runs.workers import Workers
from perdure.engine.steering.acts import Acts
from perdure.engine.steering.bulk import BulkJobs
from perdure.engine.steering.pauses import Pauses
from perdure.store.base.interface import (
    Changed,
    Due,
    EndedElsewhere,
    EndNotice,
    Enqueued,
    Everything,
    Hint,
    KeyDeleted,
    Metric,
    Published,
    Ready,
    Store,
    Streamed,
    Trouble,
    UserChanged,
    Written,
)
from perdure.store.verbs.base import access
from perdure.store.verbs.runs import claims
from perdure.store.verbs.runs.fallback_poller import Awaited, poll_awaited
from perdure.wire.base.errors import Unavailable
from perdure.wire.base.operation import Operation

logger = logging.getLogger("perdure.engine")

R = TypeVar("R")


PROBE_BYTES = 256 << 10
"""The size of the write that proves health after a refused change."""
PROBE_SECONDS_MAX = 1.0
TIME_QUESTIONS = 3
"""The quickest answer counts."""


class Engine(Core):
    def __init__(self, store: Store, *, clock: Clock | None = None, settings: EngineSettings | None = None) -> None:
        super().__init__(store, clock=clock, settings=settings)
        self.signing = Signing(self)
        self.dispatcher = Dispatcher(self, self.signing)
        self.push = Push(self, self.dispatcher)
        self.claims = Claims(self)
        self.beats = Beats(self, self.claims)
        self.callers = Callers(self)
        self.executions = Executions(self, self.claims, self.push, self.callers)
        self.events = Events(self, self.callers)
        self.budgets = Budgets(self)
        self.pauses = Pauses(self, self.callers)
        self.projects = Projects(self)
        self.accounts = Accounts(self)
        self.schedules = ScheduleService(self)
        self.triggers = Triggers(self)
        self.bulk = BulkJobs(self, self.callers)
        self.traces = Traces(self)
        self.exports = Exports(self)
        self.approvals = Approvals(self, self.signing, self.callers)
        self.webhooks = Webhooks(self, self.signing)
        self.live = Live(self, self.executions)
        self.services = Services(
            self,
            [
                self.executions,
                Streams(self, self.executions),
                self.live,
                self.accounts,
                self.projects,
                self.schedules,
                self.triggers,
                self.webhooks,
                self.signing,
                self.bulk,
                self.budgets,
                self.traces,
                Journals(self),
                Acts(self, self.callers),
                Workers(self, self.beats),
                Statistics(self),
                Matches(self),
                self.pauses,
                self.approvals,
                self.push,
                self.events,
                self.claims,
                self.beats,
            ],
        )
        self.timers = Timers(self)
        self.reaper = Reaper(self, self.timers, self.beats)
        self.housekeeping = Housekeeping(self)
        self.folding = Folding(self)
        self.fallback_poller = FallbackPoller(self, self.claims, self.dispatcher)
        self.snapshots = Snapshots(self)
        self.key_deleted: Callable[[str | None], None] = lambda key_id: None
        """None: notifications of keys and users may have been lost."""
        self.user_changed: Callable[[str], None] = lambda user_id: None
        self._asking: set[asyncio.Task[None]] = set()
        self._trouble: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        store.listen(self._receive)

    def loops(self) -> list[Loop]:
        loops = [
            Loop("wake", self.timers.wake),
            Loop("bring forward", self.timers.bring_forward),
            Loop("overdue", self.timers.end_overdue),
            Loop("schedule", self.schedules.fire_due),
            Loop("trigger", self.triggers.take_due),
            Loop("reap", self.reaper.reap),
            Loop("push", self.dispatcher.look),
            Loop("pause", self.pauses.work),
            Loop("deliver", self.webhooks.deliver_due),
            Loop("bulk", self.bulk.work),
            Loop("budgets", self.budgets.look),
            Loop("prune", self.housekeeping.prune),
            Loop("alarm", self.housekeeping.alarm),
            Loop("catch up", self.housekeeping.catch_up),
            Loop("fields", self.housekeeping.fill_fields),
            Loop("fold", self.folding.fold),
        ]
        if not self.store.alone:
            loops += [Loop("look", self.fallback_poller.look), Loop("snapshots", self.snapshots.look)]
        if self.exports.wanted:
            loops.append(Loop("export", self.exports.look))
        return loops

    def serve(self, scope: Scope, op: Operation[R]) -> Awaitable[R]:
        return self.services.serve(scope, op)

    async def start(self) -> None:
        spans = [span for _ in range(TIME_QUESTIONS) if (span := await self.read_time()) is not None]
        self.clock.adjust(min(spans, key=lambda span: span.most_us - span.least_us, default=None))
        if self.store.alone:  # else they may belong to a running process
            await self.store.write(claims.end_embedded(now_us=self.clock.now_us()))
        self.absence.reaped_at_us = boottime_us() - self.lease_us  # absent until its first round
        runner = Loops(self.notifier)
        self._tasks = [asyncio.create_task(runner.run(loop), name=f"perdure-{loop.name}") for loop in self.loops()]
        self.store.exchange_hints()

    async def stop(self) -> None:
        self.closing = True
        self.notifier.notify_all()
        self.executions.close()
        self.live.close()
        tasks = [*self._tasks, *self._asking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.dispatcher.close()
        await self.webhooks.close()
        await self.outbound.close()
        await self.exports.close()
        self.accounts.close()
        await self.store.close()

    async def health(self) -> None:
        """Raises Unavailable if a write takes more than a second. After a refused change the write is large, because a
        small one may succeed on a full disk."""
        trouble, ballast = self._trouble, ""
        if trouble is not None:
            ballast = " " + secrets.token_hex(PROBE_BYTES // 2)  # not compressible
        try:
            async with asyncio.timeout(PROBE_SECONDS_MAX):
                written = await self.store.write(access.touch(now_us=self.clock.now_us(), ballast=ballast))
        except TimeoutError as error:
            raise Unavailable("The store did not commit within a second.") from error
        if trouble is None:
            return
        if not written or self._trouble is not trouble:
            raise Unavailable(f"The store has just refused a change ({self._trouble}).")
        self._trouble = None

    def wake_loops(self) -> None:
        for loop in ("wake", "overdue", "schedule", "trigger", "reap", "push", "pause"):
            self.notifier.notify(("loop", loop))

    def _receive(self, hints: Sequence[Hint]) -> None:
        """Notify each channel once per commit."""
        self.hints_received += 1
        ready: set[str] = set()
        brought: Counter[tuple[str, str | None]] = Counter()
        asked: dict[str, list[str]] = {}
        notifier = self.notifier
        for hint in hints:
            if isinstance(hint, Written):
                notifier.notify(("written", hint.execution_id))
            elif isinstance(hint, Ready):
                ready.add(hint.project_id)
                brought[hint.project_id, hint.deployment_id] += 1
                if hint.of_current and hint.deployment_id is not None:
                    self.claims.note_current(hint.project_id, hint.deployment_id)
            elif isinstance(hint, EndNotice):
                self.end_listeners.tell(hint)
                self.stats.end(hint.project_id, hint.workflow_id, hint.phase)
                if hint.workflow_id in self.schedules.waiting_workflows:
                    self.schedules.notify()
            elif isinstance(hint, Changed):
                self.claims.note_changed(hint.worker_id, hint.execution_id)
                self.dispatcher.changed(hint.worker_id, hint.execution_id)
            elif isinstance(hint, Due):
                notifier.notify(("loop", "overdue" if hint.ends else "wake"))
            elif isinstance(hint, Streamed):
                notifier.notify(("stream", hint.project_id, hint.root_id))
            elif isinstance(hint, Published):
                notifier.notify(("topic", hint.project_id, hint.topic))
                self.triggers.published(hint.project_id, hint.topic)
            elif isinstance(hint, Trouble):
                self._trouble = hint.why
            elif isinstance(hint, Metric):
                self.stats.count(hint.what, hint.amount)
            elif isinstance(hint, EndedElsewhere):
                if self.end_listeners.ended_elsewhere(hint.project_id, hint.execution_id):
                    asked.setdefault(hint.project_id, []).append(hint.execution_id)
            elif isinstance(hint, KeyDeleted):
                self.key_deleted(hint.key_id)
            elif isinstance(hint, UserChanged):
                self.user_changed(hint.user_id)
            elif isinstance(hint, Enqueued):
                self.webhooks.notify()
            elif isinstance(hint, Everything):
                self.key_deleted(None)
                notifier.notify(("loop", "look"))
                self.triggers.notify()
        if asked and not self.closing:
            self._ask_for_ends(asked)
        for project_id in ready:
            notifier.notify_one(("ready", project_id))
        for (project_id, deployment_id), amount in brought.items():
            self.claims.notify(project_id, deployment_id, amount)
            self.dispatcher.ready(project_id, deployment_id)

    def _ask_for_ends(self, asked: dict[str, list[str]]) -> None:
        async def ask() -> None:
            for project_id, ids in asked.items():
                found = await self.store.read(
                    poll_awaited(
                        awaited=Awaited(
                            ends={project_id: ids}, journals=(), topics={}, streams={}, workers=(), deployments={}
                        )
                    )
                )
                for _, finished in found.ended:
                    self.end_listeners.found(project_id, finished)

        task = asyncio.get_running_loop().create_task(ask(), name="perdure-ends")
        self._asking.add(task)
        task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("An end was not looked up; the fallback poller will: %s", task.exception())


class ReadingEngine(Engine):
    """It looks for changes of other processes on behalf of its waits, and has no duties."""

    def loops(self) -> list[Loop]:
        return [Loop("look", self.fallback_poller.look)]
