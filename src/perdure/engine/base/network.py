"""Connections of outbound calls by host, with a check of each address right before its use: a name's addresses may
change at any moment.

Many servers never load the module and its HTTP library, the lower half of HTTPX2.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

import httpcore2

from perdure.engine.base.addresses import Address, CallTarget, Policy
from perdure.engine.base.calls import CallFailed, CallRefused, HttpAnswer

HEAD_START_SECONDS: Final = 0.25
"""Seconds before the next address joins the tries."""
ADDRESSES_MAX: Final = 8
CALLS_MAX: Final = 1_000
HOST_CALLS_MAX: Final = 64
"""Most calls to a host, so that a slow host leaves connections to other hosts."""
HOSTS_MAX: Final = 1_000
IDLE_SECONDS: Final = 4.0
"""Many servers close their connections after five seconds."""

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
Connect = Callable[[], Awaitable[httpcore2.AsyncNetworkStream]]


class _NoAddress(Exception):
    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        """Addresses exist, but the policy forbids all."""


class _Guard(httpcore2.AsyncNetworkBackend):
    def __init__(self, policy: Policy, resolve: Resolve, closing: set[asyncio.Task[None]]) -> None:
        self._policy = policy
        self._resolve = resolve
        self._closing = closing
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Try the host's addresses within `timeout` seconds in all."""
        try:
            async with asyncio.timeout(timeout):
                try:
                    found = await self._resolve(host)
                except OSError as error:
                    raise _NoAddress(f"Host {host!r} is not found: {error}") from None
                allowed = [address for address in found if self._policy.allows(host, address)]
                if not allowed:
                    leads = ", ".join(map(str, found)) or "nowhere"
                    raise _NoAddress(f"Host {host!r} leads to {leads}, which is not to be called.", refused=True)
                return await _first(
                    [
                        partial(self._network.connect_tcp, str(address), port)
                        for address in _by_turns(allowed)[:ADDRESSES_MAX]
                    ],
                    self._closing,
                )
        except TimeoutError:
            raise httpcore2.ConnectTimeout(f"nothing within {timeout:g} s") from None

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise _NoAddress("A socket in the file system is not to be called.", refused=True)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Host:
    __slots__ = ("calls", "pool", "turns", "used_at")

    def __init__(self, pool: httpcore2.AsyncConnectionPool, now: float) -> None:
        self.pool = pool
        self.turns = asyncio.Semaphore(HOST_CALLS_MAX)
        self.calls = 0
        self.used_at = now


class Network:
    def __init__(self, policy: Policy, resolve: Resolve) -> None:
        self._closing: set[asyncio.Task[None]] = set()
        self._guard = _Guard(policy, resolve, self._closing)
        self._loop = asyncio.get_running_loop()
        self._hosts: OrderedDict[tuple[str, str, int], _Host] = OrderedDict()
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self._sweep: asyncio.TimerHandle | None = None

    async def call(
        self,
        method: str,
        to: CallTarget,
        body: bytes,
        headers: Mapping[str, str],
        *,
        context: ssl.SSLContext | None,
        seconds: float,
        connect_seconds: float,
        answer_bytes_max: int,
    ) -> HttpAnswer:
        """Raises CallRefused, CallFailed."""
        request = httpcore2.Request(
            method,
            httpcore2.URL(scheme=to.scheme, host=to.host, port=to.port, target=to.path),
            headers=[
                (b"host", to.authority.encode()),
                (b"content-length", b"%d" % len(body)),
                (b"accept-encoding", b"identity"),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
            content=body,
            extensions={"timeout": {"connect": connect_seconds}},
        )
        sent = False
        try:
            async with asyncio.timeout(seconds):
                host = self._host(to, context)
                host.calls += 1
                try:
                    # The host's limit first: a slow host must not use up the total.
                    async with host.turns, self._calls:
                        sent = True
                        response = await host.pool.handle_async_request(request)
                        try:
                            return await _read_answer(response, answer_bytes_max)
                        finally:
                            await response.aclose()
                finally:
                    host.calls -= 1
                    host.used_at = self._loop.time()
        except _NoAddress as error:
            if error.refused:
                raise CallRefused(str(error)) from None
            raise CallFailed(str(error), sent=False) from None
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            raise CallFailed(f"No connection to {to.authority}: {_error_text(error)}.", sent=False) from None
        except TimeoutError:
            raise CallFailed(f"No answer from {to.authority} within {seconds:g} s.", sent=sent) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise CallFailed(f"The call to {to.authority} broke off: {_error_text(error)}.", sent=True) from None

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        pools = [host.pool for host in self._hosts.values()]
        self._hosts.clear()
        await asyncio.gather(*(pool.aclose() for pool in pools), *self._closing, return_exceptions=True)

    def _host(self, to: CallTarget, context: ssl.SSLContext | None) -> _Host:
        key = (to.scheme, to.host, to.port)
        found = self._hosts.get(key)
        if found is None:
            if len(self._hosts) >= HOSTS_MAX:
                self._forget(0.0, 1)
            pool = httpcore2.AsyncConnectionPool(
                ssl_context=context,
                max_connections=HOST_CALLS_MAX,
                max_keepalive_connections=HOST_CALLS_MAX,
                keepalive_expiry=IDLE_SECONDS,
                network_backend=self._guard,
            )
            found = self._hosts[key] = _Host(pool, self._loop.time())
        self._hosts.move_to_end(key)
        if self._sweep is None:
            self._sweep = self._loop.call_later(2 * IDLE_SECONDS, self._swept)
        return found

    def _swept(self) -> None:
        """Drops hosts with idle connections, which may never be called again."""
        self._sweep = None
        self._forget(IDLE_SECONDS, len(self._hosts))
        if self._hosts:
            self._sweep = self._loop.call_later(2 * IDLE_SECONDS, self._swept)

    def _forget(self, idle_seconds: float, most: int) -> None:
        now = self._loop.time()
        idle = [key for key, host in self._hosts.items() if not host.calls and host.used_at <= now - idle_seconds]
        for key in idle[:most]:
            _keep(asyncio.ensure_future(self._hosts.pop(key).pool.aclose()), self._closing)


async def _read_answer(response: httpcore2.Response, bytes_max: int) -> HttpAnswer:
    parts: list[bytes] = []
    left = bytes_max
    async with aclosing(response.aiter_stream()) as chunks:
        async for chunk in chunks:
            parts.append(chunk[:left])
            left -= len(chunk)
            if left < 0:
                break
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    return HttpAnswer(response.status, headers, b"".join(parts))


def _error_text(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return text or type(error).__name__


def _by_turns(addresses: Sequence[Address]) -> list[Address]:
    ranks: dict[int, int] = {}
    keys: dict[Address, tuple[int, int]] = {}
    for address in addresses:
        ranks[address.version] = rank = ranks.get(address.version, 0) + 1
        keys[address] = (rank, list(ranks).index(address.version))
    return sorted(keys, key=keys.__getitem__)


async def _first(connects: Sequence[Connect], closing: set[asyncio.Task[None]]) -> httpcore2.AsyncNetworkStream:
    """Each address is tried after a failure of an earlier address or after its head start.

    No `await` follows the success: a cancellation would leak the connection.
    """
    waiting = list(connects)
    trying: set[asyncio.Future[httpcore2.AsyncNetworkStream]] = set()
    failure: BaseException = httpcore2.ConnectError("the host has no address")
    try:
        while waiting or trying:
            if waiting:
                trying.add(asyncio.ensure_future(waiting.pop(0)()))
            done, _ = await asyncio.wait(
                trying, timeout=HEAD_START_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                trying.discard(task)
                error = task.exception()
                if error is None:
                    return task.result()
                failure = error
    finally:
        if trying:
            _keep(asyncio.ensure_future(_give_up(trying)), closing)
    raise failure


async def _give_up(trying: Collection[asyncio.Future[httpcore2.AsyncNetworkStream]]) -> None:
    """Close connections with a late success."""
    for task in trying:
        task.cancel()
    found = await asyncio.gather(*trying, return_exceptions=True)
    streams = [late for late in found if isinstance(late, httpcore2.AsyncNetworkStream)]
    await asyncio.gather(*(stream.aclose() for stream in streams), return_exceptions=True)


def _keep(task: asyncio.Task[None], tasks: set[asyncio.Task[None]]) -> None:
    """The event loop holds tasks only weakly."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)
