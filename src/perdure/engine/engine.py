"""Connects store, clock and notifier with the services, and distributes the store's hints."""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from perdure.engine.accounts import Accounts
from perdure.engine.addresses import Policy
from perdure.engine.approvals import Approvals
from perdure.engine.budgets import Budgets
from perdure.engine.claims import Claims
from perdure.engine.clock import Clock, SystemClock, TimeBounds, boottime_us
from perdure.engine.conversations import Conversations
from perdure.engine.definitions import Definitions
from perdure.engine.deployments import Deployments
from perdure.engine.dispatch import Dispatcher
from perdure.engine.end_listeners import EndListeners
from perdure.engine.events import Events
from perdure.engine.executions import Executions
from perdure.engine.exports import Exports
from perdure.engine.fallback_poller import FallbackPoller
from perdure.engine.loops import LOOPS, Loop, run_loop
from perdure.engine.notifier import Notifier
from perdure.engine.outbound import Outbound
from perdure.engine.projects import Projects
from perdure.engine.push import Push
from perdure.engine.schedules import Schedules
from perdure.engine.service import Scope, Services
from perdure.engine.sessions import Sessions
from perdure.engine.settings import EngineSettings
from perdure.engine.signing import Signing
from perdure.engine.slack import Slack
from perdure.engine.snapshots import Snapshots
from perdure.engine.stats import Stats
from perdure.engine.streams import Streams
from perdure.engine.traces import Traces
from perdure.engine.transcripts import Transcripts
from perdure.engine.triggers import Triggers
from perdure.engine.waits import OpenWaits
from perdure.engine.webhooks import Webhooks
from perdure.store.interface import (
    Changed,
    Due,
    Ended,
    EndedElsewhere,
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
from perdure.store.verbs import access, claims, queries, transitions
from perdure.store.verbs.fallback_poller import Awaited, poll_awaited
from perdure.wire.errors import Unavailable
from perdure.wire.operation import Operation

logger = logging.getLogger("perdure.engine")

R = TypeVar("R")


CHANGED_MAX = 10_000
"""Changed executions that are remembered per worker."""
OWN_LOOKS = 300.0
"""The factor for a wait's own queries where the fallback poller covers it. One query a minute was most of the
cost of hundreds of idle streams."""
PROBE_BYTES = 256 << 10
"""The size of the write that proves health after a refused change."""
TIME_QUESTIONS = 3
"""How often the start asks the database for its time. The quickest answer counts."""


def _width(span: TimeBounds) -> int:
    return span.most_us - span.least_us


class Engine:
    """One store, one clock and the services. The background loops run between `start` and `stop`."""

    def __init__(self, store: Store, *, clock: Clock | None = None, settings: EngineSettings | None = None) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.settings = settings or EngineSettings()
        self.lease_us = int(self.settings.lease_seconds * 1_000_000)
        beat_seconds = self.settings.beat_seconds
        self.beat_us = self.lease_us // 4 if beat_seconds is None else int(beat_seconds * 1_000_000)
        self.grace_us = int(self.settings.grace_seconds * 1_000_000)
        self.notifier = Notifier()
        self.end_listeners = EndListeners()
        self.stats = Stats()
        self.executions = Executions(self)
        self.claims = Claims(self)
        self.events = Events(self)
        self.projects = Projects(self)
        self.accounts = Accounts(self)
        self.schedules = Schedules(self)
        self.triggers = Triggers(self)
        self.outbound = Outbound(Policy(self.settings.outbound_hosts))
        self.signing = Signing(self)
        self.conversations = Conversations(self)
        self.slack = Slack(self)
        self.streams = Streams(self)
        self.traces = Traces(self)
        self.exports = Exports(self)
        self.approvals = Approvals(self, self.signing)
        self.push = Push(self, Dispatcher(self))
        self.webhooks = Webhooks(self)
        self.services = Services(
            self.accounts,
            self.projects,
            self.schedules,
            self.triggers,
            self.slack,
            self.webhooks,
            self.signing,
            Budgets(self),
            Transcripts(self),
            OpenWaits(self),
            Definitions(self),
            Deployments(self),
            Sessions(self),
            self.approvals,
            self.push,
        )
        self.reaped_at_us = 0
        """Time since boot: the end of the reaper's last round, if this server ran all the time."""
        self.granting_until_us = 0
        """Time since boot until which the reaper grants leases, because the clock jumped or a registration was locked.
        While not 0, leases that are too long must still be limited."""
        self.stepped_back_at_us = boottime_us()
        """Time since boot of the clock's last step back; first the start, because the clock may have stepped while no
        server ran. 0: all earlier timers are done."""
        self.told_of_ahead = False
        self.overdue_after = transitions.FIRST
        self.prune_after = ("", "")
        self.alarmed: set[tuple[str, str, str | None]] = set()
        self.refused: set[str] = set()
        """Loops whose last round found the store unavailable."""
        self._changed: dict[str, set[str]] = {}
        self.fallback_poller = FallbackPoller()
        self.snapshots = Snapshots()
        self.key_deleted: Callable[[str | None], None] = lambda key_id: None
        """Called with the id of a deleted key. None: notifications of keys and users may have been lost."""
        self.user_changed: Callable[[str], None] = lambda user_id: None
        """Called with the id of a user whose sessions or memberships changed."""
        self._asking: set[asyncio.Task[None]] = set()
        self._trouble: str | None = None
        self.closing = False
        self._tasks: list[asyncio.Task[None]] = []
        store.listen(self._receive)

    def serve(self, scope: Scope, op: Operation[R]) -> Awaitable[R]:
        """Raises the errors of the operation's checks and its service."""
        return self.services.serve(scope, op)

    async def start(self) -> None:
        """Read the store's time, take back executions of dead embedded workers, start the loops."""
        spans = [await self._ask_time() for _ in range(TIME_QUESTIONS)]
        self.clock.adjust(min((span for span in spans if span is not None), key=_width, default=None))
        if self.store.alone:  # else they may belong to a running process
            await self.store.write(claims.end_embedded(now_us=self.clock.now_us()))
        self.reaped_at_us = boottime_us() - self.lease_us  # absent until its first round
        loops: tuple[Loop, ...] = LOOPS
        if not self.store.alone:
            loops = (*LOOPS, Loop("look", self.fallback_poller.look), Loop("snapshots", self.snapshots.look))
        if self.exports.wanted:
            loops = (*loops, Loop("export", lambda engine: engine.exports.look()))
        self._tasks = [asyncio.create_task(run_loop(self, loop), name=f"perdure-{loop.name}") for loop in loops]
        self.store.exchange_hints()

    async def stop(self) -> None:
        """End polls and loops, finish accepted writes, and close the store."""
        self.closing = True
        self.notifier.notify_all()
        self.executions.close()
        tasks = [*self._tasks, *self._asking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.push.dispatcher.close()
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
            async with asyncio.timeout(1.0):
                written = await self.store.write(access.touch(now_us=self.clock.now_us(), ballast=ballast))
        except TimeoutError as error:
            raise Unavailable("The store did not commit within a second.") from error
        if trouble is None:
            return
        if not written or self._trouble is not trouble:
            raise Unavailable(f"The store has just refused a change ({self._trouble}).")
        self._trouble = None

    async def follow_clock(self) -> bool:
        """Adjust to the store's clock. True if it jumped. Raises Unavailable."""
        before_us = self.clock.now_us()
        jumped = self.clock.adjust(await self._ask_time())
        if jumped and self.clock.now_us() < before_us:
            self.stepped_back_at_us, self.told_of_ahead = boottime_us(), False
            self.notifier.notify(("loop", "bring forward"))
        return jumped

    async def _ask_time(self) -> TimeBounds | None:
        sent_us = boottime_us()
        told_us = await self.store.read(queries.database_time())
        return None if told_us is None else TimeBounds(told_us - boottime_us(), told_us - sent_us)

    def wake_loops(self) -> None:
        """Something is due sooner than the loops know."""
        for loop in ("wake", "overdue", "schedule", "trigger", "reap", "push"):
            self.notifier.notify(("loop", loop))

    def own_look(self, seconds: float) -> float:
        (
            """The interval of a wait's own queries. This process loses no hints, and the fallback poller covers other
        servers, so thousands of waits cost almost nothing."""
            ""
        )
        return seconds * OWN_LOOKS * random.uniform(0.8, 1.2)

    def spread(self, seconds: float) -> float:
        """Different on each server of a store."""
        return seconds if self.store.alone else seconds * random.uniform(0.7, 1.0)

    def note_changed(self, worker_id: str, execution_id: str) -> None:
        """A held execution's journal got a row from elsewhere. Its worker may ask on another server."""
        if self.store.alone or self.claims.is_present(worker_id):
            ids = self._changed.setdefault(worker_id, set())
            if len(ids) < CHANGED_MAX:  # the next beat brings the rest
                ids.add(execution_id)
            self.notifier.notify(("worker", worker_id))

    def forget_changed(self, worker_id: str) -> None:
        self._changed.pop(worker_id, None)

    def take_changed(self, worker_id: str) -> list[str]:
        ids = self._changed.pop(worker_id, None)
        return list(ids) if ids else []

    def _receive(self, hints: Sequence[Hint]) -> None:
        """Notify each channel once per commit."""
        ready: set[str] = set()
        brought: set[tuple[str, str | None]] = set()
        asked: dict[str, list[str]] = {}
        notifier = self.notifier
        for hint in hints:
            if isinstance(hint, Written):
                notifier.notify(("written", hint.execution_id))
            elif isinstance(hint, Ready):
                ready.add(hint.project_id)
                brought.add((hint.project_id, hint.deployment_id))
            elif isinstance(hint, Ended):
                self.end_listeners.tell(hint)
                self.stats.end(hint.project_id, hint.workflow_id, hint.phase)
                if hint.workflow_id in self.schedules.waiting_workflows:
                    self.schedules.notify()
            elif isinstance(hint, Changed):
                self.note_changed(hint.worker_id, hint.execution_id)
                self.push.dispatcher.changed(hint.worker_id, hint.execution_id)
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
            self.claims.notify(project_id)
            notifier.notify_one(("ready", project_id))
        for project_id, deployment_id in brought:
            self.push.dispatcher.ready(project_id, deployment_id)

    def _ask_for_ends(self, asked: dict[str, list[str]]) -> None:
        """Look up results of executions that ended on other servers."""

        async def ask() -> None:
            for project_id, ids in asked.items():
                found = await self.store.read(poll_awaited(awaited=Awaited({project_id: ids}, (), {}, {}, (), {})))
                for _, finished in found.ended:
                    self.end_listeners.found(project_id, finished)

        task = asyncio.get_running_loop().create_task(ask(), name="perdure-ends")
        self._asking.add(task)
        task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("An end was not looked up; the fallback poller will: %s", task.exception())
