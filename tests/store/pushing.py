"""A push worker as tests play it: short words for its reports, besides the world's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.store.world import PROJECT, SECOND, World, raw

from perdure.store.base.interface import Verb
from perdure.store.verbs.outside import push_reports, push_steps, push_workers
from perdure.store.verbs.outside.push_reports import PushedEnd, Wait
from perdure.store.verbs.outside.push_workers import Handed, PushDelivery, Pushed
from perdure.store.verbs.runs import events
from perdure.store.verbs.runs.starts import New
from perdure.wire.outside.push_workers import CompleteExecution, ConfirmCancellation, FailExecution, SavedStep, SaveStep
from perdure.wire.runs.requests import EventItem, Started, StartItem

T = TypeVar("T")

LEASE_US = 90 * SECOND
CHECK_US = 5 * SECOND
URL = "http://worker.example"


class PushWorld:
    """Push workers of a world's project, and what the server does on their behalf."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store
        self.worker = ""

    async def do(self, verb: Callable[..., Verb[T]], **values: Any) -> T:
        """Run a verb, with the lease of a push worker."""
        return await self.world.do(verb, {"lease_us": LEASE_US, "check_us": CHECK_US}, **values)

    async def register(
        self, url: str = URL, *, capacity: int = 10, deployment: str | None = "p", online: bool = True
    ) -> str:
        id = self.world.new_id()
        its: dict[str, Any] = {"worker_id": id, "deployment_id": deployment}
        await self.do(push_workers.register_push_worker, url=url, capacity=capacity, **its)
        if online:
            await self.online(id)
        return id

    async def online(self, id: str) -> None:
        await self.do(push_workers.push_worker_online, worker_id=id)

    async def beat(self, id: str, *, own: bool = True) -> bool:
        if own and await self.do(push_workers.has_lapsed, worker_id=id):
            await self.do(push_workers.forgive_push_worker, worker_id=id)
        return await self.do(push_workers.push_worker_beat, worker_id=id, own=own)

    async def refuse(self, id: str) -> bool:
        return await self.do(push_workers.push_worker_refused, worker_id=id, check_us=SECOND, young_us=10 * SECOND)

    async def lapse_expired(self, patience_us: int = 0) -> int:
        before_us = self.world.now_us - 86_400 * SECOND
        return await self.do(push_workers.lapse_expired, forget_before_us=before_us, patience_us=patience_us)

    async def lapse(self, id: str) -> None:
        """The worker stays silent past its lease, is given up, and beats again."""
        self.world.advance(LEASE_US / SECOND)
        assert await self.lapse_expired() >= 1
        await self.beat(id)

    async def online_ids(self) -> list[str]:
        online, *_ = await self.do(push_workers.watch_push_workers)
        return [worker.id for worker in online]

    async def claim(self, id: str, at_most: int = 100, *, accept: bool = True) -> list[Pushed]:
        self.worker = id
        picked = list((await self.handed(id, at_most)).picked)
        for one in picked:
            if accept:
                await self.accept(one)
        return picked

    async def handed(self, id: str, at_most: int = 100, **options: Any) -> Handed:
        return await self.do(push_workers.claim_pushed, worker_id=id, at_most=at_most, **options)

    async def accept(self, one: Pushed) -> None:
        await self.do(push_workers.accept_push, delivery=self.delivery(one))

    def delivery(self, one: Pushed) -> PushDelivery:
        """A delivery to the worker that claimed last."""
        return PushDelivery(PROJECT, one.claimed.id, one.claimed.attempt, self.worker)

    async def running(self, worker: str, **fields: Any) -> str:
        """A fresh execution in this worker's hands."""
        id = await self.world.start(deployment_id="p", **fields)
        assert id in [one.claimed.id for one in await self.claim(worker)]
        return id

    # --- what it says ------------------------------------------------------------------------------------------------

    async def save(self, id: str, key: str, value: object = None, *, ok: bool = True, **fields: Any) -> None:
        outputs, error = (raw(value), None) if ok else (None, raw(value))
        await self.do(push_reports.save_step, op=SaveStep(id, key, outputs, error, ok, **fields))

    async def step(self, id: str, key: str) -> SavedStep | None:
        return (await self.do(push_steps.read_step, execution_id=id, step_key=key))[1]

    async def outputs(self, id: str, key: str) -> Any:
        """A step's outputs; None when there is no such step, or it failed."""
        step = await self.step(id, key)
        return None if step is None or step.outputs is None else json.loads(bytes(step.outputs))

    async def error(self, id: str, key: str) -> Any:
        step = await self.step(id, key)
        assert step is not None and step.error is not None and not step.success
        return json.loads(bytes(step.error))

    async def complete(self, id: str, worker: str, result: object = "done", **fields: Any) -> None:
        await self._end(CompleteExecution(id, raw(result), worker, **fields))

    async def fail(self, id: str, worker: str, error: str = "it failed", *, retryable: bool = True) -> None:
        await self._end(FailExecution(id, error, worker, "Traceback …", retryable))

    async def confirm(self, id: str, worker: str) -> None:
        await self._end(ConfirmCancellation(id, worker))

    async def _end(self, op: PushedEnd) -> None:
        await self.do(push_reports.end_pushed, op=op)

    async def wait(
        self, id: str, key: str, type: str = "time", *, seconds: float | None = None, topic: str | None = None
    ) -> None:
        until_us = None if seconds is None else self.world.now_us + int(seconds * SECOND)
        wait = Wait(key, until_us, topic, asks=type == "suspend")
        await self.do(push_reports.wait_pushed, execution_id=id, wait=wait)

    async def publish(
        self, topic: str, type: str, data: object = None, *, asked_by: str | None = None, by: str = "Kim"
    ) -> int:
        """Publish an event, a question as `asked_by`'s and an answer as Kim's."""
        its: dict[str, Any] = {"topic": topic, "asked_by": asked_by, "answered_by": by}
        items = [EventItem(raw(data), type)]
        return (await self.do(events.publish, events=items, ids=[self.world.new_id()], **its)).sequence_ids[0]

    async def ask(self, id: str, key: str, data: object = None, *, root: str | None = None) -> str:
        """Publish a question as the existing client does, before the wait; returns the topic."""
        topic = f"workflow/wf/{root or id}"
        await self.publish(topic, f"suspend_{key}", data, asked_by=id)
        return topic

    async def children(
        self, parent: str, key: str, items: Sequence[StartItem], *, batch: bool = False, wait: bool = True
    ) -> list[Started]:
        news = [New(self.world.new_id(), item) for item in items]
        its: dict[str, Any] = {"parent_id": parent, "step_key": key, "news": news, "wait": wait}
        return await self.do(push_reports.start_children, batch_id=self.world.new_id() if batch else None, **its)
