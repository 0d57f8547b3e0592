"""The scenarios by name, each with the databases it is for."""

from __future__ import annotations

import importlib
from itertools import count
from typing import Any, NamedTuple

from tests.faults.run import ProvesTooLittle, Run, Size

BOTH = ("sqlite", "postgres")


class Scenario(NamedTuple):
    """A scenario's databases, and the databases on which `make test` plays the small run and `make test-full` the
    medium run. All other runs are in `make test-long`.
    """

    databases: tuple[str, ...]
    fast: tuple[str, ...] = ()
    medium: tuple[str, ...] = ()
    module: str = ""
    """A module of the folder; by default the scenario's name."""


SCENARIOS = {
    "kills": Scenario(BOTH, fast=BOTH, medium=BOTH),
    "agents": Scenario(BOTH, medium=("sqlite",)),
    "races": Scenario(BOTH, fast=("postgres",), medium=("postgres",)),
    "acts": Scenario(BOTH, fast=("postgres",), medium=BOTH),
    "wakes": Scenario(BOTH),
    "limits": Scenario(BOTH, medium=("postgres",)),
    "due": Scenario(BOTH),
    "crossing": Scenario(BOTH),
    "retention": Scenario(BOTH),
    "idle": Scenario(BOTH),
    "bulk": Scenario(BOTH, fast=("sqlite",), medium=BOTH),
    "forks": Scenario(BOTH, medium=BOTH),
    "pauses": Scenario(BOTH, fast=("postgres",), medium=BOTH),
    "lives": Scenario(BOTH),
    "failpoints": Scenario(BOTH),
    "zombies": Scenario(BOTH, medium=("postgres",)),
    "outages": Scenario(("postgres",), medium=("postgres",)),
    "away": Scenario(BOTH, medium=BOTH),
    "partitions": Scenario(BOTH),
    "lines": Scenario(BOTH, fast=("sqlite",), medium=("postgres",)),
    "failover": Scenario(("pair",)),
    "severed": Scenario(("postgres",)),
    "poisoned": Scenario(BOTH),
    "restarts": Scenario(BOTH, medium=("postgres",)),
    "chaos": Scenario(BOTH, medium=("postgres",)),
    "clocks": Scenario(BOTH),
    "full-disk": Scenario(BOTH, module="refusing"),
    "read-only": Scenario(("postgres",), module="refusing"),
}
PLAYED_MAX = 5
"""How often a scenario is played when run after run proves too little: how two orders meet is left to the machine."""


async def play(name: str, database: str, size: Size, seed: int, figures: dict[str, Any], *, keep: bool = False) -> None:
    """Play a scenario, with the next seed again while it proves too little; `figures` tell what came of the last run.
    Raises `NotHere` and `Broken`."""
    function = name.replace("-", "_")
    module = importlib.import_module(f"tests.faults.scenarios.{SCENARIOS[name].module or function}")
    for played in count(1):
        run = Run(name, database, size, seed + played - 1, keep=keep)
        try:
            async with run:
                await getattr(module, function)(run)
            return
        except ProvesTooLittle:
            if played == PLAYED_MAX:
                raise
        finally:
            figures.clear()
            figures.update(run.figures)
            if played > 1:
                figures["played"] = f"{played} times: it proved too little before"
