"""One suite for every database: whoever takes `store` or `world` runs once per entry of DATABASES."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.store.world import World

from perdure.store.open import open_store
from perdure.store.sqlite import SQLiteStore


def _sqlite(folder: Path) -> SQLiteStore:
    return open_store(f"sqlite:{folder / 'store.db'}")


DATABASES: dict[str, Callable[[Path], SQLiteStore]] = {"sqlite": _sqlite}


@pytest.fixture(params=sorted(DATABASES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """An empty store."""
    opened = DATABASES[request.param](tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def world(store: SQLiteStore) -> AsyncIterator[World]:
    """A store with a project in it. After the test the doctor looks at what it left behind."""
    world = await World.make(store)
    yield world
    await world.check()
