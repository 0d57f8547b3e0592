"""Rows to records and records to values, by name. The copies are compiled once per statement and class.

A field with a record type stands for the record's columns; each column may have the field's name in front. An optional
record is None if its first column is NULL.

In `sql/`, `{columns Fire}` lists the columns of a record and `{values Fire}` the same names as parameters.
"""

import re
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from perdure.store.base.executions import JournalRow, NewExecution, State
from perdure.wire.agents.approvals import QuestionLink
from perdure.wire.agents.conversations import ConversationMessage
from perdure.wire.base.record import choices, function
from perdure.wire.base.status import STATUS, Status
from perdure.wire.clock.schedules import Fire, StoredSchedule
from perdure.wire.clock.triggers import StoredTrigger
from perdure.wire.outside.webhooks import Webhook
from perdure.wire.people.accounts import User
from perdure.wire.people.keys import ApiKey
from perdure.wire.people.projects import Invitation, Project
from perdure.wire.runs.executions import Row
from perdure.wire.runs.waits import PendingWait

R = TypeVar("R")
Rows = Sequence[tuple[Any, ...]]

STORED: Final[dict[str, type[Struct]]] = {
    cls.__name__: cls
    for cls in (
        NewExecution,
        State,
        JournalRow,
        Row,
        StoredSchedule,
        Fire,
        StoredTrigger,
        Webhook,
        ApiKey,
        User,
        Project,
        QuestionLink,
        Invitation,
        PendingWait,
        ConversationMessage,
    )
}

_LIST: Final = re.compile(r"\{(columns|values) (\w+)\}")
_PIECE: Final = re.compile(r"'[^']*'|[(),]|[^(),']+")


def expand_columns(text: str, source: str) -> str:
    def columns(match: re.Match[str]) -> str:
        if match[2] not in STORED:
            raise ValueError(f"{source}: record {match[2]!r} does not exist.")
        mark = ":" if match[1] == "values" else ""
        return ", ".join(mark + name for name in STORED[match[2]].__struct_fields__)

    return _LIST.sub(columns, text)


def parse_columns(sql: str) -> list[str]:
    """The names of a statement's result columns.

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


def rows_reader(cls: type[R], sql: str) -> Callable[[Rows], list[R]]:
    """Raises TypeError unless each column is a field, and each field without a default a column."""
    columns = parse_columns(sql)
    env: dict[str, Any] = {"Raw": Raw}
    left = set(columns)
    text = _made(cls, "", columns, left, env)
    if left:
        raise TypeError(f"{cls.__name__} does not fit: it has no field for {sorted(left)}: {sql}")
    row = "".join(f"c{place}, " for place in range(len(columns)))
    made: Callable[[Rows], list[R]] = function("rows", f"[{text} for {row}in rows]", env)
    return made


def _made(cls: type[Any], within: str, columns: list[str], left: set[str], env: dict[str, Any]) -> str:
    """Removes from `left` the columns it reads."""
    env[cls.__name__] = cls
    values: list[str] = []
    positional = cls.__match_args__  # positional arguments are faster
    for one in msgspec.structs.fields(cls):
        record, optional = _record_of(one.type)
        if record is not None:
            inner = {_column(name, one.name, columns) for name in record.__struct_fields__}
            if not one.required and inner.isdisjoint(columns):
                continue
            text = _made(record, one.name, columns, left, env)
            if optional:
                first = _column(record.__struct_fields__[0], one.name, columns)
                text = f"None if c{columns.index(first)} is None else {text}"
        else:
            name = _column(one.name, within, columns)
            if name not in columns:
                if one.required:
                    raise TypeError(f"{cls.__name__} does not fit: it needs {name!r}, and the columns are {columns}")
                continue
            left.discard(name)
            text = _read_code(one.type, f"c{columns.index(name)}", env)
        place = len(values)
        values.append(text if positional[place : place + 1] == (one.name,) else f"{one.name}={text}")
    return f"{cls.__name__}({', '.join(values)})"


def _column(name: str, within: str, columns: list[str]) -> str:
    longer = f"{within}_{name}"
    return longer if longer in columns else name


def _record_of(kind: Any) -> tuple[type[Struct] | None, bool]:
    parts = choices(kind)
    records = [one for one in parts if isinstance(one, type) and issubclass(one, Struct)]
    return (records[0] if records else None), len(parts) > 1


def _read_code(kind: Any, value: str, env: dict[str, Any]) -> str:
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


def rows_writer(cls: type[Struct], names: tuple[str, ...]) -> Callable[[Sequence[Any]], Rows]:
    values = _written(cls)
    return function("records", f"[({', '.join(values[name] for name in names)},) for x in records]", {})


def _written(cls: type[Struct]) -> dict[str, str]:
    texts = {}
    for one in msgspec.structs.fields(cls):
        value = f"x.{one.name}"
        if Raw in choices(one.type):
            text = f"bytes({value})"
        elif bool in choices(one.type):
            text = f"+{value}"  # an int
        else:
            text = value
        optional = text != value and len(choices(one.type)) > 1
        texts[one.name] = f"None if {value} is None else {text}" if optional else text
    return texts
