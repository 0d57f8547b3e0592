"""Long polls and server-sent events, until the client leaves or the server drains.

Streams have no queues: each reads the journal or the topic at its client's pace, so a slow client costs only its
connection.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Final, Literal

from msgspec import Raw
from starlette.types import Receive, Send

from perdure.server.http.connections import ServerConnection
from perdure.wire.base.access import Principal
from perdure.wire.base.errors import RequestTimeout, TooManyRequests

RETRY_MS: Final = 1_000
# Most polls end before the watch for a lost client starts.
_WATCH_AFTER_SECONDS: Final = 0.05

STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),
)


class ClientGone(Exception):
    """The client left."""


class StreamDrain:
    def __init__(self) -> None:
        self.closing = False
        self._polls: set[StreamPoll] = set()
        self.callers: dict[StreamPoll, Principal] = {}
        """The callers of all open polls and streams, including those ended by the engine on a drain."""

    def end_of(self, ends: Callable[[Principal], bool]) -> None:
        """End the polls and streams of callers without a right any more."""
        for poll in [poll for poll, principal in self.callers.items() if ends(principal)]:
            poll.interrupt("forgotten")

    def begin(self) -> None:
        """End all polls, and later polls at once."""
        self.closing = True
        for poll in list(self._polls):
            poll.interrupt("closing")

    def enter(self, poll: "StreamPoll") -> None:
        self._polls.add(poll)

    def leave(self, poll: "StreamPoll") -> None:
        self._polls.discard(poll)


class StreamPoll:
    """A block that a drain ends quietly; the code behind the block gives the empty answer. With `until_closing=False`
    the engine ends the poll instead. Raises `ClientGone` if the client leaves, `RequestTimeout` if the key or user
    changes."""

    def __init__(
        self, receive: Receive, drain: StreamDrain, *, until_closing: bool = True, caller: Principal | None = None
    ) -> None:
        self._caller = caller
        self._receive = receive
        self._drain = drain
        self._until_closing = until_closing
        self._why: Literal["gone", "closing", "forgotten"] | None = None
        self._over = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "StreamPoll":
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_WATCH_AFTER_SECONDS, self._begin_watch)
        if self._caller is not None:
            self._drain.callers[self] = self._caller
        if self._until_closing:
            self._drain.enter(self)
            if self._drain.closing:
                self.interrupt("closing")
        return self

    def _begin_watch(self) -> None:
        self._watcher = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.interrupt("gone")

    def interrupt(self, why: Literal["gone", "closing", "forgotten"]) -> None:
        if self._why is None and not self._over:
            self._why = why
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
            # Breaks a reference cycle: thousands would burden the collector.
            self._watcher = None
        self._drain.leave(self)
        self._drain.callers.pop(self, None)
        self._over = True
        if self._why is None or self._task.uncancel() > self._cancelling or kind is not asyncio.CancelledError:
            return False
        if self._why == "gone":
            raise ClientGone from error
        if self._why == "forgotten":
            raise RequestTimeout("The key or the user of this request has changed meanwhile; send it again.") from error
        return True


class Slots:
    def __init__(self, total_max: int, per_key_max: int) -> None:
        self._total_max = total_max
        self._per_key_max = per_key_max
        self._by_key: dict[str, int] = {}
        self.total = 0

    def take(self, key_id: str) -> None:
        """Raises `TooManyRequests`."""
        mine = self._by_key.get(key_id, 0)
        if mine >= self._per_key_max:
            raise TooManyRequests(f"This key has {mine} streams open already; close some first.")
        if self.total >= self._total_max:
            raise TooManyRequests(f"The server has {self.total} streams open already; try again later.")
        self._by_key[key_id] = mine + 1
        self.total += 1

    def give_back(self, key_id: str) -> None:
        self.total -= 1
        mine = self._by_key[key_id] - 1
        if mine:
            self._by_key[key_id] = mine
        else:
            del self._by_key[key_id]


COMMENT: Final = b": still here\n\n"
SLACK: Final = 30
"""A comment may be sent 1/30 of its interval early, so one wake-up serves many streams."""


class Comments:
    """Comments keep proxies from closing silent streams. A single timer writes to all, because waking each stream's
    task costs several times as much."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: OrderedDict[ServerConnection, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def broken(self, connection: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        self._due[connection] = loop.time() + self._seconds
        self._due.move_to_end(connection)
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._say, loop)

    def over(self, connection: ServerConnection) -> None:
        self._due.pop(connection, None)

    def _say(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._due:
            connection, due = next(iter(self._due.items()))
            if due > now + self._seconds / SLACK:
                self._timer = loop.call_at(due, self._say, loop)
                return
            self._due[connection] = now + self._seconds
            self._due.move_to_end(connection)
            connection.say(COMMENT)
        self._timer = None


class EventStream:
    """`cut`: the client resumes after an early end."""

    def __init__(self, frames: AsyncGenerator[bytes, None], *, cut: bool = True) -> None:
        self._frames = frames
        self._cut = cut

    async def drop(self) -> None:
        await self._frames.aclose()

    async def send_head(self, send: Send) -> None:
        await self.drop()
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(
        self,
        receive: Receive,
        send: Send,
        drain: StreamDrain,
        seconds: float,
        may_go_on: Callable[[], Awaitable[bool]],
        comments: Comments,
        connection: ServerConnection | None,
        *,
        caller: Principal,
        look_seconds: float,
    ) -> None:
        """Send for at most `seconds`, or longer with `cut=False`. Each `look_seconds` `may_go_on` decides. Callers in
        the same process have no connection."""

        async def say(chunk: bytes) -> None:
            await send(_part(chunk))
            if connection is not None:
                connection.sent()
                comments.broken(connection)

        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        try:
            async with StreamPoll(receive, drain, caller=caller):
                await say(b"retry: %d\n\n" % RETRY_MS)
                try:
                    async with asyncio.timeout(seconds if self._cut else None) as limit:
                        asking = asyncio.create_task(_ask(may_go_on, look_seconds, limit))
                        try:
                            async for chunk in self._frames:
                                await say(chunk)
                        finally:
                            asking.cancel()
                except TimeoutError:
                    pass  # the client resumes, or has lost its right
        except RequestTimeout:
            pass
        finally:
            if connection is not None:
                comments.over(connection)
            await self._frames.aclose()
        if drain.closing:
            await send(_part(b": the server is going away, come back\nretry: %d\n\n" % (2 * RETRY_MS)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _ask(may_go_on: Callable[[], Awaitable[bool]], seconds: float, limit: asyncio.Timeout) -> None:
    while True:
        await asyncio.sleep(seconds)
        if not await may_go_on():
            limit.reschedule(asyncio.get_running_loop().time())
            return


def frame(data: bytes | Raw, *, id: str | None = None, event: str | None = None) -> bytes:
    """A single `data:` line, because some readers know no other form. JSON has line breaks only between tokens, where a
    space means the same."""
    line = bytes(data)
    if b"\n" in line or b"\r" in line:
        line = line.translate(_NO_BREAKS)
    head = b"" if id is None else b"id: " + id.encode() + b"\n"
    if event is not None:
        head += b"event: " + event.encode() + b"\n"
    return head + b"data: " + line + b"\n\n"


def _part(chunk: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


_NO_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")
