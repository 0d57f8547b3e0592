"""The service of push workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, structs
from uuid_utils import uuid7

from perdure.engine.dispatch import CHECK_US, LEASE_US, Dispatcher
from perdure.engine.executions import check_item, checked_id
from perdure.store.verbs import push_reports, push_steps, push_workers
from perdure.store.verbs.idempotency import Idempotency
from perdure.store.verbs.push_reports import Step, Wait
from perdure.store.verbs.push_steps import SavedStep
from perdure.store.verbs.push_workers import Pushed
from perdure.store.verbs.starts import New
from perdure.wire.approvals import ANSWERED
from perdure.wire.codec import KEY_BYTES_MAX, TOPIC_BYTES_MAX, check_json, check_name, scrub_text
from perdure.wire.errors import BadRequest, BadValue, NotFound
from perdure.wire.limits import STEPS_MAX
from perdure.wire.public import microseconds, rfc3339
from perdure.wire.public_push import (
    CompleteRequest,
    FailRequest,
    RegisterWorkerRequest,
    SaveStepRequest,
    SetWaitingRequest,
)
from perdure.wire.requests import Started, StartItem
from perdure.wire.starts import AT_US_MAX
from perdure.wire.status import HELD

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

CAPACITY = 100
CAPACITY_MAX = 10_000
POLL_SECONDS = 30.0
POLL_MAX = 100
HEARD_SECONDS = 20.0
"""A worker's calls renew its lease at most this often."""


class Push:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.dispatcher = Dispatcher(engine)
        self._heard: dict[str, float] = {}

    # --- registrations -----------------------------------------------------------------------------------------------

    async def register(self, project_id: str, request: RegisterWorkerRequest) -> str:
        """The id of a registration is always new. Raises BadRequest, BadValue, Conflict."""
        if request.mode not in (None, "push"):
            raise BadRequest(f"body.mode: must be 'push', got {request.mode!r}.", {"path": "body.mode"})
        url = request.push_endpoint_url
        if url is None or not url.startswith(("http://", "https://")):
            raise BadRequest(
                f"body.push_endpoint_url: must start with http:// or https://, got {url!r}.",
                {"path": "body.push_endpoint_url"},
            )
        if "?" in url:
            raise BadRequest(
                f"body.push_endpoint_url: must have no query, since /execute is put behind it, got {url!r}.",
                {"path": "body.push_endpoint_url"},
            )
        capacity = CAPACITY if request.max_concurrent_executions is None else request.max_concurrent_executions
        if not 1 <= capacity <= CAPACITY_MAX:
            raise BadRequest(
                f"body.max_concurrent_executions: must be 1 to {CAPACITY_MAX:,}, got {capacity}.",
                {"path": "body.max_concurrent_executions"},
            )
        if request.deployment_id is not None:
            check_name(request.deployment_id, where="deployment_id")
        await self._engine.outbound.check_url(url, "body.push_endpoint_url")
        worker_id = str(uuid7())
        await self._engine.store.write(
            push_workers.register_push_worker(
                project_id=project_id,
                worker_id=worker_id,
                deployment_id=request.deployment_id,
                url=url.rstrip("/"),
                capacity=capacity,
                now_us=self._engine.clock.now_us(),
                lease_us=LEASE_US,
                check_us=CHECK_US,
            )
        )
        self.dispatcher.notify()
        return worker_id

    async def online(self, project_id: str, worker_id: str) -> None:
        """Bring work from now on. Raises NotFound."""
        await self._engine.store.write(
            push_workers.push_worker_online(
                project_id=project_id,
                worker_id=checked_id(worker_id, "worker"),
                now_us=self._engine.clock.now_us(),
                lease_us=LEASE_US,
                check_us=CHECK_US,
            )
        )
        self.dispatcher.notify()

    async def heartbeat(self, project_id: str, worker_id: str) -> bool:
        """Renew an online worker's lease. True if the worker is unknown and must register again."""
        return not await self._beat(project_id, worker_id, own=True)

    async def _beat(self, project_id: str, worker_id: str, *, own: bool) -> bool:
        worker_id = checked_id(worker_id, "worker")
        store = self._engine.store
        if own and await store.read(push_workers.has_lapsed(worker_id=worker_id)):
            await store.write(push_workers.forgive_push_worker(project_id=project_id, worker_id=worker_id))
        known = await store.write(
            push_workers.push_worker_beat(
                project_id=project_id,
                worker_id=worker_id,
                now_us=self._engine.clock.now_us(),
                lease_us=LEASE_US,
                check_us=CHECK_US,
                own=own,
            )
        )
        self.dispatcher.notify()
        return known

    async def active(self, project_id: str) -> Sequence[str]:
        return await self._engine.store.read(
            push_workers.active_workers(project_id=project_id, now_us=self._engine.clock.now_us())
        )

    async def poll(
        self, project_id: str, worker_id: str, at_most: int, seconds: float = POLL_SECONDS
    ) -> Sequence[Pushed]:
        """Hand out work within 30 s. Raises NotFound."""
        if not at_most >= 1:
            raise BadRequest(f"`max_workflows` must be at least 1, got {at_most}.", {"path": "query.max_workflows"})
        worker_id = checked_id(worker_id, "worker")
        if not await self._beat(project_id, worker_id, own=False):  # it polls, so no lane may bring it work
            raise NotFound(f"Worker {worker_id!r} is not registered (any more); register again.")
        engine = self._engine
        loop = asyncio.get_running_loop()
        until = loop.time() + min(seconds, POLL_SECONDS)
        while True:
            cursors = engine.notifier.cursors(("ready", project_id), ("push-worker", worker_id))
            handed = await engine.store.write(
                push_workers.claim_pushed(
                    worker_id=worker_id,
                    claim_id=str(uuid7()),
                    at_most=min(at_most, POLL_MAX),
                    now_us=engine.clock.now_us(),
                    grace_us=engine.grace_us,
                    polled=True,
                )
            )
            left = until - loop.time()
            if handed.picked or left <= 0 or engine.closing:
                return handed.picked
            await engine.notifier.wait_any(cursors, min(left, engine.settings.poll_seconds), loop.create_future())

    # --- steps -------------------------------------------------------------------------------------------------------

    async def step(self, project_id: str, execution_id: str, step_key: str) -> SavedStep:
        """Raises NotFound if the step has no outcome yet, as usual."""
        execution_id = checked_id(execution_id)
        where, step = await self._engine.store.read(
            push_steps.read_step(project_id=project_id, execution_id=execution_id, step_key=step_key)
        )
        if where.push_worker_id is not None:
            self._receive(project_id, where.push_worker_id)
            if not where.acked:
                await self.dispatcher.heard_of(project_id, execution_id, where.attempt, where.push_worker_id)
        if step is None:
            raise NotFound(f"Execution {execution_id!r} has no outcome of step {step_key!r} yet.")
        return step

    async def steps(self, project_id: str, execution_id: str, after: str | None) -> Sequence[SavedStep]:
        """All outcomes, or a page after a key. Raises NotFound, and BadRequest if all are too large for one answer."""
        id = checked_id(execution_id)
        return await self._engine.store.scan(
            push_steps.list_steps(project_id=project_id, execution_id=id, after=after, limit=STEPS_MAX)
        )

    async def save_step(self, project_id: str, execution_id: str, request: SaveStepRequest) -> None:
        """The first outcome stands. Raises NotFound, Conflict, BadValue."""
        check_name(request.step_key, where="body.step_key", max_bytes=KEY_BYTES_MAX)
        outputs = b"null" if request.outputs is UNSET else bytes(request.outputs)
        error = b"null" if request.error is UNSET else bytes(request.error)
        check_json(outputs, where="body.outputs")
        check_json(error, where="body.error")
        ok = request.success if request.success is not None else error == b"null"
        for name in ("source_execution_id", "output_schema_name"):
            if getattr(request, name) is not None:
                check_name(getattr(request, name), where=f"body.{name}", max_bytes=KEY_BYTES_MAX)
        step = Step(
            request.step_key, ok, outputs if ok else error, request.source_execution_id, request.output_schema_name
        )
        execution_id = checked_id(execution_id)
        await self._engine.store.write(
            push_reports.save_step(
                project_id=project_id, execution_id=execution_id, step=step, now_us=self._engine.clock.now_us()
            )
        )
        self.dispatcher.recorded(execution_id)

    # --- ends and waits ----------------------------------------------------------------------------------------------

    async def complete(self, project_id: str, execution_id: str, request: CompleteRequest) -> None:
        """Raises NotFound, Conflict, BadValue."""
        check_json(bytes(request.result), where="body.result")
        execution_id = checked_id(execution_id)
        await self._engine.store.write(
            push_reports.complete_pushed(
                project_id=project_id,
                execution_id=execution_id,
                worker_id=checked_id(request.worker_id, "worker"),
                result=bytes(request.result),
                output_schema_name=request.output_schema_name,
                final_state=_state(request.final_state),
                now_us=self._engine.clock.now_us(),
            )
        )
        self._freed(execution_id, request.worker_id)

    async def fail(self, project_id: str, execution_id: str, request: FailRequest) -> None:
        """Raises NotFound, Conflict, BadValue."""
        execution_id = checked_id(execution_id)
        await self._engine.store.write(
            push_reports.fail_pushed(
                project_id=project_id,
                execution_id=execution_id,
                worker_id=checked_id(request.worker_id, "worker"),
                error=scrub_text(request.error),
                stack=None if request.stack is None else scrub_text(request.stack),
                retryable=request.retryable is not False,
                final_state=_state(request.final_state),
                now_us=self._engine.clock.now_us(),
            )
        )
        self._freed(execution_id, request.worker_id)

    async def confirm_cancellation(self, project_id: str, execution_id: str, worker_id: str) -> None:
        """Raises NotFound, Conflict."""
        execution_id = checked_id(execution_id)
        await self._engine.store.write(
            push_reports.confirm_cancel_pushed(
                project_id=project_id,
                execution_id=execution_id,
                worker_id=checked_id(worker_id, "worker"),
                now_us=self._engine.clock.now_us(),
                grace_us=self._engine.grace_us,
            )
        )
        self._freed(execution_id, worker_id)

    async def until_let_go(self, project_id: str, execution_id: str, seconds: float) -> None:
        """Wait until no push worker holds the execution."""
        engine = self._engine
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0 and not engine.closing:
            cursors = engine.notifier.cursors(("written", execution_id))
            try:
                where = await engine.store.read(push_steps.standing(project_id=project_id, execution_id=execution_id))
            except NotFound:
                return
            if where.phase not in HELD or where.push_worker_id is None:
                return
            await engine.notifier.wait_any(cursors, left, loop.create_future())

    async def wait(self, project_id: str, execution_id: str, request: SetWaitingRequest) -> None:
        """Suspend an execution. Raises NotFound, BadValue."""
        check_name(request.step_key, where="body.step_key", max_bytes=KEY_BYTES_MAX)
        execution_id = checked_id(execution_id)
        where = await self._engine.store.read(push_steps.standing(project_id=project_id, execution_id=execution_id))
        wait = _wait(request, f"workflow/{where.root_workflow_id}/{where.root_id}")
        await self._engine.store.write(
            push_reports.wait_pushed(
                project_id=project_id, execution_id=execution_id, wait=wait, now_us=self._engine.clock.now_us()
            )
        )
        self._freed(execution_id, where.push_worker_id)

    async def span_id(self, project_id: str, execution_id: str, otel_span_id: str | None) -> None:
        """Keep the span that the next attempt continues. Raises NotFound."""
        if otel_span_id is not None:
            check_name(otel_span_id, where="body.otel_span_id", max_bytes=KEY_BYTES_MAX)
        await self._engine.store.write(
            push_reports.put_span_id(
                project_id=project_id, execution_id=checked_id(execution_id), otel_span_id=otel_span_id
            )
        )

    async def start_children(
        self,
        project_id: str,
        parent_id: str,
        step_key: str,
        items: Sequence[StartItem],
        *,
        batch: bool,
        wait: bool,
        idempotency: Idempotency | None = None,
    ) -> Sequence[Started]:
        """Start the child or batch of a parent's step. A repetition gets the first answer.

        With `wait` the worker lets go of the parent until they end. Raises as starting does, and Conflict.
        """
        check_name(step_key, where="body.step_key", max_bytes=KEY_BYTES_MAX)
        engine = self._engine
        for item in items:
            check_item(item)
            if item.webhook_url is not None:
                await engine.outbound.check_url(item.webhook_url, "webhook_url")
        started = await engine.store.write(
            push_reports.start_children(
                project_id=project_id,
                parent_id=parent_id,
                step_key=step_key,
                news=[New(str(uuid7()), structs.replace(item, parent_execution_id=None)) for item in items],
                batch_id=str(uuid7()) if batch else None,
                wait=wait,
                now_us=engine.clock.now_us(),
                idempotency=idempotency,
            )
        )
        self.dispatcher.acknowledged(parent_id)
        if wait:
            self.dispatcher.room_again(None)
        return started

    # --- side effects of a call --------------------------------------------------------------------------------------

    def _freed(self, execution_id: str, worker_id: str | None) -> None:
        self.dispatcher.recorded(execution_id)
        self.dispatcher.room_again(worker_id)

    def _receive(self, project_id: str, worker_id: str) -> None:
        """Each call proves that the worker is alive."""
        now = asyncio.get_running_loop().time()
        if self._heard.get(worker_id, 0.0) > now:
            return
        if len(self._heard) > 10_000:
            self._heard.clear()
        self._heard[worker_id] = now + HEARD_SECONDS
        self.dispatcher.alive(project_id, worker_id)


def _state(given: object) -> bytes | None:
    """None for null."""
    if given is None:
        return None
    assert isinstance(given, msgspec.Raw)
    value = bytes(given)
    check_json(value, where="body.final_state")
    return None if value == b"null" else value


def _wait(request: SetWaitingRequest, run_topic: str) -> Wait:
    until_us = _moment(request.wait_until, "body.wait_until")
    expires_us = _moment(request.expires_at, "body.expires_at")
    if request.wait_type == "time":
        if until_us is None:
            raise BadValue("body.wait_until: a wait for a time needs one.", {"path": "body.wait_until"})
        topic = event_type = None
    elif request.wait_type == "event":
        topic, event_type = request.wait_topic, None
        if topic is None:
            raise BadValue("body.wait_topic: a wait for an event needs one.", {"path": "body.wait_topic"})
        check_name(topic, where="body.wait_topic", max_bytes=TOPIC_BYTES_MAX)
        until_us = expires_us or until_us
    elif request.wait_type == "suspend":
        topic, event_type = run_topic, f"{ANSWERED}{request.step_key}"
        until_us = expires_us or until_us
    else:
        raise BadValue(
            f"body.wait_type: must be 'time', 'event' or 'suspend', got {request.wait_type!r}.",
            {"path": "body.wait_type"},
        )
    told = {"type": request.wait_type, "until": None if until_us is None else rfc3339(until_us), "topic": topic}
    return Wait(request.step_key, msgspec.json.encode(told), until_us, topic, event_type)


def _moment(text: str | None, where: str) -> int | None:
    """RFC 3339; without an offset it is UTC."""
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
