"""Executions that need a newer worker: a worker of an older protocol never gets such an execution."""

from typing import Any

import asyncpg
import pytest
from tests.store.world import PROJECT, World, child, raw

from perdure.engine.base.clock import ManualClock
from perdure.engine.engine import Engine
from perdure.store.base.interface import Store
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.store.open import is_postgres
from perdure.store.verbs.runs import queries, reports
from perdure.store.verbs.runs.direct_dispatch import WaitingClaim
from perdure.wire.runs.requests import Complete, ReportItem, Suspend


async def _need_protocol(database: str, store: Store, *ids: str) -> None:
    names = ", ".join(f"'{id}'" for id in ids)
    sql = f"UPDATE executions SET needs_protocol = 2 WHERE id IN ({names})"
    if is_postgres(database):
        connection = await asyncpg.connect(database)
        await connection.execute(sql)
        await connection.close()
    else:
        assert isinstance(store, SQLiteStore)
        store._writer.execute(sql)


@pytest.mark.parametrize("queue", [{}, {"queue_name": "q", "queue_concurrency_limit": 5}], ids=["free", "limited"])
async def test_an_older_worker_does_not_claim_it(
    database: str, world: World, caplog: pytest.LogCaptureFixture, queue: dict[str, Any]
) -> None:
    await world.register("old")
    id, other = await world.start(**queue), await world.start(**queue)
    await _need_protocol(database, world.store, id)
    assert await world.claim_ids("old") == [other]
    await world.finish(other, "old")
    engine = Engine(world.store, clock=ManualClock(world.now_us + 100_000_000))
    await engine.housekeeping.alarm()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "1 executions of deployment 'd' are ready for up to 100 s and no worker new enough serves it"
    )
    await world.register("new", protocol=2)
    assert await world.store.scan(queries.unserved(before_us=world.now_us + 1)) == []
    assert await world.claim_ids("new") == [id]


@pytest.mark.parametrize("protocol", [1, 2])
async def test_an_older_worker_does_not_get_it_back_by_direct_dispatch(
    database: str, world: World, protocol: int
) -> None:
    await world.register(protocol=protocol)
    parent = await world.running()
    await world.report(parent, [child("a")], end=Suspend([], parked=True))
    await _need_protocol(database, world.store, parent)
    [claimed] = await world.claim()
    item = ReportItem(claimed.id, 1, 1, 1, end=Complete(raw("done")), child=True)
    _, handed = await world.store.write(
        reports.report_and_dispatch(
            project_id=PROJECT,
            worker_id="w",
            item=item,
            now_us=world.now_us,
            waiting_claim=WaitingClaim("w", "d", "3.12", world.new_id(), 1, protocol=protocol),
        )
    )
    assert [one.id for one in handed] == ([parent] if protocol == 2 else [])
    assert await world.claim_ids() == []
