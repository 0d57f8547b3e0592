"""Fills an empty store with what years of use leave behind, by statements that make whole sets (grown.sql)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import apsw
import asyncpg
from tests.store.world import SECOND, START_US

from perdure.store.base.statements import parse

_INFIX: Final = "-7b3a-8000-"
PAYLOAD: Final = b'{"order": 17, "lines": [{"article": "a-1", "amount": 3}, {"article": "b-2", "amount": 1}]}'
NOW_US: Final = START_US + 400 * 86_400 * SECOND


def name_of(n: int) -> str:
    """The id of the n-th execution, which was created n seconds after START_US."""
    time = f"{START_US // 1_000 + n * 1_000:012x}"
    return f"{time[:8]}-{time[8:]}{_INFIX}{n:012x}"


def _statements(dialect: str) -> list[tuple[str, Callable[[dict[str, Any]], tuple[Any, ...]]]]:
    text = Path(__file__).with_name("grown.sql").read_text(encoding="utf-8")
    return [(query.sql, query.values) for query in parse(text, "grown.sql", dialect).values()]


def _values(executions: int, open_: int) -> dict[str, Any]:
    times = {"start_us": START_US, "start_ms": START_US // 1_000, "now_us": NOW_US}
    return {"executions": executions, "open": open_, "payload": PAYLOAD, "infix": _INFIX, **times}


async def fill_postgres(url: str, executions: int, open_: int) -> None:
    """Fill a migrated database with finished executions, then open ones."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SET synchronous_commit = off; SET maintenance_work_mem = '128MB'; CREATE TEMP TABLE numbers (n BIGINT); "
            "CREATE TEMP TABLE names (n BIGINT, id TEXT, parent TEXT)"
        )
        await connection.execute("INSERT INTO numbers SELECT generate_series(0, $1::BIGINT)", executions + open_)
        for sql, values in _statements("postgres"):
            await connection.execute(sql, *values(_values(executions, open_)))
    finally:
        await connection.close()


def fill_sqlite(path: str, executions: int, open_: int) -> None:
    """The same in a file."""
    connection = apsw.Connection(path)
    connection.execute(
        "PRAGMA synchronous=OFF; PRAGMA cache_size=-262144; CREATE TEMP TABLE numbers (n INTEGER PRIMARY KEY); "
        "CREATE TEMP TABLE names (n INTEGER PRIMARY KEY, id TEXT, parent TEXT)"
    )
    connection.execute(
        "WITH RECURSIVE counted (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n < ?) "
        "INSERT INTO numbers SELECT n FROM counted",
        (executions + open_,),
    )
    for sql, values in _statements("sqlite"):
        connection.execute(sql, values(_values(executions, open_)))
    connection.close()
