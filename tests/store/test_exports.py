"""Which server sends the spans of what: each execution is taken once, and again only if it was not sent."""

import asyncio

import pytest
from tests.store.world import PROJECT, SECOND, World

from perdure.store.verbs import exports
from perdure.store.verbs.exports import ToSend


async def claim(world: World, limit: int = 10) -> ToSend:
    return await world.store.write(
        exports.claim_exports(project_id=PROJECT, now_us=world.now_us, until_us=world.now_us + 60 * SECOND, limit=limit)
    )


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
    assert await claim(begun, 1) == ToSend([first], True)
    assert await claim(begun) == ToSend([second], False)
    assert await claim(begun) == ToSend([], False)
    await begun.store.write(exports.note_exports(project_id=PROJECT, ids=[first, second]))
    begun.advance(86_400)
    assert await claim(begun) == ToSend([], False)
    third = await ended(begun)
    assert await claim(begun) == ToSend([third], False)


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
    begun.now_us = early - 10 * SECOND
    late = await ended(begun)
    begun.now_us = early + 60 * SECOND
    assert (await claim(begun)).ids == [late]
