"""Rows to records and records to values, by name. The copies are compiled once per statement and class.

In the files of `sql/`, `{columns Fire}` lists the columns of a record and `{values Fire}` the same names as parameters.
"""

import re
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from perdure.store.executions import NewExecution
from perdure.wire.accounts import User
from perdure.wire.conversations import ConversationMessage
from perdure.wire.keys import ApiKey
from perdure.wire.projects import Invitation, Project
from perdure.wire.record import choices, function
from perdure.wire.schedules import Fire, StoredSchedule
from perdure.wire.status import STATUS, Status
from perdure.wire.triggers import StoredTrigger
from perdure.wire.waits import PendingWait
from perdure.wire.webhooks import Webhook

R = TypeVar("R")

STORED: Final[dict[str, type[Struct]]] = {
    cls.__name__: cls
    for cls in (
        NewExecution,
        StoredSchedule,
        Fire,
        StoredTrigger,
        Webhook,
        ApiKey,
        User,
        Project,
        Invitation,
        PendingWait,
        ConversationMessage,
    )
}
"""The records that SQL may name."""

_LIST: Final = re.compile(r"\{(columns|values) (\w+)\}")
_PIECE: Final = re.compile(r"'[^']*'|[(),]|[^(),']+")


def expand_columns(text: str, source: str) -> str:
    """Write out the `{columns …}` and `{values …}` of a file."""

    def columns(match: re.Match[str]) -> str:
        if match[2] not in STORED:
            raise ValueError(f"{source}: record {match[2]!r} does not exist.")
        mark = ":" if match[1] == "values" else ""
        return ", ".join(mark + name for name in STORED[match[2]].__struct_fields__)

    return _LIST.sub(columns, text)


def parse_columns(sql: str) -> list[str]:
    """The names of the columns that a statement returns.

    >>> parse_columns("SELECT a, t.b, COUNT(CASE WHEN (x, 'y,') THEN 1 END) AS c FROM t")
    ['a', 'b', 'c']
    """
    _, returning, rest = sql.rpartition("RETURNING ")
    text = rest if returning else sql.partition("SELECT ")[2]
    depth, columns = 0, [""]
    for piece in _PIECE.findall(" ".join(text.split())):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            columns.append("")
        elif depth == 0 and " FROM " in f" {piece} ":
            columns[-1] += f" {piece} ".partition(" FROM ")[0]
            break
        else:
            columns[-1] += piece
    return [re.split(r"[ .]", column.strip())[-1] for column in columns]


def row_reader(cls: type[R], sql: str) -> Callable[[tuple[Any, ...]], R]:
    """Compile the copy from a row to a record. Raises TypeError unless the columns are the record's fields."""
    fields = {one.name: one for one in msgspec.structs.fields(cls)}  # type: ignore[arg-type]  # a Struct
    columns = parse_columns(sql)
    missing = fields.keys() - set(columns)
    if missing or len(columns) > len(fields):
        raise TypeError(f"{cls.__name__} does not fit: the columns are {columns}, {sorted(missing)} are missing: {sql}")
    env: dict[str, Any] = {"Cls": cls, "Raw": Raw}
    values = [f"{name}={_read(fields[name].type, f'row[{columns.index(name)}]', env)}" for name in fields]
    made: Callable[[tuple[Any, ...]], R] = function("row", f"Cls({', '.join(values)})", env)
    return made


def _read(kind: Any, value: str, env: dict[str, Any]) -> str:
    parts = set(choices(kind))
    for one in parts:
        if one is Raw:
            return f"None if {value} is None else Raw({value})"
        if one is bool:
            return f"bool({value})"
        if one is Status:  # rows have the phase
            env["STATUS"] = STATUS
            return f"STATUS[{value}]"
        if isinstance(one, type) and issubclass(one, Enum):
            env[one.__name__] = {member.value: member for member in one} | {None: None}
            return f"{one.__name__}[{value}]"
    return value


def to_values(record: Struct) -> dict[str, Any]:
    return _value_writer(type(record))(record)


@cache
def _value_writer(cls: type[Struct]) -> Callable[[Any], dict[str, Any]]:
    return function("x", f"{{{', '.join(f'{name!r}: {value}' for name, value in _written(cls).items())}}}", {})


@cache
def row_writer(cls: type[Struct], names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Compile the copy from a record to a row of a statement's values."""
    values = _written(cls)
    return function("x", f"({', '.join(values[name] for name in names)},)", {})


def _written(cls: type[Struct]) -> dict[str, str]:
    """By field: the text that makes a value of the database from it."""
    texts = {}
    for one in msgspec.structs.fields(cls):
        value = f"x.{one.name}"
        if Raw in choices(one.type):
            value = f"None if {value} is None else bytes({value})"
        elif bool in choices(one.type):
            value = f"None if {value} is None else int({value})"
        texts[one.name] = value
    return texts
