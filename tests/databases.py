"""The databases that a store can be in. Who takes the fixture `database` (tests/conftest.py) runs on each."""

import atexit
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from perdure.store.open import open_store

SQLITE: Final = "sqlite"
POSTGRES: Final = "postgres"
KINDS: Final = (SQLITE,) if sys.platform == "win32" else (SQLITE, POSTGRES)  # no server is started on Windows


async def migrated(url: str) -> None:
    """Bring the template of all test databases up to date."""
    await (await open_store(url)).close()


_templates: list[Path] = []


async def _template() -> Path:
    """An empty store to copy, which takes a seventh of the time of making one."""
    if not _templates:
        folder = Path(tempfile.mkdtemp(prefix="perdure-template-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        await migrated(str(folder / "perdure.db"))
        _templates.append(folder / "perdure.db")
    return _templates[0]


@asynccontextmanager
async def lent(kind: str, folder: Path) -> AsyncIterator[str]:
    """The address of an empty store of a kind, for the length of the block. A file lies in `folder`."""
    if kind == SQLITE:
        yield str(shutil.copy(await _template(), folder / "perdure.db"))
    else:
        from tests import postgres  # asyncpg is an extra

        async with postgres.fresh(migrated) as url:
            yield url


def slow_on_postgres(items: Iterable[pytest.Item], folder: Path, when: Callable[[str, dict[str, Any]], bool]) -> None:
    """Leave tests of a folder to the full suite when they run on PostgreSQL: those for which `when`, told a test's file
    name and parameters, says so. For what is much the same on both."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if folder in item.path.parents and params.get("database") == POSTGRES and when(item.path.name, params):
            item.add_marker(pytest.mark.slow)
