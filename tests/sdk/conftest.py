"""A running server for the tests of this folder that need one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.server.serving import Served, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served
