"""The service of users. A session is a random token, kept as a hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

from msgspec.structs import asdict

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.people.passwords import Passwords
from perdure.store.verbs.people import accounts
from perdure.store.verbs.people.accounts import NewSession
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import Forbidden, NotFound, SignUpDisabled, Unauthorized
from perdure.wire.base.operation import validated
from perdure.wire.people.accounts import (
    ChangePasswordRequest,
    GetMe,
    Me,
    SignInRequest,
    SignUpRequest,
    UpdateMe,
    User,
    parse_email,
    to_me,
)

DEVICE_SECONDS: Final = 365 * 86_400
TOKEN_PREFIX: Final = "us_"
_WRONG: Final = "The e-mail or the password is wrong."


class UnknownEmail(Unauthorized):
    """Callers get the same message as for a wrong password."""


class SignedIn(NamedTuple):
    user: User
    token: str
    device: str
    """A later proof of a sign-in on this device with the present password."""


def require_user(scope: Scope) -> str:
    """Raises Forbidden without a user."""
    if scope.user_id is None:
        raise Forbidden("Only a user who has signed in may do this.")
    return scope.user_id


class Accounts(Service):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._passwords = Passwords()

    def close(self) -> None:
        self._passwords.close()

    async def sign_up(self, given: SignUpRequest, *, open_to_all: bool, session_seconds: float) -> SignedIn:
        """Make a user. An invitation's token makes the user a member of the project.

        Raises BadValue with the field, SignUpDisabled, EmailTaken, TooManyRequests.
        """
        if given.invitation is None and not open_to_all:
            raise SignUpDisabled(
                "Sign-up is closed on this server; ask an admin of a project for an invitation, or set `signup`."
            )
        given = validated(given)
        user = User(
            id=self.new_id(),
            email=given.email,
            first_name=given.first_name,
            last_name=given.last_name,
            display_name=f"{given.first_name} {given.last_name}".strip() or None,
        )
        token, session = self._new_session(session_seconds)
        invitation_hash = None if given.invitation is None else hash_of(given.invitation)
        # First, because hashing the password is expensive.
        await self.read(accounts.check_sign_up(email=user.email, invitation_hash=invitation_hash, now_us=self.now_us()))
        await self._passwords.check_choice(given.password, "body.password")
        password_hash = await self._passwords.hash(given.password)
        await self.write(
            accounts.sign_up(
                user=user,
                password_hash=password_hash,
                session=session,
                invitation_hash=invitation_hash,
                member_id=self.new_id(),
                now_us=self.now_us(),
            )
        )
        return SignedIn(user, token, self._device(user.id, password_hash))

    async def sign_in(
        self, given: SignInRequest, *, session_seconds: float, known_only: bool = False, known_device: bool = False
    ) -> SignedIn:
        """Raises Unauthorized, alike and after the same time for an unknown e-mail and a wrong password.

        With `known_only`, an unknown e-mail raises UnknownEmail without hashing, and the caller must hide the time.
        Also raises BadValue, TooManyRequests.
        """
        given = validated(given)
        found = await self.read(accounts.find_user(email=given.email))
        if found is None and known_only:
            raise UnknownEmail(_WRONG)
        password_hash = None if found is None else found.password_hash
        if not await self._passwords.check(given.password, password_hash, known=known_device) or found is None:
            raise Unauthorized(_WRONG)
        token, session = self._new_session(session_seconds)
        await self.write(accounts.open_session(user_id=found.user.id, session=session, now_us=self.now_us()))
        return SignedIn(found.user, token, self._device(found.user.id, found.password_hash))

    async def knows_device(self, email: str, device: str) -> bool:
        found = await self.read(accounts.find_user(email=email))
        until, _, _ = device.partition(".")
        if found is None or not (until.isascii() and until.isdigit() and len(until) < 20):
            return False
        mine = _device_token(found.user.id, found.password_hash, int(until))
        return int(until) > self.now_us() and hmac.compare_digest(mine.encode(), device.encode())

    def _device(self, user_id: str, password_hash: str) -> str:
        return _device_token(user_id, password_hash, self.now_us() + DEVICE_SECONDS * 1_000_000)

    async def sign_out(self, token: str) -> None:
        """`Engine.user_changed` tells the caches."""
        await self.write(accounts.close_session(token_hash=hash_of(token)))

    async def session(self, token: str, project_id: str) -> tuple[Principal, float]:
        """The user of a session's token in a project of the user ('' for none), and the seconds left. Raises
        Unauthorized, and NotFound if the user is not a member."""
        found = await self.read(accounts.read_session(token_hash=hash_of(token), project_id=project_id))
        left_us = 0 if found is None else found.expires_at_us - self.now_us()
        if found is None or left_us <= 0:
            raise Unauthorized("The session has ended; sign in again.")
        if project_id and found.role is None:
            raise NotFound(f"Project {project_id!r} does not exist.")
        principal = Principal(project_id, found.role or Role.READ, f"user {found.user_id}", user_id=found.user_id)
        return principal, left_us / 1e6

    async def is_session_of(self, token_hash: str, principal: Principal) -> bool:
        found = await self.read(accounts.read_session(token_hash=token_hash, project_id=principal.project_id))
        if found is None or found.expires_at_us <= self.now_us():
            return False
        return (found.user_id, found.role) == (principal.user_id, principal.role)

    async def user(self, user_id: str) -> User:
        return (await self.read(accounts.read_user(user_id=user_id))).user

    @serves(GetMe)
    async def me(self, scope: Scope, op: GetMe) -> Me:
        return to_me(await self.user(require_user(scope)))

    @serves(UpdateMe)
    async def change_user(self, scope: Scope, op: UpdateMe) -> Me:
        names = asdict(op)
        changed = accounts.change_user(user_id=require_user(scope), **names, now_us=self.now_us())
        return to_me(await self.write(changed))

    async def change_password(self, user_id: str, given: ChangePasswordRequest, *, session_seconds: float) -> SignedIn:
        """End all sessions, begin one. Raises BadValue, Forbidden, TooManyRequests."""
        given = validated(given)
        await self._passwords.check_choice(given.new_password, "body.new_password")
        found = await self.read(accounts.read_user(user_id=user_id))
        if not await self._passwords.check(given.current_password, found.password_hash):
            raise Forbidden("The current password is wrong.")
        token, session = self._new_session(session_seconds)
        password_hash = await self._passwords.hash(given.new_password)
        await self.write(
            accounts.change_password(
                user_id=user_id,
                password_hash=password_hash,
                session=session,
                now_us=self.now_us(),
            )
        )
        return SignedIn(found.user, token, self._device(user_id, password_hash))

    async def reset_password(self, email: str) -> str:
        """A new password for the operator to pass on. All the user's sessions end. Raises NotFound, BadValue."""
        address = parse_email(email)
        found = await self.read(accounts.find_user(email=address))
        if found is None:
            raise NotFound(f"No user has signed up as {address}.")
        made = secrets.token_urlsafe(15)
        await self.write(
            accounts.change_password(
                user_id=found.user.id,
                password_hash=await self._passwords.hash(made),
                session=None,
                now_us=self.now_us(),
            )
        )
        return made

    def _new_session(self, seconds: float) -> tuple[str, NewSession]:
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        return token, NewSession(hash_of(token), self.now_us() + int(seconds * 1e6))


def _device_token(user_id: str, password_hash: str, until_us: int) -> str:
    """A signature with the password's hash, so the token ends with the password, and all servers of the store can
    check."""
    said = f"perdure device\n{user_id}\n{until_us}".encode()
    return f"{until_us}.{hmac.digest(password_hash.encode(), said, hashlib.sha256).hex()}"


def hash_of(token: str) -> str:
    """Tokens are random and long, so a plain hash is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
