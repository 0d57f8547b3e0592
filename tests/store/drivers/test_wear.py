"""The wear of PostgreSQL's tables: a change of a row touches no index, and a full life leaves no waste."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import asyncpg
import pytest
from msgspec import Raw
from tests import postgres
from tests.databases import migrated
from tests.kit.polling import until
from tests.store.world import GRACE_US, PROJECT, SECOND, World, raw, step

from perdure.store.drivers.migrate import postgres_settings
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.verbs import retention
from perdure.store.verbs.runs import claims, reports
from perdure.wire.runs.requests import Complete, Entry, ReportItem, StartItem

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")

AT_ONCE = 500
RESULT: Raw = raw({"ok": True, "text": "x" * 100})


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A server that vacuums as soon as table settings ask."""
    with postgres.running(postgres.FAST | {"autovacuum_naptime": "1s"}) as one:
        yield one


async def live(world: World, executions: int, steps: int) -> None:
    """Start, claim and complete executions with `steps` steps. Each step has a report, the last one with the end."""
    store = world.store
    for _ in range(executions // AT_ONCE):
        for _ in range(AT_ONCE // 100):
            await world.start_all([StartItem("wf", payload=RESULT) for _ in range(100)])
        picked, _, _ = await store.write(
            claims.claim(
                project_id=PROJECT,
                worker_id="w",
                claim_id=world.new_id(),
                capacity=AT_ONCE,
                now_us=world.now_us,
                grace_us=GRACE_US,
            )
        )
        assert len(picked) == AT_ONCE
        for number in range(1, steps + 1):
            entries: list[Entry] = [step(f"step-{number}", "x" * 50)]
            end = Complete(RESULT) if number == steps else None
            await store.write_all(
                [
                    reports.report(
                        project_id=PROJECT,
                        worker_id="w",
                        item=ReportItem(claimed.id, claimed.attempt, number, number, entries, end, [], None),
                        now_us=world.now_us,
                        ids=[],
                    )
                    for claimed, _ in picked
                ]
            )
        await world.live(1, "w")


async def forget(world: World, seconds: float) -> None:
    """Delete executions that ended over `seconds` ago, in batches like the engine's loop."""
    after, more = ("", ""), True
    while more:
        _, after, more = await world.store.write(
            retention.prune(
                after=after,
                finished_before_us=world.now_us - int(seconds * SECOND),
                idempotency_before_us=0,
                now_us=world.now_us,
                limit=AT_ONCE,
            )
        )


async def test_every_table_has_the_settings_that_its_use_asks_for(server: postgres.Server) -> None:
    name = await postgres.make(server=server)
    url = server.database_url(name)
    await migrated(url)
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "SELECT relname, reloptions FROM pg_class WHERE relkind = 'r' AND reloptions IS NOT NULL"
    )
    found: dict[str, list[str]] = {row["relname"]: row["reloptions"] for row in rows}
    await connection.close()
    grows = {"commits", "event_fields"}  # their rows never change
    assert set(found) == {"executions", "workers", "topics", "waits"} | grows
    for table, options in found.items():
        given = dict(option.split("=") for option in options)
        if table not in grows:
            assert int(given["fillfactor"]) <= 70  # room for the next version of a row on its own page
        assert given["autovacuum_vacuum_scale_factor"] == "0"  # not later because the table is large
        assert int(given["autovacuum_vacuum_threshold"]) <= 1_000
        assert f"ALTER TABLE {table} SET" in postgres_settings()


async def test_a_step_touches_no_index_of_its_execution(server: postgres.Server) -> None:
    """Only the claim and the end change the phase. All other updates are HOT."""
    steps = 7
    name = await postgres.make(server=server)
    url = server.database_url(name)
    await migrated(url)
    store = await PostgresStore.open(url)
    world = await World.make(store)
    await world.register()
    await live(world, 2 * AT_ONCE, steps)
    await store.close()  # statistics of a session are told at its end
    connection = await asyncpg.connect(url)

    async def told() -> bool:
        found = await connection.fetchval("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'executions'")
        return bool(found >= 2 * AT_ONCE * (steps + 1))  # a session tells some of them as it goes

    await until(told, 30, "the statistics are there")
    rows = await connection.fetch("SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables")
    await connection.close()
    hot = {table: (updates, hot / updates) for table, updates, hot in rows if updates}
    updates, share = hot["executions"]
    assert updates == 2 * AT_ONCE * (steps + 1)
    assert share > 0.75 * (steps - 1) / (steps + 1), hot  # 0.89 as measured: the claims of a full page leave it no room
    assert hot["workers"][1] > 0.7, hot


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_hundred_thousand_lives_leave_a_table_as_small_as_fifty_thousand(server: postgres.Server) -> None:
    part, parts, kept_seconds = 10_000, 20, 10
    name = await postgres.make(server=server)
    url = server.database_url(name)
    await migrated(url)
    store = await PostgresStore.open(url)
    world = await World.make(store)
    await world.register()
    looking = await asyncpg.connect(url)
    sizes: list[dict[str, int]] = []

    async def vacuumed() -> bool:
        """Whether too few dead rows are left for autovacuum to start."""
        dead = await looking.fetch(
            "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'executions' AND n_dead_tup > 1000 "
            "OR relname = 'journal' AND n_dead_tup > 50 + 0.2 * n_live_tup"
        )
        return not dead

    for _ in range(parts):
        await live(world, part, 1)
        await forget(world, kept_seconds)
        await looking.execute("SELECT pg_stat_clear_snapshot()")
        await until(vacuumed, 120, "autovacuum has come by")
        rows = await looking.fetch(
            "SELECT relname, pg_total_relation_size(oid) AS size FROM pg_class "
            "WHERE relname IN ('executions', 'journal')"
        )
        sizes.append({row["relname"]: row["size"] for row in rows})
    left = await looking.fetchval("SELECT COUNT(*) FROM executions")
    await looking.close()
    await store.close()
    assert 0 < left <= (kept_seconds + 1) * AT_ONCE
    early = {table: max(one[table] for one in sizes[:5]) for table in sizes[0]}
    late = {table: max(one[table] for one in sizes[-5:]) for table in sizes[0]}
    assert all(late[table] <= 1.25 * early[table] for table in early), (early, late)
    assert sum(late.values()) < 60_000_000, late
