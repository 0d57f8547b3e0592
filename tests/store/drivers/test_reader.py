"""A second process reads a file that another process has open."""

import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from perdure.store.base.interface import query, verb
from perdure.store.drivers.sqlite import NotOurFile, SQLiteStore
from perdure.store.sqlite_reader import SQLiteReader
from perdure.store.verbs.base import access
from perdure.wire.base.errors import NotFound, ReadOnly, Unavailable


@verb(locks="")
async def note(*, value: str) -> None:
    await query("write_meta", name="n", value=value)


@verb(reads=True)
async def read_note() -> str | None:
    rows = await query("read_meta", name="n")
    return rows[0][0] if rows else None


@verb(reads=True)
async def write_while_reading() -> None:
    await query("write_meta", name="n", value="x")


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(str(tmp_path / "app.db"))
    yield store
    await store.close()


@pytest.fixture
async def reader(writer: SQLiteStore) -> AsyncIterator[SQLiteReader]:
    reader = SQLiteReader(writer.path)
    yield reader
    await reader.close()


async def test_it_sees_each_commit_of_the_writer(writer: SQLiteStore, reader: SQLiteReader) -> None:
    for value in ("one", "two"):
        await writer.write(note(value=value))
        assert await reader.read(read_note()) == await reader.scan(read_note()) == value
    assert reader.epoch == writer.epoch


async def test_it_changes_nothing(writer: SQLiteStore, reader: SQLiteReader) -> None:
    before = Path(writer.path).read_bytes()
    with pytest.raises(ReadOnly, match=r"only reads .*app\.db"):
        await reader.write(note(value="x"))
    with pytest.raises(ReadOnly):
        await reader.write_all([note(value="x")])
    with pytest.raises(TypeError, match="must not run"):
        await reader.read(write_while_reading())
    with pytest.raises(apsw.ReadOnlyError):
        reader._reader.connection.execute("INSERT INTO meta VALUES ('n', 'x')")
    assert Path(writer.path).read_bytes() == before
    await reader.vacuum()
    assert await writer.read(read_note()) is None


async def test_it_does_not_keep_the_writer_from_emptying_its_log(writer: SQLiteStore, reader: SQLiteReader) -> None:
    await writer.write(note(value="one"))
    assert await reader.read(read_note()) == "one"
    blocked, _ = writer._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert blocked == 0
    await writer.write(note(value="two"))
    assert await reader.read(read_note()) == "two"


async def test_the_writer_may_end_and_come_back(writer: SQLiteStore, reader: SQLiteReader) -> None:
    await writer.write(note(value="one"))
    await writer.close()
    assert await reader.read(read_note()) == "one"
    again = SQLiteStore(writer.path)
    await again.write(note(value="two"))
    assert await reader.read(read_note()) == "two"
    await again.close()


async def test_a_store_without_a_project_says_so(reader: SQLiteReader, writer: SQLiteStore) -> None:
    with pytest.raises(NotFound, match="no project yet"):
        await reader.read(access.oldest_project())
    id = await writer.write(access.default_project(id="p", now_us=1))
    assert await reader.read(access.oldest_project()) == id


async def test_a_closed_reader_says_so(reader: SQLiteReader) -> None:
    await reader.close()
    with pytest.raises(Unavailable):
        await reader.read(read_note())
    with pytest.raises(Unavailable):
        await reader.scan(read_note())


async def test_what_is_not_a_store_of_this_release_is_refused(tmp_path: Path, writer: SQLiteStore) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        SQLiteReader(str(tmp_path / "none.db"))
    with pytest.raises(NotOurFile, match="a folder"):
        SQLiteReader(str(tmp_path))
    (tmp_path / "text.db").write_text("no database, but long enough to look like one" * 20)
    with pytest.raises(NotOurFile, match="cannot be read"):
        SQLiteReader(str(tmp_path / "text.db"))
    foreign = apsw.Connection(str(tmp_path / "foreign.db"))
    foreign.execute("CREATE TABLE t (x)")
    foreign.close()
    with pytest.raises(NotOurFile, match="not a Perdure store"):
        SQLiteReader(str(tmp_path / "foreign.db"))
    await writer.close()
    for schema, least, words in (
        (1, 1, "has schema 1: a build before the first release made it"),
        (9_999, 1, "has schema 9999, this release reads"),
        (9_999, 9_999, "install a newer Perdure"),
    ):
        shutil.copy(writer.path, tmp_path / "other.db")
        other = apsw.Connection(str(tmp_path / "other.db"))
        other.execute(f"PRAGMA user_version={schema}")
        other.execute("UPDATE meta SET value = ? WHERE name = 'schema_least'", (str(least),))
        other.close()
        with pytest.raises(NotOurFile, match=words):
            SQLiteReader(str(tmp_path / "other.db"))


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i % 1000 + 1 FROM n)"


@pytest.mark.parametrize("table", ["projects", "executions", "a view of theirs"])
async def test_a_prepared_file_is_refused(table: str, writer: SQLiteStore) -> None:
    """A view with the name of a table would never answer."""
    await writer.close()
    prepared = apsw.Connection(writer.path)
    prepared.execute(f'DROP TABLE IF EXISTS "{table}"')
    prepared.execute(f'CREATE VIEW "{table}" AS {ENDLESS} SELECT COUNT(*) AS id FROM n')
    prepared.close()
    with pytest.raises(NotOurFile, match="has other tables or views than a store of this release"):
        SQLiteReader(writer.path)


@pytest.mark.parametrize("number", [None, 1])
async def test_a_prepared_view_of_the_schema_does_not_hold_the_reader(
    number: int | None, writer: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of the schema is read from a table that may be a view."""
    monkeypatch.setattr("perdure.store.sqlite_reader.SCAN_SECONDS_MAX", 0.05)
    await writer.close()
    prepared = apsw.Connection(writer.path)
    prepared.execute("DROP TABLE meta")
    prepared.execute(f"CREATE VIEW meta AS {ENDLESS} SELECT 'schema_least' AS name, COUNT(*) AS value FROM n")
    if number is not None:
        prepared.execute(f"PRAGMA user_version={number}")
    prepared.close()
    with pytest.raises(NotOurFile, match=r"cannot be read: .*nterrupt"):
        SQLiteReader(writer.path)


async def test_a_table_with_other_columns_is_refused_and_another_index_is_not(writer: SQLiteStore) -> None:
    await writer.close()
    prepared = apsw.Connection(writer.path)
    prepared.execute("CREATE INDEX ours ON executions (project_id, attempt)")
    prepared.execute("ANALYZE")
    await SQLiteReader(writer.path).close()
    prepared.execute("ALTER TABLE queues ADD COLUMN more TEXT AS (hex(name))")
    prepared.close()
    with pytest.raises(NotOurFile, match="other tables"):
        SQLiteReader(writer.path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
async def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    """A FIFO would wait for a writer."""
    os.mkfifo(tmp_path / "fifo.db")
    for path in (str(tmp_path / "fifo.db"), "/dev/zero"):
        with pytest.raises(NotOurFile, match="not a regular file"):
            SQLiteReader(path)
