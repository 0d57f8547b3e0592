"""Looks bring a bounded number of bytes into memory, not only of rows; and readers of all pages get everything."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

import pytest
from msgspec import Raw, Struct, structs
from tests.store.pushing import PushWorld
from tests.store.world import PROJECT, World, event_wait, step

from perdure.store.base.interface import Verb, verb
from perdure.store.verbs.outside import push_steps
from perdure.store.verbs.runs import claims, events, queries, reports
from perdure.store.verbs.runs.rows import journal_after
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import Row

T = TypeVar("T")

SIZE = 1_000
ROOM = 2_500
"""Three values fill the room."""


class _Counting:
    """Drives a verb's coroutine, and counts the bytes of its queries' answers."""

    def __init__(self, look: Coroutine[Any, Any, Any]) -> None:
        self._look = look
        self.bytes = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        rows: Any = None
        while True:
            try:
                asked = self._look.send(rows)
            except StopIteration as end:
                return end.value
            rows = yield asked
            self.bytes += _bytes(rows)


def _bytes(value: object) -> int:
    if isinstance(value, (bytes, Raw)):
        return len(value)
    if isinstance(value, Struct):
        value = structs.astuple(value)
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0


async def bounded(world: World, look: Verb[T], *, beside: int = 200) -> T:
    """The answer of a look, after a check of the bytes read."""

    @verb(reads=True)
    async def counted() -> T:
        counting = _Counting(look.start())
        answer: T = await counting
        assert counting.bytes <= ROOM + SIZE + beside
        return answer

    return await world.store.read(counted())


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register(workflows=["wf"])


async def test_a_topic(world: World) -> None:
    await world.publish("t", *["x" * SIZE] * 7, "y" * (ROOM + 100), "z")
    pages, after, more = [], 0, True
    while more:
        page, more = await bounded(
            world,
            events.read_events(project_id=PROJECT, topic="t", after=after, limit=500, bytes_max=ROOM),
        )
        pages.append([event.sequence_id for event in page])
        after = page[-1].sequence_id
    assert pages == [[1, 2, 3], [4, 5, 6], [7, 8], [9]]


async def test_of_what_is_small_a_page_has_as_many_as_are_asked_for(world: World) -> None:
    await world.publish("t", *range(600))
    for limit in (1, 2, 3, 18, 19, 146, 147, 500):
        for after in (0, 1, 90):
            where: dict[str, Any] = {"project_id": PROJECT, "topic": "t", "after": after, "limit": limit}
            page, more = await world.store.read(events.read_events(**where))
            numbers = list(range(1, 601))[after : after + limit]
            assert ([event.sequence_id for event in page], more) == (numbers, len(numbers) == limit)
            page, more = await world.store.read(events.newest_events(**where))
            assert ([event.sequence_id for event in page], more) == (list(range(600, after, -1))[:limit], True)
    where = {"project_id": PROJECT, "topic": "t", "after": 0, "limit": 601}
    for look in (events.read_events, events.newest_events):
        page, more = await world.store.read(look(**where))
        assert (len(page), more) == (600, False)


async def test_the_newest_of_a_topic(world: World) -> None:
    await world.publish("t", *["x" * SIZE] * 7)

    async def newest(after: int, limit: int) -> tuple[list[int], bool]:
        look = events.newest_events(project_id=PROJECT, topic="t", after=after, limit=limit, bytes_max=ROOM)
        page, more = await bounded(world, look)
        return [event.sequence_id for event in page], more

    assert await newest(0, 500) == ([7, 6, 5], True)
    assert await newest(4, 500) == ([7, 6, 5], False)
    assert await newest(0, 2) == ([7, 6], True)
    assert await newest(6, 500) == ([7], False)
    assert await newest(7, 500) == ([], False)


async def test_a_journal(world: World) -> None:
    id = await world.running()
    for n in range(5):
        await world.report(id, [step(f"s{n}", "x" * SIZE)])
    pages, after, more = [], 0, True
    while more:
        page, more = await bounded(
            world, queries.journal(project_id=PROJECT, execution_id=id, after=after, limit=500, bytes_max=ROOM)
        )
        pages.append([row.seq for row in page])
        after = page[-1].seq
    assert pages == [[1, 2, 3, 4], [5, 6]]


async def test_the_journals_that_a_claim_hands_out(world: World) -> None:
    id, other = await world.running(), await world.running()
    for n in range(5):
        await world.report(id, [step(f"s{n}", "x" * SIZE)])
        await world.report(other, [step(f"s{n}", "y" * SIZE)])
    seqs: dict[str, list[int]] = {id: [], other: []}
    replies, wanted = [], [(id, 0), (other, 0)]
    while wanted:
        look = claims.journals(wanted=wanted, rows_max=10_000, bytes_max=ROOM)
        found = await bounded(world, look, beside=SIZE + 200)  # and of each one row more
        replies.append([len(rows) for rows, _ in found])
        for (one, _), (rows, _) in zip(wanted, found, strict=True):
            seqs[one] += [row.seq for row in rows]
        wanted = [(one, seqs[one][-1]) for (one, _), (_, more) in zip(wanted, found, strict=True) if more]
    assert seqs == {id: [1, 2, 3, 4, 5, 6], other: [1, 2, 3, 4, 5, 6]}
    assert replies == [[3, 1], [2, 1], [1, 1], [2], [1]]


async def test_of_a_journal_of_small_rows_a_claim_hands_out_as_many_as_may_be(world: World) -> None:
    id = await world.running()
    for n in range(20):
        await world.report(id, [step(f"s{n}-{m}", m) for m in range(10)])
    for rows_max in (1, 2, 16, 17, 144, 145, 200, 201, 202):
        look = claims.journals(wanted=[(id, 0)], rows_max=rows_max, bytes_max=1 << 20)
        [(rows, more)] = await world.store.read(look)
        assert ([row.seq for row in rows], more) == (list(range(1, min(rows_max, 201) + 1)), rows_max < 201)


@pytest.mark.parametrize("room", [ROOM, 1 << 20])
async def test_short_journals_are_read_together_and_are_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    ids = [await world.running() for _ in range(9)]
    for steps, id in enumerate(ids[:6]):
        await world.report(id, [step(f"s{n}", n) for n in range(steps)])
    await world.report(ids[6], [step(f"s{n}", n) for n in range(14)])  # and its claim: one less than is too many
    await world.report(ids[7], [step(f"s{n}", n) for n in range(16)])
    await world.report(ids[8], [step("large", "x" * SIZE)])
    alone: list[str] = []

    async def counted(execution_id: str, seq: int, **bounds: Any) -> tuple[list[Row], bool]:
        alone.append(execution_id)
        return await journal_after(execution_id, seq, **bounds)

    monkeypatch.setattr("perdure.store.verbs.runs.claims.journal_after", counted)
    wanted = [(id, n % 2) for n, id in enumerate(ids)]
    found = await world.store.read(claims.journals(wanted=wanted, rows_max=10_000, bytes_max=room))
    left = room
    for (id, after), (rows, more) in zip(wanted, found, strict=True):
        [(same, more_alone)] = await world.store.read(
            claims.journals(wanted=[(id, after)], rows_max=10_000, bytes_max=max(left, 0))
        )
        assert (rows, more) == (same, more_alone)
        left -= sum(120 + len(bytes(row.value)) for row in rows)
    if room > ROOM:
        assert alone[: -len(ids)] == [ids[7]]


async def test_the_news_that_a_report_is_answered_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "REPLY_BYTES_MAX", ROOM)
    id = await world.running()
    await world.report(id, [event_wait(f"w{n}", "t") for n in range(5)])
    await world.publish("t", *["x" * (SIZE - 300)] * 5)
    pages, seen, more = [], 1, True
    while more:
        reply = await world.report(id, number=0, seen=seen)
        pages.append([row.seq for row in reply.rows])
        seen, more = reply.rows[-1].seq, reply.more
    assert pages == [[2, 3], [4, 5], [6]]


async def test_results(world: World) -> None:
    ids = [await world.running() for _ in range(5)]
    for id in ids:
        await world.finish(id, result="x" * SIZE)
    left, replies = ["none", *ids], []
    while left:
        done, missing = await bounded(world, queries.finished(project_id=PROJECT, ids=left, bytes_max=ROOM))
        replies.append((len(done), len(missing)))
        left = [id for id in left if id not in missing and id not in [one.id for one in done]]
    assert replies == [(3, 1), (2, 0)]


async def test_how_an_execution_ended_is_told_without_its_result(world: World) -> None:
    id = await world.running()
    look = queries.how_ended(project_id=PROJECT, execution_id=id)
    assert await bounded(world, look) is None
    await world.finish(id, result="x" * 2 * ROOM)
    ended = await bounded(world, look)
    assert ended is not None and (ended.id, ended.phase, ended.error) == (id, "completed", None)


async def test_saved_steps(world: World) -> None:
    pushes = PushWorld(world)
    id = await pushes.running(await pushes.register())

    async def keys(after: str | None) -> list[str]:
        look = push_steps.list_steps(project_id=PROJECT, execution_id=id, after=after, limit=500, bytes_max=ROOM)
        return [one.step_key for one in await bounded(world, look)]

    for key in ("b", "é", "a", "a"):
        await pushes.save(id, key, "x" * (SIZE - 200))
    assert await keys(None) == await keys("") == ["a", "b", "é"]
    await pushes.save(id, "c", "x" * SIZE)
    await pushes.save(id, "Z", "x" * SIZE)
    with pytest.raises(BadRequest, match="page by page"):
        await keys(None)
    assert [await keys(""), await keys("b"), await keys("é")] == [["Z", "a", "b"], ["c", "é"], []]


async def test_a_wait_finds_its_event_behind_pages_of_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "REPLY_BYTES_MAX", ROOM)
    id = await world.running()
    await world.publish("t", *[{"n": n, "is": "x" * SIZE} for n in range(8)])
    assert not (await world.report(id, [event_wait("none", "t", match={"n": 8})])).rows
    [row] = (await world.report(id, [event_wait("w", "t", match={"n": 7})])).rows
    assert row.kind is Kind.EVENT and b"x" * SIZE in bytes(row.value)


async def test_topics(world: World) -> None:
    names, found, after = ["a", "b", "c", "d", "e"], [], ""
    for name in names:
        await world.publish(name, "x" * SIZE)
    more = True
    while more:
        page, more = await bounded(
            world, events.list_topics(project_id=PROJECT, prefix="", after=after, limit=9, bytes_max=ROOM)
        )
        found.append([one.topic for one in page])
        after = found[-1][-1]
    assert found == [["a", "b", "c"], ["d", "e"]], "the data that SQLite reads on its way is bounded, too"
