"""The one way out: every call to a URL that somebody gave us goes through here, guarded.

A URL is checked when it is given (`check_url`) and again when it is called, on the very address that is connected to.
No redirects, cookies, proxies of the environment or compressed answers; limits on time and on what is read of an
answer.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from perdure.engine.addresses import BAD_PORTS, Address, Policy, Target, literal, means_this_machine, target
from perdure.engine.calls import Answer, CallRefused
from perdure.wire.errors import BadValue

if TYPE_CHECKING:
    import ssl

    from perdure.engine.network import Network

CALL_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 5.0
ANSWER_BYTES_MAX: Final = 64 << 10
LOOKUP_SECONDS: Final = 3.0
"""How long a name is looked up when a URL is given to us."""
LOOKUPS_MAX: Final = 16
CHECKED_SECONDS: Final = 60.0
"""For how long a host that was found good when it was given is not looked up again for that."""
CHECKED_MAX: Final = 10_000
_THIS_MACHINE: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


class Outbound:
    """Makes calls. What that takes (the HTTP library, threads, certificates) is loaded when the first one is made."""

    def __init__(self, policy: Policy, *, look_up: Callable[[str], Sequence[str]] | None = None) -> None:
        self.policy = policy
        self._look_up = look_up or _look_up
        self._checked: OrderedDict[str, float] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None
        self._network: Network | None = None
        self._context: ssl.SSLContext | None = None

    async def check_url(self, url: str, where: str = "url") -> str:
        """Refuse a URL that is not to be called, when it is given to us; answers it as it came.

        Raises `BadValue` naming the field. A name that cannot be looked up at the moment passes: what counts is the
        check when it is called.
        """
        to = target(url, where)
        self._check_door(to, where)
        now = asyncio.get_running_loop().time()
        if self._checked.get(to.host, 0.0) > now:
            return url
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await self.resolve(to.host)
        except TimeoutError:
            return url
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                return url
            raise BadValue(f"{where}: host {to.host!r} does not exist.", {"path": where}) from None
        refused = [str(address) for address in found if not self.policy.allows(to.host, address)]
        if refused:
            raise BadValue(
                f"{where}: host {to.host!r} leads to {', '.join(refused)}; only public addresses are called, and "
                "others that the server's setting `outbound_hosts` names.",
                {"path": where},
            )
        self._checked[to.host] = now + CHECKED_SECONDS
        self._checked.move_to_end(to.host)
        if len(self._checked) > CHECKED_MAX:
            self._checked.popitem(last=False)
        return url

    async def request(
        self,
        method: str,
        url: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float = CALL_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> Answer:
        """Make one call; at most `seconds` until the answer's end. Any status is an answer, redirects too.

        Raises CallRefused when it is not to be made, CallFailed when no answer came.
        """
        try:
            to = target(url)
            self._check_door(to, "url")
        except BadValue as error:
            raise CallRefused(error.message) from None
        if self._network is None:
            await self._load()
            assert self._network is not None
        if self._context is None and to.scheme == "https":
            await self._load_certificates()
        return await self._network.call(
            method,
            to,
            body,
            headers or {},
            context=self._context if to.scheme == "https" else None,
            seconds=seconds,
            connect_seconds=min(connect_seconds, seconds),
            answer_bytes_max=answer_bytes_max,
        )

    async def resolve(self, host: str) -> Sequence[Address]:
        """A host's addresses. Raises OSError."""
        address = literal(host)
        if address is not None:
            return [address]
        if means_this_machine(host):
            # Without asking: whoever says so may listen on one of the two only, and no name server decides it.
            return _THIS_MACHINE
        found = await asyncio.get_running_loop().run_in_executor(self._pool(), self._look_up, host)
        addresses = dict.fromkeys(literal(text) for text in found)
        return [address for address in addresses if address is not None]

    async def close(self) -> None:
        """Close all connections; calls in flight fail."""
        if self._network is not None:
            await self._network.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _check_door(self, to: Target, where: str) -> None:
        """Refuse plain HTTP and ports of other protocols, except at hosts that the configuration names."""
        if to.port in BAD_PORTS and not self.policy.plain(to.host):
            raise BadValue(
                f"{where}: port {to.port} belongs to another protocol than HTTP, and is called only at hosts that the "
                "server's setting `outbound_hosts` names; use another port.",
                {"path": where},
            )
        if to.scheme == "http" and not self.policy.plain(to.host):
            raise BadValue(
                f"{where}: must start with https://; plain http:// is for hosts that the server's setting "
                "`outbound_hosts` names.",
                {"path": where},
            )

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(LOOKUPS_MAX, "perdure-outbound")
        return self._threads

    async def _load(self) -> None:
        """In a thread: a tenth of a second in which the loop goes on."""

        def load() -> "type[Network]":
            from perdure.engine.network import Network

            return Network

        network = await asyncio.get_running_loop().run_in_executor(self._pool(), load)
        if self._network is None:
            self._network = network(self.policy, self.resolve)

    async def _load_certificates(self) -> None:
        def load() -> "ssl.SSLContext":
            import httpcore2

            return httpcore2.default_ssl_context()

        context = await asyncio.get_running_loop().run_in_executor(self._pool(), load)
        self._context = self._context or context


def _look_up(host: str) -> Sequence[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
