"""One suite for every database: whoever takes `store` or `world` runs once per entry of DATABASES."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from tests import postgres
from tests.store.world import World

from perdure.store.interface import Store
from perdure.store.open import open_store


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"sqlite:{folder / 'store.db'}")
    try:
        yield opened
    finally:
        await opened.close()


async def migrated(url: str) -> None:
    """Bring the template of all test databases up to date."""
    await (await open_store(url)).close()


@asynccontextmanager
async def _postgres(folder: Path) -> AsyncIterator[Store]:
    async with postgres.fresh(migrated) as url:
        opened = await open_store(url)
        try:
            yield opened
        finally:
            await opened.close()


DATABASES: dict[str, Callable[[Path], AbstractAsyncContextManager[Store]]] = {"sqlite": _sqlite}
if sys.platform != "win32":
    DATABASES["postgres"] = _postgres


@pytest.fixture(params=sorted(DATABASES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    async with DATABASES[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    """A store with a project in it. After the test the doctor looks at what it left behind."""
    world = await World.make(store)
    yield world
    await world.check()
