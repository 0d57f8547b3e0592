"""Which addresses the server may call, under which names, and which URLs are valid.

Any holder of a key may give us a URL, even into our own network. The server therefore calls only public addresses and
`outbound_hosts`, and never link-local or metadata addresses, where machines get credentials.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from perdure.wire.base.errors import BadRequest, BadValue

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_CHARACTERS_MAX: Final = 2_048

_NEVER: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        # Metadata services besides 169.254.0.0/16. One address looks public.
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
    )
)
_COMPATIBLE: Final = ip_network("::/96")
_TRANSLATED: Final = ip_network("64:ff9b::/96")
_TRANSLATED_HERE: Final = (ip_network("64:ff9b:1::/48"), ip_network("::ffff:0:0:0/96"))
"""Prefixes for a network's own gateways."""
_GLOBAL: Final = ip_network("2000::/3")
"""All public IPv6. Python's `is_global` includes more (fec0::/10) and differs between releases."""
BAD_PORTS: Final = frozenset(
    (
        # Fetch's bad ports: https://fetch.spec.whatwg.org/#port-blocking
        *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104),
        *(109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526),
        *(530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659),
        *(4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
        # SQL Server, Oracle, MySQL, RDP, PostgreSQL, AMQP, VNC, Redis, Cassandra, memcached, MongoDB.
        *(1433, 1521, 3306, 3389, 5432, 5672, 5900, 6379, 9042, 11211, 27017),
    )
)
"""Other protocols could read a request as commands."""
_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_PRINTABLE: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+")
"""ASCII without characters on which URL parsers disagree."""


class Reach(StrEnum):
    PUBLIC = "public"
    PRIVATE = "private"
    """An address on this machine or in a private network."""
    NEVER = "never"
    """A forbidden or invalid address."""


def reach(address: Address) -> Reach:
    """An address with another address inside gets the stricter class."""
    if isinstance(address, IPv6Address):
        inner = _inside(address)
        if address.ipv4_mapped is not None:
            return reach(address.ipv4_mapped)
        found = Reach.PUBLIC if address in _TRANSLATED else _reach(address)
        return found if inner is None else max(found, reach(inner), key=list(Reach).index)
    return _reach(address)


def _reach(address: Address) -> Reach:
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return Reach.NEVER
    if any(address in network for network in _NEVER):
        return Reach.NEVER
    if isinstance(address, IPv6Address) and address not in _GLOBAL:
        return Reach.PRIVATE
    return Reach.PUBLIC if address.is_global else Reach.PRIVATE


def _inside(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which a gateway would translate."""
    translated = address in _TRANSLATED or any(address in network for network in _TRANSLATED_HERE)
    if translated or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.sixtofour


class CallTarget(NamedTuple):
    scheme: str
    host: str
    """The host in lower case. An IPv6 address is without brackets."""
    port: int
    path: str
    """The path with the query. Never empty."""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.scheme == "https" else 80)
        return host if usual else f"{host}:{self.port}"


def target(url: str, where: str = "url") -> CallTarget:
    """Raises `BadValue`, naming `where`, even if URL parsers only could disagree."""
    if len(url) > URL_CHARACTERS_MAX:
        raise _bad(where, f"is longer than {URL_CHARACTERS_MAX:,} characters")
    if not _PRINTABLE.fullmatch(url):
        raise _bad(where, "has characters that a URL must not have; encode them")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname
    except ValueError as error:
        raise _bad(where, f"is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise _bad(where, "must start with https:// (or http:// for hosts that the server's `outbound_hosts` names)")
    if "@" in parts.netloc:
        raise _bad(where, "must not hold a user or a password")
    if parts.fragment or url.endswith("#"):
        raise _bad(where, "must not have a fragment (#…)")
    if not host or port == 0 or parts.netloc.endswith(":"):
        raise _bad(where, "names no host, or an invalid port")
    if not _is_host(host):
        raise _bad(where, f"names host {host!r}, which is neither a name (in ASCII, xn--… if need be) nor an address")
    path = parts.path or "/"
    if parts.query:
        path = f"{path}?{parts.query}"
    return CallTarget(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path)


def _bad(where: str, what: str) -> BadValue:
    return BadValue(f"{where}: {what}.", {"path": where})


def _is_host(host: str) -> bool:
    if ":" in host:
        return literal(host) is not None and "%" not in host
    return _NAME.fullmatch(host.removesuffix(".")) is not None


def literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def means_this_machine(host: str) -> bool:
    name = host.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = literal(name)
    return address is not None and address.is_loopback


class Policy:
    """`hosts` (names, `*.` and a domain, addresses, networks) may be called even if not public, and over plain HTTP.
    Raises `BadRequest` for invalid entries."""

    def __init__(self, hosts: Sequence[str] = (), *, loopback: bool = False) -> None:
        self.loopback = loopback
        """True if this machine may be called by its own names."""
        self._names: set[str] = set()
        self._suffixes: list[str] = []
        self._networks: list[Network] = []
        for host in hosts:
            self._add(host.strip().lower())

    def _add(self, host: str) -> None:
        try:
            self._networks.append(ip_network(host.strip("[]"), strict=False))
            return
        except ValueError:
            pass
        name = host.removeprefix("*.").removesuffix(".")
        if not _NAME.fullmatch(name):
            raise BadRequest(
                f"Setting outbound_hosts: {host!r} is not a host; name one (without scheme and port), `*.` and a "
                "domain, an address, or a network like 10.0.0.0/8."
            )
        if host.startswith("*."):
            self._suffixes.append("." + name)
        else:
            self._names.add(name)

    def named(self, host: str) -> bool:
        name = host.removesuffix(".")
        address = literal(name)
        if address is not None:
            return self._within(address)
        return name in self._names or any(name.endswith(suffix) for suffix in self._suffixes)

    def plain(self, host: str) -> bool:
        return self.named(host) or (self.loopback and means_this_machine(host))

    def allows(self, host: str, address: Address) -> bool:
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        found = reach(address)
        if found is not Reach.PRIVATE:
            return found is Reach.PUBLIC
        if self.named(host) or self._within(address):
            return True
        return self.loopback and address.is_loopback and means_this_machine(host)

    def _within(self, address: Address) -> bool:
        return any(address in network for network in self._networks)
