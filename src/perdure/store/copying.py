"""Copies a stopped installation from an SQLite file into an empty PostgreSQL database.

A transaction copies all rows, and each table is read back and compared before the commit. The source keeps its rows,
but gets the newest schema, and the registrations of embedded workers end. The target gets a new epoch, so workers must
register again, and steps under way run again.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Final

import apsw
from uuid_utils import uuid4

from perdure.store.drivers.postgres_connection import (
    BROKEN,
    AsyncpgConnection,
    PostgresConnection,
    look,
    parse_url,
    prepare,
    schema_at,
    schema_in,
)
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.store.drivers.sqlite import schema_in as schema_in_file
from perdure.store.verbs.runs import claims
from perdure.wire.base.errors import Conflict, PerdureError, Unavailable

AT_ONCE: Final = 1_000
BYTES_AT_ONCE: Final = 64 << 20
SECONDS_MAX: Final = 86_400.0
_TAKEN: Final = "The target holds a store already; name an empty database."


class NotTheSame(PerdureError):
    code = "NOT_THE_SAME"


class Digest:
    """The sum of the rows' hashes, in which order does not matter."""

    def __init__(self) -> None:
        self.rows = 0
        self.largest = 0
        self._sum = 0

    def add(self, row: Iterable[object]) -> None:
        one = hashlib.blake2b(digest_size=32)
        size = 0
        for value in row:
            if isinstance(value, bytes):
                one.update(b"b%d:" % len(value) + value)
                size += len(value)
            else:
                text = str(value).encode("utf-8", "surrogatepass")
                one.update(f"{type(value).__name__}{len(text)}:".encode() + text)
                size += len(text)
        self.rows += 1
        self.largest = max(self.largest, size)
        self._sum = (self._sum + int.from_bytes(one.digest())) % (1 << 256)

    @property
    def hash(self) -> str:
        return f"{self._sum:064x}"


async def copy_store(source: str, target: str, *, now_us: int, tell: Callable[[str, int], None]) -> dict[str, Digest]:
    """`tell` gets each table's name and count.

    Raises StoreInUse, NotOurFile, NotOurDatabase, Conflict if the target is not empty, NotTheSame, Unavailable.
    """
    await _empty(target)  # before the file is touched
    store = SQLiteStore(source)
    try:
        await store.write(claims.end_embedded(now_us=now_us))
        file = apsw.Connection(source, flags=apsw.SQLITE_OPEN_READONLY)
        postgres = PostgresConnection(parse_url(target), "copy")
        try:
            file.execute("BEGIN")
            await prepare(postgres)
            connection = await postgres.get()
            numbers = schema_in_file(file).number, (await schema_in(connection)).number
            if numbers[0] != numbers[1]:
                raise Conflict(
                    f"The schemas differ ({numbers[0]}, {numbers[1]}); copy with the newest release of both."
                )
            async with connection.transaction():
                found = await _copy(file, connection, tell)
                await connection.execute("SELECT setval('created_numbers', $1)", store.numbers.end)
            await connection.execute("ANALYZE", timeout=SECONDS_MAX)
            return found
        except BROKEN as error:
            raise Unavailable(
                f"The database failed during the copy ({type(error).__name__}: {error}). Usually nothing was written. "
                "Run the copy again; it reports if the target is already complete."
            ) from error
        finally:
            await postgres.close()
            file.close()
    finally:
        await store.close()


async def _empty(target: str) -> None:
    if (await schema_at(target)).number:
        found = await look(target, {"projects": "SELECT 1 FROM projects LIMIT 1"})
        if found["projects"]:
            raise Conflict(_TAKEN)


async def _copy(
    file: apsw.Connection, connection: AsyncpgConnection, tell: Callable[[str, int], None]
) -> dict[str, Digest]:
    tables = dict(_tables(file))
    quoted = ", ".join(f'"{table}"' for table in tables)
    await connection.execute("SET LOCAL statement_timeout = 0")
    await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    # A server that starts on the target waits here, and finds the copy.
    await connection.execute(f"LOCK TABLE {quoted} IN EXCLUSIVE MODE")
    for table in tables:
        if table != "meta" and await connection.fetchval(f'SELECT EXISTS (SELECT 1 FROM "{table}")'):
            raise Conflict(_TAKEN)
    found: dict[str, Digest] = {}
    for table, columns in tables.items():
        if table == "meta":
            continue
        there = Digest()
        rows = _rows(file, table, columns, there)
        await connection.copy_records_to_table(table, records=rows, columns=columns, timeout=SECONDS_MAX)
        here = await _read_back(connection, table, columns, at_once=BYTES_AT_ONCE // max(there.largest, 1))
        if (here.rows, here.hash) != (there.rows, there.hash):
            raise NotTheSame(
                f"Table {table!r} has {there.rows} rows in the file and {here.rows} in the database, or they differ; "
                "nothing was kept."
            )
        found[table] = here
        tell(table, here.rows)
    await connection.execute("UPDATE meta SET value = $1 WHERE name = 'epoch'", str(uuid4()))
    return found


def _tables(file: apsw.Connection) -> Iterator[tuple[str, list[str]]]:
    for (table,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"):
        yield table, [column for (column,) in file.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def _select(table: str, columns: list[str]) -> str:
    names = ", ".join(f'"{column}"' for column in columns)
    return f'SELECT {names} FROM "{table}"'


async def _rows(
    file: apsw.Connection, table: str, columns: list[str], digest: Digest
) -> AsyncIterator[tuple[Any, ...]]:
    for row in file.execute(_select(table, columns)):
        digest.add(row)
        yield row


async def _read_back(connection: AsyncpgConnection, table: str, columns: list[str], *, at_once: int) -> Digest:
    digest = Digest()
    cursor = await connection.cursor(_select(table, columns), timeout=SECONDS_MAX)
    while rows := await cursor.fetch(min(max(at_once, 1), AT_ONCE), timeout=SECONDS_MAX):
        for row in rows:
            digest.add(row)
    return digest
