"""The scenarios by name, each with the databases it is for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, NamedTuple

from tests.faults.run import ProvesTooLittle, Run, Size
from tests.faults.scenarios.acts import acts
from tests.faults.scenarios.agents import agents
from tests.faults.scenarios.away import away
from tests.faults.scenarios.bulk import bulk
from tests.faults.scenarios.chaos import chaos
from tests.faults.scenarios.clocks import clocks
from tests.faults.scenarios.crossing import crossing
from tests.faults.scenarios.due import due
from tests.faults.scenarios.failover import failover
from tests.faults.scenarios.failpoints import failpoints
from tests.faults.scenarios.forks import forks
from tests.faults.scenarios.idle import idle
from tests.faults.scenarios.kills import kills
from tests.faults.scenarios.limits import limits
from tests.faults.scenarios.lines import lines
from tests.faults.scenarios.lives import lives
from tests.faults.scenarios.outages import outages
from tests.faults.scenarios.partitions import partitions
from tests.faults.scenarios.pauses import pauses
from tests.faults.scenarios.poisoned import poisoned
from tests.faults.scenarios.races import races
from tests.faults.scenarios.refusing import full_disk, read_only
from tests.faults.scenarios.restarts import restarts
from tests.faults.scenarios.retention import retention
from tests.faults.scenarios.severed import severed
from tests.faults.scenarios.wakes import wakes
from tests.faults.scenarios.zombies import zombies

BOTH = ("sqlite", "postgres")


class Scenario(NamedTuple):
    """What is done, and on which databases; on which of them the small run is part of `make test`, and the medium one
    of `make test-full`. All others are in `make test-long`.
    """

    play: Callable[[Run], Awaitable[None]]
    databases: tuple[str, ...]
    fast: tuple[str, ...] = ()
    medium: tuple[str, ...] = ()


SCENARIOS = {
    "kills": Scenario(kills, BOTH, fast=BOTH, medium=BOTH),
    "agents": Scenario(agents, BOTH, medium=("sqlite",)),
    "races": Scenario(races, BOTH, fast=("postgres",), medium=("postgres",)),
    "acts": Scenario(acts, BOTH, fast=("postgres",), medium=BOTH),
    "wakes": Scenario(wakes, BOTH),
    "limits": Scenario(limits, BOTH, medium=("postgres",)),
    "due": Scenario(due, BOTH),
    "crossing": Scenario(crossing, BOTH),
    "retention": Scenario(retention, BOTH),
    "idle": Scenario(idle, BOTH),
    "bulk": Scenario(bulk, BOTH, fast=("sqlite",), medium=BOTH),
    "forks": Scenario(forks, BOTH, medium=BOTH),
    "pauses": Scenario(pauses, BOTH, fast=("postgres",), medium=BOTH),
    "lives": Scenario(lives, BOTH),
    "failpoints": Scenario(failpoints, BOTH),
    "zombies": Scenario(zombies, BOTH, medium=("postgres",)),
    "outages": Scenario(outages, ("postgres",), medium=("postgres",)),
    "away": Scenario(away, BOTH, medium=BOTH),
    "partitions": Scenario(partitions, BOTH),
    "lines": Scenario(lines, BOTH, fast=("sqlite",), medium=("postgres",)),
    "failover": Scenario(failover, ("pair",)),
    "severed": Scenario(severed, ("postgres",)),
    "poisoned": Scenario(poisoned, BOTH),
    "restarts": Scenario(restarts, BOTH, medium=("postgres",)),
    "chaos": Scenario(chaos, BOTH, medium=("postgres",)),
    "clocks": Scenario(clocks, BOTH),
    "full-disk": Scenario(full_disk, BOTH),
    "read-only": Scenario(read_only, ("postgres",)),
}
PLAYED_MAX = 5
"""How often a scenario is played when run after run proves too little: how two orders meet is left to the machine."""


async def play(name: str, database: str, size: Size, seed: int, figures: dict[str, Any], *, keep: bool = False) -> None:
    """Play a scenario, with the next seed again while it proves too little; `figures` tell what came of the last run.
    Raises `NotHere` and `Broken`."""
    for played in count(1):
        run = Run(name, database, size, seed + played - 1, keep=keep)
        try:
            async with run:
                await SCENARIOS[name].play(run)
            return
        except ProvesTooLittle:
            if played == PLAYED_MAX:
                raise
        finally:
            figures.clear()
            figures.update(run.figures)
            if played > 1:
                figures["played"] = f"{played} times: it proved too little before"
