"""Rows that another transaction holds: verbs that need such rows wait alone, in order."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator

import pytest
from tests import postgres
from tests.databases import migrated
from tests.store.drivers.test_driver import note, read_note
from tests.store.locks import are_aside, end_waits, held, set_limits
from tests.store.world import LEASE_US, PROJECT, SECOND, World, step

from perdure.store.base.interface import Verb, query, verb
from perdure.store.drivers import postgres_lock_queue, postgres_writer
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.verbs.runs import claims, starts
from perdure.store.verbs.runs.direct_dispatch import WaitingClaim
from perdure.store.verbs.runs.starts import New
from perdure.wire.base.errors import Unavailable, UnknownOutcome
from perdure.wire.runs.requests import Claimed, ItemReply, StartChild, StartItem

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresStore]:
    """The store soon finds a row held, and then waits longer than a slow machine needs."""
    set_limits(monkeypatch, lock_timeout=150)
    monkeypatch.setattr(postgres_lock_queue, "WAIT_SECONDS_MAX", 60.0)
    monkeypatch.setattr(postgres_lock_queue, "BELIEVED_SECONDS", 600.0)
    async with postgres.fresh(migrated) as url:
        opened = await PostgresStore.open(url)
        yield opened
        await opened.close()


async def _writes(store: PostgresStore, amount: int) -> None:
    for n in range(amount):
        assert await store.write(note(name=f"other{n}", value=str(n))) == str(n)


async def test_one_held_row_keeps_nobody_else_waiting(store: PostgresStore) -> None:
    await store.write(note(name="a", value="1"))
    async with held(store.url, "meta", "a"):
        writing = asyncio.ensure_future(store.write(note(name="a", value="2")))
        await are_aside(store, 1)
        await _writes(store, 50)
        assert not writing.done()
    assert await writing == "2"
    assert await store.read(read_note(name="a")) == "2"


async def test_what_is_known_to_be_held_is_not_waited_for_again(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused verb asks again. A verb that meets the row only in its course does not hold up its group."""

    @verb(locks="")
    async def both(*, first: str, second: str) -> None:
        await query("write_meta", name=first, value="x")
        await query("write_meta", name=second, value="x")

    await store.write(note(name="a", value="1"))
    async with held(store.url, "meta", "a"):
        monkeypatch.setattr(postgres_lock_queue, "WAIT_SECONDS_MAX", 0.1)
        with pytest.raises(Unavailable, match=r"another transaction holds what it needs.*nothing happened"):
            await store.write(note(name="a", value="2"))
        monkeypatch.setattr(postgres_lock_queue, "WAIT_SECONDS_MAX", 60.0)
        monkeypatch.setattr(postgres_writer, "_WARY", "SET LOCAL lock_timeout = 60000")
        verbs: list[Verb[object]] = [note(name="a", value="3"), both(first="b", second="a")]
        waiting = [asyncio.ensure_future(store.write(one)) for one in verbs]
        await _writes(store, 5)
        await are_aside(store, 2)
        assert not any(one.done() for one in waiting)
    await asyncio.gather(*waiting)
    assert await store.read(read_note(name="b")) == "x"
    assert not store._lock_queue.busy  # they got through: it is not held any more


async def test_a_start_does_not_wait_for_the_worker_that_would_take_it(store: PostgresStore) -> None:
    """If the worker's row is held, known or not, the worker's waiting claim does not stand."""
    world = await World.make(store)
    await world.register()

    async def start(n: int) -> list[Claimed]:
        news = [New(world.new_id(), StartItem("wf"))]
        waiting_claim = WaitingClaim("w", "d", "3.12", f"c{n}", 1)
        _, handed = await store.write(
            starts.start(project_id=PROJECT, news=news, now_us=world.now_us, waiting_claim=waiting_claim)
        )
        return handed

    [claimed] = await start(1)
    async with held(store.url, "workers", "w"):
        assert await start(2) == []
        assert not store._lock_queue.busy
        cutting = asyncio.ensure_future(store.write(claims.cut_lease(worker_id="w", until_us=world.now_us + SECOND)))
        await are_aside(store, 1)
        assert await start(3) == []
        assert not cutting.done()
    await cutting
    assert len(await world.claim(capacity=2, claim_id="c4")) == 2
    await world.finish(claimed.id)


async def test_nobody_overtakes_a_verb_that_waits_for_the_row_that_both_name(store: PostgresStore) -> None:
    """The reports are of one execution, some sent only once the first waits, then a repeat."""
    world = await World.make(store)
    await world.register()
    id, other = await world.running(), await world.running()

    def reports(*numbers: int) -> list[asyncio.Future[ItemReply]]:
        entries = {n: [step(f"s{n}", n)] for n in numbers}
        return [asyncio.ensure_future(world.report(id, entries[n], attempt=1, number=n, seen=2)) for n in numbers]

    async with held(store.url, "executions", id):
        waiting = reports(1, 2)
        await are_aside(store, 2)
        waiting += reports(3, 1)
        await world.report(other, [step("s", 1)])
        await are_aside(store, 4)
        assert not any(one.done() for one in waiting)
    assert not any(answer.ended for answer in await asyncio.gather(*waiting))
    assert [row.key for row in await world.journal(id) if row.key] == ["s1", "s2", "s3"]
    await world.check()


async def test_what_an_earlier_one_names_is_not_taken_by_a_later_one(store: PostgresStore) -> None:
    """The earlier start waits for a parent; both starts name the same free key."""
    world = await World.make(store)
    await world.register()
    parent = await world.running()
    async with held(store.url, "executions", parent):
        first = asyncio.ensure_future(
            world.report(parent, [StartChild("c", None, StartItem("wf", key="k"))], attempt=1, number=1, seen=2)
        )
        await are_aside(store, 1)
        second = asyncio.ensure_future(world.answers([StartItem("wf", key="k")]))
        await are_aside(store, 2)
    await first
    [found] = await second
    assert getattr(found, "existing", False)
    await world.check()


async def test_sweeps_step_aside_too(store: PostgresStore) -> None:
    """The ending worker holds a locked execution, yet other workers are handed work."""
    world = await World.make(store)
    await world.register()
    await world.register("v")
    id = await world.running()
    async with held(store.url, "executions", id):
        ending = asyncio.ensure_future(
            store.write(claims.drain(project_id="project", worker_id="w", now_us=world.now_us))
        )
        await are_aside(store, 1)
        for _ in range(5):
            assert await world.start() in await world.claim_ids("v")
        assert not ending.done()
    await ending
    assert await world.claim_ids("v") == [id]
    await world.check()


async def test_many_that_wait_are_each_told_in_time(store: PostgresStore, caplog: pytest.LogCaptureFixture) -> None:
    await store.write_all([note(name=f"n{n}", value="1") for n in range(8)])
    async with held(store.url, "meta", "n1"), held(store.url, "meta", "n3"), held(store.url, "meta", "n5"):
        writing = asyncio.create_task(store.write_all([note(name=f"n{n}", value="2") for n in range(8)]))
        await are_aside(store, 3)
        end_waits(store)
        answers = await writing
        assert [n for n, answer in enumerate(answers) if isinstance(answer, Unavailable)] == [1, 3, 5]
    assert [await store.read(read_note(name=f"n{n}")) for n in range(8)] == ["2", "1", "2", "1", "2", "1", "2", "2"]


async def test_a_store_that_closes_does_not_wait_for_what_others_hold(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres_writer, "CLOSE_SECONDS_MAX", 0.3)
    await store.write(note(name="a", value="1"))
    async with held(store.url, "meta", "a"):
        waiting = asyncio.ensure_future(store.write(note(name="a", value="2")))
        await are_aside(store, 1)
        async with asyncio.timeout(60):
            await store.close()
        with pytest.raises(UnknownOutcome, match="The server stopped before"):
            await waiting


async def test_a_verb_that_comes_aside_while_the_store_closes_is_told_at_once(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres_writer, "CLOSE_SECONDS_MAX", 60.0)  # the writer has all the time that it needs
    await store.write(note(name="a", value="1"))
    async with held(store.url, "meta", "a"):
        waiting = asyncio.ensure_future(store.write(note(name="a", value="2")))
        await asyncio.sleep(0)  # it is accepted, and waits in the writer
        async with asyncio.timeout(60):
            await store.close()
        with pytest.raises(Unavailable, match="the server ends"):
            await waiting


def test_times_fit() -> None:
    """A verb in the lock queue releases its locks before any other session would give up."""
    limits = [
        int(found)
        for found in re.findall(r"lock_timeout = (\d+)", postgres_writer._HURRY + postgres_lock_queue._LIMITS)
    ]
    assert limits[0] > limits[1]
    assert postgres_lock_queue.WAIT_SECONDS_MAX < postgres_lock_queue.BELIEVED_SECONDS < LEASE_US / SECOND
