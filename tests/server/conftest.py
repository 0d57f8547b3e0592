"""A running server for the tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests import databases
from tests.server.people import cheap_passwords
from tests.server.serving import Hand, Served, serving

HTTP_ONLY = {
    "test_access.py",
    "test_accounts.py",
    "test_approve_page.py",
    "test_auth.py",
    "test_limits.py",
    "test_openapi.py",
    "test_pages.py",
    "test_problems.py",
    "test_push_dispatch.py",
    "test_push_workers.py",  # their verbs are tried on both databases in tests/store
}
"""What these try hardly reaches the store, or what others try there: on PostgreSQL they are part of the full suite."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    databases.slow_on_postgres(items, Path(__file__).parent, lambda name, _: name in HTTP_ONLY)


@pytest.fixture(autouse=True)
def passwords_cost_nothing() -> Iterator[None]:
    """What takes a tenth of a second on purpose is tried once, in tests/engine/test_passwords.py."""
    with cheap_passwords():
        yield


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    async with serving(database) as served:
        yield served


@pytest.fixture
async def hand(served: Served) -> Hand:
    hand = Hand(served.client)
    await hand.register()
    return hand
