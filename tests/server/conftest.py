"""A running server for the tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests import databases
from tests.server.serving import LASTING, Hand, Served, serving
from tests.server.users import cheap_passwords

from perdure.server.access import auth

ON_BOTH = {
    "test_beats.py",
    "test_claims.py",
    "test_events.py",
    "test_executions.py",
    "test_idempotency.py",
    "test_nul.py",
    "test_schedules.py",
    "test_waiting_claims.py",
}
"""tests/store tries both databases. The other files run on PostgreSQL only in the full suite."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    databases.slow_on_postgres(items, Path(__file__).parent, lambda name, _: name not in ON_BOTH)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The fast suite leaves out files that are slow to collect."""
    slow = collection_path.name == "test_schemathesis_long.py"
    return True if slow and "not slow" in str(config.getoption("markexpr")) else None


@pytest.fixture(autouse=True)
def passwords_cost_nothing() -> Iterator[None]:
    """Only tests/engine/people/test_passwords.py spends the deliberate tenth of a second."""
    with cheap_passwords():
        yield


@pytest.fixture(autouse=True)
def failures_count_however_long_a_test_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server forgives a failure every six seconds."""
    monkeypatch.setattr(auth, "REFILL_SECONDS", 3_600.0)


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    async with serving(database, **LASTING) as served:
        yield served


@pytest.fixture
async def hand(served: Served) -> Hand:
    hand = Hand(served.client)
    await hand.register()
    return hand
