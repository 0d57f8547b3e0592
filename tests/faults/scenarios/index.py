"""The scenarios by name, each with the databases it is for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.faults.run import Run
from tests.faults.scenarios.kills import kills

BOTH = ("sqlite", "postgres")


class Scenario(NamedTuple):
    """What is done, and on which databases."""

    play: Callable[[Run], Awaitable[None]]
    databases: tuple[str, ...]


SCENARIOS = {
    "kills": Scenario(kills, BOTH),
}
