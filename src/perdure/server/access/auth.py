"""Authentication of API keys and users' sessions, and checks of hosts and origins.

Browsers send cookies with requests of any page, so a change by a cookie must come provably from a page of this server.
Any web page can reach a loopback address, so each request there names a loopback host, and pages a loopback origin.
"""

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from perdure.engine.people.accounts import TOKEN_PREFIX
from perdure.server.access.cookies import Cookies
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import BadRequest, Forbidden, NotFound, TooManyRequests, Unauthorized

logger = logging.getLogger("perdure.server")

CACHED_MAX: Final = 10_000
ADDRESSES_MAX: Final = 10_000
REFILL_SECONDS: Final = 6.0

_KEY: Final = re.compile(r"sk_[0-9A-Za-z]{8}_[0-9A-Za-z]{32}")

Headers = Mapping[bytes, bytes]


def _digest(secret: bytes) -> bytes:
    """Keeps secrets out of the cache."""
    return hashlib.blake2b(secret, digest_size=32).digest()


async def _no_sessions(token: str, project_id: str) -> tuple[Principal, float]:
    raise Unauthorized("This server has no users.")


async def _no_page_session(headers: Headers) -> Principal | None:
    return None


class Gate:
    def __init__(
        self,
        authenticate: Callable[[str], Awaitable[Principal]],
        sessions: Callable[[str, str], Awaitable[tuple[Principal, float]]] = _no_sessions,
        *,
        loopback: bool = True,
        hosts: tuple[str, ...] = (),
        origins: tuple[str, ...] = (),
        cache_seconds: float = 30.0,
        failures_max: int = 20,
        proxies: bool = False,
        cookies: Cookies | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authenticate = authenticate
        self._sessions = sessions
        self._loopback = loopback
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._cache_seconds = cache_seconds
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        self._forgotten = 0
        self._failures = Failures(failures_max, clock)
        self._proxy_told = proxies
        self.cookies = cookies or Cookies()
        self._good_hosts: set[bytes] = set()
        self.anyone: Principal | None = None
        """The caller of every request in `--insecure-local`."""
        self.page_session: Callable[[Headers], Awaitable[Principal | None]] = _no_page_session
        """Finds the caller for a cookie that a key or a sign-in link began."""

    def check_source(self, headers: Headers) -> None:
        """Raises `Forbidden` for other sites' pages, on a loopback address."""
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
        found = _HOST.fullmatch(text)
        if found is None or not (is_loopback(found[1]) or self._hosts & {found[1], text}):
            raise Forbidden(
                f"Host {text!r} is not this server, which listens on a loopback address; call it as localhost, or name "
                "the host in its setting `hosts`."
            )
        if len(self._good_hosts) < 100:
            self._good_hosts.add(host)

    def check_page(self, headers: Headers, *, told: bool) -> None:
        """Raises `Forbidden` for other sites' pages. `told`: the request must state its origin."""
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() in self._origins:
            return
        site = headers.get(b"sec-fetch-site")
        if site is not None:
            fine = site == b"same-origin" or (site == b"none" and not told)
        elif origin is not None:
            fine = origin.partition(b"://")[2].lower() == headers.get(b"host", b"").lower() != b""
        else:
            fine = not told
        if not fine:
            raise Forbidden(
                "A request that changes something by a session's cookie, or is a page's form, has to come from a page "
                "of this server: its `Origin` or `Sec-Fetch-Site` must say so. The setting `origins` names pages that "
                "may, too."
            )

    async def principal(
        self, headers: Headers, address: str, project_id: str | None = None, *, safe: bool = True, alone: bool = False
    ) -> Principal:
        """A user must name a project, unless `alone`. `safe`: the request changes nothing.

        Raises `Unauthorized`, `TooManyRequests` after many wrong keys, `BadRequest` without a project, `NotFound` if
        the user is not a member, `Forbidden` for another site's page.
        """
        if self.anyone is not None:
            return self.anyone
        header = headers.get(b"authorization")
        if header is None:
            if not safe and self.cookies.tokens(headers):
                self.check_page(headers, told=True)
            return await self._by_cookie(headers, project_id, alone)
        hashed = _digest(header)
        known = self._known.get(hashed)
        now = self._clock()
        if known is not None and known[1] > now:
            return known[0]
        key = _bearer(header)
        if key is not None and key.startswith(TOKEN_PREFIX):
            return await self._user(key, project_id, alone)
        self._warn_of_proxy(headers, address)
        forgotten = self._forgotten
        try:
            if key is None or not _KEY.fullmatch(key):
                raise Unauthorized("This is not an API key; send `Authorization: Bearer sk_<id>_<secret>`.")
            principal = await self._authenticate(key)
        except Unauthorized:
            # Only wrong keys are slowed down: callers may share an address, and a good key is cheap.
            self._known.pop(hashed, None)
            if not self._failures.take(address):
                raise self._failures.refusal() from None
            raise
        if principal.development and not self._loopback:
            raise Forbidden("This is a development key; it works only on a server that listens to its own machine.")
        self._remember(hashed, principal, now + self._cache_seconds, forgotten)
        return principal

    async def _by_cookie(self, headers: Headers, project_id: str | None, alone: bool) -> Principal:
        found = await self.page_session(headers)
        if found is not None:
            return found
        token = await self._cookie_token(headers)
        if token is None:
            raise Unauthorized("No API key; set PERDURE_API_KEY, or send `Authorization: Bearer sk_…`.")
        return await self._user(token, project_id, alone)

    def _warn_of_proxy(self, headers: Headers, address: str) -> None:
        if self._proxy_told or b"x-forwarded-for" not in headers or not _is_private(address):
            return
        self._proxy_told = True
        logger.warning(
            "Requests come through a proxy at %s, and the setting `proxies` is empty: all callers behind it count as "
            "one address. Name the proxy's address or network in `proxies`.",
            address,
        )

    async def user(self, headers: Headers, address: str, *, safe: bool = True) -> Principal:
        """Raises like `principal`, and `Forbidden` for a key."""
        if self.anyone is not None:
            token = await self.token(headers)
            if token is None:
                raise Unauthorized("No user has signed in here.")
            if not safe:
                self.check_page(headers, told=True)
            return await self._user(token, None, alone=True)
        principal = await self.principal(headers, address, safe=safe, alone=True)
        if principal.user_id is None:
            raise Forbidden("Only a user who has signed in may do this; an API key is not a user.")
        return principal

    async def token(self, headers: Headers) -> str | None:
        header = headers.get(b"authorization")
        if header is not None:
            token = _bearer(header)
            return token if token is not None and token.startswith(TOKEN_PREFIX) else None
        return await self._cookie_token(headers)

    async def _cookie_token(self, headers: Headers) -> str | None:
        tokens = self.cookies.tokens(headers)
        if len(tokens) < 2:
            return tokens[0] if tokens else None
        # Another server may have set the others. With two sessions the user is ambiguous.
        found = [token for token in tokens if await self._session(token) is not None]
        return found[0] if len(found) == 1 else None

    async def visitor(self, headers: Headers) -> Principal | None:
        """Returns None without a valid session."""
        token = await self._cookie_token(headers)
        return None if token is None else await self._session(token)

    async def _session(self, token: str) -> Principal | None:
        try:
            return await self._user(token, None, alone=True)
        except Unauthorized:
            return None

    async def _user(self, token: str, project_id: str | None, alone: bool) -> Principal:
        named = "" if alone or not project_id else project_id.lower()
        hashed = _digest(f"{named} {token}".encode("utf-8", "surrogatepass"))
        known = self._known.get(hashed)
        now = self._clock()
        if known is not None and known[1] > now:
            principal = known[0]
        else:
            forgotten = self._forgotten
            principal, seconds = await self._sessions(token, named)
            self._remember(hashed, principal, now + min(self._cache_seconds, seconds), forgotten)
        if not named and not alone:
            raise BadRequest("Which project? Name it in the header X-Project-ID; GET /api/v1/projects lists yours.")
        return principal

    def _remember(self, hashed: bytes, principal: Principal, until: float, forgotten: int) -> None:
        if forgotten != self._forgotten:
            return  # a key or user changed during the look-up: do not cache
        self._known[hashed] = (principal, until)
        self._known.move_to_end(hashed)
        if len(self._known) > CACHED_MAX:
            self._known.popitem(last=False)

    def forget(self, key_id: str | None) -> None:
        """Forget a key, or all keys and users with None."""
        self._forget(lambda principal: key_id in (None, principal.key_id))

    def forget_user(self, user_id: str) -> None:
        self._forget(lambda principal: principal.user_id == user_id)

    def _forget(self, ends: Callable[[Principal], bool]) -> None:
        self._forgotten += 1
        for hashed in [hashed for hashed, (principal, _) in self._known.items() if ends(principal)]:
            del self._known[hashed]

    def check_project(self, principal: Principal, project_id: str | None) -> None:
        """Raises `NotFound` unless the project is the principal's."""
        if project_id and project_id.lower() != principal.project_id and self.anyone is None:
            raise NotFound(f"Project {project_id!r} does not exist.")


class Failures:
    """A burst of failures by name (a network, an e-mail), then a single failure every few seconds."""

    def __init__(self, burst: int, clock: Callable[[], float], what: str = "wrong API keys from this address") -> None:
        self._burst = burst
        self._clock = clock
        self._what = what
        self._by_name: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> bool:
        """Returns False, without counting, at the limit."""
        name = to_network(name)
        now = self._clock()
        level, at = self._by_name.get(name, (0.0, now))
        level = max(0.0, level - (now - at) / REFILL_SECONDS)
        if level > self._burst - 1:
            return False
        self._by_name[name] = (level + 1, now)
        self._by_name.move_to_end(name)
        if len(self._by_name) > ADDRESSES_MAX:
            self._by_name.popitem(last=False)
        return True

    def check(self, name: str) -> None:
        """Raises TooManyRequests at the limit."""
        if not self.take(name):
            raise self.refusal()

    def give_back(self, name: str) -> None:
        name = to_network(name)
        found = self._by_name.get(name)
        if found is None:
            return
        if found[0] <= 1:
            del self._by_name[name]
        else:
            self._by_name[name] = (found[0] - 1, found[1])

    def refusal(self) -> TooManyRequests:
        return TooManyRequests(f"Too many {self._what}; wait a few seconds.")


def _bearer(header: bytes) -> str | None:
    scheme, _, token = header.decode("latin-1").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_local_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.hostname is not None and is_loopback(parts.hostname)
    except ValueError:
        return False


@lru_cache(maxsize=1_000)
def to_network(address: str) -> str:
    """The unit of limits: an IPv4 address (also if mapped into IPv6) or an IPv6 /64."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def _is_private(address: str) -> bool:
    try:
        return ipaddress.ip_address(to_network(address).partition("/")[0]).is_private
    except ValueError:
        return False


_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
"""`name`, `name:port`, `[v6]` or `[v6]:port`."""


class ProcessKey:
    """An API key of this process: absent from every store, and gone with the process."""

    def __init__(self, id: str, project_id: str, role: Role) -> None:
        """`id` has eight letters, like the ids of other keys."""
        self.text = f"sk_{id}_{secrets.token_hex(16)}"
        self.principal = Principal(project_id, role, id, development=True)

    def before(self, others: Callable[[str], Awaitable[Principal]]) -> Callable[[str], Awaitable[Principal]]:
        async def authenticate(key: str) -> Principal:
            return self.principal if hmac.compare_digest(key, self.text) else await others(key)

        return authenticate
