"""The routes that set the session's cookie."""

from asyncio import get_running_loop, sleep
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from perdure.engine.accounts import SignedIn, UnknownEmail
from perdure.server.bodies import SMALL
from perdure.server.routing import Call, Routes
from perdure.wire.access import Caller
from perdure.wire.accounts import (
    INVITATION_PATH,
    AuthResponse,
    ChangePasswordRequest,
    SignInRequest,
    SignUpRequest,
    parse_email,
    to_me,
)
from perdure.wire.errors import BadValue, EmailTaken, Forbidden, Unauthorized
from perdure.wire.record import Message

SLOWED_SECONDS: Final = 2.0
"""The delay of a failure after too many from its address; a hash takes less. It hides whether the password was hashed,
which would tell a known e-mail."""

routes = Routes("Auth")


@routes.post(
    "/api/v1/auth/signup",
    repeated="409 `EMAIL_ALREADY_EXISTS`: sign in",
    role=None,
    contract=True,
    body_bytes_max=SMALL,
)
async def signup(call: Call, body: SignUpRequest) -> AuthResponse:
    """Make a user and sign in.

    Needs an invitation, unless the setting `signup` is on: e-mails are not verified.
    """
    call.services.gate.check_page(call.headers, told=False)
    async with attempt(call):
        signed_in = await call.engine.accounts.sign_up(
            body, open_to_all=call.settings.signup, session_seconds=session_seconds(call)
        )
    return _answer(call, "User created", signed_in)


@routes.post("/api/v1/auth/signin", repeated="another session", role=None, contract=True, body_bytes_max=SMALL)
async def signin(call: Call, body: SignInRequest) -> AuthResponse:
    """Sign in with a password."""
    call.services.gate.check_page(call.headers, told=False)
    signed_in = await sign_in_with_password(call, body)
    return _answer(call, "Signed in", signed_in)


@routes.post("/api/v1/auth/signout", repeated="no effect", role=None, caller=Caller.SESSION, contract=True)
async def signout(call: Call) -> Message:
    """End the session and clear its cookie.

    This server refuses the session from the next request on. Other servers of the store refuse a user's session once
    they are notified, and within `auth_cache_seconds` at the latest.
    """
    await end_session(call)
    return Message("Signed out")


async def end_session(call: Call) -> None:
    """Raises Unauthorized without a session, and Forbidden for a key in a header or a page of another site."""
    gate, sign_ins = call.services.gate, call.services.sign_ins
    if b"authorization" not in call.headers and sign_ins.principal(call.headers) is not None:
        gate.check_page(call.headers, told=True)
        sign_ins.end(call.headers)
    else:
        await gate.user(call.headers, call.address, safe=False)
        token = await gate.token(call.headers)
        if token is not None:
            await call.engine.accounts.sign_out(token)
    call.extra = (call.session_cookie("", 0),)


@routes.post(
    "/api/v1/auth/password", repeated="401 for the old password", role=None, caller=Caller.USER, body_bytes_max=SMALL
)
async def change_password(call: Call, body: ChangePasswordRequest) -> AuthResponse:
    """Change the signed-in user's password.

    All sessions of the user end, and a new one begins.
    """
    assert call.user_id is not None
    async with attempt(call, call.user_id):
        signed_in = await call.engine.accounts.change_password(
            call.user_id, body, session_seconds=session_seconds(call)
        )
    return _answer(call, "Password changed", signed_in)


@asynccontextmanager
async def attempt(call: Call, name: str | None = None) -> AsyncIterator[bool]:
    """Count an attempt against the caller's address and against `name`, an e-mail or a user: while it is under way, and
    after it failed.

    After too many failures for the name, the server refuses the attempt. After too many from an address, which many
    people may share, this yields True: then only passwords of known users are hashed, and a failure is late and 429.
    """
    failures = call.services.wrong_passwords
    if name is not None:
        failures.check(name)
    slowed = not failures.take(call.address)
    loop = get_running_loop()
    until = loop.time() + SLOWED_SECONDS
    failed = False
    try:
        yield slowed
    except (Unauthorized, Forbidden, EmailTaken, BadValue) as error:
        failed = not isinstance(error, BadValue) or error.details == {"path": INVITATION_PATH}
        if failed and slowed:
            if name is not None and isinstance(error, UnknownEmail):
                failures.give_back(name)  # made-up e-mails must not evict the counts of real ones
            await sleep(until - loop.time())
            raise failures.refusal() from None
        raise
    finally:
        if not failed:
            if name is not None:
                failures.give_back(name)
            if not slowed:
                failures.give_back(call.address)


async def sign_in_with_password(call: Call, given: SignInRequest) -> SignedIn:
    """Raises like `Accounts.sign_in`."""
    async with attempt(call, parse_email(given.email)) as slowed:
        return await call.engine.accounts.sign_in(given, session_seconds=session_seconds(call), known_only=slowed)


def session_seconds(call: Call) -> float:
    return call.settings.session_hours * 3_600


def _answer(call: Call, message: str, signed_in: SignedIn) -> AuthResponse:
    call.extra = (call.session_cookie(signed_in.token, session_seconds(call)),)
    return AuthResponse(message=message, user=to_me(signed_in.user))
