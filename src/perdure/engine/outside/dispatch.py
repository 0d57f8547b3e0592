"""Brings work to push workers: claims work, calls workers, and checks their health.

Each worker has a lane: a task that claims as much as the worker has room for. Any server may serve any worker,
because the store counts a worker's executions.

A call has one of these results:

- accepted: the worker has the execution;
- at capacity, or refused before the server sent anything: the execution returns to the queue, and the lane rests;
- no answer to a sent request: the worker may run the execution, so the server does not send it again. The worker's
  first call about the execution is the acknowledgement. Without a call, the delivery is lost;
- another worker answers under the URL: the registration ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import msgspec
from uuid_utils import uuid7

from perdure.engine.base.calls import CallFailed, CallRefused, HttpAnswer
from perdure.engine.base.core import Core
from perdure.engine.base.notifier import ChannelCursors
from perdure.engine.people.signing import Signing
from perdure.store.verbs.outside import push_steps, push_workers
from perdure.store.verbs.outside.push_workers import Handed, PushDelivery, Pushed, PushWorker
from perdure.wire.base.errors import NotFound, PerdureError
from perdure.wire.base.record import to_json
from perdure.wire.base.status import Phase
from perdure.wire.outside.push_workers import PushedWork

logger = logging.getLogger("perdure.engine")

LEASE_US: Final = 90_000_000
CHECK_US: Final = 5_000_000
CHECK_AGAIN_US: Final = 1_000_000
"""The next check after a refused connection."""
YOUNG_US: Final = 10_000_000
"""A worker goes online before listening, so a refused call in the first seconds does not count."""
MISTAKEN_SECONDS: Final = 2.0
"""Seconds after a lane opened in which the worker may answer under the old id."""
CALL_SECONDS: Final = 10.0
CANCEL_SECONDS: Final = 30.0
HEALTH_SECONDS: Final = 5.0
ACKNOWLEDGED_SECONDS: Final = 5.0
NOTE_SECONDS: Final = 0.25
"""When an acceptance is written, unless the worker saved a step by then. If the server dies earlier, the sweep finds
the delivery."""
UNTOLD_US: Final = 20_000_000
"""Microseconds until the sweep handles a delivery that no server follows. Longer than any delivery takes."""
SWEEP_SECONDS: Final = 5.0
FORGET_US: Final = 86_400_000_000
FORGET_SECONDS: Final = 3_600.0
CALLS_MAX: Final = 16
UNWIND_US: Final = 50_000
"""Least microseconds between waking and sending: a worker still leaving the previous attempt would drop the new attempt
too."""
REST_SECONDS: Final = 0.1
REST_SECONDS_MAX: Final = 5.0
BARRED_SECONDS: Final = 60.0
"""The pause of a lane if this server may not call the worker's URL."""
CLOSE_SECONDS: Final = 2.0
CLOSE_WRITES_SECONDS: Final = 5.0  # for what cut-off calls leave to write
BATCH: Final = 100


class Lane:
    def __init__(self, dispatcher: Dispatcher, worker: PushWorker) -> None:
        self.worker = worker
        self.task: asyncio.Task[None] | None = None
        self._dispatcher = dispatcher
        self._core = dispatcher.core
        self._calls: set[asyncio.Task[None]] = set()
        self._rest_until = 0.0
        self._rests = 0
        self._full: ChannelCursors = ()
        """Cursors from when the worker was at capacity."""
        self._after = ("", "")
        self._turn = 0
        self._opened_at = asyncio.get_running_loop().time()
        self.ready_channel = ("push", worker.project_id, worker.deployment_id)
        self.own_channel = ("push-worker", worker.id)
        """Notified when an execution of the worker has ended."""
        self.call_channel = ("push-call", worker.id)

    async def run(self) -> None:
        core = self._core
        while not core.closing:
            try:
                await self._round()
            except PerdureError as error:
                logger.warning("Work is not brought to worker %s at the moment: %s", self.worker.id, error)
                await asyncio.sleep(1.0)
            except Exception:  # a lane must survive any error
                logger.exception("Bringing work to worker %s failed; the next round comes in a second.", self.worker.id)
                await asyncio.sleep(1.0)

    async def _round(self) -> None:
        core = self._core
        loop = asyncio.get_running_loop()
        cursors = core.notifier.cursors(self.own_channel, self.call_channel, self.ready_channel)
        rest = self._rest_until - loop.time()
        if rest > 0:
            if self._full:
                await core.notifier.wait_any(self._full, rest, loop.create_future())
                self._full, self._rest_until = (), 0.0
            else:
                await asyncio.sleep(rest)
            return
        at_most = CALLS_MAX - len(self._calls)
        if at_most <= 0:
            await core.notifier.wait_any(cursors[:2], CALL_SECONDS, loop.create_future())
            return
        self._turn += 1
        claim = asyncio.ensure_future(
            core.store.write(
                push_workers.claim_pushed(
                    worker_id=self.worker.id,
                    claim_id=str(uuid7()),
                    at_most=at_most,
                    now_us=core.clock.now_us(),
                    grace_us=core.grace_us,
                    after=self._after,
                    limited_first=self._turn % 2 == 0,
                )
            )
        )
        try:
            handed = await asyncio.shield(claim)
            self._after = handed.after
            rest = self._rest_until - loop.time()
            if handed.picked and rest > 0:
                await asyncio.sleep(rest)
        except asyncio.CancelledError:  # the store completes what it has begun
            self._dispatcher.start(self._put_back(claim))
            raise
        for one in handed.picked:
            self._start(self._deliver(one))
        if len(handed.picked) == at_most or (handed.picked and handed.after != ("", "")):
            core.notifier.notify_one(self.ready_channel)  # there may be more, also for others
            return
        look = core.own_look(core.settings.poll_seconds)
        if handed.room > 0:  # no work is ready, so more room would not help
            await core.notifier.wait_any(cursors[2:], look, loop.create_future())
            return
        core.notifier.notify_one(self.ready_channel)  # others may take it
        if not core.store.alone:  # another server may learn first that this worker has room
            look = core.settings.poll_seconds
        await core.notifier.wait_any(cursors[:2], look, loop.create_future())

    async def _put_back(self, claim: asyncio.Future[Handed]) -> None:
        core = self._core
        now_us = core.clock.now_us()
        await core.store.write_all(
            [push_workers.hand_back(delivery=self._delivery(one), now_us=now_us) for one in (await claim).picked]
        )

    def _delivery(self, one: Pushed) -> PushDelivery:
        return PushDelivery(self.worker.project_id, one.claimed.id, one.claimed.attempt, self.worker.id)

    def close(self) -> list[asyncio.Task[None]]:
        if self.task is None:
            return list(self._calls)
        self.task.cancel()
        return [self.task, *self._calls]

    def rest(self, seconds: float = REST_SECONDS, *, full: bool = False) -> None:
        """Rest twice as long each time, until a call is accepted."""
        now = asyncio.get_running_loop().time()
        if now < self._rest_until:
            return
        self._rest_until = now + min(seconds * 2**self._rests, REST_SECONDS_MAX)
        self._rests = min(self._rests + 1, 10)
        self._full = self._core.notifier.cursors(self.own_channel) if full else ()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"perdure-push-{self.worker.id}")
        self._calls.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._core.notifier.notify(self.call_channel)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("A delivery to worker %s is left to the sweep: %s", self.worker.id, task.exception())

    async def _deliver(self, one: Pushed) -> None:
        core, claimed, worker = self._core, one.claimed, self.worker
        if one.woken_at_us is not None:
            left_us = one.woken_at_us + UNWIND_US - core.clock.now_us()
            if left_us > 0:
                await asyncio.sleep(min(left_us, UNWIND_US) / 1e6)
        deliveries = self._dispatcher.deliveries
        heard = deliveries[claimed.id] = asyncio.Event()
        delivery = self._delivery(one)
        try:
            try:
                body = msgspec.json.encode(to_json(work_of(one, worker.id)))
                answer = await self._dispatcher.call(worker, "/execute", body, CALL_SECONDS)
            except CallFailed as failed:
                await self._failed(failed, heard, delivery)
                return
            await self._answered(answer, delivery)
        finally:
            if deliveries.get(claimed.id) is heard:
                del deliveries[claimed.id]

    async def _answered(self, answer: HttpAnswer, delivery: PushDelivery) -> None:
        store, now_us = self._core.store, self._core.clock.now_us()
        if answer.status in (200, 202):
            self._rests = 0
            self._dispatcher.accepted(delivery)
        elif answer.status == 429:
            self.rest(full=True)
            await store.write(push_workers.hand_back(delivery=delivery, now_us=now_us))
        elif answer.status == 400:
            await store.write(push_workers.hand_back(delivery=delivery, now_us=now_us))
            if asyncio.get_running_loop().time() < self._opened_at + MISTAKEN_SECONDS:
                self.rest()
                return
            logger.warning(
                "Another worker answers in place of worker %s (%r); the registration ends.", self.worker.id, answer.body
            )
            await store.write(push_workers.retire_push_worker(worker_id=self.worker.id, now_us=now_us))
            self._dispatcher.drop(self.worker.id)
        else:
            self.rest(1.0)
            logger.warning("Worker %s answered %d to a delivery.", self.worker.id, answer.status)
            await store.write(push_workers.lost_delivery(delivery=delivery, now_us=now_us))

    async def _failed(self, failed: CallFailed, heard: asyncio.Event, delivery: PushDelivery) -> None:
        core = self._core
        if isinstance(failed, CallRefused):
            logger.warning("Worker %s is not to be called from here: %s", self.worker.id, failed.message)
            self._full, self._rest_until = (), asyncio.get_running_loop().time() + BARRED_SECONDS
            await core.store.write(push_workers.hand_back(delivery=delivery, now_us=core.clock.now_us()))
            return
        self.rest()
        if not failed.sent:
            await core.store.write(push_workers.hand_back(delivery=delivery, now_us=core.clock.now_us()))
            await core.store.write(
                push_workers.hurry_push_check(worker_id=self.worker.id, at_us=core.clock.now_us() + CHECK_AGAIN_US // 2)
            )
            self._dispatcher.notify()
            return
        try:
            async with asyncio.timeout(ACKNOWLEDGED_SECONDS):
                await heard.wait()
        except TimeoutError:
            await core.store.write(push_workers.lost_delivery(delivery=delivery, now_us=core.clock.now_us()))
        else:
            await core.store.write(push_workers.accept_push(delivery=delivery))


class Dispatcher:
    def __init__(self, core: Core, signing: Signing) -> None:
        self.core = core
        self._signing = signing
        self.deliveries: dict[str, asyncio.Event] = {}
        """Events by execution, set by the worker's acknowledgement."""
        self._accepted: dict[str, PushDelivery] = {}
        """Accepted executions not written to the store yet."""
        self._noting: asyncio.TimerHandle | None = None
        self._lanes: dict[str, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._swept_at = 0.0
        self._forgot_at = 0.0

    def notify(self) -> None:
        self.core.notifier.notify(("loop", "push"))

    async def look(self) -> float:
        core = self.core
        now = asyncio.get_running_loop().time()
        now_us = core.clock.now_us()
        online, expired, next_check_us = await core.store.read(push_workers.watch_push_workers(now_us=now_us))
        self._follow(online)
        if expired or now > self._forgot_at + FORGET_SECONDS:
            self._forgot_at = now
            by_database = core.clock.of_database
            await core.store.write(
                push_workers.lapse_expired(
                    now_us=now_us,
                    forget_before_us=now_us - FORGET_US,
                    limit=BATCH,
                    patience_us=LEASE_US,
                    by_database=by_database,
                )
            )
        if not online:
            return core.spread(1.0)
        if now > self._swept_at + SWEEP_SECONDS:
            self._swept_at = now
            for one in await core.store.read(push_workers.untold(before_us=now_us - UNTOLD_US, limit=BATCH)):
                self.start(self._look_after(one))
        pause = core.spread(1.0)
        if next_check_us is None:
            return pause
        if next_check_us <= now_us:
            for worker in await core.store.write(
                push_workers.take_push_checks(now_us=now_us, every_us=CHECK_US, limit=BATCH)
            ):
                self.start(self._ask_after(*worker))
            return 0.05
        return min(pause, max((next_check_us - now_us) / 1e6, 0.05))

    def _follow(self, workers: Sequence[PushWorker]) -> None:
        known = {worker.id: worker for worker in workers}
        for id in [id for id, lane in self._lanes.items() if known.get(id) != lane.worker]:
            self.drop(id)
        for id, worker in known.items():
            if id not in self._lanes:
                lane = self._lanes[id] = Lane(self, worker)
                lane.task = asyncio.get_running_loop().create_task(lane.run(), name=f"perdure-lane-{id}")

    def drop(self, worker_id: str) -> None:
        lane = self._lanes.pop(worker_id, None)
        if lane is not None:
            for task in lane.close():
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait briefly for running calls. A later sweep handles deliveries cut off here."""
        for id in list(self._lanes):
            self.drop(id)
        await self._settle(CLOSE_SECONDS)
        self._note_accepted()  # also for calls that have just ended
        await self._settle(CLOSE_WRITES_SECONDS)

    async def _settle(self, seconds: float) -> None:
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="perdure-push")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("A request to a push worker failed; the next round repeats it: %s", task.exception())

    def ready(self, project_id: str, deployment_id: str | None) -> None:
        """Wake a lane of the deployment; with None, any lane."""
        if not self._lanes:
            return
        notifier = self.core.notifier
        if deployment_id is not None:
            notifier.notify_one(("push", project_id, deployment_id))
            return
        for deployment in {
            lane.worker.deployment_id for lane in self._lanes.values() if lane.worker.project_id == project_id
        }:
            notifier.notify_one(("push", project_id, deployment))

    def waiting_for(self) -> dict[str, list[str]]:
        found: dict[str, set[str]] = {}
        for lane in self._lanes.values():
            found.setdefault(lane.worker.project_id, set()).add(lane.worker.deployment_id)
        return {project_id: sorted(deployments) for project_id, deployments in found.items()}

    def changed(self, worker_id: str, execution_id: str) -> None:
        lane = self._lanes.get(worker_id)
        if lane is not None:
            self.start(self._tell(lane.worker, execution_id))

    def room_again(self, worker_id: str | None) -> None:
        """Wake the worker's lane; None: all lanes."""
        for id in self._lanes if worker_id is None else (worker_id,):
            self.core.notifier.notify(("push-worker", id))

    def acknowledged(self, execution_id: str) -> None:
        heard = self.deliveries.get(execution_id)
        if heard is not None:
            heard.set()

    def recorded(self, execution_id: str) -> None:
        """The worker saved something or let go, so the store knows of the acceptance."""
        self._accepted.pop(execution_id, None)
        self.acknowledged(execution_id)

    def accepted(self, delivery: PushDelivery) -> None:
        self._accepted[delivery.execution_id] = delivery
        if self._noting is None:
            self._noting = asyncio.get_running_loop().call_later(NOTE_SECONDS, self._note_accepted)

    def _note_accepted(self) -> None:
        if self._noting is not None:
            self._noting.cancel()
            self._noting = None
        if self._accepted:
            deliveries, self._accepted = list(self._accepted.values()), {}
            self.start(self._write_accepted(deliveries))

    async def _write_accepted(self, deliveries: Sequence[PushDelivery]) -> None:
        await self.core.store.write_all([push_workers.accept_push(delivery=delivery) for delivery in deliveries])

    async def heard_of(self, project_id: str, execution_id: str, attempt: int, worker_id: str) -> None:
        """A worker asks about an execution, perhaps before the acknowledgement."""
        if execution_id in self._accepted:
            return
        if execution_id in self.deliveries:
            self.acknowledged(execution_id)
            return
        delivery = PushDelivery(project_id, execution_id, attempt, worker_id)
        await self.core.store.write(push_workers.accept_push(delivery=delivery))

    def alive(self, project_id: str, worker_id: str) -> None:
        self.start(self._renew(project_id, worker_id))

    async def call(self, worker: PushWorker, path: str, body: bytes, seconds: float) -> HttpAnswer:
        """Make a signed call. Raises CallFailed."""
        core = self.core
        headers = {"content-type": "application/json", "x-worker-id": worker.id}
        headers |= await self._signing.headers(worker.project_id, f"msg_{uuid7()}", body)
        return await core.outbound.request("POST", worker.url + path, body, headers, seconds=seconds)

    async def _ask_after(self, worker_id: str, project_id: str, url: str) -> None:
        try:
            answer = await self.core.outbound.request("GET", f"{url}/health", seconds=HEALTH_SECONDS)
        except CallFailed as failed:
            if failed.sent or isinstance(failed, CallRefused):
                return  # it may be busy, or barred here; if it stays silent, its lease ends
            gone = await self.core.store.write(
                push_workers.push_worker_refused(
                    worker_id=worker_id, now_us=self.core.clock.now_us(), check_us=CHECK_AGAIN_US, young_us=YOUNG_US
                )
            )
            if gone:
                logger.warning("Push worker %s at %s is gone: %s", worker_id, url, failed.message)
            self.notify()
            return
        if 200 <= answer.status < 300:  # another program may have taken the port and answer otherwise
            await self._renew(project_id, worker_id)

    async def _renew(self, project_id: str, worker_id: str) -> None:
        await self.core.store.write(
            push_workers.push_worker_beat(
                project_id=project_id,
                worker_id=worker_id,
                now_us=self.core.clock.now_us(),
                lease_us=LEASE_US,
                check_us=CHECK_US,
            )
        )

    async def _look_after(self, one: PushDelivery) -> None:
        if one.cancelling:
            lane = self._lanes.get(one.worker_id)
            if lane is not None:
                await self._tell(lane.worker, one.execution_id)
        elif one.execution_id not in self.deliveries:
            await self.core.store.write(push_workers.lost_delivery(delivery=one, now_us=self.core.clock.now_us()))

    async def _tell(self, worker: PushWorker, execution_id: str) -> None:
        """Tell the worker of a cancellation, unless a server did already."""
        store = self.core.store
        try:
            where = await store.read(push_steps.standing(project_id=worker.project_id, execution_id=execution_id))
        except NotFound:
            return
        if where.phase is not Phase.CANCELLING or where.worker_id != worker.id or where.acked == 2:
            return
        if execution_id in self.deliveries:  # the worker may not know the execution yet
            await asyncio.sleep(REST_SECONDS)
        delivery = PushDelivery(worker.project_id, execution_id, where.attempt, worker.id)
        if not await store.write(push_workers.tell_cancel(delivery=delivery)):
            return
        try:
            answer = await self.call(worker, f"/cancel/{execution_id}", b"", CANCEL_SECONDS)
        except CallFailed as failed:
            logger.warning("Worker %s was not told that %s is cancelled: %s", worker.id, execution_id, failed.message)
            await store.write(push_workers.untell_cancel(delivery=delivery))
            return
        except asyncio.CancelledError:  # this server stops; another one tells the worker
            self.start(store.write(push_workers.untell_cancel(delivery=delivery)))
            raise
        if answer.status == 404:
            await store.write(push_workers.cancel_absent(delivery=delivery, now_us=self.core.clock.now_us()))
            self.room_again(worker.id)
        elif answer.status >= 500:
            await store.write(push_workers.untell_cancel(delivery=delivery))


def work_of(one: Pushed, worker_id: str) -> PushedWork:
    claimed, details = one.claimed, one.details
    return PushedWork(
        worker_id=worker_id,
        execution_id=claimed.id,
        workflow_id=claimed.workflow_id,
        created_at_us=claimed.created_at_us,
        retry_count=claimed.retry_count,
        payload=claimed.payload,
        deployment_id=claimed.deployment_id,
        parent_execution_id=claimed.parent_execution_id,
        root_execution_id=claimed.root_execution_id or claimed.id,
        root_workflow_id=details.root_workflow_id or claimed.workflow_id,
        step_key=details.step_key,
        session_id=claimed.session_id,
        user_id=claimed.user_id,
        otel_traceparent=details.otel_traceparent,
        otel_span_id=details.otel_span_id,
        initial_state=details.initial_state,
        channel_context=details.channel_context,
        run_timeout_seconds=details.run_timeout_seconds,
    )
