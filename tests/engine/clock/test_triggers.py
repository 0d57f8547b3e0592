"""Event triggers in the engine: several servers, killed servers, and the taking loop."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from tests.kit.polling import until

from perdure.engine.base.clock import ManualClock
from perdure.engine.base.service import Scope
from perdure.engine.engine import Engine
from perdure.store.base.interface import Store
from perdure.store.open import is_postgres, open_store
from perdure.store.verbs.runs import queries
from perdure.wire.clock.triggers import RegisterEventTrigger, TriggerSpec
from perdure.wire.runs.events import EventData, PublishEvent
from perdure.wire.runs.executions import ListExecutions
from perdure.wire.runs.requests import RegisterRequest, WorkflowSpec

NOW_US = 1_780_000_000_000_000
WORKER = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


@asynccontextmanager
async def servers(address: str, amount: int) -> AsyncIterator[list[Engine]]:
    """Engines of one store with running loops and a standing clock. A file has one server."""
    async with AsyncExitStack() as stack:
        engines: list[Engine] = []
        for _ in range(amount if is_postgres(address) else 1):
            store: Store = await open_store(address)
            engines.append(Engine(store, clock=ManualClock(NOW_US)))
            await engines[-1].start()
            stack.push_async_callback(engines[-1].stop)
        yield engines


async def registered(engine: Engine, *specs: TriggerSpec) -> str:
    """A project with a worker that declares triggers."""
    project_id = await engine.projects.default()
    request = RegisterRequest(WORKER, "d", "3.12", [WorkflowSpec("wf")], triggers=list(specs))
    await engine.serve(Scope(project_id), request)
    return project_id


async def publish(engine: Engine, project_id: str, *data: int) -> None:
    events = [EventData(msgspec.Raw(msgspec.json.encode(n))) for n in data]
    await engine.serve(Scope(project_id), PublishEvent("t", events))


async def taken(engine: Engine, project_id: str) -> list[list[int]]:
    """The data of the events of each execution."""
    page = await engine.serve(Scope(project_id), ListExecutions(workflow_id="wf", limit=500))
    found: list[list[int]] = []
    for one in page.executions:
        payload: Any = msgspec.json.decode(one.payload)
        found.append([event["data"] for event in payload.get("events", [payload])])
    return sorted(found)


async def test_all_servers_take_and_none_takes_twice(database: str) -> None:
    async with servers(database, 3) as engines:
        project_id = await registered(engines[0], TriggerSpec("wf", "t"))
        amount = 60

        async def one(n: int) -> None:
            await publish(engines[n % len(engines)], project_id, n)

        await asyncio.gather(*[one(n) for n in range(amount)])

        async def all_taken() -> bool:
            return len(await taken(engines[0], project_id)) >= amount

        await until(all_taken)
        assert await taken(engines[0], project_id) == [[n] for n in range(amount)]
        found = await engines[0].store.read(queries.doctor())
        assert not any(found.values()), found


async def test_a_publish_rings_the_loop(database: str) -> None:
    """A hint alone announces the event, and the clock alone the time-out: no look comes unprompted."""
    async with servers(database, 1) as [engine]:
        engine.spread = lambda seconds: 60.0  # type: ignore[method-assign]  # looks of its own come too late
        project_id = await registered(engine, TriggerSpec("wf", "t", 2, 30))

        async def knows() -> bool:
            return (project_id, "t") in engine.triggers.topics

        await until(knows)
        await publish(engine, project_id, 1, 2, 3)

        async def one() -> bool:
            return await taken(engine, project_id) == [[1, 2]]

        await until(one)
        assert isinstance(engine.clock, ManualClock)
        engine.clock.advance(30)
        engine.wake_loops()

        async def two() -> bool:
            return await taken(engine, project_id) == [[1, 2], [3]]

        await until(two)


async def test_the_loop_sleeps_until_a_batch_is_due(database: str) -> None:
    async with servers(database, 1) as [engine]:
        project_id = await registered(engine)
        await engine.serve(Scope(project_id), RegisterEventTrigger("wf", "d", "t", 9, 10))
        await publish(engine, project_id, 1)
        assert isinstance(engine.clock, ManualClock)
        engine.clock.advance(9.75)
        assert await engine.triggers.take_due() == 0.25
        assert await taken(engine, project_id) == []


KILLED = """
import asyncio, os, signal, sys
from perdure.engine.base.clock import ManualClock
from perdure.engine.engine import Engine
from perdure.engine.base.service import Scope
from perdure.store.open import open_store
from perdure.store.verbs.clock import triggers

address, moment, now_us = sys.argv[1], sys.argv[2], int(sys.argv[3])
ask, start = triggers.query, triggers.start_items

def query(name, /, **values):
    if name == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    return ask(name, **values)

async def start_items(*args, **values):
    answers = await start(*args, **values)
    if moment == "started":
        os.kill(os.getpid(), signal.SIGKILL)
    return answers

triggers.query, triggers.start_items = query, start_items

async def main():
    engine = Engine(await open_store(address), clock=ManualClock(now_us))
    await engine.triggers.take_due()
    os.kill(os.getpid(), signal.SIGKILL)  # "after": it is committed, and nobody was told

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("moment", ["event_sizes", "started", "take_events", "after"])
async def test_a_server_killed_while_it_takes_leaves_all_of_it_or_nothing(database: str, moment: str) -> None:
    store = await open_store(database)
    engine = Engine(store, clock=ManualClock(NOW_US))  # its loops do not run
    project_id = await registered(engine, TriggerSpec("wf", "t", 2))
    await publish(engine, project_id, 1, 2)
    await store.close()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, database, moment, str(NOW_US)], env={**os.environ, "PYTHONWARNINGS": ""}
    )
    assert killed.returncode == -signal.SIGKILL
    store = await open_store(database)
    engine = Engine(store, clock=ManualClock(NOW_US))
    assert await taken(engine, project_id) == ([[1, 2]] if moment == "after" else [])
    while await engine.triggers.take_due() == 0.0:
        pass
    assert await taken(engine, project_id) == [[1, 2]]
    found = await store.read(queries.doctor())
    assert not any(found.values()), found
    await store.close()
