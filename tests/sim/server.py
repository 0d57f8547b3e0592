"""The server of a simulation: the real engine and loops over the real verbs, and a restart that forgets the engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Raw
from tests.sim.loop import SimClock

from perdure.engine.base.service import Scope, once
from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.engine.loops import Loop
from perdure.store.verbs.base.idempotency import Idempotency
from perdure.wire.base.errors import PerdureError
from perdure.wire.base.operation import Operation
from perdure.wire.runs.executions import CancelExecution, ResumeExecution
from perdure.wire.runs.requests import BeatRequest, StartItem

if TYPE_CHECKING:
    from tests.sim.network import Respond
    from tests.sim.world import World

SETTINGS = EngineSettings(lease_seconds=5.0, beat_seconds=1.6, grace_seconds=5.0, poll_seconds=4.0)
LEASE_US = 5_000_000


class Start(NamedTuple):
    script: str
    item: StartItem
    idempotency_key: str | None


class Once(NamedTuple):
    """An operation with its Idempotency-Key."""

    operation: Operation[Any]
    idempotency_key: str


class Resume(NamedTuple):
    execution_id: str
    step_key: str
    data: Raw


class Cancel(NamedTuple):
    execution_id: str


class Gone(NamedTuple):
    """The connection over which a worker's beats came is closed."""

    worker_id: str


class Server:
    """Successive processes in front of one store."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.up = False
        self.started_us = 0
        self.engine: Engine
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._clock = SimClock(world.loop)

    def start(self) -> None:
        self.world.log("server starts")
        self.engine = Engine(self.world.store, clock=self._clock, settings=SETTINGS)
        self.world.store.wrap_listener(self.world.drops_hints, self.world.random)
        self.started_us = self.world.loop.us
        self.up = True
        self._run(self.engine.start())

    def stop(self) -> None:
        """Killed: whoever waits for an answer hears nothing, what the engine knew is gone, the store stays."""
        self.world.log("server dies")
        self.up = False
        for task in [*self._tasks, *self.engine._tasks]:
            task.cancel()
        self._tasks.clear()
        self.engine._tasks.clear()

    def _run(self, coroutine: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self.world.loop.create_task(coroutine)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, PerdureError):
                raise error

    def take(self, name: str, request: Any, respond: Respond) -> bool:
        """Handle a request; False when nobody listens."""
        if not self.up:
            return False

        def answered(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                error = task.exception()
                respond(task.result() if error is None else error)

        self._run(self._desk(name, request)).add_done_callback(answered)
        return True

    async def _desk(self, name: str, request: Any) -> object:
        engine, project = self.engine, self.world.project_id
        if isinstance(request, BeatRequest):
            now_us = engine.clock.now_us()
            reply = await engine.serve(Scope(project), request)
            if not reply.lost:
                self.world.audit.told(request.worker_id, now_us + engine.lease_us)
            return reply
        if isinstance(request, Operation):
            return await engine.serve(Scope(project), request)
        if isinstance(request, Once):
            op = request.operation
            return await engine.serve(Scope(project, once(op, request.idempotency_key)), op)
        if name == "gone":
            self.world.audit.cut(request.worker_id)
            await engine.beats.disconnected(request.worker_id)
            return None
        if name == "start":
            return await self._start(request)
        if name == "resume":
            id, key, data = request.execution_id, request.step_key, request.data
            await engine.serve(Scope(project), ResumeExecution(id, key, data))
            return None
        assert name == "cancel"
        return await engine.serve(Scope(project), CancelExecution(request.execution_id))

    async def _start(self, request: Start) -> object:
        key = request.idempotency_key
        idempotency = None if key is None else Idempotency("start", key, f"hash of {key}")
        answers = await self.engine.executions.start(self.world.project_id, [request.item], idempotency=idempotency)
        return answers[0]


def late(loop: Loop, world: World) -> Loop:
    """The loop, sometimes late between two looks at the store."""

    async def round() -> float:
        if world.chaos and world.random.random() < 0.03:
            world.log(f"loop {loop.name} is late")
            await asyncio.sleep(world.random.random() * 6.0)
        return await loop.round()

    return Loop(loop.name, round)
