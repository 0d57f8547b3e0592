"""One suite for every database: whoever takes `store` or `world` runs once on each."""

from collections.abc import AsyncIterator

import pytest
from tests.store.pushing import PushWorld
from tests.store.world import World

from perdure.store.base.interface import Store
from perdure.store.open import open_store


@pytest.fixture
async def store(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """An empty store. A verb that waits for a lock does not give up while the machine stands still."""
    monkeypatch.setattr("perdure.store.drivers.postgres_lock_queue.WAIT_SECONDS_MAX", 60.0)
    opened = await open_store(database)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
def on_postgresql(database: str) -> None:
    """Skip on SQLite, which has one writer."""
    if not database.startswith("postgresql"):
        pytest.skip("here there is one writer")


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    """A store with a project. The doctor examines the store after the test."""
    world = await World.make(store)
    yield world
    await world.check()


@pytest.fixture
def pushes(world: World) -> PushWorld:
    """The same store, as push workers see it."""
    return PushWorld(world)


@pytest.fixture
async def worker(pushes: PushWorld) -> str:
    """The id of an online push worker."""
    return await pushes.register()
