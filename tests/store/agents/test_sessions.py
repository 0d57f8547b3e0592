"""Memories of sessions: a version keeps concurrent writers apart; a memory goes with its session, or by age."""

import asyncio
import json

import pytest
from msgspec import Raw
from tests.store.world import PROJECT, SECOND, World

from perdure.store.verbs import retention
from perdure.store.verbs.agents import sessions
from perdure.store.verbs.base.idempotency import At
from perdure.wire.agents.sessions import GetSessionMemory, Memory, PutSessionMemory
from perdure.wire.base.errors import Conflict

DAY_US = 86_400 * SECOND


async def put(world: World, session: str, messages: str, version: int | None = None, summary: str | None = None) -> int:
    op = PutSessionMemory(session, Raw(messages.encode()), summary, version)
    return (await world.store.write(sessions.put_memory(world.at(), op))).version


async def get(world: World, session: str, project_id: str = PROJECT) -> Memory:
    return await world.store.read(sessions.get_memory(At(project_id), GetSessionMemory(session)))


async def test_memory_is_kept_as_it_was_sent(world: World) -> None:
    assert await get(world, "s") == Memory(Raw(b"[]"), 0)
    assert await put(world, "s", '[ {"a": 1e3} ]', summary="to\0 date") == 1
    assert await get(world, "s") == Memory(Raw(b'[ {"a": 1e3} ]'), 1, "to\0 date")
    assert await put(world, "s", "[]") == 2
    assert await get(world, "s") == Memory(Raw(b"[]"), 2)
    assert await get(world, "s", "another") == Memory(Raw(b"[]"), 0)


async def test_a_version_replaces_only_itself(world: World) -> None:
    assert await put(world, "s", "[1]", version=0) == 1
    with pytest.raises(Conflict, match="has version 1, not 0"):
        await put(world, "s", "[2]", version=0)
    assert await put(world, "s", "[2]", version=1) == 2
    with pytest.raises(Conflict, match="has version 2, not 1"):
        await put(world, "s", "[3]", version=1)
    with pytest.raises(Conflict, match="has version 0, not 7"):
        await put(world, "unknown", "[]", version=7)
    assert await get(world, "s") == Memory(Raw(b"[2]"), 2)


async def test_concurrent_writers_lose_nothing(world: World) -> None:
    async def add(name: int) -> None:
        while True:
            known = await get(world, "s")
            messages = [*json.loads(bytes(known.messages)), name]
            try:
                await put(world, "s", json.dumps(messages), version=known.version)
                return
            except Conflict:
                continue

    await asyncio.gather(*(add(name) for name in range(8)))
    known = await get(world, "s")
    assert (sorted(json.loads(bytes(known.messages))), known.version) == (list(range(8)), 8)


async def test_memory_goes_with_what_is_erased(world: World) -> None:
    mine = await world.start(user_id="u", accept_early=True)
    shared = await world.start(user_id="u", session_id="shared", accept_early=True)
    for session in (mine, "shared", "other"):
        await put(world, session, "[1]")
    for id in (mine, shared):
        await world.cancel(id)
    await world.store.write(retention.erase(project_id=PROJECT, user_id="u", session_id=None, limit=10))
    assert [(await get(world, session)).version for session in (mine, "shared", "other")] == [0, 0, 1]
    await world.store.write(retention.erase(project_id=PROJECT, user_id=None, session_id="other", limit=10))
    assert (await get(world, "other")).version == 0


async def test_memory_that_nobody_wrote_to_for_long_goes(world: World) -> None:
    await put(world, "old", "[1]")
    world.advance(2 * 86_400)
    await put(world, "new", "[1]")
    await world.store.write(
        retention.prune(
            after=("", ""),
            finished_before_us=world.now_us - DAY_US,
            idempotency_before_us=world.now_us,
            now_us=world.now_us,
            limit=10,
        )
    )
    assert [(await get(world, session)).version for session in ("old", "new")] == [0, 1]
