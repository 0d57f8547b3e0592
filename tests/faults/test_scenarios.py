"""Every scenario keeps every promise, on each of the scenario's databases; the full size is `make faults`."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.faults.run import Broken, NotHere, ProvesTooLittle, Run, Size
from tests.faults.scenarios import index, kills
from tests.faults.scenarios.index import PLAYED_MAX, SCENARIOS, Scenario

CASES = [(name, database) for name, scenario in SCENARIOS.items() for database in scenario.databases]
MEDIUM = [(name, database) for name, scenario in SCENARIOS.items() for database in scenario.medium]
FAST = [(name, database) for name, scenario in SCENARIOS.items() for database in scenario.fast]
SMALL = [pytest.param(*case, marks=[] if case[1] == "sqlite" else pytest.mark.slow) for case in FAST]


async def play(name: str, database: str, size: Size, say: Callable[[str], None]) -> None:
    figures: dict[str, Any] = {}
    try:
        await index.play(name, database, size, 1, figures)
    except NotHere as error:
        pytest.skip(str(error))
    told = "; ".join(f"{what}: {figure}" for what, figure in figures.items())
    say(f"{name}, {database}, {size.name.lower()}: {told}")


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


async def test_only_a_run_that_proves_too_little_is_played_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Exception | None] = []
    seeds: list[int] = []

    async def scenario(run: Run) -> None:
        run.figures["seed"] = run.seed
        seeds.append(run.seed)
        if error := ends.pop(0):
            raise error

    async def figures() -> dict[str, Any]:
        seeds.clear()
        told: dict[str, Any] = {}
        await index.play("made-up", "sqlite", Size.SMALL, 7, told)
        return told

    monkeypatch.setitem(SCENARIOS, "made-up", Scenario(("sqlite",), module="kills"))
    monkeypatch.setattr(kills, "made_up", scenario, raising=False)
    ends[:] = [None]
    assert await figures() == {"seed": 7}
    ends[:] = [ProvesTooLittle("calm"), None]
    assert await figures() == {"seed": 8, "played": "2 times: it proved too little before"}
    ends[:] = [ProvesTooLittle("calm"), Broken("a result is lost"), None]
    with pytest.raises(Broken, match="lost"):
        await figures()
    assert seeds == [7, 8]
    ends[:] = [ProvesTooLittle("calm") for _ in range(PLAYED_MAX)]
    with pytest.raises(ProvesTooLittle, match="calm"):
        await figures()
    assert len(seeds) == PLAYED_MAX
