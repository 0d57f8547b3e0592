"""Scans take turns by project, and end with their caller."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure.store.base.interface import Store, Verb, query, value, verb
from perdure.store.base.statements import load, parse
from perdure.store.drivers import scans
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.drivers.scans import Scans
from perdure.store.open import open_store
from perdure.wire.base.errors import TooManyRequests, Unavailable

ENDLESS = """
-- name: endless
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i % 1000 + 1 FROM n) SELECT COUNT(*) FROM n;
"""


@verb(reads=True)
async def endless(*, project_id: str) -> None:
    await query("endless")


@verb(reads=True)
async def epoch(*, project_id: str) -> str:
    return str(await value("read_meta", name="epoch"))


@verb(reads=True)
async def own_epoch() -> str:
    return str(await value("read_meta", name="epoch"))


@pytest.fixture
async def store(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """A store with an endless query."""

    def with_endless(dialect: str) -> object:
        return load(dialect) | parse(ENDLESS, "test", dialect)

    for module in ("postgres", "sqlite"):
        monkeypatch.setattr(f"perdure.store.drivers.{module}.load", with_endless)
    opened = await open_store(database)
    yield opened
    await opened.close()


class Looks:
    """Scans whose ends the test decides."""

    def __init__(self, lanes: int) -> None:
        self.scans = Scans(*range(lanes))
        self.running: list[str] = []
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def _look(self, lane: int, verb: Verb[str]) -> str:
        project_id = str(verb.values["project_id"])
        assert project_id not in self.running
        self.running.append(project_id)
        self.begun.append(project_id)
        self._ends[project_id] = asyncio.Event()
        try:
            await self._ends[project_id].wait()
        finally:
            self.running.remove(project_id)
        return project_id

    def ask(self, project_id: str) -> asyncio.Task[str]:
        return asyncio.create_task(self.scans.run(epoch(project_id=project_id), self._look))

    async def end(self, project_id: str) -> None:
        self._ends[project_id].set()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_projects_take_turns_and_use_one_lane_each() -> None:
    looks = Looks(2)
    asked = [looks.ask("b") for _ in range(30)]
    await settle()
    assert looks.running == ["b"]
    asked.append(looks.ask("a"))
    await settle()
    assert looks.running == ["b", "a"]
    asked += [looks.ask(name) for name in ("c", "c", "d")]
    await looks.end("b")
    await looks.end("a")
    assert looks.begun == ["b", "a", "c", "d"]
    await looks.end("d")
    assert looks.begun[4:] == ["b"]
    await looks.end("c")
    assert looks.begun[5:] == ["c"]
    await looks.end("c")
    while looks.running:
        await looks.end("b")
    assert [await one for one in asked] == ["b"] * 30 + ["a", "c", "c", "d"]
    assert not looks.scans._asked and not looks.scans._turns and len(looks.scans._free) == 2


async def test_a_caller_that_leaves_gives_its_turn_back() -> None:
    looks = Looks(1)
    first, *waiting = [looks.ask("b") for _ in range(3)]
    await settle()
    other = looks.ask("a")
    await settle()
    waiting[0].cancel()
    looks._ends["b"].set()
    other.cancel()
    await settle()
    assert looks.begun == ["b", "b"]
    waiting[1].cancel()
    await asyncio.wait([first, other, *waiting])
    assert looks.running == [] and len(looks.scans._free) == 1 and not looks.scans._turns


async def test_a_project_may_not_wait_in_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "WAITING_MAX", 3)
    looks = Looks(1)
    asked = [looks.ask("b") for _ in range(5)]
    await settle()
    with pytest.raises(TooManyRequests, match="3 searches of this project wait"):
        await asked[-1]
    other = looks.ask("a")
    await looks.end("b")
    assert looks.running == ["a"]
    for one in (*asked, other):
        one.cancel()
    await asyncio.wait([*asked, other])


async def test_a_scan_ends_with_its_caller(store: Store) -> None:
    """The lane and project of a cancelled scan are free again."""
    async with asyncio.timeout(60):
        asked = [asyncio.create_task(store.scan(endless(project_id="b"))) for _ in range(30)]
        await settle()
        assert await store.scan(epoch(project_id="a")) == await store.scan(own_epoch())
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)
        assert all(one.cancelled() for one in asked)
        assert store.epoch.startswith(await store.scan(epoch(project_id="b")))


async def test_a_scan_of_a_project_has_a_time_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "SCAN_SECONDS_MAX", 0.05)
    async with asyncio.timeout(60):
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"ended after 0\.05 s\. Use narrower filters"):
                await store.scan(endless(project_id="b"))
        assert store.epoch.startswith(await store.scan(own_epoch()))


async def test_a_store_closes_beside_a_scan(store: Store) -> None:
    async with asyncio.timeout(60):
        asked = [asyncio.create_task(store.scan(endless(project_id="b"))) for _ in range(3)]
        await settle()
        await store.close()
        await asyncio.wait(asked)
    assert all(one.exception() is not None for one in asked)
    assert ["store is closed" in str(one.exception()) for one in asked[1:]] == [True, True], "no new connection"


async def test_a_scan_ends_with_its_caller_also_if_its_connection_breaks_then(store: Store) -> None:
    """A lost connection is opened again, and would have made the end of a server's own loop wait for ever."""
    if not isinstance(store, PostgresStore):
        pytest.skip("a file has no connections")
    async with asyncio.timeout(60):
        asked = asyncio.create_task(store.scan(endless(project_id="b")))
        await settle()
        busy = [lane for lane in store._scans.lanes if lane._postgres._connection is not None]
        while not busy:
            await asyncio.sleep(0.01)
            busy = [lane for lane in store._scans.lanes if lane._postgres._connection is not None]
        asked.cancel()
        for lane in busy:
            assert lane._postgres._connection is not None
            lane._postgres._connection.terminate()
        await asyncio.wait([asked], timeout=5)
        assert asked.cancelled()
        assert store.epoch.startswith(await store.scan(epoch(project_id="b")))
