"""Rollups of ends, together with young ends, always cover every end, even of deleted executions."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from msgspec.structs import replace
from tests.store.world import PROJECT, SECOND, World, failure

from perdure.engine.base.clock import ManualClock
from perdure.engine.engine import Engine
from perdure.engine.insight.folding import Folding
from perdure.store.base.interface import query, verb
from perdure.store.open import is_postgres, open_store
from perdure.store.verbs import retention
from perdure.store.verbs.insight import ended
from perdure.store.verbs.insight.ended import KEPT_US, Folds
from perdure.store.verbs.runs import queries
from perdure.wire.insight.stats import class_of

WORKFLOWS: Final = ("one", "two")
MOVES: Final = 100
Ends = Counter[tuple[int, str, str, int]]
"""Counts by slice, workflow, phase and class of the duration."""


@verb(reads=True)
async def counted(*, step_us: int, now_us: int) -> Ends:
    values = {"step_us": step_us, "bucket_us": step_us, "from_us": 0, "now_us": now_us}
    rows = await query("ends_by_workflow", project_id=PROJECT, **values)
    return Counter({(at, workflow, phase, took): n for at, workflow, phase, took, n in rows})


class House:
    """A world with noted ends, and two servers that fold the ends."""

    def __init__(self, world: World, foldings: list[Folding], clock: ManualClock) -> None:
        self.world = world
        self.foldings = foldings
        self.clock = clock
        self.ended: dict[str, tuple[int, str, str, int]] = {}

    async def advance(self, seconds: float) -> None:
        self.world.advance(seconds)
        self.clock.advance(seconds)

    async def note(self, id: str) -> str:
        one = await self.world.get(id)
        assert one.completed_at_us is not None
        took = -1
        if one.phase == "completed":
            assert one.started_at_us is not None
            took = class_of(one.completed_at_us - one.started_at_us)
        self.ended[id] = (one.completed_at_us, one.workflow_id, one.phase.value, took)
        return id

    async def complete(self, workflow_id: str = "one", seconds: float = 0.0) -> str:
        id = await self.world.running(workflow_id=workflow_id)
        await self.advance(seconds)
        await self.world.finish(id)
        return await self.note(id)

    async def fail(self, workflow_id: str = "one") -> str:
        id = await self.world.running(workflow_id=workflow_id)
        await self.world.report(id, end=failure("boom"))
        return await self.note(id)

    async def cancel(self, workflow_id: str = "one") -> str:
        id = await self.world.start(workflow_id)
        await self.world.cancel(id)
        return await self.note(id)

    async def folds(self) -> Folds:
        found = await self.world.store.read(ended.folds())
        assert found is not None
        return found

    async def settle(self) -> None:
        """Fold until every server has nothing more to do."""
        for folding in self.foldings:
            for _ in range(100):
                if await folding.fold() > 1:
                    break
            else:
                raise AssertionError("a fold never ends")

    async def check(self) -> None:
        now_us = self.world.now_us
        for step_us in KEPT_US:
            expected = Counter(
                (at_us // step_us * step_us, workflow, phase, took)
                for at_us, workflow, phase, took in self.ended.values()
            )
            assert await self.world.store.scan(counted(step_us=step_us, now_us=now_us)) == expected


@asynccontextmanager
async def servers(world: World, database: str) -> AsyncIterator[House]:
    other = await open_store(database) if is_postgres(database) else None
    clock = ManualClock(world.now_us)
    try:
        stores = [world.store, other or world.store]
        yield House(world, [Engine(store, clock=clock).folding for store in stores], clock)
    finally:
        if other is not None:
            await other.close()


@pytest.fixture
async def house(world: World, database: str) -> AsyncIterator[House]:
    await world.register(workflows=WORKFLOWS)
    async with servers(world, database) as house:
        await house.foldings[0].fold()
        yield house


async def _prune(house: House, seconds: float) -> None:
    now_us = house.world.now_us
    pruned = retention.prune(
        after=("", ""),
        finished_before_us=now_us - int(seconds * SECOND),
        idempotency_before_us=0,
        now_us=now_us,
        limit=5,
    )
    await house.world.store.write(pruned)


@pytest.mark.parametrize("seed", range(6))
async def test_rollups_and_young_ends_are_all_that_ended(house: House, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(MOVES):
        what = chance.random()
        workflow_id = chance.choice(WORKFLOWS)
        if what < 0.3:
            await house.complete(workflow_id, chance.choice((0, 0.001, 0.5, 70)))
        elif what < 0.4:
            await house.fail(workflow_id)
        elif what < 0.5:
            await house.cancel(workflow_id)
        elif what < 0.65:
            await chance.choice(house.foldings).fold()
        elif what < 0.7:
            await _prune(house, chance.choice((0, 3, 100)))
        elif what < 0.75 and house.ended:
            id = chance.choice(list(house.ended))
            found = await house.world.store.read(queries.finished(project_id=PROJECT, ids=[id]))
            if found[0]:
                await house.world.delete(id)
        elif what < 0.8:  # a server that starts again
            house.foldings[0] = Engine(house.world.store, clock=house.clock).folding
        else:
            await house.advance(chance.choice((0, 1, 6, 61, 400)))
            await house.world.register(workflows=WORKFLOWS)
        await house.check()
    for _ in range(4):
        await house.settle()
        await house.advance(400)
    await house.check()
    folds = await house.folds()
    assert folds.settled_to_us == folds.folded_to_us


async def test_an_end_that_commits_late_is_counted_within_minutes(house: House) -> None:
    late = await house.world.running(workflow_id="one")
    await house.complete("one")
    at_us = house.world.now_us
    await house.advance(20)
    await house.settle()
    await house.advance(10)
    now_us, house.world.now_us = house.world.now_us, at_us  # its transaction began before the fold
    await house.world.finish(late)
    house.world.now_us = now_us
    await house.note(late)
    for _ in range(3):
        await house.advance(400)
        await house.settle()
    await house.check()


async def test_after_the_clock_was_put_back_the_hour_is_counted_again(house: House) -> None:
    await house.complete("one")
    await house.advance(2 * 3_600)
    await house.complete("one")
    await house.advance(60)
    await house.settle()
    await house.advance(-3_600)
    await house.settle()
    await house.world.register(workflows=WORKFLOWS)
    await house.complete("two")
    await house.advance(20)
    await house.settle()
    kept = {id: end for id, end in house.ended.items() if end[0] <= house.world.now_us}
    assert len(kept) == 2
    await house.advance(3_600)
    await house.settle()
    await house.check()


async def test_a_deletion_between_the_look_and_the_write_of_a_fold_counts_once(house: House) -> None:
    id = await house.complete("one")
    await house.complete("one")
    await house.advance(20)
    was = await house.folds()
    groups, end_us = await house.world.store.scan(ended.piece_after(from_us=was.folded_to_us, to_us=house.world.now_us))
    assert sum(group.n for group in groups) == 2
    await house.world.delete(id)
    now = replace(was, folded_to_us=end_us)
    fold = ended.fold(was=was, now=now, groups=groups, now_us=house.world.now_us)
    assert not await house.world.store.write(fold)
    await house.settle()
    await house.check()


async def test_two_servers_that_fold_the_same_ends_count_them_once(house: House) -> None:
    for _ in range(3):
        await house.complete("one")
    await house.advance(20)
    await asyncio.gather(*(folding.fold() for folding in house.foldings))
    await house.check()


async def test_ends_before_the_first_fold_are_folded_in_pieces(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended, "ROWS_MAX", 3)
    await world.register(workflows=WORKFLOWS)
    async with servers(world, database) as house:
        for number in range(12):
            await house.complete("one")
            await house.advance(60 if number % 3 else 0)
        await house.advance(300)
        folding = house.foldings[0]
        await folding.fold()
        await folding.fold()
        assert 0 < (await house.folds()).folded_to_us < max(at_us for at_us, *_ in house.ended.values())
        await house.check()
        await house.world.delete([*house.ended][-1])  # before its fold
        await house.settle()
        await house.check()


async def test_nothing_is_written_while_nothing_ends(house: House) -> None:
    await house.complete("one")
    for _ in range(4):
        await house.advance(400)
        await house.settle()
    before = await house.folds()
    for _ in range(4):
        await house.advance(400)
        await house.settle()
    assert await house.folds() == before


async def test_slices_are_kept_as_long_as_their_length_says(house: House) -> None:
    await house.complete("one")
    await house.advance(60)
    await house.settle()
    for step_us, kept_us in sorted(KEPT_US.items()):
        assert await house.world.store.scan(counted(step_us=step_us, now_us=house.world.now_us))
        await house.advance((kept_us + 2 * step_us) / SECOND)
        await house.settle()
        assert not await house.world.store.scan(counted(step_us=step_us, now_us=house.world.now_us))
