"""Each process walks a set in another order. Tasks created in set order get each other's numbers, and their calls each
other's keys. In a replay the task that asks for the recorded input takes the recorded number."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from perdure.wire.base.records import OUTCOMES, Kind
from perdure.wire.runs.executions import Row

_PATH: Final = re.compile(r"(?:(?:\d+|~\w*)/)*")
_COUNT: Final = re.compile(r"#\d+\Z")

_DISTINCTIVE: Final = OUTCOMES - {Kind.TIMER}
"""Timers do not tell tasks apart: one row stands for all timers of its moment."""

Swap = tuple[str, str]
"""Two scopes (`1/`, `3/`) or two keys (`fetch`, `fetch#2`) that change places."""

What = tuple[Kind, str | None, str | None]


def swaps(asked: str, recorded: str) -> list[Swap] | None:
    """The swaps, outermost first. None if the keys differ in more than numbers.

    >>> swaps("1/fetch#2", "3/fetch")
    [('1/', '3/'), ('3/fetch#2', '3/fetch')]
    >>> swaps("1/fetch", "1/load") is None
    True
    """
    asked_path, asked_name = _split(asked)
    path, name = _split(recorded)
    if len(asked_path) != len(path) or _COUNT.sub("", asked_name) != _COUNT.sub("", name):
        return None
    found: list[Swap] = []
    prefix = ""
    for one, other in zip(asked_path, path, strict=True):
        if one != other:
            if one.startswith("~") or other.startswith("~"):
                return None
            found.append((f"{prefix}{one}/", f"{prefix}{other}/"))
        prefix += f"{other}/"
    if asked_name != name:
        found.append((prefix + asked_name, prefix + name))
    return found


def swapped(key: str, swap: Swap) -> str:
    if not key.startswith(swap):
        return key
    one, other = swap
    if not is_scope(one):
        return other if key == one else one if key == other else key
    if key.startswith(one):
        return other + key[len(one) :]
    return one + key[len(other) :] if key.startswith(other) else key


def is_scope(place: str) -> bool:
    """A step's or topic's name may also end with a slash.

    >>> is_scope("2/13/"), is_scope("2/fetch"), is_scope("orders/")
    (True, False, False)
    """
    return _PATH.fullmatch(place) is not None


def parse_number(place: str) -> int:
    """The number of a scope within its parent, or of a key among the keys of its name.

    >>> parse_number("2/13/"), parse_number("2/fetch#4"), parse_number("2/fetch")
    (13, 4, 1)
    """
    if is_scope(place):
        return int(place[:-1].rpartition("/")[2])
    count = _COUNT.search(place)
    return 1 if count is None else int(count.group()[1:])


def parse_scopes(key: str) -> Iterator[str]:
    """The scopes of the numbered tasks around a key, outermost first.

    >>> list(parse_scopes("2/~model_1/3/fetch"))
    ['2/', '2/~model_1/3/']
    """
    prefix = ""
    for part in _split(key)[0]:
        prefix += f"{part}/"
        if not part.startswith("~"):
            yield prefix


class ScopeHistory:
    """Tasks with equal histories can change places."""

    __slots__ = ("_digests", "_read")

    def __init__(self) -> None:
        self._digests: dict[str, int] = {}
        self._read = 0

    def read(self, rows: Sequence[Row], end: int) -> None:
        for row in rows[self._read : end]:
            if row.key is not None and row.kind in _DISTINCTIVE:
                outcome = (row.kind, row.name, row.fingerprint, row.ok, bytes(row.value))
                for scope in parse_scopes(row.key):
                    before = self._digests.get(scope)
                    self._digests[scope] = hash((before, row.key[len(scope) :], outcome))
        self._read = end

    def turn_the_page(self) -> None:
        self._read = 0

    def same(self, one: str, other: str) -> bool:
        return self._digests.get(one) == self._digests.get(other)


def has_siblings(scope: str, own: Sequence[str]) -> bool:
    """Whether tasks below `scope` may change places with the tasks around a key, whose scopes are `own`."""
    parents = {_parent(one) for one in own}
    return any(one not in own and _parent(one) in parents for one in parse_scopes(scope))


def _parent(scope: str) -> str:
    return scope[: scope[:-1].rfind("/") + 1]


class ChangedInputs:
    __slots__ = ("asked", "keys", "logged", "recorded")

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.logged = 0
        self.asked: set[What] = set()
        self.recorded: dict[What, Row] = {}

    def add(self, key: str | None, asked: What, recorded: What, row: Row) -> bool:
        """False for a mix-up: the reverse was recorded, too. A change without a key is not reported."""
        if asked in self.recorded or recorded in self.asked:
            return False
        if key is not None:
            self.keys.append(key)
        self.asked.add(asked)
        self.recorded[recorded] = row
        return True


def _split(key: str) -> tuple[list[str], str]:
    match = _PATH.match(key)
    assert match is not None
    path = match.group()
    return path.split("/")[:-1], key[len(path) :]
