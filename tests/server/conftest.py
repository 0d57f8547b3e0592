"""A running server for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.server.serving import Hand, Served, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


@pytest.fixture
async def hand(served: Served) -> Hand:
    hand = Hand(served.client)
    await hand.register()
    return hand
