"""All calls to URLs that users gave us.

A URL is checked when it is given (`check_url`), and again at each call, on the very address of the connection. Calls
have no redirects, cookies, proxies or compression, and limits on time and size.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from perdure.engine.base.addresses import BAD_PORTS, Address, CallTarget, Policy, literal, means_this_machine, target
from perdure.engine.base.calls import CallRefused, HttpAnswer
from perdure.wire.base.errors import BadValue

if TYPE_CHECKING:
    import ssl

    from perdure.engine.base.network import Network

CALL_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 5.0
ANSWER_BYTES_MAX: Final = 64 << 10
LOOKUP_SECONDS: Final = 3.0
LOOKUPS_MAX: Final = 16
CHECKED_SECONDS: Final = 60.0
"""How long a good host needs no other look-up."""
CHECKED_MAX: Final = 10_000
_THIS_MACHINE: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


class Outbound:
    """The HTTP library, threads and certificates load at the first call."""

    def __init__(self, policy: Policy, *, look_up: Callable[[str], Sequence[str]] | None = None) -> None:
        self.policy = policy
        self._look_up = look_up or _look_up
        self._checked: OrderedDict[str, float] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None
        self._network: Network | None = None
        self._context: ssl.SSLContext | None = None

    async def check_url(self, url: str, where: str = "url") -> str:
        """Check a URL. An unknown name passes, because each call checks again. Raises `BadValue` with the field."""
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
    ) -> HttpAnswer:
        """Any status is an answer, even a redirect. Raises CallRefused for a forbidden URL, CallFailed without an
        answer."""
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
        address = literal(host)
        if address is not None:
            return [address]
        if means_this_machine(host):
            # Both families, without DNS: the service may listen on only one.
            return _THIS_MACHINE
        found = await asyncio.get_running_loop().run_in_executor(self._pool(), self._look_up, host)
        addresses = dict.fromkeys(literal(text) for text in found)
        return [address for address in addresses if address is not None]

    async def close(self) -> None:
        if self._network is not None:
            await self._network.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _check_door(self, to: CallTarget, where: str) -> None:
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
        """Load the HTTP library in a thread, because loading takes a tenth of a second."""

        def load() -> "type[Network]":
            from perdure.engine.base.network import Network

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
