"""Rows of a PostgreSQL database that somebody else holds."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg


@contextlib.asynccontextmanager
async def held(url: str, table: str, name: str) -> AsyncIterator[None]:
    """Somebody's transaction has a row, until the block ends."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    column = {"meta": "name", "transcripts": "session_id"}.get(table, "id")
    assert await connection.fetchval(f"SELECT 1 FROM {table} WHERE {column} = $1 FOR UPDATE", name)
    try:
        yield
    finally:
        await transaction.rollback()
        await connection.close()
