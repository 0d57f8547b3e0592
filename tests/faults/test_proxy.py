"""The proxy does to a line what it says, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.faults import proxy as proxies
from tests.faults.duplicates import Reply
from tests.faults.proxy import Proxy, read_request
from tests.kit.polling import until


@pytest.fixture(autouse=True)
def every_copy_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(proxies, "ANSWER_SECONDS_MAX", 60.0)


class Echo:
    """A server that answers each request with the request's own body."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.closed = 0
        self.port = 0
        self.lines: list[Line] = []

    async def connect(self, proxy: Proxy) -> Line:
        """A client's connection through the proxy, closed with the server."""
        line = Line(*await asyncio.open_connection("127.0.0.1", proxy.port))
        self.lines.append(line)
        return line

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            body = request.partition(b"\r\n\r\n")[2]
            self.seen.append(body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        self.closed += 1
        writer.close()


class Line:
    """A client's connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, body: bytes) -> None:
        self.writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def answer(self) -> bytes:
        """The next answer's body; empty when the connection ended before."""
        async with asyncio.timeout(60):
            return (await read_request(self.reader) or b"").partition(b"\r\n\r\n")[2]

    async def ask(self, body: bytes) -> bytes:
        self.send(body)
        return await self.answer()


@asynccontextmanager
async def echo_behind_proxy() -> AsyncIterator[tuple[Echo, Proxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    try:
        async with Proxy(echo.port, seed=1) as proxy:
            yield echo, proxy
    finally:
        for line in echo.lines:
            line.writer.close()
        server.close()
        await server.wait_closed()


async def test_a_healthy_line_passes_everything_in_order_and_ends_with_its_client() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        line = await echo.connect(proxy)
        assert [await line.ask(b"%d" % n) for n in range(20)] == [b"%d" % n for n in range(20)]
        line.writer.close()
        await until(lambda: echo.closed == 1)
        assert proxy.counts == {"requests": 20}


async def test_what_is_sent_while_the_line_is_down_arrives_late_even_if_its_sender_is_gone() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        line = await echo.connect(proxy)
        await line.ask(b"before")
        proxy.set(down=True)
        line.send(b"meanwhile")
        await until(lambda: proxy.counts["requests"] == 2)
        line.writer.close()
        await asyncio.sleep(0.05)
        assert echo.seen == [b"before"] and echo.closed == 0
        proxy.heal()
        await until(lambda: echo.seen == [b"before", b"meanwhile"] and echo.closed == 1)


async def test_a_request_is_seen_while_only_answers_are_held_up() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        line = await echo.connect(proxy)
        proxy.set(replies_down=True)
        line.send(b"one way")
        await until(lambda: echo.seen == [b"one way"])
        proxy.heal()
        assert await line.answer() == b"one way"


@pytest.mark.parametrize(("fault", "arrives"), [("requests_lost", []), ("replies_lost", [b"x"])])
async def test_a_lost_message_leaves_its_sender_waiting_until_the_line_is_healed(
    fault: str, arrives: list[bytes]
) -> None:
    async with echo_behind_proxy() as (echo, proxy):
        line = await echo.connect(proxy)
        proxy.set(**{fault: 1.0})
        line.send(b"x")
        await until(lambda: sum(proxy.counts.values()) == 2 and echo.seen == arrives)
        await asyncio.sleep(0.05)
        assert echo.seen == arrives
        assert not line.reader.at_eof()
        proxy.heal()
        assert await line.answer() == b""
        assert await (await echo.connect(proxy)).ask(b"again") == b"again"


async def test_an_answer_is_cut_in_the_middle() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        line = await echo.connect(proxy)
        proxy.set(replies_cut=1.0)
        assert await line.ask(b"x" * 100) == b""
        assert echo.seen == [b"x" * 100]


async def test_duplicates_arrive_and_are_answered_once() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        line = await echo.connect(proxy)
        proxy.set(duplicated=1.0)
        assert [await line.ask(b"%d" % n) for n in range(5)] == [b"%d" % n for n in range(5)]
        await until(lambda: len(echo.seen) == 10 and not proxy._copies)
        assert all(one.first == one.again and one.first.body in one.request for one in proxy.twice())
        assert sorted(echo.seen) == sorted([b"%d" % n for n in range(5)] * 2)


async def test_delayed_requests_overtake_each_other() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        proxy.set(delay_seconds=0.05)
        lines = [await echo.connect(proxy) for _ in range(20)]
        await asyncio.gather(*[line.ask(b"%02d" % n) for n, line in enumerate(lines)])
        assert echo.seen != sorted(echo.seen)


async def test_old_requests_are_sent_again() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        assert await proxy.replay(3) == {}
        line = await echo.connect(proxy)
        await line.ask(b"old")
        assert await proxy.replay(30) == {200: 30}
        assert echo.seen == [b"old"] * 31
        twice = proxy.twice()
        assert [(one.first, one.again, one.late) for one in twice] == [
            (Reply(200, b"old"), Reply(200, b"old"), True)
        ] * 30
        assert proxy.twice() == []


async def test_a_cut_breaks_every_connection_and_new_ones_are_taken() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        lines = [await echo.connect(proxy) for _ in range(3)]
        for line in lines:
            await line.ask(b"x")
        assert proxy.cut() == 3
        assert [await line.answer() for line in lines] == [b""] * 3
        assert await (await echo.connect(proxy)).ask(b"y") == b"y"


async def test_in_front_of_a_socket_bytes_pass_as_they_are_and_wait_while_the_line_is_down(tmp_path: Path) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.close()

    path = str(tmp_path / "socket")
    server = await asyncio.start_unix_server(shout, path)
    async with server, Proxy(socket=path) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"no request at all")
        assert await reader.readexactly(17) == b"NO REQUEST AT ALL"
        proxy.set(replies_down=True)
        writer.write(b"later")
        held = asyncio.create_task(reader.readexactly(5))
        await asyncio.sleep(0.05)
        assert not held.done()
        proxy.heal()
        assert await held == b"LATER"
        assert proxy.cut() == 1
        assert await reader.read() == b""
        writer.close()


async def test_a_server_that_is_away_is_a_connection_that_ends() -> None:
    async with echo_behind_proxy() as (echo, proxy):
        proxy.upstream_port = 1
        line = await echo.connect(proxy)
        assert await line.ask(b"x") == b""
        proxy.upstream_port = echo.port
        assert await (await echo.connect(proxy)).ask(b"y") == b"y"
