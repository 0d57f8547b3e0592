"""The service of push workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import structs

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.base.start_checks import check_item
from perdure.engine.outside.dispatch import CHECK_US, LEASE_US, Dispatcher, work_of
from perdure.store.verbs.outside import push_reports, push_steps, push_workers
from perdure.store.verbs.outside.push_reports import PushedEnd, Wait
from perdure.store.verbs.outside.push_workers import Pushed
from perdure.store.verbs.runs.starts import New
from perdure.wire.base.codec import KEY_BYTES_MAX, TOPIC_BYTES_MAX, check_name
from perdure.wire.base.errors import BadRequest, BadValue, NotFound
from perdure.wire.base.fields import checked_id
from perdure.wire.base.limits import STEPS_MAX
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import DONE, Done
from perdure.wire.base.status import LEASED
from perdure.wire.base.times import AT_US_MAX, microseconds
from perdure.wire.outside.push_workers import (
    CompleteExecution,
    ConfirmCancellation,
    FailExecution,
    GetActiveWorkers,
    GetSavedStep,
    Heartbeat,
    ListedStep,
    ListSavedSteps,
    PolledWork,
    PutOtelSpanId,
    Registered,
    RegisterWorker,
    SavedStep,
    SaveStep,
    WaitExecution,
    Waiting,
    WorkerHeartbeat,
    WorkerOnline,
)
from perdure.wire.runs.requests import Started, StartItem

POLL_SECONDS: Final = 30.0
POLL_MAX: Final = 100
HEARD_SECONDS: Final = 20.0
"""Seconds in which a worker's calls renew the lease once."""


class Push(Service):
    def __init__(self, core: Core, dispatcher: Dispatcher) -> None:
        super().__init__(core)
        self.dispatcher = dispatcher
        self._heard: dict[str, float] = {}

    @serves(RegisterWorker)
    async def register(self, scope: Scope, op: RegisterWorker) -> Registered:
        """The id of a registration is always new."""
        url = op.push_endpoint_url or ""
        await self._core.outbound.check_url(url, "body.push_endpoint_url")
        worker_id = self.new_id()
        await self.write(
            push_workers.register_push_worker(
                project_id=scope.project_id,
                worker_id=worker_id,
                deployment_id=op.deployment_id,
                url=url.rstrip("/"),
                capacity=op.capacity,
                now_us=self.now_us(),
                lease_us=LEASE_US,
                check_us=CHECK_US,
            )
        )
        self.dispatcher.notify()
        return Registered(worker_id)

    @serves(WorkerOnline)
    async def online(self, scope: Scope, op: WorkerOnline) -> Done:
        await self.write(
            push_workers.push_worker_online(
                project_id=scope.project_id,
                worker_id=op.worker_id,
                now_us=self.now_us(),
                lease_us=LEASE_US,
                check_us=CHECK_US,
            )
        )
        self.dispatcher.notify()
        return DONE

    @serves(WorkerHeartbeat)
    async def heartbeat(self, scope: Scope, op: WorkerHeartbeat) -> Heartbeat:
        return Heartbeat(re_register=not await self._beat(scope.project_id, op.worker_id, own=True))

    async def _beat(self, project_id: str, worker_id: str, *, own: bool) -> bool:
        if own and await self.read(push_workers.has_lapsed(worker_id=worker_id)):
            await self.write(push_workers.forgive_push_worker(project_id=project_id, worker_id=worker_id))
        known = await self.write(
            push_workers.push_worker_beat(
                project_id=project_id,
                worker_id=worker_id,
                now_us=self.now_us(),
                lease_us=LEASE_US,
                check_us=CHECK_US,
                own=own,
            )
        )
        self.dispatcher.notify()
        return known

    @serves(GetActiveWorkers)
    async def active(self, scope: Scope, op: GetActiveWorkers) -> Listed[str]:
        return Listed(await self.read(push_workers.active_workers(project_id=scope.project_id, now_us=self.now_us())))

    async def poll(self, project_id: str, worker_id: str, at_most: int, seconds: float) -> list[PolledWork]:
        if not at_most >= 1:
            raise BadRequest(f"`max_workflows` must be at least 1, got {at_most}.", {"path": "query.max_workflows"})
        worker_id = checked_id(worker_id, "worker")
        if not await self._beat(project_id, worker_id, own=False):  # it polls, so no lane may bring it work
            raise NotFound(f"Worker {worker_id!r} is not registered (any more); register again.")
        core = self._core
        loop = asyncio.get_running_loop()
        until = loop.time() + min(seconds, POLL_SECONDS)
        while True:
            cursors = core.notifier.cursors(("ready", project_id), ("push-worker", worker_id))
            handed = await self.write(
                push_workers.claim_pushed(
                    worker_id=worker_id,
                    claim_id=self.new_id(),
                    at_most=min(at_most, POLL_MAX),
                    now_us=self.now_us(),
                    grace_us=core.grace_us,
                    polled=True,
                )
            )
            left = until - loop.time()
            if handed.picked or left <= 0 or core.closing:
                return [_polled(one, worker_id) for one in handed.picked]
            await core.notifier.wait_any(cursors, min(left, core.settings.poll_seconds), loop.create_future())

    @serves(GetSavedStep)
    async def step(self, scope: Scope, op: GetSavedStep) -> SavedStep:
        """Raises NotFound if the step has no outcome yet, as usual."""
        where, step = await self.read(
            push_steps.read_step(project_id=scope.project_id, execution_id=op.execution_id, step_key=op.step_key)
        )
        if where.push_worker_id is not None:
            self._receive(scope.project_id, where.push_worker_id)
            if not where.acked:
                await self.dispatcher.heard_of(scope.project_id, op.execution_id, where.attempt, where.push_worker_id)
        if step is None:
            raise NotFound(f"Execution {op.execution_id!r} has no outcome of step {op.step_key!r} yet.")
        return step

    @serves(ListSavedSteps)
    async def steps(self, scope: Scope, op: ListSavedSteps) -> Listed[ListedStep]:
        """Raises BadRequest for outcomes too large together."""
        return Listed(
            await self._core.store.scan(
                push_steps.list_steps(
                    project_id=scope.project_id, execution_id=op.execution_id, after=op.after, limit=STEPS_MAX
                )
            )
        )

    @serves(SaveStep)
    async def save_step(self, scope: Scope, op: SaveStep) -> Done:
        await self.write(push_reports.save_step(project_id=scope.project_id, op=op, now_us=self.now_us()))
        self.dispatcher.recorded(op.execution_id)
        return DONE

    @serves(CompleteExecution)
    async def complete(self, scope: Scope, op: CompleteExecution) -> Done:
        return await self._end(scope, op)

    @serves(FailExecution)
    async def fail(self, scope: Scope, op: FailExecution) -> Done:
        return await self._end(scope, op)

    @serves(ConfirmCancellation)
    async def confirm_cancellation(self, scope: Scope, op: ConfirmCancellation) -> Done:
        return await self._end(scope, op)

    async def _end(self, scope: Scope, op: PushedEnd) -> Done:
        grace_us = self._core.grace_us
        await self.write(
            push_reports.end_pushed(project_id=scope.project_id, op=op, now_us=self.now_us(), grace_us=grace_us)
        )
        return self._freed(op.execution_id, op.worker_id)

    async def until_let_go(self, project_id: str, execution_id: str, seconds: float) -> None:
        core = self._core
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0 and not core.closing:
            cursors = core.notifier.cursors(("written", execution_id))
            try:
                where = await self.read(push_steps.standing(project_id=project_id, execution_id=execution_id))
            except NotFound:
                return
            if where.phase not in LEASED or where.push_worker_id is None:
                return
            await core.notifier.wait_any(cursors, left, loop.create_future())

    @serves(WaitExecution)
    async def wait(self, scope: Scope, op: WaitExecution) -> Waiting:
        held = {"project_id": scope.project_id, "execution_id": op.execution_id}
        where = await self.read(push_steps.standing(**held))
        wait = _wait(op, f"workflow/{where.root_workflow_id}/{where.root_id}")
        await self.write(push_reports.wait_pushed(**held, wait=wait, now_us=self.now_us()))
        self._freed(op.execution_id, where.push_worker_id)
        return Waiting(op.execution_id)

    @serves(PutOtelSpanId)
    async def span_id(self, scope: Scope, op: PutOtelSpanId) -> Done:
        await self.write(push_reports.put_span_id(project_id=scope.project_id, op=op))
        return DONE

    async def start_children(
        self, scope: Scope, parent_id: str, step_key: str, items: Sequence[StartItem], *, batch: bool, wait: bool
    ) -> Sequence[Started]:
        """A repetition gets the first answer. With `wait` the worker lets go of the parent until the children end.
        Raises as starting does, and Conflict."""
        check_name(step_key, where="body.step_key", max_bytes=KEY_BYTES_MAX)
        for item in items:
            check_item(item)
            if item.webhook_url is not None:
                await self._core.outbound.check_url(item.webhook_url, "webhook_url")
        started = await self.write(
            push_reports.start_children(
                project_id=scope.project_id,
                parent_id=parent_id,
                step_key=step_key,
                news=[New(self.new_id(), structs.replace(item, parent_execution_id=None)) for item in items],
                batch_id=self.new_id() if batch else None,
                wait=wait,
                now_us=self.now_us(),
                idempotency=scope.idempotency,
            )
        )
        self.dispatcher.acknowledged(parent_id)
        if wait:
            self.dispatcher.room_again(None)
        return started

    def _freed(self, execution_id: str, worker_id: str | None) -> Done:
        self.dispatcher.recorded(execution_id)
        self.dispatcher.room_again(worker_id)
        return DONE

    def _receive(self, project_id: str, worker_id: str) -> None:
        """Each call proves that the worker is alive."""
        now = asyncio.get_running_loop().time()
        if self._heard.get(worker_id, 0.0) > now:
            return
        if len(self._heard) > 10_000:
            self._heard.clear()
        self._heard[worker_id] = now + HEARD_SECONDS
        self.dispatcher.alive(project_id, worker_id)


def _polled(one: Pushed, worker_id: str) -> PolledWork:
    work = work_of(one, worker_id)
    shown = {name: getattr(work, name) for name in PolledWork.__struct_fields__}
    return PolledWork(**shown | {"root_execution_id": one.claimed.root_execution_id})


def _wait(op: WaitExecution, run_topic: str) -> Wait:
    until_us = _moment(op.wait_until, "body.wait_until")
    expires_us = _moment(op.expires_at, "body.expires_at")
    match op.wait_type:
        case "time":
            if until_us is None:
                raise BadValue("body.wait_until: a wait for a time needs one.", {"path": "body.wait_until"})
            return Wait(op.step_key, until_us)
        case "event":
            if op.wait_topic is None:
                raise BadValue("body.wait_topic: a wait for an event needs one.", {"path": "body.wait_topic"})
            check_name(op.wait_topic, where="body.wait_topic", max_bytes=TOPIC_BYTES_MAX)
            return Wait(op.step_key, expires_us or until_us, op.wait_topic)
        case "suspend":
            return Wait(op.step_key, expires_us or until_us, run_topic, asks=True)
    raise BadValue(
        f"body.wait_type: must be 'time', 'event' or 'suspend', got {op.wait_type!r}.", {"path": "body.wait_type"}
    )


def _moment(text: str | None, where: str) -> int | None:
    """RFC 3339; UTC if without an offset."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        at_us = microseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise BadValue(f"{where}: {text!r} is not a time like 2026-01-31T12:00:00+00:00.", {"path": where}) from None
    if not 0 <= at_us <= AT_US_MAX:
        raise BadValue(f"{where}: must lie between 1970 and 9999.", {"path": where})
    return at_us
