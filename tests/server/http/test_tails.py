"""One tail per topic: many streams cost the store as much as one, slow ones cost nobody, none misses an event."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs
from tests.kit.polling import until
from tests.server.serving import Hand, Served, serving

from perdure.engine.runs.streams import PIECE_BYTES
from perdure.server.http import topic_followers
from perdure.wire.runs.events import Event

STREAM = "/api/v1/events/stream"


class Reader:
    """A stream over a separate socket, with the seen events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.numbers: list[int] = []
        self.lines: list[str] = []

    async def read(self, until: int) -> None:
        """Read on, until the event of a number is there."""
        while not self.numbers or self.numbers[-1] < until:
            line = (await self._reader.readline()).decode().strip()
            assert line or not self._reader.at_eof(), "the stream ended"
            if line.startswith("id: "):
                self.numbers.append(int(line[4:]))

    async def rest(self) -> list[str]:
        """All `data:` lines to the end."""
        found = (await self._reader.read()).decode().splitlines()
        return [line for line in found if line.startswith("data: ")]

    async def is_cut(self) -> bool:
        """Read to the end, whose last chunk is missing."""
        try:
            return not (await self._reader.read()).endswith(b"0\r\n\r\n")
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def streams(served: Served, amount: int, query: str) -> AsyncIterator[list[Reader]]:
    """Open `amount` streams and read each head."""
    opened: list[Reader] = []

    async def open_one() -> Reader:
        reader, writer = await asyncio.open_connection(*served.address)
        head = f"GET {STREAM}?{query} HTTP/1.1\r\nHost: {served.address[0]}\r\nConnection: close\r\n"
        writer.write(f"{head}Authorization: Bearer {served.key}\r\n\r\n".encode())
        assert b" 200 " in await reader.readline()
        while await reader.readline() != b"\r\n":
            pass
        return Reader(reader, writer)

    try:
        for begin in range(0, amount, 50):
            opened += await asyncio.gather(*(open_one() for _ in range(min(50, amount - begin))))
        yield opened
    finally:
        for one in opened:
            one.close()


async def publish(served: Served, topic: str, amount: int = 1, data: Any = None) -> list[int]:
    body = {"topic": topic, "events": [{"data": data}] * amount}
    reply = await served.client.post("/api/v1/events/publish", json=body)
    assert reply.status_code == 200, reply.text
    numbers: list[int] = reply.json()["sequence_ids"]
    return numbers


class Reads:
    """Counts how often topics are read."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.amount = 0
        self.largest = 0
        """The data of one read, in bytes."""
        read = served.engine.events.page

        async def counted(*values: Any, **named: Any) -> list[Event]:
            self.amount += 1
            page = await read(*values, **named)
            self.largest = max(self.largest, sum(len(bytes(event.data)) for event in page))
            return page

        monkeypatch.setattr(served.engine.events, "page", counted)


async def check_crowd(database: str, monkeypatch: pytest.MonkeyPatch, amount: int) -> None:
    monkeypatch.setattr(topic_followers, "LOOK_SECONDS", 600.0)  # no read without a hint, however long this takes
    async with serving(database, streams_per_key_max=amount, poll_seconds=600.0) as served:
        await publish(served, "t", 3)
        async with streams(served, amount, "topic=t&last_sequence_id=1") as crowd:
            await asyncio.gather(*(one.read(3) for one in crowd))
            assert len(served.app.services.tails) == 1
            reads = Reads(served, monkeypatch)
            await publish(served, "t", 2)
            await asyncio.gather(*(one.read(5) for one in crowd))
            await publish(served, "t")
            await asyncio.gather(*(one.read(6) for one in crowd))
            assert reads.amount <= 8, "the tail reads, not each stream"
            assert all(one.numbers == [2, 3, 4, 5, 6] for one in crowd)
        await until(lambda: not len(served.app.services.tails))


async def test_a_crowd_reads_a_topic_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await check_crowd(database, monkeypatch, 40)


@pytest.mark.slow
async def test_a_thousand_streams_read_a_topic_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await check_crowd(database, monkeypatch, 1_000)


async def test_who_falls_behind_what_the_tail_keeps_reads_the_store(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_followers, "KEPT_EVENTS", 2)
    async with streams(served, 2, "topic=t") as (quick, late):
        for number in range(1, 8):
            await publish(served, "t")
            await quick.read(number)
        await late.read(7)
        assert late.numbers == quick.numbers == list(range(1, 8))


async def test_a_client_that_takes_nothing_is_cut_and_keeps_nobody_waiting(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than what lies in sockets and buffers on the way: whoever publishes and whoever reads goes on at once."""
    async with serving(database, write_seconds=600.0) as served, streams(served, 2, "topic=t") as (stuck, quick):
        for number in range(100, 600, 100):
            await publish(served, "t", 100, "x" * 60_000)
            await quick.read(number)
        assert quick.numbers == list(range(1, 501))
        # Only now, when `quick` has taken everything: a busy machine would cut it, too.
        connections = served.server._protocol
        monkeypatch.setattr(connections, "settings", structs.replace(connections.settings, write_seconds=0.5))
        await until(lambda: served.app.services.slots.total == 1)
        await publish(served, "t")
        await quick.read(501)
        assert await stuck.is_cut()


async def test_a_stream_reads_a_piece_at_a_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tails and streams alike: each of a thousand streams holds its reading until the client takes it."""
    reads = Reads(served, monkeypatch)
    large = "x" * 60_000
    await publish(served, "t", 40, large)
    async with streams(served, 1, "topic=t") as (one,):
        await one.read(40)
        await publish(served, "t", 40, large)
        await one.read(80)
        assert one.numbers == list(range(1, 81))
    assert PIECE_BYTES <= reads.largest <= PIECE_BYTES + len(large) + 2


async def test_a_place_beyond_the_end_waits_for_what_comes_after_it(served: Served) -> None:
    await publish(served, "t", 2)
    async with streams(served, 1, "topic=t&last_sequence_id=4") as (ahead,), streams(served, 1, "topic=t") as (one,):
        await one.read(2)
        for number in (3, 4, 5):
            await publish(served, "t")
            await one.read(number)
        await ahead.read(5)
        assert (ahead.numbers, one.numbers) == ([5], [1, 2, 3, 4, 5])


async def test_all_streams_of_a_run_end_with_it(served: Served, hand: Hand) -> None:
    id = await served.start()
    item = await hand.claim()
    topic = f"workflow/w/{id}"
    async with streams(served, 5, f"workflow_id=w&workflow_run_id={id}") as crowd:
        await publish(served, topic, 2)
        await asyncio.gather(*(one.read(2) for one in crowd))
        await hand.fail(item, "no")
        ends = await asyncio.gather(*(one.rest() for one in crowd))
    for said in ends:
        assert '"type":"error"' in said[-1] and "no" in said[-1]


async def test_what_a_worker_sends_last_may_come_after_the_end(
    served: Served, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_followers, "LINGER_SECONDS", 30.0)
    id = await served.start()
    async with streams(served, 1, f"workflow_id=w&workflow_run_id={id}") as (one,):
        await hand.complete(await hand.claim())
        for number in (1, 2):
            await publish(served, f"workflow/w/{id}")
            await one.read(number)


async def test_sixteen_publishers_and_readers_that_miss_nothing(served: Served) -> None:
    """Every reader, by stream or page by page, sees every number once and in order, while all publish at once."""
    publishers, each = 16, 15
    total = publishers * each

    async def publishes(name: int) -> None:
        for number in range(each):
            await publish(served, "t", 1, [name, number])

    async def pages() -> list[Any]:
        found: list[Any] = []
        while len(found) < total:
            after = found[-1]["sequence_id"] if found else 0
            reply = await served.client.get(f"/api/v1/events?topic=t&last_sequence_id={after}&limit=7")
            found += reply.json()["events"]
        return found

    async with streams(served, 4, "topic=t") as crowd:
        reading = asyncio.create_task(pages())
        await asyncio.gather(*(publishes(name) for name in range(publishers)), *(one.read(total) for one in crowd))
        found = await reading
    assert [event["sequence_id"] for event in found] == list(range(1, total + 1))
    assert all(one.numbers == list(range(1, total + 1)) for one in crowd)
    said = [event["data"] for event in found]
    assert sorted(said) == [[name, number] for name in range(publishers) for number in range(each)]
    for name in range(publishers):
        assert [number for who, number in said if who == name] == list(range(each)), "each publisher's in its order"
