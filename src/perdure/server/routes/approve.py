"""The page of a question, behind a sign-in or a signed link."""

import asyncio
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from msgspec import Raw

from perdure.engine.base.service import Scope
from perdure.server.http.bodies import SMALL
from perdure.server.http.problems import Reply, text_reply
from perdure.server.http.routing import RouteCall, Routes
from perdure.server.routes import approval_page
from perdure.server.routes.accounts import end_session
from perdure.server.routes.approvals import Asker, Link, link_asker
from perdure.server.routes.sign_in import key_session, link_session, user_session
from perdure.wire.agents.answer_forms import field_errors, question_form, read_answer
from perdure.wire.agents.approvals import AnswerChannel, Question, QuestionState
from perdure.wire.base.access import Principal, Role, check_role
from perdure.wire.base.errors import BadRequest, BadValue, Conflict, Forbidden, NotFound, PerdureError, Unauthorized
from perdure.wire.runs.executions import GetExecution

routes = Routes("Pages")

FORM_BYTES_MAX: Final = 4 << 20
DRAWN_BESIDE_BYTES: Final = 64 << 10
FORM_FIELDS_MAX: Final = 2_000
_HEADERS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


@routes.get("/approve/{execution_id}/{step_key}", role=None, media_type="text/html", rest=True)
async def approval_page_of(call: RouteCall, execution_id: str, step_key: str, *, link: Link = None) -> Reply:
    """The page where a person answers a suspended step."""
    try:
        asker, question = await _find_question(call, execution_id, step_key, link)
    except PerdureError as error:
        return _refused(call, error)
    if question.state is QuestionState.OPEN and asker.question_id in (None, question.id):
        signed_in = _has_session(call, asker)
        return html(await _drawn(approval_page.question_page, question, answering_as=asker.name, signed_in=signed_in))
    return html(await _drawn(approval_page.closed_page, question, mine=asker.name))


@routes.post(
    "/approve/{execution_id}/{step_key}", repeated="the first answer stands and is returned", role=None, rest=True
)
async def answer_on_page(call: RouteCall, execution_id: str, step_key: str, *, link: Link = None) -> Reply:
    """An answer from the page. The reply leads to the page with the answer."""
    shown = None
    try:
        call.services.gate.check_page(call.headers, told=True)
        asker, _ = await _find_question(call, execution_id, step_key, link)
        sent = await read_form(call, FORM_BYTES_MAX)
        # Another execution of the run may have asked under the same key since then.
        shown = asker.question_id or sent.get("question", [""])[0]
        question = await _question(call, asker, execution_id, step_key, shown)
        if question.state is not QuestionState.OPEN:
            return html(await _drawn(approval_page.closed_page, question, mine=asker.name), 409)
        form = question_form(question)
        answer, errors = read_answer(form, sent)
        if answer is not None:
            try:
                await call.engine.approvals.answer(
                    asker.project_id,
                    execution_id,
                    step_key,
                    Raw(answer),
                    answered_by=asker.name,
                    how=asker.how,
                    question_id=shown,
                    link_id=asker.link_id,
                )
            except BadValue as error:
                errors = field_errors(form, error)
        if errors:
            page = await _drawn(
                approval_page.question_page,
                question,
                answering_as=asker.name,
                signed_in=_has_session(call, asker),
                sent=sent,
                errors=errors,
            )
            return html(page, 422)
    except Conflict:
        late = await _question(call, asker, execution_id, step_key, shown)
        return html(await _drawn(approval_page.closed_page, late), 409)
    except PerdureError as error:
        return _refused(call, error)
    return see_other(_here(call))


@routes.post("/sign-in", repeated="another session, or 401 for a used link", role=None)
async def sign_in_with_key(call: RouteCall) -> Reply:
    """Sign in on a page.

    Takes an e-mail and a password, an API key, or a sign-in link's token.
    """
    try:
        call.services.gate.check_page(call.headers, told=True)
        sent = await read_form(call, SMALL)
        path = _local(sent.get("next", ["/"])[0])
        if "link" in sent:
            return see_other(path, (link_session(call, sent["link"][0])[1],))
        try:
            if "email" in sent:
                _, cookies = await user_session(call, sent["email"][0], sent.get("password", [""])[0])
            else:
                cookies = ((await key_session(call, sent.get("key", [""])[0]))[1],)
        except (Unauthorized, Forbidden, BadValue) as error:
            page = approval_page.sign_in_page(path, error=error.message, with_key="email" not in sent)
            return html(page, error.status)
    except PerdureError as error:
        return _refused(call, error)
    return see_other(path, cookies)


@routes.post("/sign-out", repeated="no effect", role=None)
async def sign_out_on_page(call: RouteCall) -> Reply:
    """End the session of a page and clear the cookie."""
    try:
        await end_session(call)
    except Unauthorized:
        pass  # it has ended already
    except PerdureError as error:
        return _refused(call, error)
    return see_other("/", (call.session_cookie("", 0),))


@routes.get("/assets/approve.css", role=None, media_type="text/css")
async def approve_style(call: RouteCall) -> Reply:
    """The style of the question pages."""
    return text_reply(approval_page.STYLE, "text/css; charset=utf-8", (b"cache-control", b"no-cache"))


async def _find_question(call: RouteCall, execution_id: str, step_key: str, link: str | None) -> tuple[Asker, Question]:
    """Raises Unauthorized, Forbidden, NotFound."""
    if link is not None:
        asker = await link_asker(call, execution_id, step_key, link)
    else:
        principal = await _signed_in(call, execution_id)
        check_role(principal, Role.WRITE)
        call.recognize()
        asker = Asker(principal.project_id, await call.engine.callers.name(principal), AnswerChannel.PAGE)
    return asker, await _question(call, asker, execution_id, step_key, asker.question_id)


async def _question(
    call: RouteCall, asker: Asker, execution_id: str, step_key: str, question_id: str | None
) -> Question:
    """`question_id` selects among several questions. Raises NotFound."""
    _, question = await call.engine.approvals.get(asker.project_id, execution_id, step_key, question_id)
    if question is None:
        raise NotFound(f"Execution {execution_id!r} asks nothing under {step_key!r}, yet.")
    return question


async def _signed_in(call: RouteCall, execution_id: str) -> Principal:
    """The caller of a page's session, or the user in the execution's project."""
    gate = call.services.gate
    principal = await call.services.signed_in(call.headers)
    if principal is not None:
        return principal
    visitor = await gate.visitor(call.headers)
    if visitor is None or visitor.user_id is None:
        raise _NotSignedIn("Sign in first.")
    for project in await call.engine.projects.of_user(visitor.user_id):
        try:
            await call.engine.serve(Scope(project.id), GetExecution(execution_id))
        except NotFound:
            continue
        return await gate.principal(call.headers, call.address, project.id, safe=call.route.safe)
    raise NotFound(f"Execution {execution_id!r} does not exist.")


async def _drawn(draw: Callable[..., str], question: Question, **values: Any) -> str:
    """A thread draws a large page."""
    if memoryview(question.data).nbytes > DRAWN_BESIDE_BYTES:
        return await asyncio.to_thread(draw, question, **values)
    return draw(question, **values)


class _NotSignedIn(Unauthorized):
    """The page shows a sign-in form instead of this error."""


def _has_session(call: RouteCall, asker: Asker) -> bool:
    return asker.how is AnswerChannel.PAGE and call.services.gate.anyone is None


async def read_form(call: RouteCall, bytes_max: int) -> dict[str, list[str]]:
    """Raises BadRequest, TooLarge, UnsupportedMediaType."""
    body = await call.read_body(b"application/x-www-form-urlencoded", bytes_max)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX, errors="strict")
    except ValueError as error:
        raise BadRequest(f"The form cannot be read: {error}") from None
    sent: dict[str, list[str]] = {}
    for name, value in pairs:
        sent.setdefault(name, []).append(value)
    return sent


def _here(call: RouteCall) -> str:
    query = call.raw_query.decode("latin-1")
    path = quote(call.raw_path.decode("latin-1"), safe="/%~!$&'()*+,;=:@-._")
    return f"{path}?{query}" if query else path


def _local(path: str) -> str:
    """The path, or `/` if a browser would leave this server by the path."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isascii() or not path.isprintable():
        return "/"
    return path


def _refused(call: RouteCall, error: PerdureError) -> Reply:
    if isinstance(error, _NotSignedIn):
        return html(approval_page.sign_in_page(_here(call)), 401)
    title = {401: "This link does not open the page", 403: "You may not answer this", 404: "Nothing is asked here"}
    return html(approval_page.message_page(title.get(error.status, "This did not work"), error.message), error.status)


def html(text: str, status: int = 200) -> Reply:
    body = text.encode("utf-8", "replace")
    return Reply(status, body, (*_HEADERS, (b"content-length", b"%d" % len(body))))


def see_other(path: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    return Reply(303, b"", (*_HEADERS[1:], (b"location", path.encode()), (b"content-length", b"0"), *headers))
