"""Rows of a PostgreSQL database that another transaction holds, and limits for waiting sessions."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest
from tests.kit.polling import until

from perdure.store.drivers import postgres_writer
from perdure.store.drivers.postgres import PostgresStore

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
"""The name of a row, unless the id is the name."""


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


def set_limits(patch: pytest.MonkeyPatch, **milliseconds: int) -> None:
    """Limit each transaction of a store: `lock_timeout`, `statement_timeout`."""
    for kind, prepare in postgres_writer.PREPARE.items():
        for name, limit in milliseconds.items():
            prepare = re.sub(rf"(set_config\('{name}'), '\w+'", rf"\1, '{limit}ms'", prepare)
        patch.setitem(postgres_writer.PREPARE, kind, prepare)


@contextlib.asynccontextmanager
async def without_waiting() -> AsyncIterator[None]:
    """Fail if a statement inside waits for a held lock, which would take a minute."""
    with pytest.MonkeyPatch.context() as patch:
        set_limits(patch, lock_timeout=60_000, statement_timeout=60_000)
        async with asyncio.timeout(30):
            yield


async def are_aside(store: PostgresStore, verbs: int) -> None:
    """Wait until so many verbs are in the lock queue."""

    async def there() -> bool:
        return len(store._lock_queue.inbox) + len(store._lock_queue._taken) == verbs

    await until(there, 30, "the verbs wait in the lock queue")


def end_waits(store: PostgresStore) -> None:
    """End the wait of every verb in the lock queue, as a time-out would."""
    for _, waiter in (*store._lock_queue.inbox, *store._lock_queue._taken):
        waiter.until = 0.0  # type: ignore[attr-defined]  # it is the queue's own kind of answer
