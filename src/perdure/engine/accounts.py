"""The service of users. A session is a random token, kept as a hash."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from uuid_utils import uuid7

from perdure.engine.passwords import Passwords
from perdure.engine.service import Scope
from perdure.store.verbs import accounts
from perdure.store.verbs.accounts import NewSession
from perdure.wire.access import Principal, Role
from perdure.wire.accounts import (
    Session,
    User,
    email_of,
    new_password_of,
    password_of,
    person_of,
)
from perdure.wire.errors import Forbidden, NotFound, SignUpDisabled, Unauthorized

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

TOKEN_PREFIX: Final = "us_"
"""The prefix of session tokens. API keys begin with `sk_`."""
_WRONG: Final = "The e-mail or the password is wrong."


class UnknownEmail(Unauthorized):
    """Callers get the same message as for a wrong password."""


class SignedIn(NamedTuple):
    user: User
    token: str


def require_user(scope: Scope) -> str:
    """The user of a call. Raises Forbidden without one."""
    if scope.user_id is None:
        raise Forbidden("Only a user who has signed in may do this.")
    return scope.user_id


class Accounts:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._passwords = Passwords()

    def close(self) -> None:
        self._passwords.close()

    async def sign_up(
        self,
        *,
        first_name: str,
        last_name: str,
        email: str,
        password: str,
        invitation: str | None,
        open_to_all: bool,
        session_seconds: float,
    ) -> SignedIn:
        """Sign up and sign in. An invitation's token makes the user a member of its project.

        Raises BadValue with the field, SignUpDisabled, EmailTaken, TooManyRequests.
        """
        if invitation is None and not open_to_all:
            raise SignUpDisabled(
                "Sign-up is closed on this server; ask an admin of a project for an invitation, or set `signup`."
            )
        address = email_of(email)
        person_of(first_name, "body.first_name")
        person_of(last_name, "body.last_name")
        chosen = new_password_of(password)
        display_name = f"{first_name} {last_name}".strip()
        user = User(str(uuid7()), address, first_name, last_name, display_name or None)
        token, session = self._new_session(session_seconds)
        invitation_hash = None if invitation is None else hash_of(invitation)
        now_us = self._engine.clock.now_us()
        # First, because hashing the password is expensive.
        await self._engine.store.read(
            accounts.check_sign_up(email=address, invitation_hash=invitation_hash, now_us=now_us)
        )
        await self._passwords.check_choice(chosen, "body.password")
        await self._engine.store.write(
            accounts.sign_up(
                user=user,
                password_hash=await self._passwords.hash(chosen),
                session=session,
                invitation_hash=invitation_hash,
                member_id=str(uuid7()),
                now_us=self._engine.clock.now_us(),
            )
        )
        return SignedIn(user, token)

    async def sign_in(self, *, email: str, password: str, session_seconds: float, known_only: bool = False) -> SignedIn:
        """Raises Unauthorized, alike and after the same time for an unknown e-mail and a wrong password.

        With `known_only`, an unknown e-mail raises UnknownEmail without hashing, and the caller must hide the time.
        Also raises BadValue for an invalid e-mail or password, TooManyRequests.
        """
        address = email_of(email)
        given = password_of(password)
        found = await self._engine.store.read(accounts.find_user(email=address))
        if found is None and known_only:
            raise UnknownEmail(_WRONG)
        if not await self._passwords.check(given, None if found is None else found.password_hash) or found is None:
            raise Unauthorized(_WRONG)
        token, session = self._new_session(session_seconds)
        await self._engine.store.write(
            accounts.open_session(user_id=found.user.id, session=session, now_us=self._engine.clock.now_us())
        )
        return SignedIn(found.user, token)

    async def sign_out(self, token: str) -> None:
        """`Engine.user_changed` tells the caches."""
        await self._engine.store.write(accounts.close_session(token_hash=hash_of(token)))

    async def session(self, token: str, project_id: str) -> Session:
        """The session of a token, in one of the user's projects ('' for none). Raises Unauthorized, and NotFound if the
        user is not a member."""
        found = await self._engine.store.read(accounts.read_session(token_hash=hash_of(token), project_id=project_id))
        left_us = 0 if found is None else found.expires_at_us - self._engine.clock.now_us()
        if found is None or left_us <= 0:
            raise Unauthorized("The session has ended; sign in again.")
        if project_id and found.role is None:
            raise NotFound(f"Project {project_id!r} does not exist.")
        principal = Principal(project_id, found.role or Role.READ, f"user {found.user_id}", user_id=found.user_id)
        return Session(principal, left_us / 1e6)

    async def is_session_of(self, token_hash: str, principal: Principal) -> bool:
        """Whether it is open and its user has the same rights in the project."""
        found = await self._engine.store.read(
            accounts.read_session(token_hash=token_hash, project_id=principal.project_id)
        )
        if found is None or found.expires_at_us <= self._engine.clock.now_us():
            return False
        return (found.user_id, found.role) == (principal.user_id, principal.role)

    async def user(self, user_id: str) -> User:
        """Raises NotFound."""
        return (await self._engine.store.read(accounts.read_user(user_id=user_id))).user

    async def change_user(
        self, user_id: str, *, first_name: str | None, last_name: str | None, display_name: str | None
    ) -> User:
        """None keeps a name. Raises BadValue with the field."""
        names = {"first_name": first_name, "last_name": last_name, "display_name": display_name}
        for field, name in names.items():
            if name is not None:
                person_of(name, f"body.{field}")
        return await self._engine.store.write(
            accounts.change_user(user_id=user_id, **names, now_us=self._engine.clock.now_us())
        )

    async def change_password(self, user_id: str, *, current: str, new: str, session_seconds: float) -> SignedIn:
        """All sessions end, and a new one begins. Raises BadValue, Forbidden, TooManyRequests."""
        chosen = new_password_of(new, "body.new_password")
        await self._passwords.check_choice(chosen, "body.new_password")
        given = password_of(current, "body.current_password")
        found = await self._engine.store.read(accounts.read_user(user_id=user_id))
        if not await self._passwords.check(given, found.password_hash):
            raise Forbidden("The current password is wrong.")
        token, session = self._new_session(session_seconds)
        await self._engine.store.write(
            accounts.change_password(
                user_id=user_id,
                password_hash=await self._passwords.hash(chosen),
                session=session,
                now_us=self._engine.clock.now_us(),
            )
        )
        return SignedIn(found.user, token)

    async def reset_password(self, email: str) -> str:
        """A new password for the operator to pass on. All the user's sessions end. Raises NotFound, and BadValue for an
        invalid e-mail."""
        address = email_of(email)
        found = await self._engine.store.read(accounts.find_user(email=address))
        if found is None:
            raise NotFound(f"No user has signed up as {address}.")
        made = secrets.token_urlsafe(15)
        await self._engine.store.write(
            accounts.change_password(
                user_id=found.user.id,
                password_hash=await self._passwords.hash(made),
                session=None,
                now_us=self._engine.clock.now_us(),
            )
        )
        return made

    def _new_session(self, seconds: float) -> tuple[str, NewSession]:
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        return token, NewSession(hash_of(token), self._engine.clock.now_us() + int(seconds * 1e6))


def hash_of(token: str) -> str:
    """Tokens are random and long, so a plain hash is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
