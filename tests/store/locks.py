"""Rows of a PostgreSQL database that somebody else holds."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import asyncpg

_COLUMN: Final = {
    "meta": "name",
    "transcripts": "session_id",
    "session_memory": "session_id",
    "events": "topic",
    "topics": "topic",
    "schedule_fires": "schedule_id",
    "traces": "trace_id",
    "waits": "execution_id",
    "trace_exports": "execution_id",
}
"""What a row is called by, where it is not its id."""


@contextlib.asynccontextmanager
async def held(url: str, table: str, name: str, how: str = "UPDATE") -> AsyncIterator[None]:
    """Somebody's transaction has a row, until the block ends."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    column = _COLUMN.get(table, "id")
    assert await connection.fetchval(f"SELECT 1 FROM {table} WHERE {column} = $1 FOR {how}", name)
    try:
        yield
    finally:
        await transaction.rollback()
        await connection.close()
