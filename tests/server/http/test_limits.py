"""A server's tolerance of callers, at the level of bytes: sizes, slowness, nonsense."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from tests.kit.polling import until
from tests.server.serving import Hand, Served, serving

from perdure.server.http.connection_limit import ConnectionLimit
from perdure.server.http.connections import ServerConnection

RUN = "/api/v1/workflows/w/run"


class Wire:
    """A connection on which any bytes can be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self.reader = reader
        self.writer = writer
        self.key = key

    def head(self, method: str = "POST", path: str = RUN, *more: str, version: str = "1.1") -> bytes:
        lines = [f"{method} {path} HTTP/{version}", "Host: localhost", f"Authorization: Bearer {self.key}", *more]
        return "\r\n".join([*lines, "", ""]).encode()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(status.split(" ")[1]), headers, body

    async def closed(self) -> bytes:
        """Read until the server closes."""
        try:
            async with asyncio.timeout(60):
                return await self.reader.read()
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def wire(served: Served) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(*served.address)
    try:
        yield Wire(reader, writer, served.key)
    finally:
        writer.transport.abort()


def error_of(body: bytes) -> str:
    error: str = json.loads(body)["error_type"]
    return error


# --- sizes ---------------------------------------------------------------------------------------------------------


async def test_a_body_said_to_be_too_large_is_refused_unread(database: str) -> None:
    async with serving(database, body_seconds=1) as served, wire(served) as line:
        await line.send(line.head("POST", RUN, f"Content-Length: {(32 << 20) + 1}"))
        status, headers, body = await line.reply()
        assert (status, error_of(body)) == (413, "TOO_LARGE") and headers["connection"] == "close"
        await line.closed()


@pytest.mark.parametrize("length", ["9" * 30, "1" + "0" * 18])
async def test_an_absurd_length_is_refused(served: Served, length: str) -> None:
    async with wire(served) as line:
        await line.send(line.head("POST", RUN, f"Content-Length: {length}"))
        assert (await line.reply())[0] in (400, 413)


async def test_a_body_that_grows_too_large_is_refused_before_it_is_whole(database: str) -> None:
    async with serving(database, request_bytes_max=100_000) as served, wire(served) as line:
        await line.send(line.head("POST", RUN, "Transfer-Encoding: chunked"))
        chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
        sent = 0
        answer = asyncio.create_task(line.reply())
        while not answer.done() and sent < 3_000_000:
            await line.send(chunk)
            sent += 10_000
            await asyncio.sleep(0.001)
        status, _, body = await answer
        assert (status, error_of(body)) == (413, "TOO_LARGE") and sent < 1_000_000


async def test_a_value_has_its_own_limit(served: Served) -> None:
    large = b'{"accept_early": true, "payload": "' + b"x" * (8 << 20) + b'"}'
    reply = await served.client.post(RUN, content=large)
    assert reply.status_code == 422 and "payload" in reply.json()["error"]
    fine = b'{"accept_early": true, "payload": "' + b"x" * ((8 << 20) - 2) + b'"}'
    assert (await served.client.post(RUN, content=fine)).status_code == 200


async def test_a_long_address_is_refused(served: Served) -> None:
    async with wire(served) as line:
        await line.send(line.head("GET", "/api/v1/executions?x=" + "y" * 100_000))
        status, headers, body = await line.reply()
        assert (status, error_of(body)) == (414, "URI_TOO_LONG") and headers["connection"] == "close"


@pytest.mark.parametrize(
    "more",
    [("X-Large: " + "y" * 200_000,), tuple(f"X-{n}: y" for n in range(200)), tuple(["X: " + "y" * 5_000] * 20)],
    ids=["one", "many", "together"],
)
async def test_large_headers_are_refused(served: Served, more: tuple[str, ...]) -> None:
    async with wire(served) as line:
        await line.send(line.head("GET", "/health", *more))
        status, _, body = await line.reply()
        assert (status, error_of(body)) == (431, "HEADERS_TOO_LARGE")


async def test_a_header_without_end_is_refused_while_it_comes(served: Served) -> None:
    async with wire(served) as line:
        await line.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        answer = asyncio.create_task(line.reply())
        for _ in range(200):
            if answer.done():
                break
            await line.send(b"y" * 10_000)
            await asyncio.sleep(0.001)
        assert (await answer)[0] == 431


async def test_a_trailer_is_no_header(served: Served) -> None:
    id = await served.start()
    end = f"2\r\n{{}}\r\n0\r\nAuthorization: Bearer {served.key}\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
    async with wire(served) as line:
        head = (
            f"POST /api/v1/executions/{id}/resume/s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await line.send((head + end).encode())
        assert (await line.reply())[0] == 401
        # The connection goes on, and so does a request whose trailers nobody asked for.
        await line.send(line.head("POST", RUN, "Transfer-Encoding: chunked"))
        body = b'{"payload": 1, "accept_early": true}'
        await line.send(b"%x\r\n%b\r\n0\r\nX-Sum: 1\r\nContent-Type: text/plain\r\n\r\n" % (len(body), body))
        assert (await line.reply())[0] == 200


@pytest.mark.parametrize("piece", [b"y" * 10_000, b"y: z\r\n" * 1_000])
async def test_trailers_without_end_are_refused_while_they_come(served: Served, piece: bytes) -> None:
    async with wire(served) as line:
        await line.send(line.head("POST", RUN, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\nX: ")
        answer = asyncio.create_task(line.reply())
        sent = 0
        while not answer.done() and sent < 200:
            await line.send(piece)
            sent += 1
            await asyncio.sleep(0.001)
        assert (await answer)[0] == 431


async def test_many_fields_and_many_items(served: Served) -> None:
    large = {str(n): n for n in range(10_000)}
    assert (await served.client.post(RUN, json={"payload": large, "accept_early": True})).status_code == 200
    tags = {str(n): "x" for n in range(10_000)}
    refused = await served.client.post(RUN, json={"payload": 1, "accept_early": True, "tags": tags})
    assert refused.status_code == 422 and "tags" in refused.json()["error"]
    items = [{"workflow_id": "w"}] * 10_001
    assert (await served.client.post("/api/v1/executions", json={"items": items})).status_code == 422
    query = "&".join(f"status={n}" for n in range(200))
    assert (await served.client.get(f"/api/v1/executions?{query}")).status_code == 400


def connected(served: Served, line: Wire) -> bool:
    """Whether the server still has the connection."""
    mine = line.writer.get_extra_info("sockname")
    return any(
        one.client == mine for one in served.server.server_state.connections if isinstance(one, ServerConnection)
    )


async def anonymous(stack: AsyncExitStack, served: Served) -> Wire:
    """An idle connection after a request without a key."""
    line = await stack.enter_async_context(wire(served))
    await line.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await line.reply())[0] == 200
    return line


async def known(stack: AsyncExitStack, served: Served) -> Wire:
    """An idle connection with a known key."""
    line = await stack.enter_async_context(wire(served))
    await line.send(line.head("GET", "/api/v1/executions"))
    assert (await line.reply())[0] == 200
    return line


@pytest.mark.parametrize("setting", ["connections_max", "connections_per_address_max"])
async def test_the_oldest_anonymous_connection_makes_room(database: str, setting: str) -> None:
    limits: dict[str, Any] = {setting: 4}
    async with serving(database, **limits) as served, AsyncExitStack() as stack:
        friend = await known(stack, served)
        oldest = await anonymous(stack, served)
        silent = await stack.enter_async_context(wire(served))
        await until(lambda: connected(served, silent))
        newest = await anonymous(stack, served)
        await anonymous(stack, served)
        assert await oldest.closed() == b"" and not connected(served, oldest)
        await known(stack, served)
        assert await silent.closed() == b""
        assert connected(served, friend) and connected(served, newest)


async def test_where_all_callers_are_known_the_new_connection_is_closed(database: str) -> None:
    async with serving(database, connections_max=3) as served, AsyncExitStack() as stack:
        lines = [await known(stack, served) for _ in range(3)]
        late = await stack.enter_async_context(wire(served))
        assert await late.closed() == b""
        assert all(connected(served, line) for line in lines)
        lines[0].writer.transport.abort()
        await until(lambda: not connected(served, lines[0]))
        await known(stack, served)


async def test_a_proxy_may_have_all_connections(database: str) -> None:
    limits: dict[str, Any] = {"connections_per_address_max": 1, "proxies": ["127.0.0.0/8"]}
    async with serving(database, **limits) as served, AsyncExitStack() as stack:
        lines = [await anonymous(stack, served) for _ in range(5)]
        assert all(connected(served, line) for line in lines)


class Standing:
    """A connection that exists only as a count."""

    def __init__(self, *, evictable: bool = True) -> None:
        self.evictable = evictable
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


def test_a_request_that_waits_for_its_answer_is_not_cut_for_another() -> None:
    crowd = ConnectionLimit(2, 2, lambda address: False)
    waits, idle, late, later = Standing(evictable=False), Standing(), Standing(evictable=False), Standing()
    assert crowd.enter(waits, "192.0.2.1") and crowd.enter(idle, "192.0.2.2") and crowd.enter(late, "192.0.2.3")
    assert (idle.evicted, waits.evicted) == (True, False)
    assert not crowd.enter(later, "192.0.2.4") and len(crowd) == 2
    for one in (idle, later, late, late, waits):
        crowd.leave(one)
    assert len(crowd) == 0 and not crowd._counts and not crowd._anonymous


def test_the_addresses_of_a_network_are_counted_together() -> None:
    crowd = ConnectionLimit(100, 2, lambda address: False)
    first, second, third, other = (Standing() for _ in range(4))
    assert crowd.enter(other, "192.0.2.1")
    assert (
        crowd.enter(first, "2001:db8::1") and crowd.enter(second, "2001:db8::2") and crowd.enter(third, "2001:db8::3")
    )
    assert first.evicted and not other.evicted and not second.evicted


# --- slowness ------------------------------------------------------------------------------------------------------


async def trickle(line: Wire, data: bytes, answer: asyncio.Task[object]) -> None:
    """Send a little at a time until an answer comes; a long silence means that each bit moved the deadline."""
    for _ in range(200):
        await line.send(data)
        if (await asyncio.wait({answer}, timeout=0.1))[0]:
            return
    answer.cancel()


async def test_headers_have_a_deadline_that_a_trickle_does_not_move(database: str) -> None:
    async with serving(database, header_seconds=0.5) as served, wire(served) as line:
        answer = asyncio.create_task(line.reply())
        await line.send(b"GET")
        await trickle(line, b"X", answer)
        assert (await answer)[0] in (400, 408)


async def test_a_silent_connection_is_closed(database: str) -> None:
    async with serving(database, header_seconds=0.3) as served, wire(served) as line:
        assert await line.closed() == b""


async def test_a_body_has_a_deadline(database: str) -> None:
    async with serving(database, body_seconds=0.5) as served, wire(served) as line:
        await line.send(line.head("POST", RUN, "Content-Length: 1000"))
        answer = asyncio.create_task(line.reply())
        await trickle(line, b" ", answer)
        status, headers, body = await answer
        assert (status, error_of(body)) == (408, "REQUEST_TIMEOUT") and headers["connection"] == "close"
        await line.closed()
        assert (await served.client.get("/health")).status_code == 200


async def test_a_second_request_has_its_own_deadlines(database: str) -> None:
    async with serving(database, header_seconds=0.5, body_seconds=0.5) as served, wire(served) as line:
        for _ in range(3):
            await line.send(line.head("GET", "/health"))
            assert (await line.reply())[0] == 200
            with pytest.raises(TimeoutError):  # longer than either deadline, it stays open
                await asyncio.wait_for(line.reader.read(1), 0.7)
        await line.send(b"GET /health HT")
        assert (await line.reply())[0] == 408


async def test_a_long_poll_is_no_slow_request(database: str) -> None:
    async with serving(database, header_seconds=0.2, body_seconds=0.2) as served:
        id = await served.start()
        began = time.monotonic()
        assert (await served.client.get(f"/api/v1/executions/{id}?wait=2.5")).status_code == 200
        assert time.monotonic() - began > 2.4


async def test_a_client_that_takes_nothing_is_cut(database: str) -> None:
    async with serving(database, write_seconds=0.5) as served, wire(served) as line:
        id = await served.start(payload="x" * ((8 << 20) - 2))
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads has it
        for _ in range(4):
            await line.send(line.head("GET", f"/api/v1/executions/{id}"))
        connections = served.server.server_state.connections
        mine = line.writer.get_extra_info("sockname")
        (theirs,) = (one for one in connections if isinstance(one, ServerConnection) and one.client == mine)
        async with asyncio.timeout(8):
            while theirs in connections:  # noqa: ASYNC110  # the server tells nobody of it
                await asyncio.sleep(0.02)


# --- nonsense ------------------------------------------------------------------------------------------------------

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /api/v1/executions/wait HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer KEY\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
        b"GET /health\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /he\x00alth HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        GET + b"X: a\x00b\r\n\r\n",
        GET + b"X : a\r\n\r\n",
        GET + b"X: a\r\n folded\r\n\r\n",
        GET + b"X\r\n\r\n",
        GET + b"Host: localhost\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]x",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 0x10\r\n\r\n",
        POST + b"Content-Length: 1e3\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]XX0\r\n\r\n",
    ],
)
async def test_nonsense_is_refused_and_the_connection_closed(served: Served, data: bytes) -> None:
    async with wire(served) as line:
        await line.send(data.replace(b"KEY", line.key.encode()))
        line.writer.write_eof()
        answer = await line.closed()
        if answer:
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 3")), answer
            assert json.loads(body)["error"]
    assert (await served.client.get("/health")).status_code == 200


async def test_what_follows_a_refused_request_is_not_read_as_another(served: Served) -> None:
    """A proxy in front may have seen one request where the server would see two."""
    smuggled = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for head in (
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (len(smuggled) + 5),
        b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(smuggled),
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ):
        async with wire(served) as line:
            await line.send(POST.replace(b"KEY", line.key.encode()) + head + smuggled)
            line.writer.write_eof()
            assert (await line.closed()).count(b"HTTP/1.1 200") == 0


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    id = await served.start()
    async with wire(served) as line:
        await line.send(
            line.head("GET", f"/api/v1/executions/{id}?wait=0.2") + line.head("GET", "/health") + line.head("GET", "/x")
        )
        assert [(await line.reply())[0] for _ in range(3)] == [200, 200, 404]


async def test_absolute_form_upgrades_and_overrides_change_nothing(served: Served) -> None:
    for lines in (
        line_.encode()
        for line_ in (
            "GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: localhost\r\nX-HTTP-Method-Override: DELETE\r\n\r\n",
            "GET /health?_method=DELETE HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
    ):
        async with wire(served) as line:
            await line.send(lines)
            status, _, body = await line.reply()
            assert (status, json.loads(body)["status"]) == (200, "healthy")


async def test_expect_100_continue(served: Served) -> None:
    async with wire(served) as line:
        await line.send(line.head("POST", RUN, "Expect: 100-continue", "Content-Length: 2"))
        assert (await line.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await line.send(b"{}")
        assert (await line.reply())[0] == 422
    async with wire(served) as line:
        await line.send(line.head("POST", RUN, "Expect: 100-continue", f"Content-Length: {33 << 20}"))
        assert (await line.reply())[0] == 413


async def test_an_unread_body_does_not_spoil_the_next_request(served: Served) -> None:
    async with wire(served) as line:
        await line.send(line.head("GET", "/health", "Content-Length: 5") + b"GET /" + line.head("GET", "/x"))
        assert [(await line.reply())[0] for _ in range(2)] == [200, 404]


async def test_a_peer_that_drops_a_workers_connection_cuts_its_lease(database: str) -> None:
    async with serving(database, lease_seconds=300.0) as served:
        hand = Hand(served.client)
        await hand.register()
        id = await served.start()
        item = await hand.claim()
        assert item["id"] == id
        body = json.dumps({"worker_id": hand.id, "epoch": hand.epoch}).encode()
        async with wire(served) as line:
            await line.send(
                line.head("POST", "/worker/v1/beat", "Perdure-Protocol: 1", f"Content-Length: {len(body)}") + body
            )
            assert (await line.reply())[0] == 200
        other = Hand(served.client)
        await other.register()
        again = await other.claim(60)
        assert again["id"] == id and again["attempt"] == 2


async def test_a_connection_without_requests_is_let_go_in_the_end(served: Served) -> None:
    protocol, keep = served.server._protocol, served.server.settings.keep_alive_seconds
    async with wire(served) as line:
        for _ in range(2):
            await line.send(line.head("GET", "/health"))
            assert (await line.reply())[0] == 200
        now = asyncio.get_running_loop().time()
        protocol.look_at_all(now + keep - 10)
        assert protocol.idle
        protocol.look_at_all(now + keep + 10)
        assert not protocol.idle
        assert await line.closed() == b""
