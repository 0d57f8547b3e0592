"""The scenarios by name, each with the databases it is for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.faults.run import Run
from tests.faults.scenarios.crossing import crossing
from tests.faults.scenarios.due import due
from tests.faults.scenarios.kills import kills
from tests.faults.scenarios.limits import limits
from tests.faults.scenarios.races import races

BOTH = ("sqlite", "postgres")


class Scenario(NamedTuple):
    """What is done, and on which databases."""

    play: Callable[[Run], Awaitable[None]]
    databases: tuple[str, ...]


SCENARIOS = {
    "kills": Scenario(kills, BOTH),
    "races": Scenario(races, BOTH),
    "limits": Scenario(limits, BOTH),
    "due": Scenario(due, BOTH),
    "crossing": Scenario(crossing, BOTH),
}
