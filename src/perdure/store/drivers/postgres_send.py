"""Sends a batch in as few statements as possible, with each run's rows kept apart."""

import re
from collections.abc import Sequence, Set
from functools import cache
from typing import Any, Final

from perdure.store.base.interface import Rows
from perdure.store.drivers.lockstep import QueryBatch
from perdure.store.drivers.postgres_connection import AsyncpgConnection

_NUMBERED: Final = re.compile(r"\$(\d+)")
_ARRAY: Final = re.compile(r"\$(\d+)::(\w+)\[\]")
_UNNEST: Final = re.compile(r"unnest\(([^()]+)\) WITH ORDINALITY AS v \([^()]+\)")
_VALUE: Final = re.compile(r"\bv\.p(\d+)\b")
_KEY: Final = re.compile(r"\b(?:project_id|id) = v\.p(\d+)")
_TEXTS_MAX: Final = 8
"""Texts kept per statement, because each connection prepares every text."""
_texts: Final[dict[str, dict[frozenset[int], str]]] = {}
"""A statement's text for many rows, then places of values that all rows share: the text for such rows."""


async def send_late(connection: AsyncpgConnection, batches: Sequence[QueryBatch]) -> Sequence[QueryBatch]:
    """Sends late rows, if possible in one statement. Returns the batches left to send."""
    late = [batch for batch in batches if not batch.runs]
    if len(late) < 2:
        return batches
    texts: list[tuple[str, int]] = []
    values: list[Any] = []
    for statement, _, rows in late:
        flat = [one for several in rows for one in several]
        if len(flat) > 1 and statement.bulk is None:
            return batches
        text, given = (statement.sql, flat[0]) if len(flat) == 1 else bulk(str(statement.bulk), flat)
        texts.append((text, len(statement.parameters)))
        values += given
    await connection.fetch(_together(tuple(texts)), *values)
    return batches[len(late) :]


@cache
def _together(texts: tuple[tuple[str, int], ...]) -> str:
    """Joins statements on different tables into one. Each text comes with its number of values."""
    parts: list[str] = []
    before = 0

    def shifted(number: re.Match[str]) -> str:
        return f"${int(number[1]) + before}"

    for n, (text, amount) in enumerate(texts):
        parts.append(f"w{n} AS ({_NUMBERED.sub(shifted, text)})")
        before += amount
    return f"WITH {', '.join(parts)} SELECT 1"


async def send(connection: AsyncpgConnection, batch: QueryBatch) -> list[Rows]:
    statement, runs, values = batch
    rows = sum(map(len, values))
    if statement.bulk is not None and rows > 1 and (not statement.returns or rows == len(runs)):
        return await _send_bulk(connection, batch)
    if not statement.returns:
        flat = [one for several in values for one in several]
        if len(flat) == 1:
            await connection.fetch(statement.sql, *flat[0])
        else:
            await connection.executemany(statement.sql, flat)
        return [[] for _ in runs]
    if statement.routed is None or (len(runs) == 1 and len(values[0]) == 1):
        return [
            [tuple(record) for one in several for record in await connection.fetch(statement.sql, *one)]
            for several in values
        ]
    found: list[Rows] = [[] for _ in runs]
    routed = [(*one, n) for n, several in enumerate(values) for one in several]
    for record in await connection.fetchmany(statement.routed, routed):
        found[record[0]].append(tuple(record)[1:])
    return found


async def _send_bulk(connection: AsyncpgConnection, batch: QueryBatch) -> list[Rows]:
    """Pays the statement's overhead once for all rows."""
    statement, runs, values = batch
    assert statement.bulk is not None
    text, given = bulk(statement.bulk, [one for several in values for one in several])
    found: list[Rows] = [[] for _ in runs]
    for record in await connection.fetch(text, *given):
        found[record[0] - 1].append(tuple(record)[1:])
    return found


def bulk(text: str, rows: Sequence[tuple[Any, ...]]) -> tuple[str, list[Any]]:
    """A value shared by all rows is sent once: the driver and PostgreSQL pay for each element of an array."""
    columns = list(zip(*rows, strict=True))
    same = {n for n, column in enumerate(columns) if column[-1] == column[0] and column.count(column[0]) == len(rows)}
    texts = _texts.setdefault(text, {})
    places = max((known for known in texts if known <= same), key=len, default=frozenset[int]())
    # PostgreSQL finds the rows of an UPDATE by their keys, which stay in the join.
    same -= {int(place) - 1 for place in _KEY.findall(text)}
    if len(places) < len(same) < len(columns) and len(texts) < _TEXTS_MAX:
        places = frozenset(same)
        texts[places] = with_common(text, places)
    return texts.get(places, text), [column[0] if n in places else column for n, column in enumerate(columns)]


def with_common(text: str, places: Set[int]) -> str:
    """A statement for many rows, with a value instead of an array at each of `places`."""
    head, arrays, tail = _UNNEST.split(text)
    kinds = {int(place): kind for place, kind in _ARRAY.findall(arrays)}
    left = [n for n in kinds if n - 1 not in places]

    def once(match: re.Match[str]) -> str:
        place = int(match[1])
        return f"v.p{place}" if place in left else f"${place}::{kinds[place]}"

    arrays = ", ".join(f"${n}::{kinds[n]}[]" for n in left)
    names = ", ".join(f"p{n}" for n in left)
    head, tail = (_VALUE.sub(once, part) for part in (head, tail))
    return f"{head}unnest({arrays}) WITH ORDINALITY AS v ({names}, ord){tail}"
