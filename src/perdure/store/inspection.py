"""Inspects a database that servers may use. Nothing is opened as a store, nothing changes."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import apsw

from perdure.store.base.interface import Rows
from perdure.store.base.statements import load
from perdure.store.drivers.file_lock import several_names
from perdure.store.drivers.migrate import Migration, Schema, migrations, split_statements
from perdure.store.drivers.sqlite import APPLICATION_ID, NotOurFile, schema_in
from perdure.store.open import file_of, is_postgres, no_driver
from perdure.store.verbs.runs.queries import DOCTOR
from perdure.wire.base.errors import NotFound

STEPS_PER_LOOK: Final = 100_000
"""Steps of SQLite between two looks for Ctrl-C: some milliseconds."""
SIZES: Final = ("size_executions", "size_journal", "size_logs", "size_streams", "size_tables", "size_all")


async def read_schema(address: str) -> tuple[Schema, Sequence[Migration]]:
    """The schema and the pending migrations. Raises NotFound for a missing file, NotOurFile or NotOurDatabase for a
    store that this release cannot use, Unavailable."""
    if is_postgres(address):
        try:
            from perdure.store.drivers.postgres_connection import schema_at  # an extra: asyncpg may be missing
        except ImportError as error:
            raise no_driver(error) from error
        schema = await schema_at(address)
        return schema, schema.pending(migrations("postgres"))
    known = migrations("sqlite")
    with file_at(address) as connection:
        schema = schema_in(connection)
    if problem := schema.refusal(known):
        raise NotOurFile(f"{address!r} {problem}")
    return schema, schema.pending(known)


async def sizes_of(address: str) -> dict[str, Rows]:
    """Reads whole tables, which may take minutes. Needs an up-to-date schema."""
    return await _query_all(address, SIZES)


async def faults_in(address: str) -> dict[str, list[str]]:
    """The violating ids by invariant. Each query sees one moment. Needs an up-to-date schema."""
    found: dict[str, list[str]] = {}
    if not is_postgres(address):
        with file_at(address) as connection:
            integrity = connection.pragma("quick_check", 1)
        found["the_file_is_whole"] = [] if integrity == "ok" else [str(integrity)]
    for name, rows in (await _query_all(address, DOCTOR)).items():
        found[name.removeprefix("doctor_")] = [str(id) for id, *_ in rows]
    return found


async def _query_all(address: str, names: Sequence[str]) -> dict[str, Rows]:
    if is_postgres(address):
        from perdure.store.drivers.postgres_connection import look

        queries = load("postgres")
        return await look(address, {name: queries[name].sql for name in names})
    queries = load("sqlite")
    with file_at(address) as connection:
        return {name: list(connection.execute(queries[name].sql)) for name in names}


@contextmanager
def file_at(address: str) -> Iterator[apsw.Connection]:
    path = file_of(address)
    if not os.path.exists(path):
        raise NotFound(f"The store {path!r} does not exist; name it with --database or PERDURE_STORE.")
    if os.path.isdir(path):
        raise NotOurFile(f"{path!r} is a folder; name a file in it.")
    if not os.path.isfile(path):
        raise NotOurFile(f"{path!r} is not a regular file, so it cannot be a store.")
    if not os.path.exists(f"{os.path.realpath(path)}-wal") and (problem := several_names(path)):
        raise NotOurFile(problem)
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5_000)
            connection.execute("PRAGMA trusted_schema=OFF")
            # Python handles Ctrl-C during a statement only when SQLite calls it.
            connection.set_progress_handler(lambda: False, STEPS_PER_LOOK)
            if connection.pragma("application_id") != APPLICATION_ID:
                raise NotOurFile(f"{path!r} is not a Perdure store.")
            yield connection
        finally:
            connection.close()
    except apsw.ReadOnlyError as error:
        raise NotOurFile(
            f"{path!r} cannot be read: SQLite needs a file beside it that its readers share, and this user may not "
            "write in its folder."
        ) from error
    except apsw.Error as error:
        raise NotOurFile(f"{path!r} cannot be read: {error}.") from error


def has_own_tables(connection: apsw.Connection) -> bool:
    """True if the file has exactly the tables of this release. A view with a table's name might never end."""
    expected = apsw.Connection(":memory:")
    for migration in migrations("sqlite"):
        for statement in split_statements(migration.sql):
            expected.execute(statement)
    return _tables(connection) == _tables(expected)


def _tables(connection: apsw.Connection) -> set[tuple[str, str, str]]:
    """Tables, views and triggers. The planner's statistics and indexes do not count."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE type <> 'index' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    )
    return {(str(kind), str(name), re.sub(r"[\s\"]", "", str(sql))) for kind, name, sql in rows}
