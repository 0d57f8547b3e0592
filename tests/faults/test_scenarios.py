"""Every scenario keeps every promise, on each database that it is for; the full size is `make faults`."""

from collections.abc import Callable

import pytest
from tests.faults.run import NotHere, Run, Size
from tests.faults.scenarios.index import SCENARIOS

CASES = [(name, database) for name, scenario in SCENARIOS.items() for database in scenario.databases]
MEDIUM = [(name, database) for name, scenario in SCENARIOS.items() for database in scenario.medium]
FAST = [(name, database) for name, scenario in SCENARIOS.items() for database in scenario.fast]
SMALL = [pytest.param(*case, marks=[] if case[1] == "sqlite" else pytest.mark.slow) for case in FAST]


async def play(name: str, database: str, size: Size, say: Callable[[str], None]) -> None:
    try:
        async with Run(name, database, size, seed=1) as run:
            await SCENARIOS[name].play(run)
            figures = "; ".join(f"{what}: {figure}" for what, figure in run.figures.items())
            say(f"{name}, {database}, {size.name.lower()}: {figures}")
    except NotHere as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("name", "database"), SMALL)
async def test_a_small_run_keeps_every_promise(name: str, database: str, say: Callable[[str], None]) -> None:
    await play(name, database, Size.SMALL, say)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "database"), [case for case in CASES if case not in FAST])
async def test_a_small_run_of_the_others_does_too(name: str, database: str, say: Callable[[str], None]) -> None:
    await play(name, database, Size.SMALL, say)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "database"), MEDIUM)
async def test_a_longer_run_keeps_every_promise(name: str, database: str, say: Callable[[str], None]) -> None:
    await play(name, database, Size.MEDIUM, say)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "database"), [case for case in CASES if case not in MEDIUM])
async def test_a_longer_run_of_the_others_does_too(name: str, database: str, say: Callable[[str], None]) -> None:
    await play(name, database, Size.MEDIUM, say)
