"""Loads the named SQL. A query is text in `sql/*.sql` under a line `-- name: …`; there is no SQL in Python.

Header lines that the loader enforces: every statement that writes says which rows it touches, `-- holds: <what>` when
its arguments name them or `-- picks: <what>` when a predicate chooses them. Drivers that run many verbs in one
transaction need that; a statement without it is refused at start.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from operator import itemgetter
from typing import Any, NamedTuple

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_TEXT = re.compile(r"'[^']*'")
_WRITES = re.compile(
    r"\b(INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|REPLACE\s+INTO)\b", re.IGNORECASE
)


class Statement(NamedTuple):
    """One named query: its text with numbered parameters, and their names in order."""

    name: str
    sql: str
    parameters: tuple[str, ...]
    writes: bool
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    """Puts named values into the order of the parameters."""


def parse(text: str, source: str) -> dict[str, Statement]:
    """The statements of one file; raises ValueError when one is ill-formed or lacks its header."""
    parts = _NAME.split(text)
    found: dict[str, Statement] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        comments = [line for line in body.splitlines() if line.startswith("--")]
        sql = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip().rstrip(";")
        writes = bool(_WRITES.search(_TEXT.sub("", sql)))
        if writes and not any(line.startswith(("-- holds:", "-- picks:")) for line in comments):
            raise ValueError(f"{source}: query {name!r} writes but does not say what it holds or picks.")
        if name in found:
            raise ValueError(f"{source}: query {name!r} stands there twice.")
        names: list[str] = []

        def number(match: re.Match[str], names: list[str] = names) -> str:
            if match[1] not in names:
                names.append(match[1])
            return f"?{names.index(match[1]) + 1}"

        text_of = _PARAMETER.sub(number, sql)
        found[name] = Statement(name, text_of, tuple(names), writes, _in_order(tuple(names)))
    return found


def _in_order(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


@cache
def load(dialect: str) -> dict[str, Statement]:
    """All queries for one dialect: the common ones and its own. Refuses a dialect that defines a common name again."""
    folder = files("perdure.store") / "sql"
    common = parse((folder / "common.sql").read_text(encoding="utf-8"), "common.sql")
    own = parse((folder / f"{dialect}.sql").read_text(encoding="utf-8"), f"{dialect}.sql")
    twice = common.keys() & own.keys()
    if twice:
        raise ValueError(f"{dialect}.sql defines queries that common.sql has: {', '.join(sorted(twice))}.")
    return common | own
