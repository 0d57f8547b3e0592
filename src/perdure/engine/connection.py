"""One connection to somebody whom we call: plain HTTP/1.1, a request at a time. httptools reads the answers."""

import asyncio
import select
from typing import Final

import httptools

from perdure.engine.calls import Answer

HEAD_BYTES_MAX: Final = 64 << 10
"""How long the headers of an answer may be."""


class Broken(Exception):
    """No whole answer came, and none will."""


class Connection(asyncio.Protocol):
    """One connection. `ask` again only when the answer before has come, and `usable` says yes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Answer] | None = None
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._in_head = True
        self._parts: list[bytes] = []
        self._left = 0
        self.idle_since = 0.0

    def ask(self, data: bytes, bytes_max: int) -> asyncio.Future[Answer]:
        """Send a request; the future is its answer with at most `bytes_max` of the body, or raises `Broken`."""
        waiter = self._waiter = self._loop.create_future()
        self._head_bytes, self._in_head = 0, True
        self._parts, self._left = [], bytes_max
        self._transport.write(data)
        return waiter

    def usable(self) -> bool:
        """Whether it is open. The system is asked, too: the loop may not have heard yet that the other side let go, and
        what is sent then may or may not have arrived."""
        if self._transport.is_closing():
            return False
        line = self._transport.get_extra_info("socket")
        if line is None or not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(line.fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Let go; an answer that is waited for does not come."""
        self._transport.abort()
        self._fail("it was closed here")

    # --- called by the event loop ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # one of TCP or TLS, whatever its loop calls it

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self._transport.abort()  # nobody has asked
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._transport.abort()
            self._fail(f"what came is no HTTP answer ({error})")
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._transport.abort()
            self._fail("the answer's headers are too long")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and not self._in_head and self._ends_with_connection():
            self._give(complete=True)
        else:
            self._fail(str(exc) if exc else "the other side closed the connection")

    # --- called by the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._headers = {}
        if self._waiter is None:
            self._transport.abort()  # a second answer

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_head = self._parser.get_status_code() < 200  # word that the answer is still to come

    def on_body(self, body: bytes) -> None:
        if self._left >= 0:
            self._parts.append(body[: self._left])
            self._left -= len(body)
            if self._left < 0:
                self._give(complete=False)

    def on_message_complete(self) -> None:
        if not self._in_head:
            self._give(complete=True, kept=self._parser.should_keep_alive())

    def _ends_with_connection(self) -> bool:
        return "content-length" not in self._headers and "transfer-encoding" not in self._headers

    def _give(self, *, complete: bool, kept: bool = False) -> None:
        waiter, self._waiter = self._waiter, None
        if not kept:
            self._transport.abort()
        if waiter is not None and not waiter.done():
            waiter.set_result(Answer(self._parser.get_status_code(), self._headers, b"".join(self._parts), complete))

    def _fail(self, why: str) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(Broken(why))
