"""Sessions in a browser's cookie: a user's, and those that a link to the pages gives, once.

Links and what they give live in this process's memory and as hashes only; a restart ends them, and a new link is one
command away. A user's session is in the store (`engine/accounts.py`). Both come in the same cookie.

What they were given for may end before they do: a key is deleted, a user signs out or gets another role. A server hears
of that by a hint, and since hints may be lost it also looks again when its last look is as old as it remembers keys.
"""

import hashlib
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from perdure.wire.access import Principal

LINK_SECONDS: Final = 600.0
SESSION_SECONDS: Final = 12 * 3600.0
KEPT_MAX: Final = 1_000
COOKIE: Final = "perdure_session"


class _Kept:
    """A link or a session: whose, until when, and when it was last looked up whether they may still."""

    __slots__ = ("checked_at", "principal", "session_hash", "until")

    def __init__(self, principal: Principal, session_hash: str | None, checked_at: float, until: float) -> None:
        self.principal = principal
        self.session_hash = session_hash
        self.checked_at = checked_at
        self.until = until


class SignIns:
    """Links that were made and not used, and sessions that go on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._links: OrderedDict[str, _Kept] = OrderedDict()
        self._sessions: OrderedDict[str, _Kept] = OrderedDict()
        self._forgotten = 0

    def make_link(self, principal: Principal, session_hash: str | None = None) -> str:
        """A token that signs in once, within ten minutes, as whoever asked for it; a user in a session of theirs."""
        now = self._clock()
        return self._keep(self._links, _Kept(principal, session_hash, now, now + LINK_SECONDS))

    def use_link(self, token: str) -> str | None:
        """Trade a link's token for a session's; None when it was used, has expired or never was."""
        found = self._links.pop(_hash(token), None)
        now = self._clock()
        if found is None or found.until < now:
            return None
        session = _Kept(found.principal, found.session_hash, found.checked_at, now + SESSION_SECONDS)
        return self._keep(self._sessions, session)

    def begin(self, principal: Principal) -> str:
        """A session's token for somebody who has just shown a key."""
        now = self._clock()
        return self._keep(self._sessions, _Kept(principal, None, now, now + SESSION_SECONDS))

    def principal(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """Who is signed in, by the request's cookie, as of the last look."""
        found = self._found(headers)
        return None if found is None else found.principal

    async def checked(
        self,
        headers: Mapping[bytes, bytes],
        still: Callable[[Principal, str | None], Awaitable[bool]],
        cache_seconds: float,
    ) -> Principal | None:
        """Who is signed in; asks `still` for one whose last look is so old. What is answered no has ended."""
        found = self._found(headers)
        if found is None or found.checked_at + cache_seconds > self._clock():
            return None if found is None else found.principal
        now, forgotten = self._clock(), self._forgotten
        if not await still(found.principal, found.session_hash):
            self._drop(lambda kept: kept is found)
        elif forgotten == self._forgotten:  # else something changed meanwhile: look again at the next request
            found.checked_at = now
        return self.principal(headers)  # it may have been dropped meanwhile

    def _found(self, headers: Mapping[bytes, bytes]) -> _Kept | None:
        token = session_token(headers)
        found = None if token is None else self._sessions.get(_hash(token))
        return found if found is not None and found.until > self._clock() else None

    def forget(self, key_id: str) -> None:
        """A key was deleted: its links and sessions end."""
        self._drop(lambda kept: kept.principal.key_id == key_id)

    def forget_user(self, user_id: str) -> None:
        """A user has signed out, or belongs to other projects: the links that they made end, and what came of them."""
        self._drop(lambda kept: kept.principal.user_id == user_id)

    def look_again(self) -> None:
        """Word of a change may have been lost: look all of them up again."""
        self._forgotten += 1
        for all_kept in (self._links, self._sessions):
            for kept in all_kept.values():
                kept.checked_at = -math.inf

    def _drop(self, ends: Callable[[_Kept], bool]) -> None:
        for all_kept in (self._links, self._sessions):
            for token in [token for token, kept in all_kept.items() if ends(kept)]:
                del all_kept[token]

    def _keep(self, all_kept: OrderedDict[str, _Kept], kept: _Kept) -> str:
        token = secrets.token_urlsafe(32)
        all_kept[_hash(token)] = kept
        if len(all_kept) > KEPT_MAX:
            all_kept.popitem(last=False)
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
