"""Transcripts: messages stored once, entries that only grow, summaries, and the removal of unreadable messages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests.store.world import PROJECT, SECOND, World, failure, raw

from perdure.store.base.interface import query, verb
from perdure.store.base.statements import load, parse
from perdure.store.verbs import retention
from perdure.store.verbs.agents import transcripts
from perdure.store.verbs.base.idempotency import At, Idempotency
from perdure.wire.agents.transcripts import AppendToTranscript, GetTranscript, Page, shown
from perdure.wire.base.errors import BadRequest, Conflict, KeyReused, NotFound
from perdure.wire.base.records import Kind
from perdure.wire.runs.requests import AppendMessages, Entry, ReadTranscript, Summarize

DAY_US = 86_400 * SECOND
Stored = tuple[list[tuple[bytes, int]], int]


async def append(
    world: World, session: str, *messages: object, version: int | None = None, once: Idempotency | None = None
) -> int:
    op = AppendToTranscript(session, [raw(message) for message in messages], version)
    return (await world.store.write(transcripts.append_messages(world.at(once), op))).version


async def page(world: World, session: str, version: int | None = None, after: int | None = None) -> Page:
    return await world.store.read(transcripts.read_transcript(world.at(), GetTranscript(session, version, after)))


async def said(world: World, session: str, version: int | None = None) -> list[object]:
    """The messages that a model is shown."""
    found = await page(world, session, version)
    assert found.next is None
    return [msgspec.json.decode(entry.message) for entry in shown(found.version, found.entries).entries]


@verb(reads=True)
async def _stored() -> Stored:
    messages = [(bytes(content), uses) for content, uses in await query("all_messages")]
    return sorted(messages), (await query("count_entries"))[0][0]


EXTRA = (
    "-- name: all_messages\nSELECT content, uses FROM messages;\n"
    "-- name: count_entries\nSELECT COUNT(*) FROM transcript_entries;\n"
)


@pytest.fixture
def stored(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[Stored]]:
    """Asks for every message with its count, and how many entries there are."""
    for dialect in ("sqlite", "postgres"):
        for name, statement in parse(EXTRA, "test", dialect).items():
            monkeypatch.setitem(load(dialect), name, statement)

    async def ask() -> Stored:
        return await world.store.read(_stored())

    return ask


async def test_messages_are_added_in_order_and_kept_as_they_were_sent(world: World) -> None:
    assert await page(world, "s") == Page(0, [])
    assert await append(world, "s", "hello", {"a": [1, None]}) == 2
    assert await append(world, "s", "hello") == 3
    found = await page(world, "s")
    assert [(entry.seq, bytes(entry.message)) for entry in found.entries] == [
        (1, b'"hello"'),
        (2, b'{"a":[1,null]}'),
        (3, b'"hello"'),
    ]
    assert await said(world, "s", 2) == ["hello", {"a": [1, None]}]
    elsewhere = transcripts.read_transcript(At("another"), GetTranscript("s"))
    assert await world.store.read(elsewhere) == Page(0, [])
    with pytest.raises(BadRequest, match="has version 3, not 4 yet"):
        await page(world, "s", 4)
    await world.check()


async def test_what_was_said_twice_is_stored_once_in_a_project(
    world: World, stored: Callable[[], Awaitable[Stored]]
) -> None:
    await append(world, "s", "same", "same", "other")
    await append(world, "t", "same")
    assert await stored() == ([(b'"other"', 1), (b'"same"', 3)], 4)
    op = AppendToTranscript("s", [raw("same")])
    await world.store.write(transcripts.append_messages(At("another", world.now_us), op))
    assert await stored() == ([(b'"other"', 1), (b'"same"', 1), (b'"same"', 3)], 5)
    assert transcripts.hash_of("another", b'"same"') != transcripts.hash_of(PROJECT, b'"same"')
    await world.check()


async def test_a_version_is_followed_only_by_what_knows_it(world: World) -> None:
    assert await append(world, "s", 1, version=0) == 1
    for version in (0, 2):
        with pytest.raises(Conflict, match=f"has version 1, not {version}"):
            await append(world, "s", 2, version=version)
    with pytest.raises(Conflict, match="has version 0, not 1"):
        await append(world, "unknown", 2, version=1)
    assert await append(world, "s", 2, version=1) == 2
    assert await append(world, "s") == 2
    assert await said(world, "s") == [1, 2]


async def test_the_same_request_is_answered_like_the_first_time(world: World) -> None:
    once = Idempotency("route", "key", "hash")
    assert await append(world, "s", 1, version=0, once=once) == 1
    assert await append(world, "s", 1, version=0, once=once) == 1
    with pytest.raises(KeyReused):
        await append(world, "s", 1, once=Idempotency("route", "key", "other"))
    assert await said(world, "s") == [1]


async def test_concurrent_writers_lose_nothing(world: World) -> None:
    async def careful(name: int) -> None:
        while True:
            known = await page(world, "s")
            try:
                await append(world, "s", name, "shared", version=known.version)
                return
            except Conflict:
                continue

    async def careless(name: int) -> None:
        await append(world, "s", name, "shared")

    await asyncio.gather(*(careful(n) for n in range(6)), *(careless(n) for n in range(6, 12)))
    found = await said(world, "s")
    assert sorted(one for one in found if isinstance(one, int)) == list(range(12))
    assert all(isinstance(one, int) and two == "shared" for one, two in zip(found[::2], found[1::2], strict=True))
    await world.check()


async def test_pages_end_by_size_and_by_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await append(world, "s", *range(7))
    monkeypatch.setattr(transcripts, "PAGE_MAX", 3)
    first = await page(world, "s")
    assert ([entry.seq for entry in first.entries], first.next) == ([1, 2, 3], 3)
    rest = await page(world, "s", 6, first.next)
    assert ([entry.seq for entry in rest.entries], rest.next) == ([4, 5, 6], None)
    monkeypatch.setattr(transcripts, "REPLY_BYTES_MAX", 2)
    small = await page(world, "s")
    assert ([entry.seq for entry in small.entries], small.next) == ([1, 2], 2)


# --- in executions -------------------------------------------------------------------------------------------------


async def values(world: World, id: str) -> list[Any]:
    return await world.outcomes(id, Kind.TRANSCRIPT)


async def do(world: World, id: str, *entries: Entry) -> Sequence[Any]:
    reply = await world.report(id, entries)
    assert reply.problem is None
    return [(row.name, row.ok, msgspec.json.decode(row.value)) for row in reply.rows if row.kind is Kind.TRANSCRIPT]


async def test_an_execution_reads_and_adds_and_its_journal_has_versions_only(world: World) -> None:
    await world.register()
    id = await world.running()
    text = "a long text " * 1_000
    assert await do(world, id, ReadTranscript("r", "s")) == [("read", True, {"session_id": "s", "version": 0})]
    assert await do(world, id, AppendMessages("a", None, "s", [raw(text), raw("and")], 0)) == [
        ("append", True, {"version": 2})
    ]
    [refused] = await do(world, id, AppendMessages("b", None, "s", [raw("late")], 0))
    assert refused[:2] == ("append", False) and refused[2]["type"] == "CONFLICT"
    known = {"session_id": "s", "version": 2, "begun_at_us": world.now_us}
    assert await do(world, id, ReadTranscript("r2", "s")) == [("read", True, known)]
    assert await said(world, "s") == [text, "and"]
    assert all(len(bytes(row.value)) < 300 for row in await world.journal(id))
    await world.check()


async def test_a_repeated_report_adds_once(world: World) -> None:
    await world.register()
    id = await world.running()
    entries = [AppendMessages("a", None, "s", [raw(1)])]
    first = await world.report(id, entries, number=1, seen=1)
    again = await world.report(id, entries, number=1, seen=1)
    assert again.accepted == first.accepted and again.rows == first.rows
    assert await said(world, "s") == [1]


async def test_a_summary_stands_for_what_was_said_and_versions_stay_what_they_were(world: World) -> None:
    await world.register()
    id = await world.running()
    await append(world, "s", *range(5))
    assert await do(world, id, Summarize("u", None, "s", 3, raw("so far"), 5)) == [("summarize", True, {"version": 6})]
    assert await said(world, "s") == ["so far", 3, 4]
    assert await said(world, "s", 5) == [0, 1, 2, 3, 4]
    await append(world, "s", 5)
    assert await said(world, "s") == ["so far", 3, 4, 5]
    for upto in (0, 3, 8):
        [refused] = await do(world, id, Summarize(f"u{upto}", None, "s", upto, raw("no")))
        assert refused[1] is False and refused[2]["type"] == "BAD_REQUEST"
    await world.check()


async def test_what_is_summarized_goes_once_nobody_can_read_it_again(
    world: World, stored: Callable[[], Awaitable[Stored]]
) -> None:
    await world.register()
    reader, other = await world.running(), await world.running()
    await append(world, "s", "kept too", 1, 2, 3)
    await append(world, "t", "kept too")
    await do(world, reader, ReadTranscript("r", "s"))
    await do(world, other, ReadTranscript("r", "s"), Summarize("u", None, "s", 3, raw("so far")))
    await world.finish(other)
    assert (await stored())[1] == 6
    assert await said(world, "s", 4) == ["kept too", 1, 2, 3]  # in a replay the reader reads it again
    await world.report(reader, end=failure())
    assert await stored() == ([(b'"kept too"', 1), (b'"so far"', 1), (b"3", 1)], 3)
    assert await said(world, "s") == ["so far", 3]
    with pytest.raises(NotFound, match=r"Version 4 .* is gone"):
        await page(world, "s", 4)
    await world.check()
    late = await world.running()
    await do(world, late, ReadTranscript("r", "s"), Summarize("u", None, "s", 5, raw("all")))
    await world.finish(late)
    assert await said(world, "s") == ["all"]
    assert await stored() == ([(b'"all"', 1), (b'"kept too"', 1)], 2)
    await world.check()


async def test_a_transcript_goes_with_its_session(world: World, stored: Callable[[], Awaitable[Stored]]) -> None:
    await world.register()
    id = await world.running(session_id="s", user_id="u")
    await do(world, id, ReadTranscript("r", "s"), AppendMessages("a", None, "s", [raw(1), raw(2)]))
    await append(world, "t", 1)
    erase: dict[str, Any] = {"project_id": PROJECT, "limit": 10}
    assert await world.store.write(retention.erase(user_id=None, session_id="s", **erase)) == (0, 1)
    assert await said(world, "s") == [1, 2]  # it is being worked with
    await world.finish(id)
    assert await world.store.write(retention.erase(user_id="u", session_id=None, **erase)) == (1, 0)
    assert await stored() == ([(b"1", 1)], 1)
    assert await page(world, "s") == Page(0, [])
    await world.store.write(retention.erase(user_id=None, session_id="t", **erase))
    assert await stored() == ([], 0)
    await world.check()


async def test_a_transcript_that_nobody_wrote_to_for_long_goes(
    world: World, stored: Callable[[], Awaitable[Stored]]
) -> None:
    await world.register()
    await append(world, "old", 1)
    await append(world, "read", 2)
    id = await world.running()
    await do(world, id, ReadTranscript("r", "read"))
    world.advance(2 * 86_400)
    await append(world, "new", 3)
    await world.store.write(
        retention.prune(
            after=("", ""),
            finished_before_us=world.now_us - DAY_US,
            idempotency_before_us=world.now_us,
            now_us=world.now_us,
            limit=10,
        )
    )
    assert [(await page(world, name)).version for name in ("old", "read", "new")] == [0, 1, 1]
    await world.check()
