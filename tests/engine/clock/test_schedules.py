"""Schedules in the engine: several servers, killed servers, wrong clocks, and the firing loop."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.kit.polling import until

from perdure.engine.base.clock import ManualClock
from perdure.engine.base.service import Scope
from perdure.engine.engine import Engine
from perdure.store.base.interface import Store, query, record, verb
from perdure.store.open import is_postgres, open_store
from perdure.store.verbs.runs import queries
from perdure.wire.base.times import microseconds
from perdure.wire.clock.calendar import GetCalendar, calendar_of
from perdure.wire.clock.schedules import (
    ChangeSchedule,
    CreateSchedule,
    FireState,
    GetFires,
    GetNextRuns,
    GetSchedule,
    ListSchedules,
    Missed,
    Overlap,
    ScheduleStatus,
    StoredSchedule,
)
from perdure.wire.runs.executions import CancelExecution, ListExecutions

MINUTE = 60.0
HOUR = 3_600.0
NOON_US = microseconds(datetime(2026, 6, 1, 12, tzinfo=UTC))


def spec(cron: str = "*/15 * * * *", key: str = "k", **fields: object) -> CreateSchedule:
    return CreateSchedule("wf", cron, "UTC", key, **fields)  # type: ignore[arg-type]  # a test names them well


async def put(engine: Engine, project_id: str, spec: CreateSchedule) -> str:
    return (await engine.serve(Scope(project_id), spec)).schedule_id


@asynccontextmanager
async def servers(address: str, amount: int) -> AsyncIterator[list[Engine]]:
    """Engines of one store, each with a clock of its own. On a file they share the only store."""
    async with AsyncExitStack() as stack:
        stores: list[Store] = []
        for _ in range(amount if is_postgres(address) else 1):
            stores.append(await open_store(address))
            stack.push_async_callback(stores[-1].close)
        yield [Engine(stores[n % len(stores)], clock=ManualClock(NOON_US)) for n in range(amount)]


def clock_of(engine: Engine) -> ManualClock:
    assert isinstance(engine.clock, ManualClock)
    return engine.clock


async def look(engine: Engine) -> None:
    """Rounds of the loop until nothing more is due."""
    while await engine.schedules.fire_due() == 0.0:
        pass


async def started(engine: Engine, project_id: str, schedule_id: str) -> list[int]:
    """The slots that have an execution, oldest first. No two slots share an execution."""
    fires = (await engine.serve(Scope(project_id), GetFires(schedule_id, limit=1_000))).fires
    page = await engine.serve(Scope(project_id), ListExecutions(workflow_id="wf", limit=500))
    by_fire = [fire.execution_id for fire in fires if fire.execution_id is not None]
    mine = {one.id for one in page.executions}
    assert len(set(by_fire)) == len(by_fire) and set(by_fire) <= mine
    return [fire.slot_us for fire in reversed(fires) if fire.state in (FireState.STARTED, FireState.DONE)]


def slots(*minutes: int) -> list[int]:
    return [NOON_US + minute * 60_000_000 for minute in minutes]


async def test_three_servers_fire_each_due_time_once(database: str) -> None:
    async with servers(database, 3) as engines:
        project_id = await engines[0].projects.default()
        ids = [await put(engines[n % 3], project_id, spec(key=f"k{n}", overlap=Overlap.ALLOW)) for n in range(8)]
        for _ in range(6):
            for engine in engines:
                clock_of(engine).advance(15 * MINUTE)
            await asyncio.gather(*[look(engine) for engine in engines])
        for id in ids:
            assert await started(engines[1], project_id, id) == slots(15, 30, 45, 60, 75, 90)
        page = await engines[0].serve(Scope(project_id), ListExecutions(limit=500))
        assert len(page.executions) == 48
        found = await engines[0].store.read(queries.doctor())
        assert not any(found.values()), found


@pytest.mark.parametrize("away", [HOUR, -HOUR])
async def test_a_server_whose_clock_is_an_hour_off_fires_nothing_twice_and_loses_nothing(
    database: str, away: float
) -> None:
    """The clock steps away and back while slots come due on other servers. Every slot fires once, some early."""
    async with servers(database, 3) as engines:
        project_id = await engines[0].projects.default()
        fields = {"overlap": Overlap.ALLOW, "missed": Missed.ALL}
        id = await put(engines[0], project_id, spec("*/20 * * * *", **fields))
        for minute in range(1, 181):
            for engine in engines:
                clock_of(engine).advance(MINUTE)
            if minute == 59:  # a minute before a slot
                clock_of(engines[2]).advance(away)
            if minute == 95:
                clock_of(engines[2]).advance(-away)
            await asyncio.gather(*[look(engine) for engine in engines])
        assert await started(engines[0], project_id, id) == slots(*range(20, 181, 20))


KILLED = """
import asyncio, os, signal, sys
from perdure.engine.base.clock import ManualClock
from perdure.engine.engine import Engine
from perdure.engine.base.service import Scope
from perdure.store.open import open_store
from perdure.store.verbs.clock import schedules

address, moment, now_us = sys.argv[1], sys.argv[2], int(sys.argv[3])
ask = schedules.query

def query(name, /, **values):
    if name == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    return ask(name, **values)

schedules.query = query

async def main():
    engine = Engine(await open_store(address), clock=ManualClock(now_us))
    await engine.schedules.fire_due()
    os.kill(os.getpid(), signal.SIGKILL)  # "after": it is committed, and nobody was told

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("moment", ["settle_fires", "insert_fire", "update_fire", "advance_schedule", "after"])
async def test_a_server_killed_while_it_fires_leaves_all_of_it_or_nothing(database: str, moment: str) -> None:
    async with servers(database, 1) as [engine]:
        project_id = await engine.projects.default()
        id = await put(engine, project_id, spec())
    now_us = slots(15)[0]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, database, moment, str(now_us)], env={**os.environ, "PYTHONWARNINGS": ""}
    )
    assert killed.returncode == -signal.SIGKILL
    async with servers(database, 1) as [engine]:
        before = await started(engine, project_id, id)
        assert before == (slots(15) if moment == "after" else [])
        page = await engine.serve(Scope(project_id), ListExecutions())
        assert len(page.executions) == len(before), "no execution without its fire"
        clock_of(engine).advance(15 * MINUTE + 5)
        await look(engine)
        assert await started(engine, project_id, id) == slots(15)
        found = await engine.store.read(queries.doctor())
        assert not any(found.values()), found


# --- the loop --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(await open_store(f"sqlite:{tmp_path / 'store.db'}"), clock=ManualClock(NOON_US))
    await engine.start()
    yield engine
    await engine.stop()


async def test_every_minute_is_every_minute(engine: Engine) -> None:
    project_id = await engine.projects.default()
    id = await put(engine, project_id, spec("* * * * *", overlap=Overlap.ALLOW))
    for minute in range(1, 11):
        clock_of(engine).advance(MINUTE)
        engine.wake_loops()

        async def fired(minute: int = minute) -> bool:
            return len(await started(engine, project_id, id)) == minute

        await until(fired)
    assert await started(engine, project_id, id) == slots(*range(1, 11))


async def test_the_loop_sleeps_until_something_is_due(engine: Engine) -> None:
    project_id = await engine.projects.default()
    assert await engine.schedules.fire_due() == 1.0
    await put(engine, project_id, spec("* * * * *"))
    assert await engine.schedules.fire_due() == 1.0
    clock_of(engine).advance(MINUTE - 0.25)
    assert await engine.schedules.fire_due() == 0.25


async def test_the_next_in_turn_starts_when_the_one_before_it_ends(engine: Engine) -> None:
    """Nothing but the end itself tells the loop: time stands still."""
    project_id = await engine.projects.default()
    id = await put(engine, project_id, spec(overlap=Overlap.QUEUE))
    clock_of(engine).advance(15 * MINUTE)
    engine.wake_loops()

    async def first() -> bool:
        return bool(await started(engine, project_id, id))

    await until(first)
    clock_of(engine).advance(15 * MINUTE)
    engine.wake_loops()

    async def waits() -> bool:
        return (await engine.serve(Scope(project_id), GetFires(id))).fires[0].state is FireState.WAITING

    await until(waits)

    async def listens() -> bool:
        return engine.schedules.waiting_workflows == {"wf"}

    await until(listens)
    [running] = (await engine.serve(Scope(project_id), ListExecutions())).executions
    await engine.serve(Scope(project_id), CancelExecution(running.id))

    async def second() -> bool:
        return len(await started(engine, project_id, id)) == 2

    await until(second)


@verb(locks="")
async def _move(*, project_id: str, id: str, timezone: str) -> None:
    schedule = await record(StoredSchedule, "lock_schedule", project_id=project_id, id=id)
    assert schedule is not None
    await query("update_schedule", schedule, project_id=project_id, timezone=timezone)


async def test_a_zone_that_only_other_servers_know_stops_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with servers(f"sqlite:{tmp_path / 'store.db'}", 1) as [engine]:
        project_id = await engine.projects.default()
        stuck = await put(engine, project_id, spec(key="stuck"))
        fine = await put(engine, project_id, spec(key="fine"))
        await engine.store.write(_move(project_id=project_id, id=stuck, timezone="Mars/Olympus"))
        clock_of(engine).advance(15 * MINUTE)
        with caplog.at_level(logging.ERROR, "perdure.engine"):
            await look(engine)
            assert await engine.schedules.fire_due() == 1.0, "it does not spin"
        assert await started(engine, project_id, fine) == slots(15)
        assert [record.getMessage() for record in caplog.records] == [
            f"Schedule {stuck} cannot be fired here: timezone: 'Mars/Olympus' is not the name of a time zone; give an "
            "IANA name such as Europe/Berlin, or UTC."
        ]
        # A server that knows it fires it.
        await engine.store.write(_move(project_id=project_id, id=stuck, timezone="UTC"))
        await look(engine)
        assert await started(engine, project_id, stuck) == slots(15)


async def test_a_paused_one_with_a_zone_that_only_other_servers_know_is_listed(tmp_path: Path) -> None:
    async with servers(f"sqlite:{tmp_path / 'store.db'}", 1) as [engine]:
        project_id = await engine.projects.default()
        ids = [await put(engine, project_id, spec(key=key)) for key in "ab"]
        paused = await engine.serve(Scope(project_id), ChangeSchedule(ids[0], ScheduleStatus.PAUSED))
        await engine.store.write(_move(project_id=project_id, id=ids[0], timezone="Mars/Olympus"))
        page = await engine.serve(Scope(project_id), ListSchedules())
        assert [one.id for one in page.items] == ids[::-1]
        assert (await engine.serve(Scope(project_id), GetSchedule(ids[0]))).next_at_us == paused.next_at_us


async def test_many_that_cannot_be_fired_here_keep_no_place_of_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.engine.clock.schedules.BATCH", 3)
    async with servers(f"sqlite:{tmp_path / 'store.db'}", 1) as [engine]:
        project_id = await engine.projects.default()
        stuck = [await put(engine, project_id, spec(key=f"stuck {n}")) for n in range(7)]
        for id in stuck:
            await engine.store.write(_move(project_id=project_id, id=id, timezone="Mars/Olympus"))
        clock_of(engine).advance(MINUTE)
        fine = await put(engine, project_id, spec("*/20 * * * *", key="fine"))
        with caplog.at_level(logging.ERROR, "perdure.engine"):
            for minutes in (19, 20):
                clock_of(engine).advance(minutes * MINUTE)
                for _ in range(4):
                    await look(engine)
            assert await started(engine, project_id, fine) == slots(20), "the second one waits its turn"
            assert len(caplog.records) == len(stuck), "each says so once"
            # What could be fired meanwhile says so again when it cannot be any more.
            await engine.store.write(_move(project_id=project_id, id=stuck[0], timezone="UTC"))
            await look(engine)
            await engine.store.write(_move(project_id=project_id, id=stuck[0], timezone="Mars/Olympus"))
            clock_of(engine).advance(15 * MINUTE)
            await look(engine)
        assert len(caplog.records) == len(stuck) + 1 and stuck[0] in caplog.records[-1].getMessage()


async def test_what_comes_next_is_shown_in_the_schedules_zone(engine: Engine) -> None:
    project_id = await engine.projects.default()
    autumn = CreateSchedule("wf", "30 1 * * *", "America/New_York", "k")
    clock_of(engine).advance((microseconds(datetime(2026, 10, 31, 4, tzinfo=UTC)) - NOON_US) / 1e6)
    id = await put(engine, project_id, autumn)
    coming = await engine.serve(Scope(project_id), GetNextRuns(id, 3))
    assert [one.isoformat() for one in coming.items] == [
        "2026-10-31T01:30:00-04:00",
        "2026-11-01T01:30:00-04:00",
        "2026-11-02T01:30:00-05:00",
    ]
    assert len((await engine.serve(Scope(project_id), GetNextRuns(id))).items) == 10


async def test_a_calendar_lets_others_go_on_between_its_schedules(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 due times of each of 100 schedules take a second of the processor, with any read key."""
    turns = 0
    seen: list[int] = []

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    def watched(*args: Any) -> Any:
        seen.append(turns)
        return calendar_of(*args)

    monkeypatch.setattr("perdure.engine.clock.schedules.calendar_of", watched)
    project_id = await engine.projects.default()
    for n in range(3):
        await put(engine, project_id, spec("* * * * *", f"k{n}"))
    beside = asyncio.create_task(others())
    found = await engine.serve(Scope(project_id), GetCalendar())
    beside.cancel()
    assert [len(one.slots) for one in found.schedules] == [500] * 3
    assert seen[0] < seen[1] < seen[2]
