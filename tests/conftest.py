"""What every test shares."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests import databases

# How long an example takes says something of the machine, not of the code.
settings.register_profile("perdure", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("perdure")


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
