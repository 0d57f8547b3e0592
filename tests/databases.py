"""The databases that a store can be in. Who takes the fixture `database` (tests/conftest.py) runs on each."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from perdure.store.open import open_store

SQLITE: Final = "sqlite"
POSTGRES: Final = "postgres"
KINDS: Final = (SQLITE,) if sys.platform == "win32" else (SQLITE, POSTGRES)  # no server is started on Windows


async def migrated(url: str) -> None:
    """Bring the template of all test databases up to date."""
    await (await open_store(url)).close()


@asynccontextmanager
async def lent(kind: str, folder: Path) -> AsyncIterator[str]:
    """The address of an empty store of a kind, for the length of the block. A file lies in `folder`."""
    if kind == SQLITE:
        yield str(folder / "perdure.db")
    else:
        from tests import postgres  # asyncpg is an extra

        async with postgres.fresh(migrated) as url:
            yield url
