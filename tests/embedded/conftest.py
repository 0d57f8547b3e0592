"""Every test here runs on each kind of database, and there twice: suspended executions stay parked in memory, or are
replayed from their journals."""

from pathlib import Path

import pytest
from tests import databases
from tests.embedded.house import Counter, House

from perdure.sdk.workers import long_calls

ON_BOTH = {
    "test_beats.py",
    "test_cancel.py",
    "test_children.py",
    "test_restart.py",
    "test_starts.py",
    "test_waits.py",
}
"""Where executions meet. On PostgreSQL the other files are part of the full suite, and so are replays: how a journal is
replayed has little to do with where it is kept."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    databases.slow_on_postgres(
        items, Path(__file__).parent, lambda name, params: name not in ON_BOTH or params.get("house") == "replayed"
    )


@pytest.fixture(params=["parked", "replayed"])
def house(request: pytest.FixtureRequest, database: str) -> House:
    return House(database, parks=request.param == "parked")


@pytest.fixture
def count() -> Counter:
    return Counter()


@pytest.fixture
def listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are listed as soon as the worker looks."""
    monkeypatch.setattr(long_calls, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(long_calls, "LOOK_SECONDS", 0.0)
