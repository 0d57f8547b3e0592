"""JSON over kept connections, to one or several servers of a store.

A request takes 1.0 ms with httpx2, and 0.03 ms with `perdure.sdk.transports.connection`.

After a lost connection and after the statuses 408, 429, 502, 503 and 504 the transport tries another server at once. A
pause with full jitter follows once all servers have failed. Requests that create carry the same Idempotency-Key in
every try.

The next request goes to the last server to answer. The first server is drawn by lot, which spreads workers and clients.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import cache
from hashlib import sha256
from types import NoneType
from typing import Any, Final, TypeVar, cast, get_args, get_origin
from uuid import uuid4

import msgspec
from msgspec import structs

from perdure.sdk.base.checks import checked_seconds
from perdure.sdk.transports.connection import ConnectionLost, Response, ServerConnections
from perdure.sdk.transports.results import Results
from perdure.sdk.transports.transport import REFUSALS
from perdure.wire.base.errors import (
    BadRequest,
    BadValue,
    NotCancellable,
    NotFound,
    PerdureError,
    Unavailable,
    UnknownOutcome,
    from_code,
)
from perdure.wire.base.fields import checked_id
from perdure.wire.base.operation import Listed, Operation, Stream, client_form, list_record, reply_type, streamed
from perdure.wire.base.record import Record, reader
from perdure.wire.base.records import Problem
from perdure.wire.runs.executions import (
    CancelExecution,
    Cancellation,
    Finished,
    GetExecution,
    WaitForExecutions,
    WaitReply,
)
from perdure.wire.runs.requests import (
    PAYLOADS_APART,
    PROTOCOL_VERSION,
    ClaimReply,
    ClaimRequest,
    Started,
    StartItem,
    StartReply,
)
from perdure.wire.runs.starts import INPUT_CHECK
from perdure.wire.runs.streams import StreamEnd

logger = logging.getLogger("perdure.client")

R = TypeVar("R")
T = TypeVar("T")

PATIENCE_SECONDS: Final = 30.0
OUTAGE_SECONDS: Final = 300.0
"""Waits for a result outlast the replacement of a server."""
ANSWER_SECONDS: Final = 30.0
"""Seconds for an answer, beyond the time that the server may hold the request."""
SILENCE_SECONDS: Final = 60.0
"""Seconds without data or comments after which a stream is lost."""
PAUSE_SECONDS: Final = 0.05
PAUSE_SECONDS_MAX: Final = 2.0

_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
_ENCODER: Final = msgspec.json.Encoder()


class _Tries:
    __slots__ = ("failures", "unsure", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.unsure = False
        """True if a failed try may have taken effect."""
        self.until: float | None = None


class HttpTransport:
    def __init__(
        self,
        urls: str | Sequence[str],
        api_key: str | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        outage_seconds: float = OUTAGE_SECONDS,
        timeout: float | None = None,
    ) -> None:
        """`timeout` replaces both, and bounds a whole call, even if a server is silent."""
        self._servers = [ServerConnections(url) for url in ([urls] if isinstance(urls, str) else urls)]
        if not self._servers:
            raise BadRequest("No server is named; give an address like http://127.0.0.1:8080.")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise BadRequest("The API key has characters that do not occur in keys; copy it again.")
        self._has_key = api_key is not None
        authorization = "" if api_key is None else f"Authorization: Bearer {api_key}\r\n"
        self._heads = [
            f"Host: {server.host_header}\r\n{authorization}Accept: application/json\r\nUser-Agent: perdure\r\n".encode()
            for server in self._servers
        ]
        self._timeout = None if timeout is None else checked_seconds(timeout, "timeout")
        self._patience = patience_seconds if self._timeout is None else self._timeout
        self._outage = outage_seconds if self._timeout is None else self._timeout
        self._turn = random.randrange(len(self._servers))
        self._results = Results(self._wait)

    @property
    def urls(self) -> list[str]:
        """The servers; the next request goes to the first."""
        turn = self._turn % len(self._servers)
        return [server.url for server in (*self._servers[turn:], *self._servers[:turn])]

    def leave(self, url: str) -> None:
        """Leave a silent server, unless no other server exists."""
        for n, server in enumerate(self._servers):
            if server.url == url and len(self._servers) > 1:
                if n == self._turn % len(self._servers):
                    self._turn += 1
                server.drop()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: bytes = b"",
        held_seconds: float | None = None,
        patience: float | None = None,
        tries: _Tries | None = None,
    ) -> Response:
        """The server may hold the request for `held_seconds`. Raises the server's refusal, and `Unavailable` or
        `UnknownOutcome` when the patience is over."""
        seconds = ANSWER_SECONDS + (held_seconds or 0.0)
        content = _NO_BODY if body is None else b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        tail = b"".join((content, headers, b"\r\n", body or b""))
        patience = self._patience if patience is None else patience
        tries = _Tries() if tries is None else tries
        if self._timeout is not None:
            tries.until = asyncio.get_running_loop().time() + self._timeout + (held_seconds or 0.0)
        while True:
            turn = self._turn % len(self._servers)
            server = self._servers[turn]
            if self._timeout is not None and tries.until is not None:
                seconds = max(tries.until - asyncio.get_running_loop().time(), 0.001)
            head = f"{method} {server.prefix}{path} HTTP/1.1\r\n".encode("ascii")
            try:
                response = await server.request(
                    b"".join((head, self._heads[turn], tail)), seconds, held=held_seconds is not None
                )
                if response.status < 400:
                    return response
                problem = self._problem(response, server)
                if response.status not in _AGAIN:
                    raise problem
                tries.unsure = tries.unsure or isinstance(problem, UnknownOutcome)
            except ConnectionLost as lost:
                tries.unsure = tries.unsure or lost.sent
                if lost.stale:
                    continue
                problem = self._unreachable(server, lost, tries.unsure and method != "GET")
            await self._failed(tries, turn, patience, problem)

    async def _failed(self, tries: _Tries, turn: int, patience: float, problem: PerdureError) -> None:
        """Pause if all servers have failed. Raises the problem when the patience is over."""
        tries.failures += 1
        if turn == self._turn % len(self._servers):
            self._turn += 1
        if tries.failures % len(self._servers):
            return
        now = asyncio.get_running_loop().time()
        if tries.until is None:
            tries.until = now + patience
        pause = self._pause(tries)
        if now + pause >= tries.until:
            raise problem
        logger.debug("%s Next try in %.2f s.", problem, pause)
        await asyncio.sleep(pause)

    def _pause(self, tries: _Tries) -> float:
        rounds = tries.failures // len(self._servers)
        return random.uniform(0.2, 1.0) * min(PAUSE_SECONDS * 2.0 ** min(rounds - 1, 10), PAUSE_SECONDS_MAX)

    def _problem(self, response: Response, server: ServerConnections) -> PerdureError:
        try:
            found = msgspec.json.decode(response.body, type=Problem)
        except msgspec.MsgspecError:
            what = f"{server.url} answered with status {response.status}, but not like Perdure; is it the right server?"
            if response.status in (502, 504):  # from a proxy, which may have passed the request on
                return UnknownOutcome(what)
            return from_code("", what, status=response.status)
        text = found.error
        if response.status == 401 and not self._has_key:
            text = f"{server.url} wants an API key: set PERDURE_API_KEY, or run `perdure dev` here once."
        return from_code(found.error_type, text, found.details, response.status)

    def _unreachable(self, server: ServerConnections, lost: ConnectionLost, unsure: bool) -> PerdureError:
        if unsure:
            return UnknownOutcome(
                f"{server.url} gave no answer ({lost}); the request may have taken effect. To send it again is safe."
            )
        places = " or ".join(one.url for one in self._servers)
        return Unavailable(
            f"Perdure cannot be reached at {places} ({lost}); start it with `perdure dev` or `perdure serve`, or "
            "name another server in PERDURE_URL."
        )

    async def call(self, op: Operation[R], key: str | None = None, *, patience: float | None = None) -> R:
        how, endpoint = client_form(type(op)), op.endpoint
        body = None if how.body is None else _encode(how.body(op))
        headers = b""
        if endpoint.idempotent:
            headers = fresh_key() if key is None else _key_header(sha256(key.encode()).hexdigest())
        if endpoint.options.get("protocol"):
            headers, patience = _CLAIM if type(op) is ClaimRequest else _PROTOCOL, 0.0
        for name, field in how.headers:
            if (text := getattr(op, field)) is not None:
                headers += f"{name}: {text}\r\n".encode()
        held = None if (waits := endpoint.options.get("held")) is None else getattr(op, waits)
        tries = _Tries()
        try:
            answer = await self.request(
                endpoint.method, how.head(op), body, headers=headers, held_seconds=held, patience=patience, tries=tries
            )
        except NotFound:
            # The lost try, or another caller, has deleted it: an id is never given again.
            if endpoint.method != "DELETE" or not tries.unsure:
                raise
            answer = Response(204, b"")
        except NotCancellable:
            # As above: the lost try may have cancelled it.
            if not isinstance(op, CancelExecution) or not tries.unsure:
                raise
            now = await self.call(GetExecution(op.execution_id))
            if now.cancelled_at_us is None:
                raise
            return cast("R", Cancellation(now.id, now.status, now.cancelled_at_us))
        reply: R = _reader(type(op))(answer)
        return reply

    async def start(self, items: Sequence[StartItem], input_check: str | None = None) -> Sequence[Started | Problem]:
        body = _encode({"items": items})
        headers = fresh_key()
        if input_check is not None:
            headers += f"{INPUT_CHECK}: {input_check}\r\n".encode()
        tries = _Tries()
        try:
            answer = await self.request("POST", "/api/v1/executions", body, headers=headers, tries=tries)
        except REFUSALS as refusal:
            if len(items) > 1 and tries.unsure:  # by a server of another version: do not repeat single starts
                raise UnknownOutcome(
                    f"Starts that shared a request were refused ({refusal}) after an earlier try was lost; that try "
                    "may have taken effect."
                ) from refusal
            raise
        return [one.outcome() for one in _decode(_START_REPLY, answer.body).items]

    async def result(self, execution_id: str) -> Finished:
        return await self._results.of(checked_id(execution_id))

    async def _wait(self, op: WaitForExecutions) -> WaitReply:
        return await self.call(op, patience=self._outage)

    async def stream(self, op: Operation[Stream[R]]) -> AsyncGenerator[tuple[str, R], None]:
        read = _event_readers(type(op))
        loop = asyncio.get_running_loop()
        tries = _Tries()
        while True:
            asked_at, is_followed = loop.time(), False
            turn = self._turn % len(self._servers)
            server = self._servers[turn]
            # The cursor travels in the query: one from a browser could inject another header.
            path = client_form(type(op)).head(op)
            head = f"GET {server.prefix}{path} HTTP/1.1\r\n".encode("ascii")
            try:
                stream = await server.stream(b"".join((head, self._heads[turn], b"\r\n")))
                try:
                    events = EventParser()
                    refused = b""
                    while data := await stream.read(SILENCE_SECONDS):
                        if stream.status != 200:
                            refused += data
                            continue
                        # Any data, even a comment, renews the patience. The pauses still grow if streams end soon after
                        # they begin.
                        is_followed, tries.until = True, None
                        if loop.time() - asked_at > PAUSE_SECONDS_MAX:
                            tries.failures = 0
                        for cursor, name, record in events.feed(data):
                            tries = _Tries()
                            op = structs.replace(op, last_event_id=cursor)
                            if name in read:
                                yield cursor, read[name](record)
                            if name == StreamEnd.sent_as:
                                return
                finally:
                    stream.close()
                if is_followed:  # the server stops, or limits the duration; another server is not needed
                    tries.failures += len(self._servers)
                    await asyncio.sleep(self._pause(tries))
                    continue
                if stream.status == 200:
                    problem: PerdureError = Unavailable(f"{server.url} ended the stream; to go on is safe.")
                else:
                    problem = self._problem(Response(stream.status, refused), server)
                    if stream.status not in _AGAIN:
                        raise problem
            except ConnectionLost as lost:
                problem = self._unreachable(server, lost, unsure=False)
            await self._failed(tries, turn, self._outage, problem)

    async def close(self) -> None:
        await self._results.close()
        for server in self._servers:
            await server.close()


@cache
def _event_readers(operation: type[Operation[Any]]) -> dict[str, Callable[[bytes], Any]]:
    return {one.sent_as: _record_reader(one) for one in streamed(operation)}


@cache
def _reader(operation: type[Operation[Any]]) -> Callable[[Response], Any]:
    reply = reply_type(operation)
    if reply is NoneType:
        return lambda answer: None
    shown = list_record(operation)
    if shown is not None:
        of_list = _record_reader(shown)
        return lambda answer: Listed(*structs.astuple(of_list(answer.body)))
    if get_origin(reply) is not Listed:
        of_body = _read_claims if reply is ClaimReply else _record_reader(reply)
        return lambda answer: of_body(answer.body)
    twin = reader(*get_args(reply))
    decode = msgspec.json.Decoder(list[twin.type]).decode  # type: ignore[name-defined]  # made here

    return lambda answer: Listed([twin(one) for one in _decode(decode, answer.body)], answer.next_cursor)


def _record_reader(cls: type[Record]) -> Callable[[bytes], Any]:
    twin = reader(cls)
    decode = msgspec.json.Decoder(twin.type).decode
    return lambda body: twin(_decode(decode, body))


def _read_claims(body: bytes) -> ClaimReply:
    size, _, rest = body.partition(b"\n")
    if not size.isdigit():  # no items, or a server of an earlier release
        return _decode(_CLAIM_REPLY, body)
    return _decode(_CLAIM_REPLY, rest[: int(size)]).put_payloads(rest, int(size))


def _decode(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except msgspec.MsgspecError as error:
        raise PerdureError(f"The server's answer is not one of Perdure ({error}); is it the right server?") from error


def _encode(request: object) -> bytes:
    try:
        return _ENCODER.encode(request)
    except (TypeError, ValueError) as error:
        raise BadValue(f"The request cannot be sent: {error}") from error


def fresh_key() -> bytes:
    return _key_header(uuid4().hex)


def _key_header(key: str) -> bytes:
    return b"Idempotency-Key: %s\r\n" % key.encode()


_NO_BODY: Final = b"Content-Length: 0\r\n"
_PROTOCOL: Final = b"Perdure-Protocol: %d\r\n" % PROTOCOL_VERSION
_CLAIM: Final = _PROTOCOL + "{}: {}\r\n".format(*PAYLOADS_APART).encode()
_CLAIM_REPLY: Final = msgspec.json.Decoder(ClaimReply).decode
_START_REPLY: Final = msgspec.json.Decoder(StartReply).decode


class EventParser:
    """Parses server-sent events from pieces of an answer.

    >>> parser = EventParser()
    >>> parser.feed(b"retry: 5\\n\\nid: 7\\nevent: it")
    []
    >>> parser.feed(b"em\\ndata: 1\\n\\n: still here\\n\\n")
    [('7', 'item', b'1')]
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[str, str, bytes]]:
        """Each event has an id, a name and data. Comments and unknown fields are ignored."""
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        found: list[tuple[str, str, bytes]] = []
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"data" in fields:
                id, event = fields.get(b"id", b"").decode(), fields.get(b"event", b"message").decode()
                found.append((id, event, fields[b"data"]))
        return found
