"""The order of creation of executions and events survives restarts and a move to PostgreSQL."""

from pathlib import Path

import pytest
from tests import postgres
from tests.store.runs.test_waits import events_of
from tests.store.world import START_US, World, event_wait

from perdure.store.copying import copy_store
from perdure.store.drivers import sqlite_numbers
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.store.open import open_store


async def _seen(url: str, *ids: str) -> list[list[object]]:
    """The events that each execution, waiting from now on, takes."""
    world = World(store := await open_store(url))
    try:
        found = []
        for id in ids:
            await world.report(id, [event_wait("k", "topic")])
            found.append(await events_of(world, id))
        return found
    finally:
        await store.close()


async def test_the_order_goes_on_when_the_store_is_opened_again_with_an_earlier_clock(database: str) -> None:
    world = await World.make(store := await open_store(database))
    await world.register()
    await world.publish("topic", "before")
    old = await world.running()
    await store.close()
    again = World(store := await open_store(database))
    again._ids = 1_000
    again.now_us = START_US - 7_200_000_000
    await again.publish("topic", "after")
    young = await again.running()
    await store.close()
    assert await _seen(database, old, young) == [["after"], []]


async def test_a_range_that_is_used_up_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_numbers, "RANGE", 10)
    monkeypatch.setattr(sqlite_numbers, "SPARE", 5)
    path = str(tmp_path / "s.db")
    for n in range(3):
        world = await World.make(store := SQLiteStore(path))
        for _ in range(20):
            await world.publish(f"topic {n}", "x")
        await store.close()
    store = SQLiteStore(path)
    rows = list(store._writer.execute("SELECT created_number FROM events ORDER BY topic, seq"))
    await store.close()
    assert rows == sorted(set(rows)) and len(rows) == 60


async def test_the_order_goes_on_in_the_database_that_a_file_was_copied_to(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    world = await World.make(store := await open_store(path))
    await world.register()
    await world.publish("topic", "before")
    id = await world.running()
    await store.close()
    async with postgres.fresh() as url:
        await copy_store(path, url, now_us=START_US, tell=lambda table, rows: None)
        there = World(store := await open_store(url))
        there.now_us = START_US - 7_200_000_000
        there._ids = 1_000
        await there.publish("topic", "after")
        await store.close()
        assert await _seen(url, id) == [["after"]]
