"""A house for each test, and one with a server and a worker for all tests of a file that only need one.

Their store is a file: most commands speak to a server and see no database. Those that do are in test_database.py, on
both kinds; copies and restores are of files alone, PostgreSQL has tools of its own for that.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.processes import House, serving, working


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture(scope="module")
def busy_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose server and worker run."""
    house = House(tmp_path_factory.mktemp("busy"))
    with serving(house), working(house):
        yield house
