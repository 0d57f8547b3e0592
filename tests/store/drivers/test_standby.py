"""A primary and its standby: which server a store opens, and what a failover leaves."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from tests import postgres
from tests.databases import migrated
from tests.kit.polling import until
from tests.store.world import PROJECT, World, step

from perdure.engine.base.service import Scope
from perdure.engine.engine import Engine
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.drivers.postgres_connection import Lost, PostgresConnection, parse_url
from perdure.store.open import open_store
from perdure.store.verbs.base import access
from perdure.wire.base.errors import LeaseLost, Unavailable, UnknownOutcome
from perdure.wire.runs.requests import BeatRequest, ReportItem, ReportRequest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[postgres.Server, postgres.Server]]:
    """A primary with a standby."""
    with postgres.running() as primary:
        standby = postgres.start_standby(primary)
        try:
            yield primary, standby
        finally:
            standby.stop()


@pytest.fixture
async def database(pair: tuple[postgres.Server, postgres.Server]) -> AsyncIterator[str]:
    """A database with our schema, on both."""
    primary, standby = pair
    name = await postgres.make(server=primary)
    await migrated(primary.database_url(name))
    await caught_up(primary, standby)
    yield name
    await postgres.drop(name, primary)


async def caught_up(primary: postgres.Server, standby: postgres.Server) -> None:
    """Wait until the standby has replayed what the primary has written."""
    ahead = await asyncpg.connect(primary.url)
    behind = await asyncpg.connect(standby.url)
    there = await ahead.fetchval("SELECT pg_current_wal_lsn()::TEXT")

    async def is_there() -> bool:
        return bool(await behind.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::TEXT::PG_LSN", there))

    try:
        await until(is_there, 30, "the standby has caught up")
    finally:
        await ahead.close()
        await behind.close()


def both(first: postgres.Server, second: postgres.Server, name: str, more: str = "") -> str:
    """One address for a database of two servers."""
    return f"postgresql://perdure@/{name}?host={first.folder}/socket,{second.folder}/socket{more}"


async def test_a_standby_is_refused_at_start(pair: tuple[postgres.Server, postgres.Server], database: str) -> None:
    _, standby = pair
    url = standby.database_url(database)
    with pytest.raises(Unavailable, match=r"^The database cannot be used: it is a standby, or read-only\.$"):
        await open_store(url)
    with pytest.raises(Unavailable, match="it does not match target_session_attrs"):
        await open_store(f"{url}&target_session_attrs=read-write")


@pytest.mark.parametrize("more", ["", "&target_session_attrs=read-write"])
async def test_of_several_hosts_the_one_that_takes_writes_is_used(
    pair: tuple[postgres.Server, postgres.Server], database: str, more: str
) -> None:
    primary, standby = pair
    for first, second in (pair, (standby, primary)):
        store = await PostgresStore.open(both(first, second, database, more))
        await store.write(access.default_project(id="p", now_us=1))
        await store.close()


def test_each_host_has_an_address_of_its_own() -> None:
    assert parse_url("postgresql://u:p@a,b:5433/db?sslmode=require").dsns == (
        "postgresql://u:p@a/db?sslmode=require",
        "postgresql://u:p@b:5433/db?sslmode=require",
    )
    assert parse_url("postgresql://u@/db?host=/a,/b&port=1,2").dsns == (
        "postgresql://u@/db?host=/a&port=1",
        "postgresql://u@/db?host=/b&port=2",
    )
    assert parse_url("postgresql://u@/db?host=/a,/b&port=7").dsns[1] == "postgresql://u@/db?host=/b&port=7"
    assert parse_url("postgresql:///db").dsns == ("postgresql:///db",)
    address = parse_url("postgresql://pooler/db?listen_dsn=postgresql%3A%2F%2Fa%2Cb%2Fdb")
    assert address.direct().dsns == ("postgresql://a/db", "postgresql://b/db")


async def test_a_host_that_is_gone_without_a_word_does_not_hide_the_next(
    pair: tuple[postgres.Server, postgres.Server], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host takes the connection and says nothing, like a machine whose packets are lost."""
    primary, _ = pair
    monkeypatch.setattr("perdure.store.drivers.postgres_connection.CONNECT_SECONDS_MAX", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_url = f"postgresql://perdure@127.0.0.1:{silent.getsockname()[1]}/{database}"
        dead = parse_url(silent_url)
        with pytest.raises(Lost):
            await PostgresConnection(dead, "test").get()
        postgres = PostgresConnection(dead._replace(dsns=(*dead.dsns, primary.database_url(database))), "test")
        until = asyncio.get_running_loop().time() + 60  # a slow machine may need more than half a second
        assert await (await postgres.again(until)).fetchval("SELECT 1") == 1
        postgres.drop()
        assert await (await postgres.again(until)).fetchval("SELECT 1") == 1  # the good one is asked first now
        assert len(postgres.address.dsns) == 2
        await postgres.close()


async def test_a_commit_that_no_standby_has_is_not_acknowledged(
    pair: tuple[postgres.Server, postgres.Server], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit cancelled while waiting for a standby is done on this server, and the server says so."""
    primary, _ = pair
    url = primary.database_url(database)
    store = await PostgresStore.open(url)
    await store.write(access.default_project(id="p", now_us=1))
    monkeypatch.setattr(
        "perdure.store.drivers.postgres_connection.COMMAND_SECONDS_MAX", 0.5
    )  # from the next connection on
    monkeypatch.setattr("perdure.store.drivers.postgres_writer.RECONNECT_SECONDS_MAX", 3.0)
    await _wait_for("nobody", primary)
    try:
        writing = asyncio.create_task(store.write(access.new_epoch(epoch="unsure")))
        ended: list[int] = []

        async def waits() -> bool:
            ended[:] = await _end_waiting(primary)
            return bool(ended)

        await until(waits, 30, "the commit waits for a standby")
        with pytest.raises(UnknownOutcome):
            await writing
        monkeypatch.undo()
    finally:
        await _wait_for("", primary)
    await store.write(access.new_epoch(epoch="sure"))
    await store.close()


async def _end_waiting(primary: postgres.Server) -> list[int]:
    """End the sessions that wait for a standby."""
    connection = await asyncpg.connect(primary.url)
    try:
        waiting = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        return [pid for (pid,) in waiting if await connection.fetchval("SELECT pg_terminate_backend($1)", pid)]
    finally:
        await connection.close()


async def _wait_for(standby: str, primary: postgres.Server) -> None:
    """Have every commit wait for a standby of the given name."""
    # Without a transaction of their own, which would wait for it, too.
    await postgres.admin(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'", primary)
    await postgres.admin("SELECT pg_reload_conf()", primary)
    connection = await asyncpg.connect(primary.url)

    async def known() -> bool:
        return bool(await connection.fetchval("SHOW synchronous_standby_names") == standby)

    try:
        await until(known, 30, "the primary knows whom to wait for")
    finally:
        await connection.close()


@pytest.mark.slow
async def test_a_failover_that_lost_commits_lets_nobody_build_upon_them() -> None:
    """An asynchronous standby takes over without the last step. The step's worker must not continue as if recorded."""
    with postgres.running() as primary:
        name = await postgres.make(server=primary)
        await migrated(primary.database_url(name))
        standby = postgres.start_standby(primary)
        try:
            store = await PostgresStore.open(both(primary, standby, name))
            engine = Engine(store)
            world = await World.make(store)
            await world.register()
            id = await world.running()
            await world.report(id, [step("kept")])
            await caught_up(primary, standby)
            standby.kill()
            before = store.epoch
            assert (await world.report(id, [step("lost")])).accepted
            primary.kill()
            standby.start()
            await postgres.admin("SELECT pg_promote()", standby)
            stale = ReportItem(id, 1, 9, 4, [step("built upon it")], None, [], None)
            with pytest.raises(Unavailable, match="is on timeline 00000002 now"):
                await world.send(stale)
            assert store.epoch != before
            assert (await engine.serve(Scope(PROJECT), BeatRequest("w", before))).lost
            with pytest.raises(LeaseLost, match="register again"):
                await engine.serve(Scope(PROJECT), ReportRequest("w", before, [stale]))
            assert [row.key for row in await world.journal(id)][-1] == "kept"
            with pytest.raises(Unavailable):  # what waited for the other connection
                await world.beat()
            await world.live(1, "w")  # the store goes on, in its new life
            await store.close()
        finally:
            standby.stop()
