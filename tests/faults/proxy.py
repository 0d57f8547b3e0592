"""A TCP proxy of ours between clients or workers and a server: it delays, cuts, black-holes, duplicates and replays.

Requests are read whole, so that each has a fate of its own; what the server answers passes as bytes, and is kept, so
that answers to copies can be compared with it (`twice`). The fate of a request is drawn from the proxy's own seed.
While the line is down nothing passes in either direction, and nothing is lost: as with TCP, what was sent meanwhile
arrives when the line is back, which is how messages come late. Requests of several connections that are delayed
overtake each other.

In front of a socket that speaks another language (PostgreSQL's) there are no requests, only bytes: such a line can be
slow, dead or cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Final

from tests.faults.duplicates import Reply, Twice

HEAD_BYTES_MAX: Final = 1 << 20
RECORDED_MAX: Final = 2_000
ANSWER_SECONDS_MAX: Final = 1.0
"""How long the answer to a copy is waited for: a long poll would keep it for a minute."""

ANSWER_BYTES_MAX: Final = 1 << 20
"""A longer answer is not kept."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f-]{27}|\?.*")


@dataclass(slots=True)
class Faults:
    """What is wrong with the line. Chances are per request."""

    delay_seconds: float = 0.0
    """Each request waits a random time up to this."""
    requests_lost: float = 0.0
    """The request never arrives, and the connection stays open."""
    replies_lost: float = 0.0
    """The request arrives, the answer does not, and the connection stays open."""
    replies_cut: float = 0.0
    """The request arrives, and the connection breaks in the middle of the answer."""
    duplicated: float = 0.0
    """The request arrives twice, the copy over a new connection."""
    down: bool = False
    """Nothing passes, either way."""
    replies_down: bool = False
    """What is sent arrives, what is answered waits."""


class _Exchange:
    """A request, and what came back so far."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answer = b""

    @property
    def kind(self) -> bytes:
        """Method and path, without ids."""
        return _ID.sub(b"", self.request.partition(b" HTTP/")[0])

    def add(self, data: bytes) -> None:
        if len(self.answer) <= ANSWER_BYTES_MAX:
            self.answer += data

    @property
    def reply(self) -> Reply | None:
        """The complete answer. An answer without a length, like a stream, stays None for ever."""
        head, _, body = self.answer.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        status = int(head.split(None, 2)[1]) if head[:5] == b"HTTP/" else 0
        if status != 204 and (found is None or len(body) != int(found[1])):
            return None
        return Reply(status, body)


class _Pair:
    """A client's connection, and the connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.upstream: asyncio.StreamWriter | None = None
        self.fate = "pass"
        self.exchange: _Exchange | None = None
        self.hurt = False
        """Part of the exchange was lost: the client waits for an answer that never comes."""
        self.task: asyncio.Task[None] | None = None

    def abort(self) -> None:
        for writer in (self.writer, self.upstream):
            if writer is not None:
                writer.transport.abort()


class Proxy:
    """Listens on a loopback port and passes everything on to another port, or to a socket, with `faults`."""

    def __init__(self, upstream_port: int = 0, *, socket: str | None = None, seed: int = 0) -> None:
        self.upstream_port = upstream_port
        self._socket = socket
        self.faults = Faults()
        self.counts: Counter[str] = Counter()
        self.recorded: deque[_Exchange] = deque(maxlen=RECORDED_MAX)
        """Whole requests that came, as far as the proxy keeps requests."""
        self._copied: deque[tuple[_Exchange, Reply, bool]] = deque(maxlen=RECORDED_MAX)
        self._chance = Random(seed)
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._copies: set[asyncio.Task[int]] = set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self.cut()
        tasks = [*self._copies, *[pair.task for pair in self._pairs if pair.task is not None]]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- faults ------------------------------------------------------------------------------------------------------

    def set(self, **faults: float) -> None:
        """Change what is wrong, from now on."""
        for name, value in faults.items():
            setattr(self.faults, name, value)
        self._tell()

    def heal(self) -> None:
        """Remove all faults. A client that waits for lost bytes notices: its connection breaks."""
        fresh = Faults()
        for field in fields(Faults):
            setattr(self.faults, field.name, getattr(fresh, field.name))
        for pair in list(self._pairs):
            if pair.hurt:
                pair.abort()
        self._tell()

    def cut(self) -> int:
        """Break every connection at once; how many there were."""
        pairs = list(self._pairs)
        for pair in pairs:
            pair.abort()
        self.counts["cut"] += len(pairs)
        return len(pairs)

    async def replay(self, times: int, *, ports: Sequence[int] = ()) -> Counter[int]:
        """Send recorded requests again, to any of `ports` (by default the proxy's server), in any order, rare kinds as
        often as frequent kinds. Returns the number of answers by status (0: none within a second)."""
        kinds: dict[bytes, list[_Exchange]] = {}
        for exchange in self.recorded:
            kinds.setdefault(exchange.kind, []).append(exchange)
        if not kinds:
            return Counter()
        old = [self._chance.choice(kinds[self._chance.choice(list(kinds))]) for _ in range(times)]
        copies = [(exchange, self._chance.choice(ports or [self.upstream_port])) for exchange in old]
        answers: Counter[int] = Counter()
        for at in range(0, times, 20):
            answers.update(await asyncio.gather(*[self._send_copy(*copy) for copy in copies[at : at + 20]]))
        self.counts["replayed"] += times
        return answers

    def twice(self) -> list[Twice]:
        """What was answered to requests and to their copies, as far as both answers are known; each is told once."""
        copied = list(self._copied)
        self._copied.clear()
        return [
            Twice(exchange.request, exchange.reply, again, late)
            for exchange, again, late in copied
            if exchange.reply is not None
        ]

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _while_down(self, *, replies: bool = False) -> None:
        waited = False
        while self.faults.down or (replies and self.faults.replies_down):
            waited = True
            await self._changed.wait()
        if waited:
            self.counts["late replies" if replies else "late requests"] += 1

    # --- connections -------------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(reader, writer)
        pair.task = asyncio.current_task()
        self._pairs.add(pair)
        answers: asyncio.Task[None] | None = None
        try:
            await self._while_down()
            upstream_reader, pair.upstream = await self._open()
            answers = asyncio.create_task(self._pass_answers(pair, upstream_reader))
            await (self._pass_requests(pair) if self._socket is None else self._pass_bytes(pair))
            await self._while_down()  # the end of a connection is a message too
        except (OSError, asyncio.CancelledError):
            pass  # either side is gone; the other one hears of it below
        finally:
            self._pairs.discard(pair)
            if answers is not None:
                answers.cancel()
            pair.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._socket is not None:
            return await asyncio.open_unix_connection(self._socket)
        return await asyncio.open_connection("127.0.0.1", self.upstream_port)

    async def _pass_bytes(self, pair: _Pair) -> None:
        assert pair.upstream is not None
        while data := await pair.reader.read(1 << 16):
            await self._while_down()
            if self.faults.delay_seconds:
                self.counts["delayed"] += 1
                await asyncio.sleep(self._chance.random() * self.faults.delay_seconds)
            pair.upstream.write(data)
            await pair.upstream.drain()

    async def _pass_requests(self, pair: _Pair) -> None:
        assert pair.upstream is not None
        while (request := await read_request(pair.reader)) is not None:
            self.counts["requests"] += 1
            exchange = _Exchange(request)
            self.recorded.append(exchange)
            await self._while_down()
            faults = self.faults
            if faults.delay_seconds:
                self.counts["delayed"] += 1
                await asyncio.sleep(self._chance.random() * faults.delay_seconds)
            pair.fate = self._draw()
            if pair.fate == "request lost":
                pair.hurt = True
                continue
            if self._chance.random() < faults.duplicated:
                self.counts["duplicated"] += 1
                copy = asyncio.create_task(self._send_copy(exchange, self.upstream_port))
                self._copies.add(copy)
                copy.add_done_callback(self._copies.discard)
            pair.exchange = exchange
            pair.upstream.write(request)
            await pair.upstream.drain()

    def _draw(self) -> str:
        faults = self.faults
        fates = (
            ("request lost", faults.requests_lost),
            ("reply lost", faults.replies_lost),
            ("reply cut", faults.replies_cut),
        )
        for fate, chance in fates:
            if chance and self._chance.random() < chance:
                self.counts[fate] += 1
                return fate
        return "pass"

    async def _pass_answers(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if pair.exchange is not None:
                    pair.exchange.add(data)
                await self._while_down(replies=True)
                if pair.fate == "reply lost":
                    pair.hurt = True
                    continue
                if pair.fate == "reply cut":
                    pair.writer.write(data[: len(data) // 2])
                    await pair.writer.drain()
                    break
                pair.writer.write(data)
                await pair.writer.drain()
            else:
                await self._while_down(replies=True)
        # The server let go: so do we, and the loop that reads requests ends.
        pair.writer.close()
        pair.reader.feed_eof()

    async def _send_copy(self, exchange: _Exchange, port: int) -> int:
        """Send a request over a new connection. Returns the status of the answer, 0 without an answer."""
        copy = _Exchange(exchange.request)
        late = exchange.reply is not None
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(copy.request)
                    while copy.reply is None and (data := await reader.read(1 << 16)):
                        copy.add(data)
                finally:
                    writer.transport.abort()
        if copy.reply is not None:
            self._copied.append((exchange, copy.reply, late))
        return int(copy.answer.split(None, 2)[1]) if copy.answer else 0


async def read_request(reader: asyncio.StreamReader) -> bytes | None:
    """One request, head and body; None when there is no more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        found = _LENGTH.search(head)
        return head + await reader.readexactly(int(found[1])) if found else head
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
