"""When the reaper grants every registration a full lease, and when it must not: dead workers would keep their work."""

import asyncio
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests import postgres
from tests.databases import migrated
from tests.faults.cluster import until

from perdure.engine import loops
from perdure.engine.clock import boottime_us
from perdure.engine.engine import Engine
from perdure.engine.settings import EngineSettings
from perdure.store.open import open_store
from perdure.wire.requests import RegisterRequest, WorkflowSpec

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")

LEASE_SECONDS = 1.0


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A database that counts the leases which are renewed, but not by beats: nobody beats here."""
    async with postgres.fresh(migrated) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(
            "CREATE SCHEMA test; CREATE TABLE test.renewed (id TEXT);"
            "CREATE FUNCTION test.note() RETURNS TRIGGER LANGUAGE plpgsql AS "
            "'BEGIN INSERT INTO test.renewed VALUES (NEW.id); RETURN NEW; END';"
            "CREATE TRIGGER note AFTER UPDATE OF lease_until_us ON workers FOR EACH ROW EXECUTE FUNCTION test.note()"
        )
        await connection.close()
        yield url
        connection = await asyncpg.connect(url)
        await connection.execute("DROP SCHEMA test CASCADE")
        await connection.close()


async def _engine(url: str) -> Engine:
    """A server whose reaper has gone round."""
    engine = Engine(await open_store(url), settings=EngineSettings(lease_seconds=LEASE_SECONDS))
    began = boottime_us()
    await engine.start()

    async def has_reaped() -> bool:
        return engine.reaped_at_us > began

    await until(has_reaped, 60, "the reaper has gone round")
    return engine


async def _register(engine: Engine) -> None:
    """A worker that never says a word again."""
    request = RegisterRequest("w", "d", "3.12", [WorkflowSpec("wf")])
    await engine.claims.register(await engine.projects.default(), request)


async def test_a_round_that_waits_for_the_database_is_no_absence(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, holding = await asyncpg.connect(url), await asyncpg.connect(url)
    engine = await _engine(url)
    await _register(engine)
    lock = holding.transaction()
    await lock.start()
    await holding.execute("LOCK TABLE ended_workers IN ACCESS EXCLUSIVE MODE")

    async def waits() -> bool:
        return bool(await looking.fetchval("SELECT 1 FROM pg_locks WHERE NOT granted"))

    await until(waits, 60, "a round has begun that cannot end")
    began = boottime_us()

    async def is_long() -> bool:
        return boottime_us() - began > LEASE_SECONDS * 1.5e6

    await until(is_long, 60, "the round lasts longer than a lease")
    await lock.rollback()

    async def is_gone() -> bool:
        return not await looking.fetchval("SELECT 1 FROM workers")

    await until(is_gone, 60, "the dead worker's registration has ended")
    assert await looking.fetchval("SELECT COUNT(*) FROM test.renewed") == 0
    await engine.stop()
    await looking.close()
    await holding.close()


async def test_a_server_that_stood_still_in_the_middle_of_a_round_was_away(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await _engine(url)
    slept_us = 0
    with monkeypatch.context() as patch:
        patch.setattr(loops, "boottime_us", lambda: boottime_us() + slept_us)
        before = engine.reaped_at_us
        round = asyncio.ensure_future(loops._reap(engine))
        await asyncio.sleep(0)  # it has begun
        slept_us = int(LEASE_SECONDS * 1e6)
        await round
        assert boottime_us() + slept_us - engine.reaped_at_us > LEASE_SECONDS / 2 * 1e6
        assert engine.reaped_at_us >= before
    await engine.stop()
