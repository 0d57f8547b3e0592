"""A running server for the tests of this folder."""

from collections.abc import AsyncIterator

import pytest
from tests.server.serving import Served, serving


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    async with serving(database) as served:
        yield served
