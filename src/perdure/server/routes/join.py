"""The page where the holder of an invitation becomes a member, even without JavaScript."""

from typing import Annotated

from perdure.server.http.bodies import SMALL
from perdure.server.http.problems import Header, Reply
from perdure.server.http.routing import RouteCall, Routes
from perdure.server.routes import approval_page
from perdure.server.routes.accounts import attempt, cookies_of, session_seconds
from perdure.server.routes.approve import html, read_form, see_other
from perdure.server.routes.sign_in import user_session
from perdure.wire.base.errors import PerdureError
from perdure.wire.base.fields import described
from perdure.wire.people.accounts import SignUpRequest

routes = Routes("Pages")


@routes.get("/join", role=None, media_type="text/html")
async def join_page(call: RouteCall, *, invitation: Annotated[str, described("The token.")] = "") -> Reply:
    """The page of an invitation."""
    return await _page(call, invitation)


@routes.post("/join", repeated="422: the invitation was used", role=None)
async def join(call: RouteCall) -> Reply:
    """Accept an invitation from its page: with the signed-in account, with a password, or with a new account."""
    token = ""
    try:
        call.services.gate.check_page(call.headers, told=True)
        sent = {name: values[0] for name, values in (await read_form(call, SMALL)).items()}
        token = sent.get("invitation", "")
        cookies = await _join(call, token, sent)
    except PerdureError as error:
        return await _page(call, token, error)
    return see_other("/", cookies)


async def _join(call: RouteCall, token: str, sent: dict[str, str]) -> tuple[Header, ...]:
    email, password = sent.get("email", ""), sent.get("password", "")
    if sent.get("do") == "new":
        given = SignUpRequest("", "", email.strip(), password, invitation=token)
        async with attempt(call):
            made = await call.engine.accounts.sign_up(given, open_to_all=False, session_seconds=session_seconds(call))
        return cookies_of(call, made)
    if sent.get("do") == "known":
        await call.engine.projects.invitation(token)  # before a session begins
        user, cookies = await user_session(call, email, password)
        await call.engine.projects.join(user.id, token)
        return cookies
    await call.identify_user()
    assert call.user_id is not None
    await call.engine.projects.join(call.user_id, token)
    return ()


async def _page(call: RouteCall, token: str, error: PerdureError | None = None) -> Reply:
    try:
        invited = await call.engine.projects.invitation(token)
    except PerdureError as wrong:
        shown = error or wrong
        return html(approval_page.message_page("This invitation is not valid", shown.message), shown.status)
    visitor = await call.services.gate.visitor(call.headers)
    signed_in = None
    if visitor is not None and visitor.user_id is not None:
        signed_in = (await call.engine.accounts.user(visitor.user_id)).email
    page = approval_page.join_page(invited, token, signed_in=signed_in, error=None if error is None else error.message)
    return html(page, 200 if error is None else error.status)
