"""Signing a browser in: what forms and the dashboard have in common, and the route of the dashboard."""

from typing import Final

from msgspec import Struct

from perdure.server.access.signin import SESSION_SECONDS
from perdure.server.http.bodies import SMALL
from perdure.server.http.problems import Header
from perdure.server.http.routing import RouteCall, Routes
from perdure.server.routes.accounts import cookies_of, sign_in_with_password
from perdure.wire.base.access import Principal, Role
from perdure.wire.base.errors import BadRequest, Unauthorized
from perdure.wire.base.record import Record
from perdure.wire.people.accounts import Me, SignInRequest, to_me

routes = Routes("Auth")

_WAYS: Final = "Sign in with one of `key`, `link`, and `email` with `password`."


class Credentials(Struct, frozen=True, forbid_unknown_fields=True):
    """One of: an API key, the token of a sign-in link, or an e-mail with a password."""

    key: str | None = None
    link: str | None = None
    email: str | None = None
    password: str | None = None


class BrowserSession(Record, frozen=True):
    """The caller that the session's cookie stands for.

    A user names the project in each request, so the role depends on the request.
    """

    kind: str
    """`key` or `user`."""
    role: Role | None = None
    project_id: str | None = None
    user: Me | None = None


@routes.post("/api/v1/sign-in", repeated="another session, or 401 for a used link", role=None, body_bytes_max=SMALL)
async def sign_in_browser(call: RouteCall, body: Credentials) -> BrowserSession:
    """Sign a browser in with a key, a link or a password.

    The cookie of the answer is valid for the pages and the API.
    """
    call.services.gate.check_page(call.headers, told=True)
    given = [name for name in body.__struct_fields__ if getattr(body, name) is not None]
    if body.key is not None and given == ["key"]:
        principal, cookie = await key_session(call, body.key)
    elif body.link is not None and given == ["link"]:
        principal, cookie = link_session(call, body.link)
    elif body.email is not None and given == ["email", "password"]:
        signed_in, cookies = await user_session(call, body.email, body.password or "")
        call.extra = cookies
        return BrowserSession("user", user=signed_in)
    else:
        raise BadRequest(_WAYS)
    call.extra = (cookie,)
    user_id = principal.user_id
    user = None if user_id is None else to_me(await call.engine.accounts.user(user_id))
    return BrowserSession("key" if user is None else "user", principal.role, principal.project_id, user)


async def key_session(call: RouteCall, key: str) -> tuple[Principal, Header]:
    """Raises Unauthorized, Forbidden, TooManyRequests."""
    # The gate checks the key as usual, and counts wrong keys.
    headers = {b"authorization": b"Bearer " + key.strip().encode("utf-8", "replace")}
    try:
        principal = await call.services.gate.principal(headers, call.address, alone=True)
    except Unauthorized:
        raise Unauthorized("This is not an API key of this server; check that it was copied whole.") from None
    if principal.user_id is not None:
        raise Unauthorized("This is a session's token, not an API key.")
    return principal, call.session_cookie(call.services.sign_ins.begin(principal), SESSION_SECONDS)


def link_session(call: RouteCall, token: str) -> tuple[Principal, Header]:
    """Raises Unauthorized, TooManyRequests."""
    found = call.services.sign_ins.use_link(token)
    if found is None:
        raise Unauthorized("This link was used or has expired; make a new one.")
    principal, session = found
    return principal, call.session_cookie(session, SESSION_SECONDS)


async def user_session(call: RouteCall, email: str, password: str) -> tuple[Me, tuple[Header, ...]]:
    """Raises like `Accounts.sign_in`."""
    signed_in = await sign_in_with_password(call, SignInRequest(email=email.strip(), password=password))
    return to_me(signed_in.user), cookies_of(call, signed_in)
