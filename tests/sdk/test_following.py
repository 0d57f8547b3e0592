"""How long a client follows a stream that says little, is cut, or ends: hours, in the simulation's time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from tests.sim.loop import SimLoop

from perdure.sdk.clients.client import Client
from perdure.sdk.transports.connection import ConnectionLost
from perdure.sdk.transports.http import OUTAGE_SECONDS, HttpTransport
from perdure.wire.base.errors import Unavailable

ID = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"
HELLO = b"retry: 1000\n\n"
COMMENT = b": still here\n\n"
END = b'event: end\ndata: {"id":"x","status":"completed","phase":"completed","error":null}\n\n'

Answer = Callable[[int], AsyncIterator[bytes]]
"""What the stream with a number says, piece by piece."""


class Answered:
    """A stream that says what the test wants."""

    status = 200

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces

    async def read(self, seconds: float) -> bytes:
        async with asyncio.timeout(seconds):
            return await anext(self._pieces, b"")

    def close(self) -> None:
        pass


class Servers:
    """Servers of one store, and a client that follows a stream of theirs."""

    def __init__(self, count: int, answer: Answer) -> None:
        self.asked: list[int] = []
        """Which server each stream was asked of."""
        self.transport = HttpTransport([f"http://127.0.0.1:{n + 1}" for n in range(count)])
        for n, server in enumerate(self.transport._servers):
            setattr(server, "stream", self._answering(n, answer))  # noqa: B010  # no network in simulated time

    def _answering(self, n: int, answer: Answer) -> Callable[[bytes], Coroutine[Any, Any, Any]]:
        async def stream(data: bytes) -> Answered:
            self.asked.append(n)
            return Answered(answer(len(self.asked)))

        return stream

    async def follow(self) -> int:
        """Follow to the end; answers how many items came."""
        return len([item async for item in Client(self.transport).stream(ID)])


def simulated(work: Coroutine[Any, Any, int], hours: float = 24.0) -> float:
    """Run `work` for at most so many simulated hours. Returns the seconds that passed. Raises the error of `work`."""
    loop = SimLoop()  # type: ignore[abstract]  # what nobody asks for is not there
    task = loop.create_task(work)
    loop.run(int(hours * 3_600_000_000), task.done)
    if task.done():
        task.result()
    else:
        task.cancel()
        loop.settle()
    return loop.us / 1_000_000


async def quiet(seconds: float) -> AsyncIterator[bytes]:
    """Nothing but comments, for so long."""
    yield HELLO
    for _ in range(int(seconds // 15)):
        await asyncio.sleep(15)
        yield COMMENT


@pytest.mark.parametrize("count", [1, 2])
def test_a_quiet_stream_is_followed_however_often_its_server_ends_it(count: int) -> None:
    async def answer(number: int) -> AsyncIterator[bytes]:
        async for piece in quiet(900):
            yield piece
        if number == 20:
            yield END

    servers = Servers(count, answer)
    assert simulated(servers.follow()) > 20 * 900
    assert len(servers.asked) == 20 and len(set(servers.asked)) == 1, "no other server is needed"


@pytest.mark.parametrize("count", [1, 2])
def test_a_quiet_stream_is_followed_however_often_it_is_cut(count: int) -> None:
    async def answer(number: int) -> AsyncIterator[bytes]:
        async for piece in quiet(600):
            yield piece
        if number < 20:
            raise ConnectionLost("the server closed the connection", sent=True)
        yield END

    servers = Servers(count, answer)
    assert simulated(servers.follow()) >= 20 * 600
    first, *rest = servers.asked
    assert rest == [(first + n) % count for n in range(1, 20)], "the other one is asked at once"


@pytest.mark.parametrize("count", [1, 2])
def test_a_server_that_ends_each_stream_at_once_is_not_hammered(count: int) -> None:
    async def answer(number: int) -> AsyncIterator[bytes]:
        yield HELLO

    servers = Servers(count, answer)
    assert simulated(servers.follow(), hours=1) == 3_600
    assert 1_000 < len(servers.asked) < 3_600 / 0.4 + 20


@pytest.mark.parametrize("count", [1, 2])
def test_whoever_follows_a_server_that_never_says_anything_is_told(count: int) -> None:
    async def answer(number: int) -> AsyncIterator[bytes]:
        return
        yield HELLO

    servers = Servers(count, answer)
    with pytest.raises(Unavailable, match="ended the stream"):
        simulated(servers.follow())
    assert len(servers.asked) < count * (OUTAGE_SECONDS / 0.4 + 20)
