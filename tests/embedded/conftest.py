"""Every test here runs on each kind of database, and there twice: suspended executions stay parked in memory, or are
replayed from their journals."""

import pytest
from tests.embedded.house import Counter, House


@pytest.fixture(params=["parked", "replayed"])
def house(request: pytest.FixtureRequest, database: str) -> House:
    return House(database, parks=request.param == "parked")


@pytest.fixture
def count() -> Counter:
    return Counter()
