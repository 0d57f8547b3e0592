"""Who is asking: API keys → Principal, and who may ask at all.

A key is looked up by its id and compared as a hash; one that was found good is remembered for at most 30 seconds, so a
deleted key stops within that time; at once on the server that was told to delete it, and on the others as soon as they
hear of it. On a loopback address every request must also name a loopback host, and a page in a browser must come from
one: otherwise any web page could reach a server that listens only to its own machine.
"""

import hashlib
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from perdure.wire.access import Principal, Role
from perdure.wire.errors import BadRequest, Forbidden, NotFound, TooManyRequests, Unauthorized

CACHED_MAX: Final = 10_000
ADDRESSES_MAX: Final = 10_000
REFILL_SECONDS: Final = 6.0

_KEY: Final = re.compile(r"sk_[0-9A-Za-z]{8}_[0-9A-Za-z]{32}")
_ROLE_RANK: Final = {Role.READ: 0, Role.WRITE: 1, Role.ADMIN: 2}

Headers = Mapping[bytes, bytes]


class Gate:
    """Decides who a request comes from, and whether it may come at all."""

    def __init__(
        self,
        authenticate: Callable[[str], Awaitable[Principal]],
        *,
        loopback: bool = True,
        hosts: tuple[str, ...] = (),
        origins: tuple[str, ...] = (),
        cache_seconds: float = 30.0,
        failures_max: int = 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authenticate = authenticate
        self._loopback = loopback
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._cache_seconds = cache_seconds
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        self._forgotten = 0
        self._failures = Failures(failures_max, clock)
        self._good_hosts: set[bytes] = set()
        self.anyone: Principal | None = None
        """Set in `--insecure-local`: who everybody is."""

    def check_source(self, headers: Headers) -> None:
        """Refuse what another site's page sends to a server on a loopback address. Raises `Forbidden`."""
        if not self._loopback:
            return
        host = headers.get(b"host")
        if host is None:
            raise BadRequest("The request has no Host header.")
        if host not in self._good_hosts:
            self._check_host(host)
        origin = headers.get(b"origin")
        if origin is not None:
            text = origin.decode("latin-1").lower()
            if text not in self._origins and not _is_local_origin(text):
                raise Forbidden(f"Origin {text!r} may not call this server; its setting `origins` says which may.")

    def _check_host(self, host: bytes) -> None:
        text = host.decode("latin-1").lower()
        name = _host_name(text)
        if name is None or not (is_loopback(name) or name in self._hosts or text in self._hosts):
            raise Forbidden(
                f"Host {text!r} is not this server, which listens on a loopback address; call it as localhost, or name "
                "the host in its setting `hosts`."
            )
        if len(self._good_hosts) < 100:
            self._good_hosts.add(host)

    async def principal(self, headers: Headers, address: str) -> Principal:
        """Whose request it is. Raises `Unauthorized`, or `TooManyRequests` after many wrong keys."""
        if self.anyone is not None:
            return self.anyone
        header = headers.get(b"authorization")
        if header is None:
            raise Unauthorized("No API key; send `Authorization: Bearer sk_…`.")
        hashed = hashlib.sha256(header).digest()
        known = self._known.get(hashed)
        now = self._clock()
        if known is not None and known[1] > now:
            return known[0]
        self._failures.check(address)
        forgotten = self._forgotten
        scheme, _, key = header.decode("latin-1").strip().partition(" ")
        key = key.strip()
        try:
            if scheme.lower() != "bearer" or not _KEY.fullmatch(key):
                raise Unauthorized("This is not an API key; send `Authorization: Bearer sk_<id>_<secret>`.")
            principal = await self._authenticate(key)
        except Unauthorized:
            self._failures.note(address)
            raise
        if principal.development and not self._loopback:
            raise Forbidden("This is a development key; it works only on a server that listens to its own machine.")
        if forgotten != self._forgotten:
            return principal  # a key was deleted meanwhile, perhaps this one: look again at the next request
        self._known[hashed] = (principal, now + self._cache_seconds)
        self._known.move_to_end(hashed)
        if len(self._known) > CACHED_MAX:
            self._known.popitem(last=False)
        return principal

    def forget(self, key_id: str | None) -> None:
        """A key was deleted: look it up again from now on. None: look all of them up again."""
        self._forgotten += 1
        if key_id is None:
            self._known.clear()
        for hashed in [hashed for hashed, (principal, _) in self._known.items() if principal.key_id == key_id]:
            del self._known[hashed]

    def check_project(self, principal: Principal, project_id: str | None) -> None:
        """A request may repeat its key's project; any other does not exist for it. Raises `NotFound`."""
        if project_id and project_id.lower() != principal.project_id and self.anyone is None:
            raise NotFound(f"Project {project_id!r} does not exist.")


def check_role(principal: Principal, needed: Role) -> None:
    """Raises `Forbidden` when the key may not do this."""
    if _ROLE_RANK[principal.role] < _ROLE_RANK[needed]:
        raise Forbidden(f"This needs a key with the role {needed.value!r}; this one has {principal.role.value!r}.")


class Failures:
    """Wrong keys by address: a burst is free, then one more every few seconds. Forgets the oldest addresses."""

    def __init__(self, burst: int, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._clock = clock
        self._by_address: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises `TooManyRequests` while the address has to wait."""
        found = self._by_address.get(_network(address))
        if found is None:
            return
        level, at = found
        if level - (self._clock() - at) / REFILL_SECONDS > self._burst - 1:
            raise TooManyRequests("Too many wrong API keys from this address; wait a few seconds.")

    def note(self, address: str) -> None:
        """One more wrong key."""
        network = _network(address)
        now = self._clock()
        level, at = self._by_address.get(network, (0.0, now))
        self._by_address[network] = (max(0.0, level - (now - at) / REFILL_SECONDS) + 1, now)
        self._by_address.move_to_end(network)
        if len(self._by_address) > ADDRESSES_MAX:
            self._by_address.popitem(last=False)


def is_loopback(host: str) -> bool:
    """Whether a name or address can only mean this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str | None:
    """`name`, `name:port`, `[v6]` or `[v6]:port` without the port."""
    found = _HOST.fullmatch(host)
    return None if found is None else found[1]


def _is_local_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.hostname is not None and is_loopback(parts.hostname)
    except ValueError:
        return False


def _network(address: str) -> str:
    """An IPv6 caller owns a /64 at least: all its addresses count as one."""
    if ":" in address:
        try:
            return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
        except ValueError:
            return address
    return address


_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
