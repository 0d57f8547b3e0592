"""Servers send the spans of executions: each execution is taken once, and again only if not sent."""

import asyncio
import functools
from typing import Any, NamedTuple

import pytest
from msgspec import structs
from tests.store.locks import held, without_waiting
from tests.store.world import GRACE_US, PROJECT, SECOND, World

from perdure.store.base.interface import Query, Verb
from perdure.store.verbs.outside import exports
from perdure.store.verbs.runs import transitions


class Sent(NamedTuple):
    ids: list[str]
    more: bool


def claiming(world: World, limit: int) -> Verb[tuple[list[str], bool]]:
    until_us = world.now_us + 60 * SECOND
    return exports.claim_exports(project_id=PROJECT, now_us=world.now_us, until_us=until_us, limit=limit)


async def claim(world: World, limit: int = 10) -> Sent:
    return Sent(*await world.store.write(claiming(world, limit)))


async def ended(world: World) -> str:
    id = await world.start(accept_early=True)
    await world.cancel(id)
    world.advance(1)
    return id


@pytest.fixture
async def begun(world: World) -> World:
    await ended(world)  # before anybody wanted to have it
    await world.store.write(exports.begin_exports(project_id=PROJECT, now_us=world.now_us))
    world.advance(exports.OVERLAP_US / SECOND + 1)
    return world


async def test_what_ended_is_taken_once(begun: World) -> None:
    await begun.start(accept_early=True)
    first, second = await ended(begun), await ended(begun)
    assert await claim(begun, 1) == ([first], True)
    assert await claim(begun) == ([second], False)
    assert await claim(begun) == ([], False)
    await begun.store.write(exports.note_exports(project_id=PROJECT, ids=[first, second]))
    begun.advance(86_400)
    assert await claim(begun) == ([], False)
    third = await ended(begun)
    assert await claim(begun) == ([third], False)


async def test_one_locked_row_keeps_no_other_from_being_taken_or_forgotten(
    begun: World, database: str, on_postgresql: None
) -> None:
    """The locked rows are a claimed, unsent execution and a long sent execution."""
    sent, unsent = await ended(begun), await ended(begun)
    assert (await claim(begun)).ids == [sent, unsent]
    await begun.store.write(exports.note_exports(project_id=PROJECT, ids=[sent]))
    begun.advance(86_400)
    fresh = await ended(begun)
    begun.advance(1)
    async with held(database, "trace_exports", sent), held(database, "trace_exports", unsent), without_waiting():
        assert (await claim(begun)).ids == [fresh]
    assert (await claim(begun)).ids == [unsent]


async def test_servers_that_look_at_once_take_different_ones(begun: World) -> None:
    ids = [await ended(begun) for _ in range(8)]
    taken = await asyncio.gather(*(claim(begun, 3) for _ in range(6)))
    found = [id for one in taken for id in one.ids]
    assert len(found) == len(set(found)) and set(found) <= set(ids)
    found += (await claim(begun)).ids
    assert sorted(found) == sorted(ids)


async def test_what_was_taken_and_not_sent_is_taken_again(begun: World) -> None:
    ids = [await ended(begun) for _ in range(3)]
    assert (await claim(begun)).ids == ids
    await begun.store.write(exports.note_exports(project_id=PROJECT, ids=ids[:1]))
    await begun.store.write(exports.release_exports(project_id=PROJECT, ids=ids[1:2], now_us=begun.now_us))
    assert (await claim(begun)).ids == ids[1:2], "its server gave it up"
    begun.advance(61)
    assert sorted((await claim(begun)).ids) == ids[1:], "its server has gone"
    await begun.store.write(exports.note_exports(project_id=PROJECT, ids=ids))
    begun.advance(61)
    assert (await claim(begun)).ids == []


async def test_an_end_that_is_committed_late_is_not_missed(begun: World) -> None:
    early = begun.now_us
    later = await ended(begun)
    assert (await claim(begun)).ids == [later]
    await begun.store.write(exports.note_exports(project_id=PROJECT, ids=[later]))
    begun.now_us = early - 10 * SECOND
    late = await ended(begun)
    begun.now_us = early - 11 * SECOND + exports.OVERLAP_US
    assert (await claim(begun)).ids == [], "more may be committed that is as late"
    begun.advance(1)
    assert (await claim(begun)).ids == [late]
    await begun.store.write(exports.note_exports(project_id=PROJECT, ids=[late]))
    for _ in range(3):
        begun.advance(exports.OVERLAP_US / SECOND)
        assert await claim(begun) == ([], False)


async def test_an_end_that_is_a_little_late_is_taken_in_order(begun: World) -> None:
    begun.now_us += SECOND // 2
    second = await begun.start(accept_early=True)
    await begun.cancel(second)
    assert (await claim(begun)).ids == [], "one that ended before it may be under way"
    begun.now_us -= SECOND // 2
    first = await ended(begun)
    begun.advance(1)
    assert (await claim(begun)).ids == [first, second]


async def test_ends_of_one_moment_are_all_taken_whatever_is_taken_at_once(begun: World) -> None:
    ids = [await begun.start(accept_early=True) for _ in range(9)]
    for id in ids:
        await begun.cancel(id)
    begun.advance(1)
    found: list[str] = []
    while (taken := await claim(begun, 2)).ids:
        found += taken.ids
    assert found == sorted(ids)
    await begun.store.write(exports.note_exports(project_id=PROJECT, ids=ids))
    late = [await ended(begun) for _ in range(5)]
    begun.now_us -= 5 * SECOND
    late += [await ended(begun) for _ in range(5)]
    begun.advance(2 * exports.OVERLAP_US / SECOND)
    for _ in range(10):
        taken = await claim(begun, 3)
        await begun.store.write(exports.note_exports(project_id=PROJECT, ids=taken.ids))
        found += taken.ids
    assert sorted(found) == sorted(ids + late)


async def test_each_end_is_read_twice_however_much_has_ended(begun: World) -> None:
    """test_grown counts the cost of an answered row; here, claims may not read extra rows."""
    amount, limit = 600, 20
    ids = [await begun.start(accept_early=True) for _ in range(amount)]
    cancels: dict[str, Any] = {"project_id": PROJECT, "cancelled_by": "user", "grace_us": GRACE_US}
    await begun.store.write_all(
        [transitions.cancel(execution_id=id, now_us=begun.now_us + n, **cancels) for n, id in enumerate(ids)]
    )
    read: list[int] = []
    for _ in range(2):
        begun.advance(2)
        more = True
        while more:
            ids, more = await begun.store.write(counting(claiming(begun, limit), read))
            await begun.store.write(exports.note_exports(project_id=PROJECT, ids=ids))
        begun.advance(exports.OVERLAP_US / SECOND)
    assert sum(read) == 2 * amount
    assert max(read) <= 3 * limit


def counting(counted: Verb[tuple[list[str], bool]], read: list[int]) -> Verb[tuple[list[str], bool]]:
    """A verb whose count of answered ends is noted."""

    @functools.wraps(counted.declaration.function)
    async def run(**values: Any) -> tuple[list[str], bool]:
        inner = counted.declaration.function(**values)
        rows, answer = 0, None
        while True:
            try:
                asked = inner.send(answer)
            except StopIteration as end:
                read.append(rows)
                done: tuple[list[str], bool] = end.value
                return done
            if isinstance(asked, Query):  # `first` is for the verb
                asked = structs.replace(asked, first=False)
            answer = await asked
            if isinstance(asked, Query) and asked.name == "ended_exports":
                rows += len(answer)

    return Verb(structs.replace(counted.declaration, function=run), counted.values)
