"""The policy for session cookies of users, API keys and sign-in links.

SameSite=Lax keeps other sites' forms and scripts from sending the cookies. Over TLS their names begin with `__Host-`,
so neither a plain-HTTP server nor a server under a sibling name can set such cookies. On the same machine the prefix is
left out, because not all browsers accept `__Host-` there.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from perdure.engine.base.addresses import means_this_machine

COOKIE: Final = "perdure_session"
DEVICE: Final = "perdure_device"
"""Marks a browser in which a user has signed in before."""
TOKENS_MAX: Final = 5


class Cookies:
    """`secure` is the setting `cookie_secure`; None decides by the request and by `loopback`."""

    def __init__(self, secure: bool | None = None, *, loopback: bool = True) -> None:
        self._secure = secure
        self._loopback = loopback

    def tokens(self, headers: Mapping[bytes, bytes], name: bytes = COOKIE.encode()) -> list[str]:
        sent = headers.get(b"cookie")
        if sent is None:
            return []
        pairs = [part.strip().partition(b"=") for part in sent.split(b";")]
        found = [value for item, _, value in pairs if item == b"__Host-" + name]
        if not found and not self._prefixes(headers, tls=False):
            found = [value for item, _, value in pairs if item == name]
        return [token.decode("latin-1") for token in dict.fromkeys(found) if token][:TOKENS_MAX]

    def header(
        self, headers: Mapping[bytes, bytes], token: str, seconds: float, *, tls: bool, name: str = COOKIE
    ) -> tuple[bytes, bytes]:
        """Zero seconds delete the cookie."""
        name = "__Host-" + name if self._prefixes(headers, tls=tls) else name
        secure = "; Secure" if self._is_secure(tls) else ""
        value = f"{name}={token}; Path=/; Max-Age={int(seconds)}; HttpOnly; SameSite=Lax{secure}"
        return b"set-cookie", value.encode()

    def _is_secure(self, tls: bool) -> bool:
        return (tls or not self._loopback) if self._secure is None else self._secure

    def _prefixes(self, headers: Mapping[bytes, bytes], *, tls: bool) -> bool:
        return self._is_secure(tls) and (tls or not _names_this_machine(headers.get(b"host", b"")))


def _names_this_machine(host: bytes) -> bool:
    try:
        name = urlsplit("//" + host.decode("latin-1")).hostname
    except ValueError:
        return False
    return name is not None and means_this_machine(name)
