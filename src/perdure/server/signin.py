"""Signing in to the pages: a link that works once, then a session in a cookie.

Both live in this process's memory and as hashes only; a restart ends them, and a new link is one command away.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Final

from perdure.wire.access import Principal

LINK_SECONDS: Final = 600.0
SESSION_SECONDS: Final = 12 * 3600.0
KEPT_MAX: Final = 1_000
COOKIE: Final = "perdure_session"


class SignIns:
    """Links that were made and not used, and sessions that go on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._links: OrderedDict[str, tuple[Principal, float]] = OrderedDict()
        self._sessions: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    def make_link(self, principal: Principal) -> str:
        """A token that signs in once, within ten minutes, as whoever asked for it."""
        return self._keep(self._links, principal, LINK_SECONDS)

    def use_link(self, token: str) -> str | None:
        """Trade a link's token for a session's; None when it was used, has expired or never was."""
        found = self._links.pop(_hash(token), None)
        if found is None or found[1] < self._clock():
            return None
        return self.begin(found[0])

    def begin(self, principal: Principal) -> str:
        """A session's token for somebody who has just shown a key."""
        return self._keep(self._sessions, principal, SESSION_SECONDS)

    def principal(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """Who is signed in, by the request's cookie."""
        try:
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return None
        if COOKIE not in cookie:
            return None
        found = self._sessions.get(_hash(cookie[COOKIE].value))
        return found[0] if found is not None and found[1] > self._clock() else None

    def forget(self, key_id: str) -> None:
        """A key was deleted: its links and sessions end."""
        for kept in (self._links, self._sessions):
            for token in [token for token, (principal, _) in kept.items() if principal.key_id == key_id]:
                del kept[token]

    def _keep(self, kept: OrderedDict[str, tuple[Principal, float]], principal: Principal, seconds: float) -> str:
        token = secrets.token_urlsafe(32)
        kept[_hash(token)] = (principal, self._clock() + seconds)
        if len(kept) > KEPT_MAX:
            kept.popitem(last=False)
        return token


def cookie_header(token: str) -> tuple[bytes, bytes]:
    """The header that gives a browser its session. Not readable by scripts, not sent from other sites."""
    value = f"{COOKIE}={token}; Path=/; Max-Age={int(SESSION_SECONDS)}; HttpOnly; SameSite=Strict"
    return b"set-cookie", value.encode()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
