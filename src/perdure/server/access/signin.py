"""Sign-in links, and the sessions begun by links and keys, by hash in the process's memory.

Chat previews open links, so only a page's button uses a link up. Notifications of deleted keys, sign-outs and changed
roles may be lost, so a server also checks after `auth_cache_seconds`.
"""

import hashlib
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from perdure.server.access.cookies import Cookies
from perdure.wire.base.access import Principal
from perdure.wire.base.errors import TooManyRequests

LINK_SECONDS: Final = 600.0
SESSION_SECONDS: Final = 12 * 3600.0
SHARE_MAX: Final = 100
"""Most links, and most sessions, per key or user. A further start ends the oldest."""
KEPT_MAX: Final = 100_000
"""Most links, and most sessions, in all."""


class _Kept:
    """`checked_at`: the time of the principal's last look-up."""

    __slots__ = ("checked_at", "principal", "session_hash", "until")

    def __init__(self, principal: Principal, session_hash: str | None, checked_at: float, until: float) -> None:
        self.principal = principal
        self.session_hash = session_hash
        self.checked_at = checked_at
        self.until = until


class _Tokens:
    """Entries by token hash, oldest first. All have the same lifetime."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, _Kept] = OrderedDict()
        self._shares: dict[str, dict[str, None]] = {}
        """Token hashes by `key_id`, oldest first."""

    def add(self, kept: _Kept, now: float) -> str:
        """Returns the token. Raises TooManyRequests."""
        while self._all and next(iter(self._all.values())).until < now:
            self.pop(next(iter(self._all)))
        share = self._shares.get(kept.principal.key_id, {})
        if len(share) >= SHARE_MAX:
            self.pop(next(iter(share)))
        elif len(self._all) >= KEPT_MAX:
            raise TooManyRequests("Too many sign-ins to the pages are open on this server; try again later.")
        token = secrets.token_urlsafe(32)
        self._all[_hash(token)] = kept
        self._shares.setdefault(kept.principal.key_id, {})[_hash(token)] = None
        return token

    def get(self, token: str, now: float) -> _Kept | None:
        found = self._all.get(_hash(token))
        return found if found is not None and found.until > now else None

    def pop(self, hashed: str) -> None:
        kept = self._all.pop(hashed, None)
        if kept is not None:
            share = self._shares[kept.principal.key_id]
            del share[hashed]
            if not share:
                del self._shares[kept.principal.key_id]

    def drop(self, ends: Callable[[_Kept], bool]) -> None:
        for hashed in [hashed for hashed, kept in self._all.items() if ends(kept)]:
            self.pop(hashed)

    def look_again(self) -> None:
        for kept in self._all.values():
            kept.checked_at = -math.inf


class SignIns:
    def __init__(self, cookies: Cookies | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._cookies = cookies or Cookies()
        self._clock = clock
        self._links = _Tokens()
        self._sessions = _Tokens()
        self._forgotten = 0

    def make_link(self, principal: Principal, session_hash: str | None = None) -> str:
        """A user's link depends on the user's session."""
        now = self._clock()
        return self._links.add(_Kept(principal, session_hash, now, now + LINK_SECONDS), now)

    def is_link(self, token: str) -> bool:
        return self._links.get(token, self._clock()) is not None

    def use_link(self, token: str) -> tuple[Principal, str] | None:
        """The caller and the session's token; None for a used, expired or unknown link. Raises TooManyRequests."""
        now = self._clock()
        found = self._links.get(token, now)
        if found is None:
            return None
        session = _Kept(found.principal, found.session_hash, found.checked_at, now + SESSION_SECONDS)
        given = self._sessions.add(session, now)
        self._links.pop(_hash(token))
        return found.principal, given

    def begin(self, principal: Principal) -> str:
        """Begin a session for a caller who has shown a key. Raises TooManyRequests."""
        now = self._clock()
        return self._sessions.add(_Kept(principal, None, now, now + SESSION_SECONDS), now)

    def end(self, headers: Mapping[bytes, bytes]) -> None:
        found = self._found(headers)
        self._sessions.drop(lambda kept: kept is found)

    def principal(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """The principal found by the last check."""
        found = self._found(headers)
        return None if found is None else found.principal

    async def checked(
        self,
        headers: Mapping[bytes, bytes],
        still: Callable[[Principal, str | None], Awaitable[bool]],
        cache_seconds: float,
    ) -> Principal | None:
        """The principal. After `cache_seconds` the session asks `still` again; False ends the session."""
        found = self._found(headers)
        if found is None or found.checked_at + cache_seconds > self._clock():
            return None if found is None else found.principal
        now, forgotten = self._clock(), self._forgotten
        if not await still(found.principal, found.session_hash):
            self._sessions.drop(lambda kept: kept is found)
        elif forgotten == self._forgotten:  # else something changed meanwhile: check again next time
            found.checked_at = now
        return self.principal(headers)  # it may have ended meanwhile

    def _found(self, headers: Mapping[bytes, bytes]) -> _Kept | None:
        now = self._clock()
        found = [kept for token in self._cookies.tokens(headers) if (kept := self._sessions.get(token, now))]
        return found[0] if len(found) == 1 else None

    def forget(self, key_id: str) -> None:
        self._drop(lambda kept: kept.principal.key_id == key_id)

    def forget_user(self, user_id: str) -> None:
        self._drop(lambda kept: kept.principal.user_id == user_id)

    def look_again(self) -> None:
        """Check all sessions at their next use."""
        self._forgotten += 1
        self._links.look_again()
        self._sessions.look_again()

    def _drop(self, ends: Callable[[_Kept], bool]) -> None:
        self._links.drop(ends)
        self._sessions.drop(ends)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
