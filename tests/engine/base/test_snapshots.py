"""The server names the holder of an old snapshot of the database, with a remedy."""

import logging
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests import postgres

from perdure.engine.base import snapshots
from perdure.engine.engine import Engine
from perdure.store.open import open_store
from perdure.store.verbs.runs.queries import Snapshot, old_snapshots

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


@pytest.fixture
async def engine(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """An engine without loops: a test calls its looks. Everything counts as old."""
    monkeypatch.setattr(snapshots, "OLD_SECONDS", 0)
    monkeypatch.setattr(snapshots, "OLD_TRANSACTIONS", 1)
    engine = Engine(await open_store(url))
    yield engine
    await engine.stop()


async def test_a_session_that_holds_a_snapshot_is_named_once(
    engine: Engine, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "perdure.engine")
    await engine.snapshots.look()
    assert caplog.text == "" and engine.stats.old_snapshots == 0
    other = await asyncpg.connect(url, server_settings={"application_name": "report of the month"})
    transaction = other.transaction(isolation="repeatable_read")
    await transaction.start()
    await other.fetch("SELECT * FROM meta")
    pid = other.get_server_pid()
    for _ in range(2):
        await engine.snapshots.look()
        assert engine.stats.old_snapshots == 1
    assert caplog.text.count("'report of the month'") == 1
    assert f"pg_terminate_backend({pid})" in caplog.text
    await transaction.rollback()
    await engine.snapshots.look()
    assert engine.stats.old_snapshots == 0
    await transaction_of(other)
    await engine.snapshots.look()
    assert caplog.text.count("'report of the month'") == 2  # a new one, though of the same session
    await other.close()


async def transaction_of(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """A transaction that has written and does not end."""
    await connection.execute("BEGIN; INSERT INTO meta VALUES ('a', 'b')")


async def test_transactions_that_are_young_are_nobody_s_business(engine: Engine, url: str) -> None:
    other = await asyncpg.connect(url)
    await transaction_of(other)
    assert await engine.store.scan(old_snapshots(seconds=300, transactions=100_000)) == []
    await other.close()


async def test_prepared_transactions_and_slots_are_named_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "perdure.engine")
    settings = postgres.FAST | {"max_prepared_transactions": "2", "wal_level": "logical"}
    with postgres.running(settings) as server:
        url = server.database_url(await postgres.make(server=server))
        store = await open_store(url)
        connection = await asyncpg.connect(url)
        await transaction_of(connection)
        await connection.execute("PREPARE TRANSACTION 'left behind'")
        await connection.execute("SELECT pg_create_physical_replication_slot('standby_1')")
        found = await store.scan(old_snapshots(seconds=0, transactions=1))
        assert [(one.kind, one.name) for one in found] == [("prepared", "left behind")]
        assert "ROLLBACK PREPARED 'left behind'" in snapshots._holder_text(found[0])
        await connection.execute("ROLLBACK PREPARED 'left behind'")
        await connection.close()
        await store.close()
    slot = snapshots._holder_text(Snapshot("slot", "standby_1", "", "", "inactive", None))
    assert "pg_drop_replication_slot('standby_1')" in slot and "100,000 transactions" in slot
