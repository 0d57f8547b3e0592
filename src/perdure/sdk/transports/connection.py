"""HTTP/1.1: one request at a time on a connection, idle connections kept."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httptools

from perdure.wire.base.errors import BadRequest

CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 50.0
"""Below the server's limit, so that both sides do not close at once."""
CONNECTIONS_MAX: Final = 64
"""Most connections to a server; further requests wait."""
_KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 5), ("TCP_KEEPALIVE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
"""A silent peer is given up after eleven seconds. TCP_KEEPALIVE is TCP_KEEPIDLE on macOS."""
UNREAD_BYTES_MAX: Final = 256 << 10
"""Most bytes of a stream buffered ahead of its reader."""
POLLS_MAX: Final = 256


C = TypeVar("C", bound="ClientConnection")


class Response(NamedTuple):
    status: int
    body: bytes
    next_cursor: str | None = None
    """The header `Next-Cursor` of a list that is an array."""


class ConnectionLost(Exception):
    """No answer came. `sent`: the request may have taken effect."""

    def __init__(self, why: str, *, sent: bool, stale: bool = False) -> None:
        super().__init__(why)
        self.sent = sent
        self.stale = stale
        """The server had most likely closed a kept connection: try again at once."""


class ClientConnection(asyncio.Protocol):
    __slots__ = (
        *("_body", "_loop", "_next_cursor", "_parser", "_server", "_timer", "_transport"),
        *("answered", "idle_since", "waiter"),
    )

    def __init__(self, server: ServerConnections, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._next_cursor: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.waiter: asyncio.Future[Response] | None = None
        self.answered = 0
        self.idle_since = 0.0

    def send(self, data: bytes, seconds: float) -> asyncio.Future[Response]:
        waiter = self.waiter = self._loop.create_future()
        self._timer = self._loop.call_later(seconds, self._late, seconds)
        self._transport.write(data)
        return waiter

    def close(self) -> None:
        self._transport.abort()
        self._lose("the connection was closed")

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a TCP transport
        _keep_alive(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._transport.abort()
            self._lose(f"the answer is not HTTP ({error})")

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        # A server that closes a kept connection has not read the request.
        stale = self.answered > 0 and not self._body
        self._lose(str(exc) if exc else "the server closed the connection", stale=stale)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 11 and name.lower() == b"next-cursor":
            self._next_cursor = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        parts, self._body = self._body, []
        next_cursor, self._next_cursor = self._next_cursor, None
        self.answered += 1
        waiter, self.waiter = self.waiter, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._parser.should_keep_alive() and waiter is not None and not waiter.cancelled():
            self._server.keep(self)
        else:
            self._transport.close()
        if waiter is not None and not waiter.done():
            waiter.set_result(Response(status, parts[0] if len(parts) == 1 else b"".join(parts), next_cursor))

    def _late(self, seconds: float) -> None:
        self._transport.abort()
        self._lose(f"no answer within {seconds:g} s")

    def _lose(self, why: str, *, stale: bool = False) -> None:
        waiter, self.waiter = self.waiter, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionLost(why, sent=True, stale=stale))


class ByteStream(ClientConnection):
    __slots__ = ("_arrived", "_ended", "_size", "_why", "status")

    def __init__(self, server: ServerConnections, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop)
        self.status = 0
        """The status is known with the first piece."""
        self._arrived = asyncio.Event()
        self._size = 0
        self._ended = False
        self._why: str | None = None

    def ask(self, data: bytes) -> None:
        self._transport.write(data)

    async def read(self, seconds: float) -> bytes:
        """New data; empty at the end. Raises `ConnectionLost`, also after `seconds` without data."""
        while not self._body:
            if self._ended:
                return b""
            if self._why is not None:
                raise ConnectionLost(self._why, sent=True)
            self._arrived.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()
            except TimeoutError:
                raise ConnectionLost(f"nothing came for {seconds:g} s", sent=True) from None
        if self._size > UNREAD_BYTES_MAX and not self.is_closing():
            self._transport.resume_reading()
        parts, self._body, self._size = self._body, [], 0
        return b"".join(parts)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._size += len(body)
        if self._size > UNREAD_BYTES_MAX >= self._size - len(body):
            self._transport.pause_reading()
        self._arrived.set()

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self._ended = True
            self._transport.close()
            self._arrived.set()

    def _lose(self, why: str, *, stale: bool = False) -> None:
        self._why = why
        self._arrived.set()


class ServerConnections:
    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        refusal = BadRequest(f"{url!r} is not the address of a server; give one like http://127.0.0.1:8080.")
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:  # a port above 65535, or half an IPv6 address
            raise refusal from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise refusal
        if parts.query or parts.fragment or parts.username:
            raise BadRequest(f"{url!r} contains more than an address; leave out user, query and fragment.")
        self._host = parts.hostname
        self._port = port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self.prefix = parts.path
        self.host_header = parts.netloc
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[ClientConnection] = []
        self._all: set[ClientConnection] = set()
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._polls = asyncio.Semaphore(POLLS_MAX)

    async def request(self, data: bytes, seconds: float, *, held: bool = False) -> Response:
        """Raises `ConnectionLost`. Cancelling closes the connection, which stops the server's work. `held`: a long
        poll."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        async with self._polls if held else self._turns:
            connection = self._take_idle() or await self._connect(loop, ClientConnection)
            try:
                return await connection.send(data, seconds)
            except ConnectionLost as lost:
                if lost.stale:
                    self._drop_idle()  # the others are as old
                raise
            except asyncio.CancelledError:
                connection.close()
                raise

    async def stream(self, data: bytes) -> ByteStream:
        """Close the stream after use. Raises `ConnectionLost`."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        stream = await self._connect(loop, ByteStream)
        stream.ask(data)
        return stream

    def keep(self, connection: ClientConnection) -> None:
        connection.idle_since = self._loop.time() if self._loop else 0.0
        self._idle.append(connection)

    def forget(self, connection: ClientConnection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def drop(self) -> None:
        for connection in list(self._all):
            connection.close()
        self._idle.clear()

    async def close(self) -> None:
        self.drop()
        if self._all:
            await asyncio.sleep(0)  # let the loop close them

    def _take_idle(self) -> ClientConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_closing():
                continue
            assert self._loop is not None
            if self._loop.time() - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.close()
            self._drop_idle()
        return None

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    async def _connect(self, loop: asyncio.AbstractEventLoop, kind: type[C]) -> C:
        make: Callable[[], C] = lambda: kind(self, loop)  # noqa: E731  # typed
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(make, self._host, self._port, ssl=self._ssl)
        except TimeoutError:
            raise ConnectionLost(f"no connection within {CONNECT_SECONDS:g} s", sent=False) from None
        except OSError as error:
            raise ConnectionLost(_why(error), sent=False) from None
        self._all.add(connection)
        return connection

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connections of an ended event loop are useless."""
        self._loop = loop
        self._idle.clear()
        self._all.clear()
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._polls = asyncio.Semaphore(POLLS_MAX)


def _keep_alive(line: socket.socket | None) -> None:
    """A long poll would wait a minute for a peer whose machine is gone."""
    if line is not None:
        with contextlib.suppress(OSError):  # macOS refuses it if the peer has closed; reading reports that
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEP_ALIVE:
                if hasattr(socket, name):  # each system has only some
                    line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _why(error: OSError) -> str:
    """asyncio's own text repeats the address."""
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "connection refused"
    return error.strerror or str(error) or type(error).__name__
