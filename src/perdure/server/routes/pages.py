"""The live page, its assets, and its sign-in."""

from typing import Final

from msgspec import Struct

from perdure.engine.accounts import hash_of
from perdure.engine.service import Scope
from perdure.server import pages
from perdure.server.routing import Call, Routes, Text
from perdure.server.signin import LINK_SECONDS
from perdure.wire.access import Role
from perdure.wire.errors import PerdureError
from perdure.wire.executions import GetExecution, ListExecutions

SHOWN: Final = 50
ROWS_SHOWN: Final = 500
_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
    # With no-referrer, a browser would not say in `Origin` that a form comes from this server.
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_ASSET_HEADERS: Final = ((b"cache-control", b"no-cache"),)
_SIGN_IN: Final = (
    "Sign in with the link that `perdure dev` printed (a fresh one comes with every start), or with one of "
    "POST /api/v1/sign-in-links on this server."
)

routes = Routes("Pages")


class SignInLink(Struct, frozen=True):
    """A path to open once, within `expires_in_seconds`."""

    path: str
    expires_in_seconds: int


class SignInQuery(Struct, frozen=True):
    """The link's token."""

    token: str = ""


class PageQuery(Struct, frozen=True):
    execution: str | None = None
    """Default: the newest ones."""
    project: str | None = None
    """A user's. Default: the newest one."""


@routes.post("/api/v1/sign-in-links", role=Role.READ)
async def make_sign_in_link(call: Call) -> SignInLink:
    """A link that signs a browser in to the live page.

    The link works once, and gives the rights of this key.
    """
    assert call.principal is not None
    session = None if call.principal.user_id is None else await call.services.gate.token(call.headers)
    token = call.services.sign_ins.make_link(call.principal, None if session is None else hash_of(session))
    return SignInLink(f"/sign-in?token={token}", int(LINK_SECONDS))


@routes.get("/sign-in", role=None, media_type="text/html")
async def sign_in(call: Call, query: SignInQuery) -> Text:
    """The page that a sign-in link opens. Its button uses the link up (`POST /sign-in`)."""
    if not call.services.sign_ins.is_link(query.token):
        return _html(pages.sign_in_page("This link was used or has expired. " + _SIGN_IN))
    return _html(pages.link_page(query.token))


@routes.get("/", role=None, media_type="text/html")
async def live_page(call: Call, query: PageQuery) -> Text:
    """The newest executions, or one execution's journal, as a page that updates itself."""
    project_id = await _project(call, query.project)
    if project_id is None:
        return _html(pages.sign_in_page(_SIGN_IN))
    signed_in = call.services.gate.anyone is None
    executions = call.engine.executions
    if query.execution is None:
        page = await call.engine.serve(Scope(project_id), ListExecutions(limit=SHOWN))
        return _html(pages.executions_page(page.executions, query.project, signed_in=signed_in))
    try:
        execution = await call.engine.serve(Scope(project_id), GetExecution(query.execution))
        rows, more = await executions.journal(project_id, query.execution, 0, ROWS_SHOWN + 1)
        lines = await executions.logs(project_id, query.execution, 0, ROWS_SHOWN)
    except PerdureError as error:
        return _html(pages.sign_in_page(error.message))
    return _html(pages.execution_page(execution, rows[:ROWS_SHOWN], lines, more, query.project, signed_in=signed_in))


@routes.get("/assets/page.css", role=None, media_type="text/css")
async def style(call: Call) -> Text:
    """The style of the pages."""
    return Text(pages.STYLE, "text/css; charset=utf-8", _ASSET_HEADERS)


@routes.get("/assets/live.js", role=None, media_type="text/javascript")
async def script(call: Call) -> Text:
    """The script of the live page."""
    return Text(pages.SCRIPT, "text/javascript; charset=utf-8", _ASSET_HEADERS)


def _html(page: str) -> Text:
    return Text(page, "text/html; charset=utf-8", _HEADERS)


async def _project(call: Call, wanted: str | None) -> str | None:
    """None without a sign-in, or if the project is not the user's."""
    principal = await call.services.signed_in(call.headers)
    if principal is not None:
        return principal.project_id
    visitor = await call.services.gate.visitor(call.headers)
    if visitor is None or visitor.user_id is None:
        return None
    ids = [project.id for project in await call.engine.projects.of_user(visitor.user_id)]
    return next((id for id in ids if wanted is None or id == wanted.lower()), None)
