"""The named SQL as PostgreSQL understands it."""

import json
import sys
from collections.abc import Mapping

import asyncpg
import pytest
from tests import postgres
from tests.databases import migrated

from perdure.store.base.statements import load
from perdure.store.drivers.migrate import migrations, split_statements
from perdure.store.drivers.postgres_send import bulk, with_common
from perdure.store.drivers.postgres_writer import PREPARE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


async def test_postgresql_understands_every_query() -> None:
    async with postgres.fresh() as url:
        connection = await asyncpg.connect(url)
        for migration in migrations("postgres"):
            for statement in split_statements(migration.sql):
                await connection.execute(statement)
        for query in load("postgres").values():
            prepared = await connection.prepare(query.sql)
            assert len(prepared.get_parameters()) == len(query.parameters)
            assert bool(prepared.get_attributes()) is query.returns or query.name.startswith("lock_")
            if query.routed is not None:
                routed = await connection.prepare(query.routed)
                assert routed.get_attributes()[0].name == "ord"
                assert [one.type for one in routed.get_attributes()[1:]] == [
                    one.type for one in prepared.get_attributes()
                ]
            if query.bulk is not None:
                bulk = await connection.prepare(query.bulk)
                wide = [one.name.replace("int4", "int8") for one in prepared.get_parameters()]
                assert [one.name for one in bulk.get_parameters()] == [f"{name}[]" for name in wide]
                assert [one.type for one in bulk.get_attributes()[1:]] == [
                    one.type for one in prepared.get_attributes()
                ]
                common = await connection.prepare(with_common(query.bulk, set(range(1, len(wide)))))
                assert [one.name for one in common.get_parameters()] == [f"{wide[0]}[]", *wide[1:]]
                assert common.get_attributes() == bulk.get_attributes()
        await connection.close()


async def test_a_bulk_change_finds_each_row_by_an_index() -> None:
    """Bulk changes use an index for any statistics, in the order of the values, which is the lock order. The rows may
    share all values but the keys."""
    async with postgres.fresh(migrated) as url:
        connection = await asyncpg.connect(url)
        bulk = [query for query in load("postgres").values() if query.bulk is not None and query.returns]
        assert len(bulk) >= 3
        for analysed in (False, True):
            if analysed:
                await connection.execute("ANALYZE")
            for mark, query in enumerate(bulk, 1_000 * analysed):
                assert query.bulk is not None
                keys = {query.parameters.index(name) for name in ("project_id", "id")}
                texts = [query.bulk, with_common(query.bulk, set(range(len(query.parameters))) - keys)]
                for text in texts:
                    async with connection.transaction():
                        await connection.fetchval(PREPARE["write"], 2 * mark + texts.index(text))
                        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                        await connection.execute(f"PREPARE one AS {text}")
                        nulls = ", ".join(["NULL"] * len(query.parameters))
                        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE one({nulls})"))
                        await connection.execute("DEALLOCATE one")
                    assert "Index Scan using executions_pkey" in plan, plan
                    assert "Nested Loop" in plan and "Seq Scan" not in plan and "Hash" not in plan, plan
        await connection.close()


def test_what_rows_have_in_common_is_sent_once() -> None:
    text = str(load("postgres")["advance"].bulk)
    places = load("postgres")["advance"].parameters
    row = dict.fromkeys(places, 1) | {"project_id": "p", "id": "a", "progress": None}
    other = row | {"id": "b", "rows": 2}

    def sent(*rows: Mapping[str, object]) -> dict[str, object]:
        _, values = bulk(text, [tuple(one[name] for name in places) for one in rows])
        return dict(zip(places, values, strict=True))

    assert sent(row, other) == row | {"project_id": ("p", "p"), "id": ("a", "b"), "rows": (1, 2)}
    again = sent(row, row | {"id": "b", "number": 2})
    assert (again["number"], again["rows"], again["progress"]) == ((1, 2), 1, None)


async def test_the_last_event_before_an_execution_is_found_by_halving_its_topic() -> None:
    """Even without statistics, no join with the events reads every event."""
    async with postgres.fresh(migrated) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(
            "INSERT INTO events (project_id, topic, seq, id, data, created_at_us) "
            "SELECT 'p', 't', n, 'event-' || n, CAST(repeat('x', 500) AS BYTEA), n FROM generate_series(1, 5000) AS n"
        )
        async with connection.transaction():
            await connection.fetchval(PREPARE["write"], 1)
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            await connection.execute(f"PREPARE one AS {load('postgres')['last_event_before'].sql}")
            told = await connection.fetchval(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE one('p', 't', 'no such execution')"
            )
        [found] = json.loads(told)
        assert found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"] < 100
        await connection.close()


def test_both_dialects_have_the_same_queries() -> None:
    only = {name for name, query in load("sqlite").items() if query.sql.startswith("PRAGMA")}
    assert set(load("sqlite")) - only == set(load("postgres"))
    for name, query in load("postgres").items():
        assert query.parameters == load("sqlite")[name].parameters  # many rows are given by their order
