"""The rows named by a verb's arguments, as `@verb(locks=…)` declares.

`locks` is text in the notation of `-- holds:` in the SQL. A space separates several rows:

    execution=execution_id                      the kind of row, and the argument that names it
    topic=wait.topic                            a field of an argument
    schedule_key=spec.workflow_id,spec.key      two values name the row together
    execution=items[].execution_id              one row for each element of an argument
    meta='epoch'                                the same row for all arguments

A value of None does not name a row. `at.idempotency` and an argument `idempotency` name their row by themselves. If
the notation does not suffice, `locks` is a function of the arguments, defined next to the verb.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

Row = tuple[str, Any]
"""A kind, and the value naming the row."""


class SharedRow(tuple[str, Any]):
    """A row that several verbs may hold at once, if all of them share. Equal to the plain row."""

    __slots__ = ()


Arguments = dict[str, Any]
Locks = Iterator[Row]

_LOCK = re.compile(r"(\w+)=(?:'(\w*)'|(\w+)\[\]\.(\w+)|(\w[\w.]*(?:,\w[\w.]*)*))")


def read_locks(
    locks: str | Callable[[Arguments], Iterable[Row]], function: Callable[..., object]
) -> Callable[[Arguments], Sequence[Row]]:
    """Raises TypeError for ill-formed text, or for an argument that `function` does not have."""
    parameters = inspect.signature(function).parameters
    texts = ["idempotency=idempotency.key"] if "idempotency" in parameters else []
    texts += locks.split() if isinstance(locks, str) else []
    try:
        read = [_parse_lock(text, parameters) for text in texts]
    except (KeyError, ValueError) as error:
        raise TypeError(f"{function.__name__}: locks={locks!r} does not name rows by its arguments: {error}.") from None
    if "at" in parameters:
        read.append(_of_request)
    if isinstance(locks, str) and len(read) == 1:
        return read[0]
    parts = read if isinstance(locks, str) else [*read, locks]

    def rows(arguments: Arguments) -> Sequence[Row]:
        found: dict[Row, Row] = {}
        for part in parts:
            for row in part(arguments):
                if type(found.setdefault(row, row)) is SharedRow:
                    found[row] = row
        return list(found.values())

    return rows


def _of_request(arguments: Arguments) -> Sequence[Row]:
    same = arguments["at"].idempotency
    return () if same is None else (("idempotency", same.key),)


def _parse_lock(text: str, parameters: Mapping[str, inspect.Parameter]) -> Callable[[Arguments], Sequence[Row]]:
    match = _LOCK.fullmatch(text)
    if match is None:
        raise ValueError(text)
    kind, constant, each, field, values = match.groups()
    if constant is not None:
        row = ((kind, constant),)
        return lambda arguments: row
    if each is not None:
        all_of, name_of = _value(each, parameters), attrgetter(field)
        return lambda arguments: list(dict.fromkeys([(kind, name_of(one)) for one in all_of(arguments)]))
    first, *rest = [_value(value, parameters) for value in values.split(",")]

    def one(arguments: Arguments) -> Sequence[Row]:
        value = first(arguments)
        return () if value is None else ((kind, value),)

    def several(arguments: Arguments) -> Sequence[Row]:
        name = (first(arguments), *[value(arguments) for value in rest])
        return () if None in name else ((kind, name),)

    return several if rest else one


def _value(path: str, parameters: Mapping[str, inspect.Parameter]) -> Callable[[Arguments], Any]:
    """The field of a missing argument reads as None."""
    name, _, fields = path.partition(".")
    default = parameters[name].default
    if not fields:
        return lambda arguments: arguments.get(name, default)
    read = attrgetter(fields)

    def field(arguments: Arguments) -> Any:
        value = arguments.get(name, default)
        return None if value is None else read(value)

    return field
