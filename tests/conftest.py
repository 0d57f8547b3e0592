"""What every test shares."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests import databases


@pytest.fixture(params=databases.KINDS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The address of an empty store; whoever takes it runs on each kind of database."""
    async with databases.lent(request.param, tmp_path) as address:
        yield address


def pytest_sessionfinish() -> None:
    """End the PostgreSQL of this process, if some test asked for it."""
    launcher = sys.modules.get("tests.postgres")
    if launcher is not None:
        launcher.close()
