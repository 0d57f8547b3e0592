"""How long a suspended execution takes to come back to its worker when the event, or the answer, reaches another
server: with hints between the servers, and with NOTIFY fully blocked."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from msgspec import Raw
from tests.faults.run import Broken, Run, spread
from tests.store.world import answer_wait, event_wait, raw
from uuid_utils import uuid7

from perdure.engine.base.service import Scope
from perdure.engine.engine import Engine
from perdure.store.open import open_store
from perdure.wire.runs.events import EventData, PublishEvent
from perdure.wire.runs.executions import ResumeExecution
from perdure.wire.runs.requests import (
    Claimed,
    ClaimRequest,
    Complete,
    RegisterRequest,
    ReportItem,
    ReportRequest,
    Started,
    StartItem,
    Suspend,
    WorkflowSpec,
)

CALLERS = 6
MOST_SECONDS = {"with NOTIFY": 0.1, "without": 1.5}


async def wakes(run: Run) -> None:
    shared = run.database.servers_max > 1
    for how in MOST_SECONDS if shared else ("with NOTIFY",):
        took = await _measure(run, run.pick(60, 300, 2_000), exchange=how == "with NOTIFY")
        slow = sum(one > MOST_SECONDS[how] for one in took)
        name = how if shared else "one server"
        run.figures[name] = f"{spread(took)}; {slow} of {len(took)} took more than {MOST_SECONDS[how]:g} s"


async def _measure(run: Run, amount: int, *, exchange: bool) -> list[float]:
    """The seconds from the answer to whoever published to the worker's claim, of each execution."""
    here = await _engine(run, exchange=exchange)
    there = await _engine(run, exchange=exchange) if run.database.servers_max > 1 else here
    worker = _Worker(here, await here.projects.default())
    await worker.register()
    serving = asyncio.create_task(worker.serve())
    try:
        await asyncio.gather(*[_caller(run, worker, there, amount // CALLERS) for _ in range(CALLERS)])
    finally:
        worker.stopping = True
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        for engine in {here, there}:
            await engine.stop()
    return worker.took


async def _engine(run: Run, *, exchange: bool) -> Engine:
    engine = Engine(await open_store(run.database.url))
    if not exchange:
        engine.store.exchange_hints = lambda: None  # type: ignore[method-assign]  # nothing is sent, nothing arrives
    await engine.start()
    return engine


class _Worker:
    """Claims at a server. An execution waits for the thing that its input names, and then ends."""

    def __init__(self, engine: Engine, project_id: str) -> None:
        self.engine = engine
        self.project_id = project_id
        self.id = str(uuid7())
        self.stopping = False
        self.suspended: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.sent: dict[str, float] = {}
        self.back: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.took: list[float] = []

    async def register(self) -> None:
        specs = [WorkflowSpec("wf")]
        await self.engine.serve(Scope(self.project_id), RegisterRequest(self.id, "d", "3.12", specs, embedded=True))

    async def serve(self) -> None:
        while not self.stopping:
            request = ClaimRequest(self.id, self.engine.store.epoch, str(uuid7()), 100, 20.0)
            reply = await self.engine.serve(Scope(self.project_id), request)
            now = time.perf_counter()
            for claimed in reply.items:
                if claimed.attempt == 1:
                    await self._suspend(claimed)
                else:
                    self.took.append(now - self.sent.get(claimed.id, now))  # it may be here before the publisher
                    await self._report(claimed, ReportItem(claimed.id, claimed.attempt, 1, 99, [], Complete(raw(1))))
                    self.back[claimed.id].set()

    async def _suspend(self, claimed: Claimed) -> None:
        opened = answer_wait("k") if bytes(claimed.payload) == b"null" else event_wait("k", claimed.id)
        await self._report(claimed, ReportItem(claimed.id, 1, 1, 1, [opened], Suspend(["k"], None)))
        self.suspended[claimed.id].set()

    async def _report(self, claimed: Claimed, item: ReportItem) -> None:
        [answer] = (await self.engine.serve(Scope(self.project_id), self._request(item))).items
        if not answer.ended:
            raise Broken(f"{claimed.id} did not end or wait: {answer}")

    def _request(self, item: ReportItem) -> ReportRequest:
        return ReportRequest(self.id, self.engine.store.epoch, [item])


async def _caller(run: Run, worker: _Worker, there: Engine, times: int) -> None:
    """Start execution after execution, let each wait, and send the awaited event or answer through the other server."""
    for n in range(times):
        event = n % 2 == 0
        item = StartItem("wf", Raw(b'"event"' if event else b"null"))
        [started] = await worker.engine.executions.start(worker.project_id, [item])
        assert isinstance(started, Started)
        id = started.execution_id
        await worker.suspended[id].wait()
        await asyncio.sleep(run.chance.uniform(0, 0.1))  # not in step with the worker's next claim
        if event:
            await there.serve(Scope(worker.project_id), PublishEvent(id, [EventData(raw(n))]))
        else:
            await there.serve(Scope(worker.project_id), ResumeExecution(id, "k", raw(n)))
        worker.sent[id] = time.perf_counter()
        await worker.back[id].wait()
