"""Workflows started by the clock: declared in code, made by clients, in a single process and over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.server.serving import serving

from perdure import Client, Context, Registry, Schedule, ScheduledFor, workflow
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.worker import Worker
from perdure.testing import Bench, ManualClock, embedded
from perdure.wire.base.errors import BadRequest, BadValue, NotFound
from perdure.wire.base.times import microseconds
from perdure.wire.clock.schedules import FireState, ScheduleStatus
from perdure.wire.runs.executions import ListFilters

EVE_US = microseconds(datetime(2026, 3, 7, 12, tzinfo=UTC))
HOUR = 3_600.0

app = Registry()
ran: list[object] = []


@app.workflow(schedule=Schedule("30 2 * * *", timezone="America/New_York", key="night"))
async def nightly(ctx: Context, due: ScheduledFor) -> str:
    ran.append(due)
    return f"{due.timestamp:%H:%M %z}"


@app.workflow(schedule=["0 * * * *", Schedule("0 9 * * *", key="morning", input={"region": "eu"}, overlap="skip")])
async def hourly(ctx: Context, what: dict[str, object]) -> None:
    ran.append(what)


@app.workflow
async def plain(ctx: Context) -> None:
    ran.append("plain")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    ran.clear()
    async with embedded(app, clock=ManualClock(EVE_US), skip_time=False) as bench:
        yield bench


async def test_what_code_declares_runs_when_it_is_due(bench: Bench) -> None:
    declared = {(one.workflow_id, one.key): one for one in await bench.schedules.list()}
    assert set(declared) == {("nightly", "night"), ("hourly", "default"), ("hourly", "morning")}
    assert all(one.declared for one in declared.values())
    for id in (declared["hourly", "default"].id, declared["hourly", "morning"].id):
        assert (await bench.schedules.pause(id)).status is ScheduleStatus.PAUSED
    await bench.advance(24 * HOUR)  # over the night in which 02:30 is skipped
    await bench.settle()
    night = declared["nightly", "night"]
    [due] = ran
    assert isinstance(due, ScheduledFor)
    assert due.timestamp == datetime.fromisoformat("2026-03-08T03:00:00-04:00")
    assert due.timestamp.utcoffset() == timedelta(hours=-4)
    assert (due.last_timestamp, due.timezone, due.key, due.schedule_id) == (None, night.timezone, "night", night.id)
    assert due.upcoming == datetime.fromisoformat("2026-03-09T02:30:00-04:00")
    [fire] = await bench.schedules.fires(night.id)
    assert fire.state is FireState.DONE and fire.execution_id is not None
    found = await bench.find(nightly, "night@2026-03-08T07:00Z")
    assert (found.id, await found.result()) == (fire.execution_id, "03:00 -0400")


async def test_a_schedule_may_have_an_input_of_its_own(bench: Bench) -> None:
    [morning] = [one for one in await bench.schedules.list(hourly) if one.key == "morning"]
    for one in await bench.schedules.list():
        if one.id != morning.id:
            await bench.schedules.pause(one.id)
    await bench.advance(21 * HOUR)
    await bench.settle()
    assert ran == [{"region": "eu"}]


async def test_time_that_is_skipped_fires_what_lies_on_the_way() -> None:
    ran.clear()
    waits = Registry()
    waits.add(hourly)

    @waits.workflow
    async def patient(ctx: Context) -> str:
        await asyncio.sleep(3 * HOUR)
        return "done"

    async with embedded(waits, clock=ManualClock(EVE_US)) as bench:
        assert await (await bench.start(patient)).result() == "done"
        await bench.settle()
        [every] = [one for one in await bench.schedules.list(hourly) if one.key == "default"]
        assert len(await bench.schedules.fires(every.id)) >= 2


async def test_a_client_manages_schedules(bench: Bench) -> None:
    made = await bench.schedules.create(plain, "*/10 * * * *", key="tens", overlap="allow", missed_window=600)
    assert (made.next_at_us, made.overlap.value, made.missed_window_seconds) == (EVE_US + 600_000_000, "allow", 600)
    assert (await bench.schedules.create("plain", "*/10 * * * *", key="tens")).id == made.id
    coming = await bench.schedules.next(made.id, 2)
    assert [one.isoformat() for one in coming] == ["2026-03-07T12:10:00+00:00", "2026-03-07T12:20:00+00:00"]
    await (await bench.schedules.run(made.id)).result()
    assert ran == ["plain"]
    changed = await bench.schedules.change(made.id, cron="0 0 * * *", missed="all", missed_window=timedelta(hours=2))
    assert (changed.cron, changed.missed.value, changed.missed_window_seconds) == ("0 0 * * *", "all", 7_200)
    await bench.schedules.pause(made.id)
    assert (await bench.schedules.resume(made.id)).status is ScheduleStatus.ACTIVE
    await bench.schedules.delete(made.id)
    with pytest.raises(NotFound):
        await bench.schedules.get(made.id)


async def test_what_makes_no_sense_is_refused_where_it_stands(bench: Bench) -> None:
    with pytest.raises(BadValue, match="has 4 fields"):
        Schedule("0 9 * *")
    with pytest.raises(BadValue, match="is never due"):

        @workflow(schedule="30 2 31 2 *")
        async def never(ctx: Context) -> None: ...

    with pytest.raises(ValueError, match="called 'default'"):

        @workflow(schedule=["0 1 * * *", "0 2 * * *"])
        async def twice(ctx: Context) -> None: ...

    with pytest.raises(BadValue, match="timezone"):
        await bench.schedules.create(plain, "0 9 * * *", timezone="Mars/Olympus")
    with pytest.raises(BadValue, match="overlap is one of skip, queue, allow; got 'never'"):
        await bench.schedules.create(plain, "0 9 * * *", overlap="never")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(BadRequest, match="cannot be scheduled"):
        await bench.schedules.create("unknown", "0 9 * * *")


async def test_over_http_it_is_the_same(database: str) -> None:
    async with serving(database) as served, Client(HttpTransport(served.server.url, served.key)) as client:
        lease = HttpLease([served.server.url], served.key)
        worker = Worker(HttpTransport(served.server.url, served.key), app, lease=lease)
        await worker.start()
        try:
            [night] = await client.schedules.list(nightly)
            assert (night.key, night.timezone, night.declared) == ("night", "America/New_York", True)
            made = await client.schedules.create(
                hourly, "0 0 1 1 *", key="yearly", input={"a": 1}, overlap="skip", missed="all", missed_window=3_600
            )
            assert made == await client.schedules.get(made.id)
            assert (made.overlap.value, made.missed.value, made.missed_window_seconds) == ("skip", "all", 3_600)
            assert made.payload is not None and bytes(made.payload) == b'{"a":1}'
            assert len(await client.schedules.next(made.id)) == 10
            await (await client.schedules.run(made.id)).result(timeout=60)
            [fire] = await client.schedules.fires(made.id)
            assert fire.by_hand
            paused = await client.schedules.pause(made.id)
            assert paused.status is ScheduleStatus.PAUSED
            assert (await client.schedules.resume(made.id)).status is ScheduleStatus.ACTIVE
            await client.schedules.delete(made.id)
            assert made.id not in [one.id for one in await client.schedules.list()]
            with pytest.raises(BadRequest, match="not a schedule id"):
                await client.schedules.get("nonsense")
            assert (await client.list(ListFilters(workflow_id="hourly"))).executions
        finally:
            await worker.drain()


async def test_the_client_without_a_loop_has_them_too(database: str) -> None:
    async with serving(database, clock=ManualClock()) as served:  # nothing is due meanwhile

        def manage() -> None:
            with Client.sync(served.server.url, served.key) as client:
                made = client.schedules.create("w", "0 9 * * *", timezone="Europe/Berlin", key="k")
                assert [one.id for one in client.schedules.list("w")] == [made.id]
                assert client.schedules.get(made.id).key == "k"
                assert client.schedules.change(made.id, cron="0 10 * * *").cron == "0 10 * * *"
                assert client.schedules.pause(made.id).status is ScheduleStatus.PAUSED
                assert client.schedules.resume(made.id).status is ScheduleStatus.ACTIVE
                assert client.get(client.schedules.run(made.id).id).workflow_id == "w"
                assert len(client.schedules.next(made.id, 3)) == 3
                assert len(client.schedules.fires(made.id)) == 1
                client.schedules.delete(made.id)
                assert client.schedules.list() == []

        await asyncio.to_thread(manage)
