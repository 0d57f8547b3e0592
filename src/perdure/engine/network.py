"""The network below calls out: connections by host, and the check of an address right before it is connected to.

A name may lead elsewhere from one moment to the next. So what counts is not what it led to when a URL was given to us:
a connection is made to an address, that very one is asked about, and no name is looked up behind it.

It follows no redirects, keeps no cookies, asks no proxies and unpacks nothing, because it cannot.
"""

import asyncio
import re
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from perdure.engine.addresses import Address, Policy, Target
from perdure.engine.calls import Answer, CallFailed, CallRefused
from perdure.engine.connection import Broken, Connection

HEAD_START_SECONDS: Final = 0.25
"""How long one address is tried alone before the next one is tried beside it."""
ADDRESSES_MAX: Final = 8
CALLS_MAX: Final = 1_000
"""Calls at a time, to all hosts."""
HOST_CALLS_MAX: Final = 64
"""Calls at a time to one host: one that hangs takes no connections from others."""
HOSTS_MAX: Final = 1_000
"""Hosts whose connections are kept."""
IDLE_SECONDS: Final = 4.0
"""How long a connection is kept for the next call; many servers close theirs after five."""

_UNFIT: Final = re.compile(r"[^\t -~]")

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
Connect = Callable[[], Awaitable[Connection]]


class _Host:
    """The connections to one host."""

    __slots__ = ("calls", "free", "turns", "used", "used_at")

    def __init__(self, now: float) -> None:
        self.turns = asyncio.Semaphore(HOST_CALLS_MAX)
        self.free: list[Connection] = []
        self.used: set[Connection] = set()
        self.calls = 0
        self.used_at = now

    def take(self, now: float) -> Connection | None:
        """The connection that was used last, if it is still good."""
        while self.free:
            connection = self.free.pop()
            if connection.idle_since > now - IDLE_SECONDS and connection.usable():
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close all connections; calls in flight fail."""
        for connection in (*self.free, *self.used):
            connection.close()
        self.free.clear()


class Network:
    """Makes calls; keeps the connections."""

    def __init__(self, policy: Policy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._hosts: OrderedDict[tuple[str, str, int], _Host] = OrderedDict()
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self._sweep: asyncio.TimerHandle | None = None

    async def call(
        self,
        method: str,
        to: Target,
        body: bytes,
        headers: Mapping[str, str],
        *,
        context: ssl.SSLContext | None,
        seconds: float,
        connect_seconds: float,
        answer_bytes_max: int,
    ) -> Answer:
        """One call. Raises CallRefused, CallFailed."""
        request = _head(method, to, len(body), headers) + body
        loop = asyncio.get_running_loop()
        sent = False
        try:
            async with asyncio.timeout(seconds), self._calls:
                host = self._host(to, loop)
                host.calls += 1
                try:
                    async with host.turns:
                        connection = host.take(loop.time()) or await self._connect(to, context, connect_seconds)
                        host.used.add(connection)
                        sent = True
                        try:
                            answer = await connection.ask(request, answer_bytes_max)
                        except BaseException:
                            connection.close()
                            raise
                        finally:
                            host.used.discard(connection)
                        connection.idle_since = loop.time()
                        host.free.append(connection)
                        return answer
                finally:
                    host.calls -= 1
                    host.used_at = loop.time()
        except TimeoutError:
            raise CallFailed(f"No answer from {to.authority} within {seconds:g} s.", sent=sent) from None
        except Broken as error:
            raise CallFailed(f"The call to {to.authority} broke off: {error}.", sent=True) from None

    async def close(self) -> None:
        """Close all connections; calls in flight fail."""
        if self._sweep is not None:
            self._sweep.cancel()
        for host in self._hosts.values():
            host.close()
        self._hosts.clear()
        await asyncio.sleep(0)  # let the loop see them off

    async def _connect(self, to: Target, context: ssl.SSLContext | None, seconds: float) -> Connection:
        """A connection to the first of the host's addresses that answers, within `seconds` for all of them.

        Raises CallRefused when none of them may be called, CallFailed when none answers.
        """
        loop = asyncio.get_running_loop()

        async def one(address: Address) -> Connection:
            _, connection = await loop.create_connection(
                lambda: Connection(loop),
                str(address),
                to.port,
                ssl=context,
                server_hostname=None if context is None else to.host,
            )
            return connection

        try:
            async with asyncio.timeout(seconds):
                found = await self._resolve_or_fail(to.host)
                allowed = [address for address in found if self._policy.allows(to.host, address)]
                if not allowed:
                    leads = ", ".join(map(str, found)) or "nowhere"
                    raise CallRefused(f"Host {to.host!r} leads to {leads}, which is not to be called.")
                return await _first([partial(one, address) for address in _by_turns(allowed)[:ADDRESSES_MAX]])
        except TimeoutError:
            why = f"nothing within {seconds:g} s"
        except OSError as error:
            why = (error.strerror or str(error)).rstrip(".")
        raise CallFailed(f"No connection to {to.authority}: {why}.", sent=False)

    async def _resolve_or_fail(self, host: str) -> Sequence[Address]:
        try:
            return await self._resolve(host)
        except OSError as error:
            raise CallFailed(f"Host {host!r} is not found: {error}", sent=False) from None

    def _host(self, to: Target, loop: asyncio.AbstractEventLoop) -> _Host:
        key = (to.scheme, to.host, to.port)
        found = self._hosts.get(key)
        if found is None:
            if len(self._hosts) >= HOSTS_MAX:
                self._forget(loop.time(), 1)
            found = self._hosts[key] = _Host(loop.time())
        self._hosts.move_to_end(key)
        if self._sweep is None:
            self._sweep = loop.call_later(2 * IDLE_SECONDS, self._swept, loop)
        return found

    def _swept(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what idles: nobody may ever call that host again."""
        self._sweep = None
        self._forget(loop.time() - IDLE_SECONDS, len(self._hosts))
        if self._hosts:
            self._sweep = loop.call_later(2 * IDLE_SECONDS, self._swept, loop)

    def _forget(self, unused_since: float, most: int) -> None:
        idle = [key for key, host in self._hosts.items() if not host.calls and host.used_at <= unused_since]
        for key in idle[:most]:
            self._hosts.pop(key).close()


def _head(method: str, to: Target, size: int, headers: Mapping[str, str]) -> bytes:
    """The request's head. Raises CallRefused for a header that would be read as something else."""
    lines = [
        f"{method} {to.path} HTTP/1.1",
        f"host: {to.authority}",
        f"content-length: {size}",
        "accept-encoding: identity",
    ]
    for name, value in headers.items():
        if _UNFIT.search(value) or _UNFIT.search(name):
            raise CallRefused(f"The header {name!r} of a call to {to.authority} has characters that no header has.")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode()


def _by_turns(addresses: Sequence[Address]) -> list[Address]:
    """The two families in turn, in the order in which they were found."""
    ranks: dict[int, int] = {}
    keys: dict[Address, tuple[int, int]] = {}
    for address in addresses:
        ranks[address.version] = rank = ranks.get(address.version, 0) + 1
        keys[address] = (rank, list(ranks).index(address.version))
    return sorted(keys, key=keys.__getitem__)


async def _first(connects: Sequence[Connect]) -> Connection:
    """The first connection that stands; each is tried when one before it has failed, or after that one's head start."""
    if len(connects) == 1:
        return await connects[0]()
    waiting = list(connects)
    trying: set[asyncio.Future[Connection]] = set()
    failure: BaseException = OSError("there is no address")
    won: Connection | None = None
    try:
        while won is None and (waiting or trying):
            if waiting:
                trying.add(asyncio.ensure_future(waiting.pop(0)()))
            done, trying = await asyncio.wait(
                trying, timeout=HEAD_START_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is not None:
                    failure = error
                elif won is None:
                    won = task.result()
                else:
                    trying.add(task)  # a second one: closed below
    finally:
        for task in trying:
            task.cancel()
        for late in await asyncio.gather(*trying, return_exceptions=True):
            if isinstance(late, Connection):
                late.close()
    if won is None:
        raise failure
    return won
