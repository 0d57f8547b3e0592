"""The named SQL as PostgreSQL understands it."""

import sys

import asyncpg
import pytest
from tests import postgres

from perdure.store.migrate import migrations, statements
from perdure.store.queries import load

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


async def test_postgresql_understands_every_query() -> None:
    async with postgres.fresh() as url:
        connection = await asyncpg.connect(url)
        for migration in migrations("postgres"):
            for statement in statements(migration.sql):
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
        await connection.close()


def test_both_dialects_have_the_same_queries() -> None:
    only = {name for name, query in load("sqlite").items() if query.sql.startswith("PRAGMA")}
    assert set(load("sqlite")) - only == set(load("postgres"))
    for name, query in load("postgres").items():
        assert query.parameters == load("sqlite")[name].parameters  # many rows are given by their order
