"""Sends a batch in as few statements as possible, with each run's rows kept apart."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from perdure.store.interface import Rows
from perdure.store.lockstep import Batch
from perdure.store.postgres_connection import AsyncpgConnection

_NUMBERED: Final = re.compile(r"\$(\d+)")


async def send_late(connection: AsyncpgConnection, batches: Sequence[Batch]) -> Sequence[Batch]:
    """As one statement if possible. Returns the batches left to send."""
    late = [batch for batch in batches if not batch.runs]
    if len(late) < 2:
        return batches
    texts: list[tuple[str, int]] = []
    values: list[Any] = []
    for statement, _, rows in late:
        flat = [one for several in rows for one in several]
        if len(flat) > 1 and statement.bulk is None:
            return batches
        texts.append((statement.sql if len(flat) == 1 else str(statement.bulk), len(statement.parameters)))
        values += flat[0] if len(flat) == 1 else zip(*flat, strict=True)
    await connection.fetch(_together(tuple(texts)), *values)
    return batches[len(late) :]


@cache
def _together(texts: tuple[tuple[str, int], ...]) -> str:
    """One statement for several on different tables; each comes with its number of values."""
    parts: list[str] = []
    before = 0

    def shifted(number: re.Match[str]) -> str:
        return f"${int(number[1]) + before}"

    for n, (text, amount) in enumerate(texts):
        parts.append(f"w{n} AS ({_NUMBERED.sub(shifted, text)})")
        before += amount
    return f"WITH {', '.join(parts)} SELECT 1"


async def send(connection: AsyncpgConnection, batch: Batch) -> list[Rows]:
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


async def _send_bulk(connection: AsyncpgConnection, batch: Batch) -> list[Rows]:
    """Pays the statement's overhead once for all rows."""
    statement, runs, values = batch
    assert statement.bulk is not None
    arrays = zip(*(one for several in values for one in several), strict=True)
    found: list[Rows] = [[] for _ in runs]
    for record in await connection.fetch(statement.bulk, *arrays):
        found[record[0] - 1].append(tuple(record)[1:])
    return found
