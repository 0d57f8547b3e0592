"""Every test here runs twice: suspended executions stay parked in memory, or are replayed from their journals."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.embedded.house import Counter, House


@pytest.fixture(params=["parked", "replayed"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    yield House(tmp_path, parks=request.param == "parked")


@pytest.fixture
def count() -> Counter:
    return Counter()
