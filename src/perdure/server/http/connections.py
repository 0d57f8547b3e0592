"""uvicorn's connections with deadlines, limits, and notification of lost workers.

One check a second replaces a timer per request, and covers only connections with a deadline or unsent bytes. Headers
have a deadline from their first byte (the first request's from the connection's start), and bodies another. A trickle
does not extend deadlines.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Final

from starlette.types import Send
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from perdure.server.http.connection_limit import ConnectionLimit
from perdure.server.http.problems import Header, problem_reply
from perdure.server.process.settings import Settings
from perdure.wire.base.errors import BadRequest, HeadersTooLarge, PerdureError, RequestTimeout, UriTooLong

HEADERS_MAX: Final = 100
# A peer that reads less than this in `write_seconds` is cut.
PROGRESS_BYTES: Final = 16 << 10
NEVER: Final = math.inf

EXTENSION: Final = "perdure.connection"


class _Refused(Exception):
    """Stops the parser; `send_400_response` tells the reason."""


class ServerConnection(HttpToolsProtocol):
    settings: Settings
    on_worker_gone: Callable[[str, int], None]
    watched: set["ServerConnection"]
    idle: dict["ServerConnection", float]
    """The closing time of each idle connection, soonest first."""
    crowd: ConnectionLimit

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._deadline = NEVER
        self._in_headers = False
        self._header_bytes = 0
        self._trailer_bytes = 0
        self._refusal: PerdureError | None = None
        self._stuck_since = NEVER
        self._stuck_bytes = 0
        self._peer_left = False
        self._recognized = False
        self._lingers = False
        """The last answer preceded the end of the request's body. After an immediate close the peer might lose the
        answer."""
        self._running: RequestResponseCycle | None = None
        """The request in progress; pipelined requests wait."""
        self.workers: dict[str, int] = {}
        """Workers beating over this connection, and the end of each lease (µs)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        # uvicorn makes seven system calls for two addresses, and some clients connect for each request.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        peer = transport.get_extra_info("peername")
        self.client = (_plain(str(peer[0])), int(peer[1])) if isinstance(peer, tuple) else None
        self.scheme = "http"
        self._set_deadline(self.settings.header_seconds)
        if not self.crowd.enter(self, "" if self.client is None else self.client[0]):
            transport.abort()

    def recognize(self) -> None:
        if not self._recognized:
            self._recognized = True
            self.crowd.recognize(self)

    @property
    def evictable(self) -> bool:
        cycle = self._running
        return cycle is None or cycle.more_body or cycle.response_complete

    def evict(self) -> None:
        self.transport.abort()

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds
        self.watched.add(self)

    def on_response_complete(self) -> None:
        if self._lingers:
            self.flow.resume_reading()
            return
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        # uvicorn's timer is left out: each next request would cancel it.
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self.idle[self] = self.loop.time() + self.settings.keep_alive_seconds

    def data_received(self, data: bytes) -> None:
        self.idle.pop(self, None)
        if self._refusal is not None or self._lingers:
            return
        if self._in_headers:
            # The parser buffers an unfinished header without a limit.
            self._header_bytes += len(data)
            if self._header_bytes > self.settings.url_bytes_max + self.settings.header_bytes_max:
                self._refuse(HeadersTooLarge("The request's headers are too large."))
                return
        elif self._trailer_bytes > self.settings.header_bytes_max:
            # It buffers the trailers of a chunked body, too.
            self._refuse(HeadersTooLarge("The request's trailers are too large."))
            return
        elif self._deadline == NEVER and (self.cycle is None or self.cycle.response_complete):
            self._set_deadline(self.settings.header_seconds)
        self._trailer_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = 0
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item]  # our own key

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.settings.url_bytes_max:
            self._refusal = UriTooLong(
                f"The request's address is longer than {self.settings.url_bytes_max:,} bytes; send less in the query."
            )
            raise _Refused

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if len(self.headers) >= HEADERS_MAX or self._header_bytes > self.settings.header_bytes_max:
            self._refusal = HeadersTooLarge(
                f"The request has more than {HEADERS_MAX} headers or {self.settings.header_bytes_max:,} bytes of them."
            )
            raise _Refused
        if self._in_headers:  # trailers: a proxy in front of the server has not checked them
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._trailer_bytes = 0
        self._set_deadline(self.settings.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._trailer_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._deadline = NEVER
        self._trailer_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or BadRequest("This is not a valid HTTP request."))

    def _refuse(self, error: PerdureError) -> None:
        self._refusal = error
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body or self.pipeline:
                # An answer is in progress: the client would read further bytes as part of it.
                self._hang_up()
                self.transport.close()
                return
            # End the answer for the application, which still waits for the body.
            cycle.response_complete = True
            cycle.disconnected = True
            cycle.message_event.set()
        reply = problem_reply(error)
        head = [STATUS_LINE[reply.status]]
        head.extend(name + b": " + value + b"\r\n" for name, value in reply.headers if name != b"connection")
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", reply.body]))
        self.watched.add(self)
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def sends_by(self, send: Send) -> bool:
        """No middleware looks at answers."""
        return getattr(send, "__self__", None) is self._running

    async def answer(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """Two messages of `send` would be two packets, and wake the client twice."""
        cycle = self._running
        assert cycle is not None
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected or cycle.response_started:
            return
        parts = [STATUS_LINE[status]]
        closes = not cycle.keep_alive
        for name, value in chain(cycle.default_headers, headers):
            if HEADER_VALUE_RE.search(value):
                raise RuntimeError("Invalid HTTP header value.")
            if name == b"connection":
                closes = True
            else:
                parts += (name, b": ", value, b"\r\n")
        parts.append(b"connection: close\r\n\r\n" if closes else b"\r\n")
        if cycle.scope["method"] != "HEAD":
            parts.append(body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"".join(parts))
        self.watched.add(self)
        cycle.message_event.set()
        self._lingers = closes and cycle.more_body
        if closes and not cycle.more_body:
            self.transport.close()
        cycle.on_response()

    def sent(self) -> None:
        self.watched.add(self)

    def say(self, data: bytes) -> None:
        cycle = self._running
        assert cycle is not None
        if cycle.disconnected or cycle.response_complete or cycle.flow.write_paused or self.transport.is_closing():
            return
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if cycle.chunked_encoding else data)
        self.sent()

    def _hang_up(self) -> None:
        """The transport reports its close later, and answers must not use the transport until then."""
        cycle = self._running
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def eof_received(self) -> None:
        self._peer_left = True
        self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up()
        self.watched.discard(self)
        self.idle.pop(self, None)
        self.crowd.leave(self)
        super().connection_lost(exc)
        if self._peer_left or exc is not None:
            for worker_id, granted_us in self.workers.items():
                self.on_worker_gone(worker_id, granted_us)

    def look(self, now: float) -> None:
        if self._deadline == NEVER and not self.transport.get_write_buffer_size():
            self._stuck_since, self._stuck_bytes = NEVER, 0
            self.watched.discard(self)
        elif self._is_stuck(now):
            self.transport.abort()
        elif now > self._deadline and not self.transport.is_closing():
            self._deadline = NEVER
            if self.scope is None or self._lingers:
                self.transport.close()  # no request ever came, or the answer is complete
            elif self._in_headers:
                self._refuse(RequestTimeout(f"The headers did not arrive within {self.settings.header_seconds:g} s."))
            else:
                self._refuse(RequestTimeout(f"The body did not arrive within {self.settings.body_seconds:g} s."))

    @classmethod
    def look_at_all(cls, now: float) -> None:
        for watched in list(cls.watched):
            watched.look(now)
        while cls.idle:
            first, until = next(iter(cls.idle.items()))
            if until > now:
                return
            del cls.idle[first]
            first.transport.close()

    def _is_stuck(self, now: float) -> bool:
        left = self.transport.get_write_buffer_size()
        if left == 0 or left <= self._stuck_bytes - PROGRESS_BYTES or self._stuck_since == NEVER:
            self._stuck_since = now if left else NEVER
            self._stuck_bytes = left
        self._stuck_bytes = max(self._stuck_bytes, left)
        return now > self._stuck_since + self.settings.write_seconds


def _plain(address: str) -> str:
    """Turns `::ffff:192.0.2.1` of a dual-stack socket into the IPv4 address."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def protocol_class(
    settings: Settings, on_worker_gone: Callable[[str, int], None], is_proxy: Callable[[str], bool] = lambda _: False
) -> type[ServerConnection]:
    of_server = {
        "settings": settings,
        "on_worker_gone": staticmethod(on_worker_gone),
        "watched": set(),
        "idle": {},
        "crowd": ConnectionLimit(settings.connections_max, settings.connections_per_address_max, is_proxy),
    }
    return type("ServerConnection", (ServerConnection,), of_server)
