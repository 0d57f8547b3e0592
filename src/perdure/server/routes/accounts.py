"""The routes that set the session's cookie."""

from asyncio import get_running_loop, sleep
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from perdure.engine.people.accounts import DEVICE_SECONDS, SignedIn, UnknownEmail
from perdure.server.access.auth import to_network
from perdure.server.access.cookies import DEVICE
from perdure.server.http.bodies import SMALL
from perdure.server.http.problems import Header
from perdure.server.http.routing import RouteCall, Routes
from perdure.wire.base.access import Caller
from perdure.wire.base.errors import BadValue, EmailTaken, Forbidden, Unauthorized
from perdure.wire.base.record import Message
from perdure.wire.people.accounts import (
    INVITATION_PATH,
    AuthResponse,
    ChangePasswordRequest,
    SignInRequest,
    SignUpRequest,
    parse_email,
    to_me,
)

SLOWED_SECONDS: Final = 2.0
"""Seconds of delay of a failure after too many from its address; a hash takes less. The delay hides whether the
password was hashed, which would reveal a known e-mail."""

routes = Routes("Auth")


@routes.post(
    "/api/v1/auth/signup",
    repeated="409 `EMAIL_ALREADY_EXISTS`: sign in",
    role=None,
    contract=True,
    body_bytes_max=SMALL,
)
async def signup(call: RouteCall, body: SignUpRequest) -> AuthResponse:
    """Make a user and sign in.

    Needs an invitation, unless the setting `signup` is on: e-mails are not verified.
    """
    call.services.gate.check_page(call.headers, told=False)
    async with attempt(call):
        signed_in = await call.engine.accounts.sign_up(
            body, open_to_all=call.settings.signup, session_seconds=session_seconds(call)
        )
    return _auth_response(call, "User created", signed_in)


@routes.post("/api/v1/auth/signin", repeated="another session", role=None, contract=True, body_bytes_max=SMALL)
async def signin(call: RouteCall, body: SignInRequest) -> AuthResponse:
    """Sign in with a password."""
    call.services.gate.check_page(call.headers, told=False)
    signed_in = await sign_in_with_password(call, body)
    return _auth_response(call, "Signed in", signed_in)


@routes.post("/api/v1/auth/signout", repeated="no effect", role=None, caller=Caller.SESSION, contract=True)
async def signout(call: RouteCall) -> Message:
    """End the session and clear the cookie.

    This server refuses the session from the next request on. Other servers of the store refuse a user's session once
    notified, within `auth_cache_seconds` at the latest.
    """
    await end_session(call)
    return Message("Signed out")


async def end_session(call: RouteCall) -> None:
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
async def change_password(call: RouteCall, body: ChangePasswordRequest) -> AuthResponse:
    """Change the signed-in user's password.

    All sessions of the user end, and a new session begins.
    """
    assert call.user_id is not None
    async with attempt(call, call.user_id):
        signed_in = await call.engine.accounts.change_password(
            call.user_id, body, session_seconds=session_seconds(call)
        )
    return _auth_response(call, "Password changed", signed_in)


@asynccontextmanager
async def attempt(call: RouteCall, name: str | None = None, device: str | None = None) -> AsyncIterator[bool]:
    """Count an attempt while under way, and after a failure.

    An attempt counts against `name`, an e-mail or a user, from the caller's network and from all networks, and against
    the address. A known `device` counts alone. The server refuses attempts only after too many failures for a name from
    one network, because guesses from elsewhere must not lock the owner out.

    Yields True after too many failures for a name from all networks, or from an address, which many people may share.
    Then only passwords of known users are hashed, and a failure is late and 429.
    """
    failures = call.services.wrong_passwords
    refusing = device or (None if name is None else f"{name} {to_network(call.address)}")
    counted = [] if refusing is None else [refusing]
    if refusing is not None:
        failures.check(refusing)
    slowed = False
    for one in (name, call.address) if device is None else ():
        if one is not None:
            if failures.take(one):
                counted.append(one)
            else:
                slowed = True
    loop = get_running_loop()
    until = loop.time() + SLOWED_SECONDS
    keeps = False
    try:
        yield slowed
    except (Unauthorized, Forbidden, EmailTaken, BadValue) as error:
        failed = not isinstance(error, BadValue) or error.details == {"path": INVITATION_PATH}
        # Made-up e-mails must not evict the counts of real ones.
        keeps = failed and not (slowed and isinstance(error, UnknownEmail))
        if failed and slowed:
            await sleep(until - loop.time())
            raise failures.refusal() from None
        raise
    finally:
        if not keeps:
            for one in counted:
                failures.give_back(one)


async def sign_in_with_password(call: RouteCall, given: SignInRequest) -> SignedIn:
    """Raises like `Accounts.sign_in`."""
    email, accounts = parse_email(given.email), call.engine.accounts
    sent = call.services.gate.cookies.tokens(call.headers, DEVICE.encode())
    device = sent[0] if sent and await accounts.knows_device(email, sent[0]) else None
    async with attempt(call, email, device) as slowed:
        return await accounts.sign_in(
            given, session_seconds=session_seconds(call), known_only=slowed, known_device=device is not None
        )


def cookies_of(call: RouteCall, signed_in: SignedIn) -> tuple[Header, ...]:
    """The cookies of the session and of the device."""
    session = call.session_cookie(signed_in.token, session_seconds(call))
    return session, call.session_cookie(signed_in.device, DEVICE_SECONDS, name=DEVICE)


def session_seconds(call: RouteCall) -> float:
    return call.settings.session_hours * 3_600


def _auth_response(call: RouteCall, message: str, signed_in: SignedIn) -> AuthResponse:
    call.extra = cookies_of(call, signed_in)
    return AuthResponse(message=message, user=to_me(signed_in.user))
