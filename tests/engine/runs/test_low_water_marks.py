"""Claims look from their queue's begin, even if the database cannot clean up."""

import asyncio
import sys
from collections.abc import Sequence

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.conftest import Pair, engine_on
from tests.store.world import PROJECT, World

from perdure.engine.base.service import Scope
from perdure.engine.base.snapshots import Snapshots
from perdure.engine.runs.low_water_marks import EVERYWHERE, FULL_LOOK_SECONDS, MARGIN_US, RANKS_MAX, LowWaterMarks
from perdure.store.base.statements import load
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.verbs.runs import claims
from perdure.store.verbs.runs.claims import RankRange
from perdure.wire.runs.executions import GetExecution
from perdure.wire.runs.requests import StartItem

on_postgres = pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server is not started on Windows")


def _within(rank: int, ready_at_us: int, place: RankRange) -> bool:
    return (rank, ready_at_us) >= (place.rank, place.ready_from_us) and rank < place.rank_before


RANKS = st.integers(-1_000, 1_001_000)
TIMES = st.integers(MARGIN_US, 1 << 50)


@given(st.lists(st.tuples(RANKS, TIMES), min_size=1, max_size=40), st.lists(st.tuples(RANKS, TIMES), max_size=20))
def test_everything_is_looked_at_but_what_lies_below_a_floor(
    heads: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    marks = LowWaterMarks()
    assert marks.ranges(0.0) == [EVERYWHERE]
    marks.note(heads, [EVERYWHERE], 0.0, 0.0)
    ranges = marks.ranges(1.0)
    assert len(ranges) <= RANKS_MAX + 1
    assert [place.rank_before for place in ranges[:-1]] == [place.rank for place in ranges[1:]]
    latest = dict(heads)
    for rank, ready_at_us in [*heads, *others]:
        times = sum(_within(rank, ready_at_us, place) for place in ranges)
        low = rank in latest and ready_at_us < latest[rank] - MARGIN_US
        assert times == 1 or (times == 0 and low)


def test_now_and_then_everything_is_looked_at_the_more_rarely_the_longer_it_takes() -> None:
    marks = LowWaterMarks()
    marks.note([(5, 10_000_000)], [EVERYWHERE], 100.0, 100.1)
    assert len(marks.ranges(100.1 + FULL_LOOK_SECONDS - 0.1)) == 2
    assert marks.ranges(100.1 + FULL_LOOK_SECONDS) == [EVERYWHERE]
    marks.note([], [EVERYWHERE], 200.0, 203.0)
    assert len(marks.ranges(262.9)) == 2
    assert marks.ranges(263.0) == [EVERYWHERE]
    marks.note([(5, 20_000_000)], marks.ranges(210.0), 210.0, 260.0)  # no look at everything
    assert marks.ranges(263.0) == [EVERYWHERE]


# --- on the database -------------------------------------------------------------------------------------------------


async def _buffers(connection: "asyncpg.Connection[asyncpg.Record]", name: str, **values: object) -> int:
    """The pages that a query reads, with the driver's plan."""
    query = load("postgres")[name]
    await connection.execute("BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
    try:
        given = [values[parameter] for parameter in query.parameters]
        told = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query.sql}", *given)
    finally:
        await connection.execute("ROLLBACK")
    plan = msgspec.json.decode(told)[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


@on_postgres
async def test_a_held_snapshot_does_not_make_claims_walk_over_all_that_went_through_the_queue(url: str) -> None:
    store = await PostgresStore.open(url)
    world = await World.make(store)
    await world.register()
    holder, connection = await asyncpg.connect(url), await asyncpg.connect(url)
    transaction = holder.transaction(isolation="repeatable_read")
    await transaction.start()
    await holder.fetch("SELECT * FROM executions")
    marks = LowWaterMarks()
    common: dict[str, object] = {
        "project_id": PROJECT,
        "deployment_id": "d",
        "python": "3.12",
        "capacity": 10,
        "protocol": 2,
    }
    everything: list[int] = []
    bounded: list[int] = []
    for _ in range(4):
        for _ in range(5):
            world.advance(1)
            ids = await world.start_all([StartItem("wf") for _ in range(100)])
            claimed, heads = await _claim(world, marks.ranges(1.0), 100)
            assert claimed == ids
            marks.note(heads, [EVERYWHERE], 0.0, 0.0)
            await asyncio.gather(*[world.finish(id) for id in ids])
        world.advance(1)
        (waiting,) = await world.start_all([StartItem("wf")])
        everything.append(await _buffers(connection, "ready_sizes", **common))
        ranges = [place._asdict() for place in marks.ranges(1.0)]
        bounded.append(sum([await _buffers(connection, "ready_sizes_between", **common, **one) for one in ranges]))
        assert (await _claim(world, marks.ranges(1.0), 10))[0] == [waiting]
        await world.finish(waiting)
    assert everything[3] > 2.5 * everything[0]  # it grows with all that has gone through
    assert max(bounded) < everything[0]  # this does not
    await transaction.rollback()
    await holder.close()
    await connection.close()
    await world.check()
    await store.close()


async def _claim(
    world: World, ranges: Sequence[RankRange], capacity: int
) -> tuple[list[str], Sequence[tuple[int, int]]]:
    picked, _, looked = await world.store.write(
        claims.claim(
            project_id=PROJECT,
            worker_id="w",
            claim_id=world.new_id(),
            capacity=capacity,
            now_us=world.now_us,
            grace_us=1,
            ranges=ranges,
        )
    )
    return [one.id for one, _ in picked], looked.heads


@pytest.mark.slow
@on_postgres
async def test_an_engine_on_a_crowded_database_claims_everything_the_late_included(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(_: Snapshots) -> float:
        return 3_600.0

    monkeypatch.setattr(Snapshots, "look", look)  # it would say that nothing crowds the database
    async with engine_on(url, poll_seconds=0.1) as engine:
        pair = Pair(engine, engine, await engine.projects.default())
        hand = await pair.hand(engine)
        engine.crowded = True
        first = await pair.start(engine)
        assert [one.id for one in (await hand.claim()).items] == [
            first
        ]  # a look at everything: the first of its worker
        known = engine.claims._low_water_marks
        while not known:  # a poller that finds a claim without its worker's word has it look at everything again
            second = await pair.start(engine)
            assert [one.id for one in (await hand.claim()).items] == [second]
        [marks] = known.values()
        assert len(marks.ranges(0.0)) == 2  # before the next look at everything
        waiting = asyncio.ensure_future(hand.claim())
        late = await pair.start(engine)
        connection = await asyncpg.connect(url)
        assert (await engine.serve(Scope(pair.project_id), GetExecution(late))).phase in ("queued", "running")
        assert [one.id for one in (await waiting).items] == [late]
        await connection.execute("UPDATE executions SET phase = 'queued', ready_at_us = 1 WHERE id = $1", late)
        await connection.close()
        assert [one.id for one in (await hand.claim()).items] == [late]  # at the next look at everything
        engine.crowded = False
        last = await pair.start(engine)
        assert [one.id for one in (await hand.claim()).items] == [last]
        assert engine.claims._low_water_marks == {}
