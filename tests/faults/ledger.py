"""Requests of clients and the answers: the memory that the store is compared with afterwards.

Three outcomes. *done*: the server said yes, and the effect is kept for ever (I1). *refused*: the server said no, or was
never reached, and nothing happened. *unknown*: no answer came; the request had an effect once, or none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TypeVar

from perdure.wire.base.errors import PerdureError, Unavailable, UnknownOutcome

T = TypeVar("T")


class Outcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Entry(NamedTuple):
    """A request: what was asked under which key, how the request ended, and the answer (or the reason)."""

    what: str
    key: str
    outcome: Outcome
    said: str


class Ledger:
    """An append-only file of entries, and the same in memory."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        self.faults: list[Entry] = []
        """Answers that no server should give: internal errors."""
        self._path = path

    async def ask(self, what: str, key: str, asked: Awaitable[T]) -> T | None:
        """Await a request and write down the end. Returns the answer, or None if the request was not *done*."""
        try:
            answer = await asked
        except PerdureError as error:
            known = isinstance(error, Unavailable) or error.status < 500
            entry = Entry(what, key, Outcome.REFUSED if known else Outcome.UNKNOWN, f"{error.code}: {error.message}")
            if not known and not isinstance(error, UnknownOutcome):
                self.faults.append(entry)
            self._add(entry)
            return None
        self._add(Entry(what, key, Outcome.DONE, str(answer)))
        return answer

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def keys(self, what: str) -> dict[Outcome, set[str]]:
        """The keys by what is known of them: done if any request was, refused only if all were."""
        best: dict[str, Outcome] = {}
        order = [Outcome.REFUSED, Outcome.UNKNOWN, Outcome.DONE]
        for entry in self.entries:
            if entry.what == what:
                before = best.get(entry.key, Outcome.REFUSED)
                best[entry.key] = max(before, entry.outcome, key=order.index)
        return {outcome: {key for key, found in best.items() if found is outcome} for outcome in Outcome}

    def counts(self) -> Counter[str]:
        """How many requests ended in which way, and how many keys stayed unknown for a while."""
        return Counter(entry.outcome for entry in self.entries)

    def disagreements(self, what: str, there: Mapping[str, int]) -> list[str]:
        """Where the ledger and the store differ. `there`: how often each key is in the store."""
        keys = self.keys(what)
        found = [f"{what} {key!r} was accepted and is not there" for key in sorted(keys[Outcome.DONE] - there.keys())]
        found += [f"{what} {key!r} was refused and is there" for key in sorted(keys[Outcome.REFUSED] & there.keys())]
        found += [f"{what} {key!r} is there {times} times" for key, times in sorted(there.items()) if times > 1]
        known = set[str]().union(*keys.values())
        found += [f"{what} {key!r} is there and nobody asked for it" for key in sorted(there.keys() - known)]
        return found
