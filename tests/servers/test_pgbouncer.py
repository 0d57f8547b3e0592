"""Servers whose connections lead through PgBouncer in transaction mode."""

import asyncio
import logging
from urllib.parse import quote

import pytest
from tests import pgbouncer, postgres
from tests.kit.polling import until
from tests.servers.conftest import Pair, exchange, pair_on
from tests.store.world import World, step

from perdure.store.drivers import postgres_connection
from perdure.store.drivers.migrate import Migration, migrations
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.drivers.postgres_connection import NotOurDatabase, schema_at
from perdure.store.verbs.runs import claims, queries
from perdure.wire.base.errors import Unavailable
from perdure.wire.runs.requests import Complete

pytestmark = [pgbouncer.needed, pytest.mark.slow]


async def _round_trip(pair: Pair) -> None:
    """Start at A, work and result at B, result at A."""
    hand = await pair.hand(pair.b)
    claim = asyncio.ensure_future(hand.claim())
    await until(hand.waits)
    id = await pair.start(pair.a)
    (claimed,) = (await claim).items
    result = asyncio.ensure_future(pair.a.executions.result(pair.project_id, id))
    await asyncio.sleep(0)
    await hand.complete(claimed, 7)
    assert (await result).phase == "completed"


@pytest.mark.parametrize(
    ("address", "settings"),
    [("", {"max_prepared_statements": 200}), ("&prepared_statements=off", {"max_prepared_statements": 0})],
    ids=["prepared statements", "without prepared statements"],
)
async def test_the_store_works_through_a_pool(url: str, address: str, settings: dict[str, object]) -> None:
    """Four connections carry everything: consecutive transactions may run on different connections."""
    with pgbouncer.before(url, **settings) as pooled:
        store = await PostgresStore.open(pooled + address)
        other = await PostgresStore.open(pooled + address)
        world, theirs = await World.make(store), await World.make(other)
        theirs._ids = 1_000_000
        await world.register()
        for _ in range(5):
            started = await asyncio.gather(*[one.start() for _ in range(20) for one in (world, theirs)])
            ids: list[str] = []
            while len(ids) < len(started):
                ids += await world.claim_ids(capacity=7)
            assert sorted(ids) == sorted(started)
            await asyncio.gather(*[world.report(id, [step("s", 1)]) for id in ids])
            ends = await asyncio.gather(*[world.report(id, end=Complete(step("x", 1).value)) for id in ids])
            assert all(end.ended for end in ends)
        await world.check()
        assert await store.scan(queries.counts()) == {"phases": [], "queued": [], "paused": []}
        await store.close()
        await other.close()


async def test_hints_arrive_over_a_direct_connection(url: str) -> None:
    with pgbouncer.before(url, max_prepared_statements=200) as pooled:
        async with pair_on(f"{pooled}&listen_dsn={quote(url, safe='')}") as pair:
            await _round_trip(pair)


async def test_without_a_direct_connection_the_dead_path_is_noticed_and_everything_works(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """LISTEN through the pool is accepted, and heard by nobody."""
    caplog.set_level(logging.WARNING, "perdure.store")
    with pgbouncer.before(url, max_prepared_statements=200) as pooled:
        async with pair_on(pooled, hearing=False) as pair:
            await until(lambda: caplog.text.count("do not arrive") == 2)
            assert "listen_dsn" in caplog.text
            paths = [exchange(pair.a), exchange(pair.b)]
            numbers = [path._number for path in paths]
            await _round_trip(pair)
            await until(lambda: all(path._number >= number + 2 for path, number in zip(paths, numbers, strict=True)))
            assert not pair.a.store.hints_up and not pair.b.store.hints_up
            assert caplog.text.count("do not arrive") == 2


async def test_a_database_that_was_a_standby_for_a_while_is_the_same_life() -> None:
    """A pooler hides a change of the server: each transaction looks where it runs."""
    with postgres.running() as server:
        name = await postgres.make(server=server)
        with pgbouncer.before(server.database_url(name), max_prepared_statements=200) as pooled:
            store = await PostgresStore.open(pooled)
            epoch = store.epoch
            assert await store.write(claims.reap(now_us=1, limit=1)) is not None
            standby = server.data_file("standby.signal")
            server.kill()
            standby.touch()
            postgres.give_away(standby)
            server.start()
            with pytest.raises(Unavailable, match=r"standby|read-only"):
                await store.write(claims.reap(now_us=1, limit=1))
            server.kill()
            standby.unlink()
            server.start()
            assert await store.write(claims.reap(now_us=1, limit=1)) is not None
            assert store.epoch == epoch
            await store.close()


async def test_a_migration_waits_for_servers_and_not_for_the_poolers_idle_connections(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pgbouncer.before(url, max_prepared_statements=200) as pooled:
        address = f"{pooled}&listen_dsn={quote(url, safe='')}"
        async with pair_on(address) as pair:
            await _round_trip(pair)
            known = migrations("postgres")
            more = [*known, Migration(known[-1].number + 1, "more", "SELECT 1", compatible=False)]
            monkeypatch.setattr(postgres_connection, "migrations", lambda dialect: more)
            for way in (address, url):
                with pytest.raises(NotOurDatabase, match="stop all of them first"):
                    await PostgresStore.open(way)
        await (await PostgresStore.open(address)).close()
        assert (await schema_at(url)).number == more[-1].number
