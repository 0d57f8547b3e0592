"""Sessions in a browser's cookie: a user's, and those that a link to the pages gives, once.

Links and what they give live in this process's memory and as hashes only; a restart ends them, and a new link is one
command away. A user's session is in the store (`engine/accounts.py`). Both come in the same cookie.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
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
        token = session_token(headers)
        found = None if token is None else self._sessions.get(_hash(token))
        return found[0] if found is not None and found[1] > self._clock() else None

    def forget(self, key_id: str) -> None:
        """A key was deleted: its links and sessions end."""
        self._drop(lambda principal: principal.key_id == key_id)

    def forget_user(self, user_id: str) -> None:
        """A user has signed out, or belongs to other projects: the links that they made end, and what came of them."""
        self._drop(lambda principal: principal.user_id == user_id)

    def _drop(self, is_of: Callable[[Principal], bool]) -> None:
        for kept in (self._links, self._sessions):
            for token in [token for token, (principal, _) in kept.items() if is_of(principal)]:
                del kept[token]

    def _keep(self, kept: OrderedDict[str, tuple[Principal, float]], principal: Principal, seconds: float) -> str:
        token = secrets.token_urlsafe(32)
        kept[_hash(token)] = (principal, self._clock() + seconds)
        if len(kept) > KEPT_MAX:
            kept.popitem(last=False)
        return token


def session_token(headers: Mapping[bytes, bytes]) -> str | None:
    """The token in a request's cookie. None as well when there are two: one of them is somebody else's doing."""
    values = [part.strip() for part in headers.get(b"cookie", b"").split(b";")]
    tokens = [value[len(_NAMED) :] for value in values if value.startswith(_NAMED)]
    if len(tokens) != 1 or not tokens[0]:
        return None
    return tokens[0].decode("latin-1")


def link_cookie(token: str) -> tuple[bytes, bytes]:
    """The header that gives a browser a link's session. Not readable by scripts, not sent from other sites."""
    return _cookie(token, SESSION_SECONDS, "Strict", secure=False)


def user_cookie(token: str, seconds: float, *, secure: bool) -> tuple[bytes, bytes]:
    """The header that gives a browser a user's session, or (with no seconds) takes it away. Not readable by scripts;
    another site's links arrive signed in, its forms and scripts do not."""
    return _cookie(token, seconds, "Lax", secure=secure)


def _cookie(token: str, seconds: float, same_site: str, *, secure: bool) -> tuple[bytes, bytes]:
    value = f"{COOKIE}={token}; Path=/; Max-Age={int(seconds)}; HttpOnly; SameSite={same_site}"
    return b"set-cookie", (value + "; Secure" if secure else value).encode()


_NAMED: Final = COOKIE.encode() + b"="


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
