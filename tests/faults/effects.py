"""The effect log, read while it grows: who runs what, and afterwards who ran what when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Effect(NamedTuple):
    """A step body began or ended. Times in microseconds of the wall clock."""

    what: str
    execution_id: str
    key: str
    attempt: int
    pid: int
    at_us: int
    lease_seen_us: int
    """When the process last found its lease good."""


class Effects:
    """All logged effects so far; `read` takes in newer effects."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self.all: list[Effect] = []
        self.ended = 0
        """How many bodies have ended."""
        self._open: defaultdict[int, dict[tuple[str, str], Effect]] = defaultdict(dict)
        self._offset = 0
        self._rest = b""

    def read(self) -> Effects:
        """Take in what was logged meanwhile."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            what, execution_id, key, *numbers = line.decode().split("\t")
            effect = Effect(what, execution_id, key, *map(int, numbers))
            self.all.append(effect)
            if what == "begin":
                self._open[effect.pid][execution_id, key] = effect
            else:
                self.ended += 1
                self._open[effect.pid].pop((execution_id, key), None)
        return self

    def in_flight(self, pids: Iterable[int]) -> list[Effect]:
        """Bodies that have begun in the given processes and have not ended."""
        self.read()
        return [effect for pid in pids for effect in self._open[pid].values()]

    def begun(self) -> list[Effect]:
        return [effect for effect in self.all if effect.what == "begin"]

    def gone_on(self, caught: Iterable[Effect], since_us: int) -> dict[str, float | None]:
        """Seconds from `since_us` until another process began a body, by execution of the caught bodies."""
        wanted = {effect.execution_id: effect.pid for effect in caught}
        found: dict[str, float | None] = dict.fromkeys(wanted)
        for effect in self.all:
            elsewhere = (
                effect.what == "begin" and effect.at_us > since_us and effect.pid != wanted.get(effect.execution_id)
            )
            if elsewhere and found.get(effect.execution_id, 0.0) is None:
                found[effect.execution_id] = (effect.at_us - since_us) / 1e6
        return found
