"""Events meet waits, and waits find events, by hashes of the events' fields (I5)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from json import dumps
from time import thread_time
from typing import Any

import apsw
import asyncpg
import pytest
from msgspec import json
from msgspec.structs import asdict
from tests.store.runs.test_waits import events_of
from tests.store.world import PROJECT, World, event_wait, raw

from perdure.store.base.records import to_values
from perdure.store.base.statements import load
from perdure.store.drivers.postgres import PostgresStore
from perdure.store.open import open_store
from perdure.store.verbs import retention
from perdure.store.verbs.runs import event_fields, event_search, events
from perdure.store.verbs.runs.event_fields import (
    Fields,
    FieldsRow,
    block_rows,
    events_in,
    hash_of,
    new_rows,
    part_of,
    wanted_by,
)
from perdure.wire.base.records import Kind
from perdure.wire.runs.events import Event

NAMES = ("a", "ä", "b\n", "")
EQUAL = [
    ("1", "1.0"),
    ("1", "10e-1"),
    ("0", "-0"),
    ("0", "-0.0"),
    (str(2**70), f"{2**70}.0"),
    ('"ä/"', '"\\u00e4\\/"'),
    ('{"a":[1,{"b":2.0}],"c":"\\u0064"}', ' { "c" : "d" , "a" : [ 1.0 , {"b":2} ] } '),
]
DIFFERENT = [
    "true",
    "false",
    "null",
    "1",
    "1.5",
    '"1"',
    '"true"',
    "[]",
    "{}",
    "[1]",
    '{"1":1}',
    "9007199254740993",
    "9007199254740992.0",
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few events fill a block, and a few fields are too many."""
    for module in (event_fields, event_search, events):
        monkeypatch.setattr(module, "BLOCK", 8)
    monkeypatch.setattr(event_search, "ROWS_MAX", 3)
    monkeypatch.setattr(event_search, "PAGE", 4)
    monkeypatch.setattr(event_fields, "FIELDS_MAX", 3)
    monkeypatch.setattr(event_fields, "COUNTED_BYTES_MIN", 8)
    monkeypatch.setattr(event_fields, "VALUE_BYTES_MAX", 8)


def hash_one(text: str) -> bytes:
    [found] = Fields(b'{"n":%b}' % text.encode()).hashes()
    return found


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_values_have_equal_hashes(one: str, other: str) -> None:
    assert hash_one(one) == hash_one(other)
    match, event = (b'{"n":%b,"m":1}' % text.encode() for text in (one, other))
    assert Fields(event).match(wanted_by(match))
    assert Fields(event).match_hash(["m", "n"]) == hash_of(match)["match_hash"]


def test_different_values_have_different_hashes() -> None:
    assert len({hash_one(text) for text in DIFFERENT}) == len(DIFFERENT)


def test_an_event_without_a_field_is_not_looked_for() -> None:
    for data in (b"[1]", b"null", b'"{}"', b" 1", b"{}"):
        assert Fields(data).match_hash(["n"]) is None and list(Fields(data).hashes()) == []
    assert Fields(b"{}").match_hash([]) == hash_of(b"{}")["match_hash"]


def test_too_long_names_are_compared_and_not_hashed() -> None:
    assert hash_of(b'{"%b":1}' % (b"n" * 600)) == {"match_names": None, "match_hash": None}


@pytest.mark.parametrize("name", ["k7", "b\n", "missing"])
def test_an_event_of_many_fields_is_read_only_for_those_of_waits(name: str) -> None:
    data = dumps({f"k{n}": n for n in range(200_000)} | {"b\n": 7}).encode()
    wanted = {name: 7}
    begun = thread_time()
    whole = Fields(data)
    assert whole.raw is not None and whole.match(wanted) is (name != "missing")
    decoded = thread_time() - begun
    begun = thread_time()
    fields = Fields(data)
    assert fields.hashes() == (event_fields.UNKNOWN,)
    if name != "b\n":  # msgspec has no field of this name
        assert fields.match(wanted) is whole.match(wanted) and fields._raw is None
        assert fields.match_hash([name]) == whole.match_hash([name])
    assert 4 * (thread_time() - begun) < decoded
    for n in range(event_fields.PASSES_MAX):
        assert fields.match({f"k{n}": n})
    assert fields.match(wanted) is whole.match(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_the_index_has_every_field_of_every_event(seed: int, small: None) -> None:
    chosen = random.Random(seed)
    contents = [event(chosen) for _ in range(40)]
    fields = [Fields(dumps(data).encode()) for data in contents]
    new: list[FieldsRow] = []
    n = 0
    while n < len(contents):
        amount = chosen.choice([1, 2, 7, 12])
        new += new_rows(n + 5, fields[n : n + amount])
        n += amount
    rows = [
        row for last in range(8, 48, 8) for row in block_rows(last, [one for one in new if last - 8 < one.seq <= last])
    ]
    assert all(seq > row.seq - 8 for row in [*new, *rows] for seq in events_in(row, [row.entries[:6]]))
    for n, one in enumerate(fields, 5):
        for hash, long in one.searches() if n <= 40 else ():
            wanted = (hash, long, event_fields.UNKNOWN)
            parts = (part_of(hash), event_fields.ANY)
            assert any(n in events_in(row, wanted) for row in rows if row.part in parts), contents[n - 5]


def value(chosen: random.Random) -> object:
    return chosen.choice(
        [0, 1, 1.0, True, "x", None, [1], [1.0], {"k": 1, "l": [2]}, {"l": [2.0], "k": 1}, "long " * 9]
    )


def event(chosen: random.Random) -> object:
    if chosen.random() < 0.1:
        return chosen.choice([[], "text", 1, None])
    return {name: value(chosen) for name in chosen.sample(NAMES, chosen.randrange(len(NAMES) + 1))}


def matches(data: object, match: dict[str, Any] | None) -> bool:
    """The rule, as plainly as possible."""

    def typed(value: object) -> object:
        if isinstance(value, bool) or value is None or isinstance(value, str):
            return (type(value).__name__, value)
        if isinstance(value, dict):
            return {name: typed(each) for name, each in value.items()}
        return list(map(typed, value)) if isinstance(value, list) else value

    if match is None:
        return True
    return isinstance(data, dict) and all(name in data and typed(data[name]) == typed(match[name]) for name in match)


@pytest.mark.parametrize("seed", range(2))
async def test_random_waits_take_the_first_events_that_match(world: World, seed: int, small: None) -> None:
    """The waits and the events come in any order, and the waits may lack a hash."""
    chosen = random.Random(seed)
    await world.register()
    published: list[object] = []
    asked: dict[str, tuple[int, dict[str, Any] | None]] = {}
    ready: list[tuple[int, str]] = []
    for _ in range(30):
        ready.append((len(published), await world.running()))
        for _ in range(chosen.randrange(3)):
            several = [event(chosen) for _ in range(chosen.choice([1, 1, 2, 9]))]
            await world.publish("topic", *several)
            published += several
        if chosen.random() < 0.1:
            await execute(world.store, "UPDATE waits SET match_names = NULL, match_hash = NULL")
        while ready and chosen.random() < 0.5:
            since, id = ready.pop(chosen.randrange(len(ready)))
            match = (
                None
                if chosen.random() < 0.1
                else {name: value(chosen) for name in chosen.sample(NAMES, chosen.randrange(3))}
            )
            asked[id] = since, match
            wait = event_wait("k", "topic", match=None if match is None else {n: raw(v) for n, v in match.items()})
            await world.report(id, [wait])
    met = 0
    for id, (since, match) in asked.items():
        expected = [n for n, data in enumerate(published, 1) if n > since and matches(data, match)][:1]
        rows = [row for row in await world.journal(id) if row.kind is Kind.EVENT]
        assert [json.decode(row.value)["sequence_id"] for row in rows] == expected, match
        met += len(expected)
    assert met > 5


async def execute(store: Any, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements on another connection, or on a file's only one."""
    if hasattr(store, "_writer") and isinstance(store._writer, apsw.Connection):
        return [tuple(row) for text in statements for row in store._writer.execute(text)]
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(store.url)
    try:
        return [tuple(row) for text in statements for row in await connection.fetch(text)]
    finally:
        await connection.close()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """The comparisons of an event with a wait."""
    count: Counter[str] = Counter()
    match = Fields.match

    def counting(self: Fields, wanted: object) -> bool:
        count["times"] += 1
        return match(self, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(Fields, "match", counting)
    yield count


async def test_an_event_is_compared_with_the_waits_of_its_values(world: World, compared: Counter[str]) -> None:
    await world.register(capacity=200)
    for n in range(100):
        id = await world.running()
        await world.wait_for(id, event_wait("k", "topic", match={"order": raw(n), "kind": raw("paid")}))
        if n % 10 == 0:
            other = await world.running()
            await world.wait_for(other, event_wait("k", "topic", match={"order": raw(n)}))
    compared.clear()
    await world.publish("topic", {"order": 50, "kind": "paid"})
    assert compared["times"] == 2
    await world.publish("topic", {"order": 50, "kind": "paid"}, {"order": 7, "kind": "sent"}, "text", {"kind": "paid"})
    assert compared["times"] == 2


async def test_a_wait_is_compared_with_the_events_of_its_values(world: World, compared: Counter[str]) -> None:
    await world.register()
    first, second = await world.running(), await world.running()
    for n in range(0, 2_500, 100):
        await world.publish("topic", *({"order": k, "kind": "paid", "of": {"k": k}} for k in range(n, n + 100)))
    compared.clear()
    await world.report(first, [event_wait("none", "topic", match={"order": raw(-1), "kind": raw("paid")})])
    assert compared["times"] == 0
    await world.report(first, [event_wait("one", "topic", match={"order": raw(77), "kind": raw("paid")})])
    await world.report(second, [event_wait("deep", "topic", match={"of": raw({"k": 2_400.0})})])
    assert compared["times"] == 2
    assert await events_of(world, first) == [{"order": 77, "kind": "paid", "of": {"k": 77}}]
    assert await events_of(world, second) == [{"order": 2_400, "kind": "paid", "of": {"k": 2_400}}]


async def test_a_wait_takes_no_event_that_its_execution_has_taken(world: World, small: None) -> None:
    await world.register()
    id = await world.running()
    await world.publish("topic", *({"kind": "paid", "n": n} for n in range(20)))
    for n in range(3):
        await world.report(id, [event_wait(f"k{n}", "topic", match={"kind": raw("paid")})])
    assert await events_of(world, id) == [{"kind": "paid", "n": n} for n in range(3)]


async def test_the_index_goes_with_its_events(world: World, small: None) -> None:
    await world.register()
    old = await world.running()
    await world.publish("topic", *({"n": n} for n in range(20)))
    await world.publish("other", {"n": 1})
    world.advance(10)
    before_us = world.now_us
    await world.publish("topic", *({"n": n} for n in range(20, 30)))
    await prune(world, before_us)
    [(oldest,)] = await execute(world.store, "SELECT MIN(seq) FROM event_fields WHERE topic = 'topic'")
    assert oldest > 20
    assert await execute(world.store, "SELECT COUNT(*) FROM event_fields WHERE topic = 'other'") == [(0,)]
    await world.report(old, [event_wait("k", "topic", match={"n": raw(22)})])
    assert await events_of(world, old) == [{"n": 22}]
    world.advance(10)
    await prune(world, world.now_us)
    assert await execute(world.store, "SELECT COUNT(*) FROM event_fields") == [(0,)]
    young = await world.running()
    await world.publish("topic", {"n": 30})
    await world.report(young, [event_wait("k", "topic", match={"n": raw(30)})])
    assert await events_of(world, young) == [{"n": 30}]


async def prune(world: World, before_us: int) -> None:
    await world.store.write(
        retention.prune(
            finished_before_us=before_us, idempotency_before_us=0, now_us=world.now_us, limit=500, after=("", "")
        )
    )


async def test_two_servers_miss_no_event_of_each_other(world: World, database: str, on_postgresql: None) -> None:
    """Many waits open on one topic at once, while both servers publish the awaited events."""
    other = World(second := await open_store(database))
    other._ids = 1 << 40
    try:
        await world.register(capacity=200)
        ids = [await world.running() for _ in range(24)]
        reports = [
            world.report(id, [event_wait("k", "topic", match={"n": raw(n)})], attempt=1, seen=1, number=1)
            for n, id in enumerate(ids)
        ]
        published = [(world if n % 3 else other).publish("topic", {"n": n}) for n in range(24)]
        both: list[Any] = [each for pair in zip(reports, published, strict=True) for each in pair]
        await asyncio.wait_for(asyncio.gather(*both), 60)
        assert [await events_of(world, id) for id in ids] == [[{"n": n}] for n in range(24)]
    finally:
        await second.close()


@pytest.mark.parametrize("known", [True, False], ids=["known topic", "new topic"])
@pytest.mark.parametrize("first", ["publish", "wait"])
async def test_a_wait_and_a_publish_of_two_servers_take_turns(
    world: World, on_postgresql: None, first: str, known: bool
) -> None:
    """The transaction of another server is open meanwhile."""
    await world.register()
    id = await world.running()
    if known:
        await world.publish("topic", {"n": 0})
    seq = 2 if known else 1
    where = {"project_id": PROJECT, "topic": "topic"}
    wait = event_wait("k", "topic", match={"n": raw(7)})
    assert isinstance(world.store, PostgresStore)
    other: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(world.store.url)

    async def ask(name: str, **values: object) -> None:
        statement = load("postgres")[name]
        await other.fetch(statement.sql, *statement.values(where | values))

    await other.execute("BEGIN")
    if first == "publish":
        event = Event(id="e", sequence_id=seq, topic="topic", data=raw({"n": 7}), created_at_us=world.now_us)
        await ask("take_numbers", events=1)
        await ask("insert_event", **to_values(event), dedup_key=None)
        for row in new_rows(seq, [Fields(bytes(event.data))]):
            await ask("insert_event_fields", **asdict(row))
        task: asyncio.Task[object] = asyncio.create_task(world.report(id, [wait], attempt=1, seen=1, number=1))
    else:
        values = dict.fromkeys(("fingerprint", "data", "expires_at_us", "answer_schema"))
        match = b'{"n":7}'
        await ask("make_topic")
        await ask("share_topic")
        await ask(
            "insert_wait",
            **values,
            **hash_of(match),
            execution_id=id,
            key="k",
            state="open",
            match=match,
            after_seq=0,
            now_us=world.now_us,
        )
        task = asyncio.create_task(world.publish("topic", {"n": 7}))
    async with asyncio.timeout(30):
        waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted"
        while not task.done() and not await other.fetchval(waiting):  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.01)
        await other.execute("COMMIT")
        await task
    await other.close()
    assert await events_of(world, id) == [{"n": 7}]
