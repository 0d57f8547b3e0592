"""Streams of executions: kept apart from the journal, once, bounded, and merged with their children's."""

from collections.abc import Awaitable
from typing import Any

import pytest
from msgspec import json
from tests.store.world import PROJECT, World, child, raw, step

from perdure.store.base.interface import Rows, query
from perdure.store.verbs import retention
from perdure.store.verbs.runs import queries, streams
from perdure.store.verbs.runs.streams import BYTES_MAX, ITEMS_MAX
from perdure.wire.base.errors import NotFound
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import Complete, Emitted
from perdure.wire.runs.streams import StreamPage, short_id


@pytest.fixture(autouse=True)
async def _registered(world: World) -> None:
    await world.register(workflows=["wf"])


def token(data: object, key: str = "model", tries: int = 1) -> Emitted:
    return Emitted("token", key, raw(data), tries)


async def read(world: World, id: str, seen: dict[str, int] | None = None, limit: int = 20_000) -> StreamPage:
    return await world.store.read(
        streams.read_stream(project_id=PROJECT, execution_id=id, seen=seen or {}, limit=limit)
    )


def said(page: StreamPage) -> list[tuple[tuple[str, ...], Any]]:
    return [(item.path, json.decode(item.data)) for item in page.items]


async def test_items_are_numbered_and_bear_the_mark_of_their_run(world: World) -> None:
    id = await world.running()
    await world.report(id, stream=[token("a"), token("b", tries=2)])
    await world.report(id, [step("s", 1)], stream=[token("c", "other")])
    page = await read(world, id)
    assert [(one.n, one.attempt, one.tries, one.key, bytes(one.data)) for one in page.items] == [
        (1, 1, 1, "model", b'"a"'),
        (2, 1, 2, "model", b'"b"'),
        (3, 1, 1, "other", b'"c"'),
    ]
    assert page.ended is None and page.root_id == id
    assert "token" not in str(await world.kinds(id))


async def test_a_report_that_comes_twice_emits_once_and_one_of_a_lost_attempt_nothing(world: World) -> None:
    id = await world.running()
    for _ in range(2):
        assert not (await world.report(id, number=1, attempt=1, seen=2, stream=[token("a")])).lost
    assert (await world.report(id, attempt=7, stream=[token("x")])).lost
    assert (await world.report(id, worker="v", stream=[token("x")])).lost
    assert said(await read(world, id)) == [((), "a")]


async def test_what_came_with_the_end_comes_before_it(world: World) -> None:
    id = await world.running()
    await world.report(id, end=Complete(raw(1)), stream=[token("last")])
    page = await read(world, id)
    assert said(page) == [((), "last")] and page.ended is None
    page = await read(world, id, {short_id(id): 1})
    assert page.items == [] and page.ended is Phase.COMPLETED


async def test_the_newest_are_kept_by_number_and_by_size(world: World) -> None:
    id = await world.running()
    for n in range(11):
        await world.report(id, stream=[token(n * 1_000 + m) for m in range(1_000)])
    items = (await read(world, id)).items
    assert [item.n for item in items] == list(range(items[0].n, 11_001))
    assert ITEMS_MAX <= len(items) < ITEMS_MAX + 1_000
    large = await world.running()
    for _ in range(12):
        await world.report(large, stream=[token("x" * (1 << 20))])
    items = (await read(world, large)).items
    assert BYTES_MAX // (1 << 20) - 1 <= len(items) <= 9 and items[-1].n == 12


async def test_children_join_with_their_path_and_each_is_read_from_its_own_place(world: World) -> None:
    id = await world.running()
    [row] = (await world.report(id, [child("research")])).rows
    kid = json.decode(row.value)
    await world.claim()
    await world.acknowledge(kid)
    [row] = (await world.report(kid, [child("search#2")])).rows
    grandkid = json.decode(row.value)
    await world.claim()
    await world.acknowledge(grandkid)
    for n, one in enumerate((grandkid, id, kid, id)):
        world.advance(1)
        await world.report(one, stream=[token(n)], stream_of=id)
    assert said(await read(world, id)) == [(("research", "search#2"), 0), ((), 1), (("research",), 2), ((), 3)]
    assert said(await read(world, kid)) == [(("search#2",), 0), ((), 2)]
    assert said(await read(world, grandkid)) == [((), 0)]
    page = await read(world, id, {short_id(id): 1, short_id(kid): 1})
    assert said(page) == [(("research", "search#2"), 0), ((), 3)]
    assert said(await read(world, id, limit=1)) == [(("research", "search#2"), 0)]


async def test_of_many_that_emitted_much_no_more_is_read_than_a_page_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await world.running()
    kids = [json.decode(row.value) for row in (await world.report(id, [child(f"kid{n}") for n in range(3)])).rows]
    for _ in kids:
        await world.claim()
    for kid in kids:
        await world.acknowledge(kid)
    for n in range(9):
        world.advance(1)
        await world.report(kids[n % 3], stream=[token(n)], stream_of=id)
    asked: list[Any] = []

    def counted(name: str, **values: object) -> Awaitable[Rows]:
        if name == "read_stream_items":
            asked.append(values["limit"])
        return query(name, **values)

    monkeypatch.setattr(streams, "query", counted)
    page = await read(world, id, {short_id(kids[0]): 1}, limit=4)
    assert said(page) == [(("kid1",), 1), (("kid2",), 2), (("kid0",), 3), (("kid1",), 4)]
    assert sorted(asked) == [1, 1, 2]
    asked.clear()
    page = await read(world, id, {short_id(kid): 2 for kid in kids}, limit=4)
    assert said(page) == [(("kid0",), 6), (("kid1",), 7), (("kid2",), 8)]
    assert sorted(asked) == [1, 1, 1]


async def test_a_stream_goes_with_its_execution(world: World) -> None:
    id = await world.running()
    other = await world.running()
    await world.report(id, stream=[token("a")])
    await world.report(other, stream=[token("b")])
    await world.finish(id)
    await world.store.write(retention.delete(project_id=PROJECT, execution_id=id))
    with pytest.raises(NotFound):
        await read(world, id)
    assert said(await read(world, other)) == [((), "b")]
    assert not any((await world.store.scan(queries.doctor())).values())


async def test_another_projects_stream_does_not_exist(world: World) -> None:
    id = await world.running()
    with pytest.raises(NotFound):
        await world.store.read(streams.read_stream(project_id="other", execution_id=id, seen={}, limit=1))
