"""A forwarder that counts: it listens on a port of its own, hands every byte on, and notes which requests went by."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from typing import cast

from benchmarks.processes import free_port

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def route_of(method: str, path: str) -> str:
    """A request without what differs from one execution to the next."""
    path = _ID.sub("{id}", path.partition("?")[0])
    before, steps, key = path.partition("/steps/")
    return f"{method} {before}{steps}{'{key}' if key else ''}"


class Tap:
    """Forwards to a port of this machine."""

    def __init__(self, to_port: int, heard: Callable[[str, str, bytes], None] | None = None) -> None:
        self.port = free_port()
        self.to_port = to_port
        self.heard = heard
        """Told of each request when its last byte has come: method, path and body."""
        self.routes: Counter[str] = Counter()
        self.connections = 0

    async def start(self) -> None:
        """Listen."""
        await asyncio.get_running_loop().create_server(lambda: _Near(self), "127.0.0.1", self.port)

    def note(self, method: str, path: str, body: bytes) -> None:
        """A request went by."""
        self.routes[route_of(method, path)] += 1
        if self.heard is not None:
            self.heard(method, path, body)


class _Near(asyncio.Protocol):
    """A connection to us; reads requests out of what it hands on."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._far: asyncio.Transport | None = None
        self._early = b""
        self._read = b""
        self._closed = False
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._tap.connections += 1
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        try:
            far, _ = await asyncio.get_running_loop().create_connection(
                lambda: _Far(self.transport), "127.0.0.1", self._tap.to_port
            )
        except OSError:
            self.transport.abort()
            return
        self._far = far
        if self._early:
            self._far.write(self._early)
        if self._closed:
            self._far.close()

    def data_received(self, data: bytes) -> None:
        if self._far is None:
            self._early += data
        else:
            self._far.write(data)
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end]
            found = _LENGTH.search(head)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(self._read) < size:
                return
            method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            body, self._read = self._read[end + 4 : size], self._read[size:]
            self._tap.note(method, path, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self._far is not None:
            self._far.close()


class _Far(asyncio.Protocol):
    """Our connection to where it goes."""

    def __init__(self, near: asyncio.Transport) -> None:
        self._near = near

    def data_received(self, data: bytes) -> None:
        self._near.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._near.close()
