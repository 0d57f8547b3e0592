"""The dashboard's files, sign-in links to the dashboard, and the identity of its user."""

import mimetypes
from functools import cache
from html import escape
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from msgspec import Struct

from perdure.engine.base.service import Scope
from perdure.engine.people.accounts import hash_of
from perdure.server.access.signin import LINK_SECONDS
from perdure.server.http.cached_document import CachedDocument
from perdure.server.http.problems import Reply, text_reply
from perdure.server.http.routing import RouteCall, Routes
from perdure.store.open import is_postgres
from perdure.wire.base.access import Caller, Role
from perdure.wire.base.errors import NotFound
from perdure.wire.base.record import Record
from perdure.wire.people.projects import GetProjects, Project

PAGES: Final = (
    *("executions", "inbox", "sessions", "workflows", "agents", "budgets", "queues", "schedules", "events"),
    *("deployments", "workers", "traces", "settings", "bulk", "search", "welcome", "p"),
)
"""First segments of the pages' addresses."""
_COMMON: Final = ((b"referrer-policy", b"same-origin"), (b"cache-control", b"no-store"))
# A no-referrer policy would hide in `Origin` that a form comes from this server.
_LINK_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    *_COMMON,
)
_SHELL_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        b"require-trusted-types-for 'script'",
    ),
    (b"referrer-policy", b"same-origin"),
)
_FOREVER: Final = b"public, max-age=31536000, immutable"
_NOT_BUILT: Final = (
    "<!doctype html><html lang='en'><title>Perdure</title><p>This copy of Perdure has no dashboard: its files are not "
    "built. Run <code>make dashboard</code>, or install the wheel.</p></html>"
)

routes = Routes("Dashboard")


class SignInLink(Struct, frozen=True):
    """A path to open once, within `expires_in_seconds`."""

    path: str
    expires_in_seconds: int


class Identity(Record, frozen=True, kw_only=True):
    """The caller, as known to the server."""

    name: str
    """The name of the user, or of the key."""
    role: Role
    user_id: str | None
    """Null for a key."""
    project_id: str | None
    """Null for a user who names no project."""
    projects: list[Project]
    """All projects of a user, or the single project of a key."""
    can_sign_out: bool
    """False if the server runs with `--insecure-local`, which takes all callers without a sign-in."""
    version: str
    """The server's version."""
    store: str
    """`sqlite` or `postgresql`."""
    features: list[str]
    """`dev` on a server of `perdure dev`, whose workers can be killed; `read_only` on one of `perdure open`."""


@routes.get("/api/v1/me", role=Role.READ, caller=Caller.EITHER)
async def me(call: RouteCall) -> Identity:
    """The caller's name, role and projects; and the version of the server."""
    principal = call.principal
    assert principal is not None
    if principal.user_id is not None and not principal.project_id and call.header(b"x-project-id"):
        principal = await call.identify(Role.READ)
    scope = Scope(call.project_id, principal=principal)
    features = [name for name in ("dev", "read_only") if getattr(call.services, name) is not None]
    return Identity(
        name=await call.engine.callers.name(principal),
        role=principal.role,
        user_id=principal.user_id,
        project_id=principal.project_id or None,
        projects=(await call.engine.serve(scope, GetProjects())).items,
        can_sign_out=call.services.gate.anyone is None,
        version=version("perdure"),
        store="postgresql" if is_postgres(call.settings.store) else "sqlite",
        features=features,
    )


@routes.post("/api/v1/sign-in-links", repeated="another link", role=Role.READ)
async def make_sign_in_link(call: RouteCall) -> SignInLink:
    """A link for signing a browser in to the dashboard.

    The link works once, and gives the rights of the key.
    """
    assert call.principal is not None
    session = None if call.principal.user_id is None else await call.services.gate.token(call.headers)
    token = call.services.sign_ins.make_link(call.principal, None if session is None else hash_of(session))
    return SignInLink(f"/sign-in?token={token}", int(LINK_SECONDS))


@routes.get("/sign-in", role=None, media_type="text/html")
async def sign_in(call: RouteCall, *, token: str = "") -> Reply:
    """The page behind a sign-in link. The page's button uses the link up (`POST /sign-in`).

    A used or expired link shows the dashboard's sign-in form.
    """
    if call.services.sign_ins.is_link(token):
        page = link_page(token, host=call.header(b"host") or "this one", style=_style())
        return text_reply(page, "text/html; charset=utf-8", *_LINK_HEADERS)
    return _shell().reply(call.headers, _SHELL_HEADERS)


@routes.get("/", role=None, media_type="text/html", also=PAGES)
async def dashboard(call: RouteCall) -> Reply:
    """The dashboard, one page that draws all pages from the API. Unknown addresses get it with 404."""
    first = call.raw_path.split(b"/", 2)[1].decode("ascii", "replace")
    if first in ("", *PAGES):
        return _shell().reply(call.headers, _SHELL_HEADERS)
    shell = _shell().reply({}, _SHELL_HEADERS)
    return Reply(404, shell.body, shell.headers)


@routes.get("/assets/{name}", role=None, media_type="application/octet-stream")
async def asset(call: RouteCall, name: str) -> Reply:
    """A file of the dashboard. The name has a hash of the content, so the file never changes."""
    found = _assets().get(name)
    if found is None:
        raise NotFound(f"The dashboard has no file {name!r}; load the page again.")
    return found.reply(call.headers)


@cache
def _shell() -> CachedDocument:
    index = files("perdure") / "dashboard" / "index.html"
    return CachedDocument(index.read_bytes() if index.is_file() else _NOT_BUILT.encode(), "text/html; charset=utf-8")


@cache
def _style() -> str:
    """The path of the dashboard's stylesheet. A copy without a dashboard has the style of the question pages only."""
    return f"/assets/{next((name for name in _assets() if name.endswith('.css')), 'approve.css')}"


@cache
def _assets() -> dict[str, CachedDocument]:
    folder = files("perdure") / "dashboard" / "assets"
    return {file.name: _file(file) for file in folder.iterdir()} if folder.is_dir() else {}


def _file(file: Traversable) -> CachedDocument:
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    text = kind.startswith("text/")
    return CachedDocument(file.read_bytes(), f"{kind}; charset=utf-8" if text else kind, cache=_FOREVER, packs=text)


_MARK: Final = (
    "<svg width='20' height='20' viewBox='0 0 24 24' fill='none' aria-hidden='true'><path d='M7 15.2V5.5a2 2 0 0 1 "
    "2-2h4.6a5.4 5.4 0 0 1 0 10.8H10.6' stroke='currentColor' stroke-width='3' stroke-linecap='round' "
    "stroke-linejoin='round'/><path d='M7 20.3v.2' stroke='var(--accent-fill)' stroke-width='3.4' "
    "stroke-linecap='round'/></svg>"
)


def link_page(token: str, *, host: str, style: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Perdure: sign in</title><link rel='stylesheet' href='{escape(style, quote=True)}'></head>"
        f"<body><main class='signin'><div class='row'>{_MARK} <h1>Sign in to Perdure</h1></div>"
        f"<p class='dim'>This server is {escape(host)}. The link signs this browser in, once.</p>"
        "<form class='col gap12' method='post' action='/sign-in'>"
        f"<input type='hidden' name='link' value='{escape(token, quote=True)}'>"
        "<button class='btn pri' type='submit' autofocus>Sign in</button></form></main></body></html>"
    )
