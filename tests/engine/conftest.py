"""What the tests of this folder share."""

from collections.abc import AsyncIterator

import pytest
from tests import postgres
from tests.databases import migrated


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The address of an empty database on PostgreSQL."""
    async with postgres.fresh(migrated) as url:
        yield url
