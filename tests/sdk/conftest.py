"""A running server for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests import databases
from tests.server.serving import Served, serving


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # How a worker and a server talk has little to do with where journals are kept.
    databases.slow_on_postgres(items, Path(__file__).parent, lambda name, _: name == "test_http.py")


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    async with serving(database) as served:
        yield served
