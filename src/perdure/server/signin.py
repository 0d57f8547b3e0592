"""Sessions in a browser's cookie: a user's, and those that a link to the pages gives, once.

A link's address may be opened by programs that only want to show what it leads to, such as a chat's preview. So opening
it shows a page with a button, and only the button uses the link up.

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

from perdure.server.cookies import Cookies
from perdure.wire.access import Principal
from perdure.wire.errors import TooManyRequests

LINK_SECONDS: Final = 600.0
SESSION_SECONDS: Final = 12 * 3600.0
SHARE_MAX: Final = 100
"""How many links, and how many sessions, one key or user has at most; one more ends the oldest of the same."""
KEPT_MAX: Final = 100_000
"""How many links, and how many sessions, all keys and users have at most."""


class _Kept:
    """A link or a session: whose, until when, and when it was last looked up whether they may still."""

    __slots__ = ("checked_at", "principal", "session_hash", "until")

    def __init__(self, principal: Principal, session_hash: str | None, checked_at: float, until: float) -> None:
        self.principal = principal
        self.session_hash = session_hash
        self.checked_at = checked_at
        self.until = until


class _Tokens:
    """Links, or sessions, by the hashes of their tokens, oldest first. Each lasts as long as the others."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, _Kept] = OrderedDict()
        self._shares: dict[str, dict[str, None]] = {}
        """The hashes of each principal, by its `key_id`, oldest first."""

    def add(self, kept: _Kept, now: float) -> str:
        """Keep one; the answer is its token. Raises TooManyRequests."""
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
        """Forget one, if it is there."""
        kept = self._all.pop(hashed, None)
        if kept is not None:
            share = self._shares[kept.principal.key_id]
            del share[hashed]
            if not share:
                del self._shares[kept.principal.key_id]

    def drop(self, ends: Callable[[_Kept], bool]) -> None:
        """Forget those of which `ends` is true."""
        for hashed in [hashed for hashed, kept in self._all.items() if ends(kept)]:
            self.pop(hashed)

    def look_again(self) -> None:
        for kept in self._all.values():
            kept.checked_at = -math.inf


class SignIns:
    """Links that were made and not used, and sessions that go on."""

    def __init__(self, cookies: Cookies | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._cookies = cookies or Cookies()
        self._clock = clock
        self._links = _Tokens()
        self._sessions = _Tokens()
        self._forgotten = 0

    def make_link(self, principal: Principal, session_hash: str | None = None) -> str:
        """A token that signs in once, within ten minutes, as whoever asked for it; a user in a session of theirs."""
        now = self._clock()
        return self._links.add(_Kept(principal, session_hash, now, now + LINK_SECONDS), now)

    def is_link(self, token: str) -> bool:
        """Whether a link's token could be used now."""
        return self._links.get(token, self._clock()) is not None

    def use_link(self, token: str) -> str | None:
        """Trade a link's token for a session's; None when it was used, has expired or never was. Raises
        TooManyRequests."""
        now = self._clock()
        found = self._links.get(token, now)
        if found is None:
            return None
        session = _Kept(found.principal, found.session_hash, found.checked_at, now + SESSION_SECONDS)
        given = self._sessions.add(session, now)
        self._links.pop(_hash(token))
        return given

    def begin(self, principal: Principal) -> str:
        """A session's token for a caller who has just shown a key. Raises TooManyRequests."""
        now = self._clock()
        return self._sessions.add(_Kept(principal, None, now, now + SESSION_SECONDS), now)

    def end(self, headers: Mapping[bytes, bytes]) -> None:
        """Sign out: end the session in a request's cookies."""
        found = self._found(headers)
        self._sessions.drop(lambda kept: kept is found)

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
            self._sessions.drop(lambda kept: kept is found)
        elif forgotten == self._forgotten:  # else something changed meanwhile: look again at the next request
            found.checked_at = now
        return self.principal(headers)  # it may have been dropped meanwhile

    def _found(self, headers: Mapping[bytes, bytes]) -> _Kept | None:
        now = self._clock()
        found = [kept for token in self._cookies.tokens(headers) if (kept := self._sessions.get(token, now))]
        return found[0] if len(found) == 1 else None

    def forget(self, key_id: str) -> None:
        """A key was deleted: its links and sessions end."""
        self._drop(lambda kept: kept.principal.key_id == key_id)

    def forget_user(self, user_id: str) -> None:
        """A user has signed out, or belongs to other projects: the links that they made end, and what came of them."""
        self._drop(lambda kept: kept.principal.user_id == user_id)

    def look_again(self) -> None:
        """Word of a change may have been lost: look all of them up again."""
        self._forgotten += 1
        self._links.look_again()
        self._sessions.look_again()

    def _drop(self, ends: Callable[[_Kept], bool]) -> None:
        self._links.drop(ends)
        self._sessions.drop(ends)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
