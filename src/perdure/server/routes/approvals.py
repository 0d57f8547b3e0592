"""Questions of suspended steps, and answers to them."""

from typing import Annotated, NamedTuple

from perdure.server.http.bodies import VALUES
from perdure.server.http.routing import RouteCall, Routes
from perdure.wire.agents.approvals import AnswerChannel, ApprovalStatus, SubmitApprovalRequest, Submitted
from perdure.wire.base.access import Role
from perdure.wire.base.fields import described

routes = Routes("Approvals")


Link = Annotated[str | None, described("A signed link's token, in place of a key.")]


class Asker(NamedTuple):
    project_id: str
    name: str
    how: AnswerChannel
    question_id: str | None = None
    """The only question open to this caller."""
    link_id: str | None = None


@routes.get("/api/v1/approvals/{execution_id}/{step_key}", role=None, contract=True, asks=True, rest=True)
async def get_approval(call: RouteCall, execution_id: str, step_key: str, *, link: Link = None) -> ApprovalStatus:
    """The question of a suspended execution.

    Needs a key, or a signed link (`?link=`). The execution is the root; its descendants' questions are also found. The
    step key may hold slashes.
    """
    asker = await asker_of(call, execution_id, step_key, link, Role.READ)
    phase, question = await call.engine.approvals.get(asker.project_id, execution_id, step_key, asker.question_id)
    return ApprovalStatus.of(execution_id.lower(), step_key, phase, question)


@routes.post(
    "/api/v1/approvals/{execution_id}/{step_key}/submit",
    repeated="the first answer stands and is returned",
    role=None,
    contract=True,
    body=SubmitApprovalRequest,
    body_bytes_max=VALUES,
    asks=True,
    rest=True,
)
async def submit_approval(call: RouteCall, execution_id: str, step_key: str, *, link: Link = None) -> Submitted:
    """Answer a question and resume the execution.

    The first answer counts. Another answer is 409, unless the same caller repeats the first. Needs a key that may
    write, or a signed link (`?link=`).
    """
    asker = await asker_of(call, execution_id, step_key, link, Role.WRITE)
    body = await call.read(SubmitApprovalRequest)
    said = await call.engine.approvals.answer(
        asker.project_id,
        execution_id,
        step_key,
        body.data,
        answered_by=asker.name,
        how=asker.how,
        question_id=asker.question_id or body.question,
        link_id=asker.link_id,
    )
    return Submitted(execution_id.lower(), step_key, said.answered_by, said.answered_at_us)


async def asker_of(call: RouteCall, execution_id: str, step_key: str, link: str | None, role: Role) -> Asker:
    """Raises Unauthorized, Forbidden, NotFound."""
    if link is not None:
        return await link_asker(call, execution_id, step_key, link)
    principal = await call.identify(role)
    return Asker(principal.project_id, await call.engine.callers.name(principal), AnswerChannel.API)


async def link_asker(call: RouteCall, execution_id: str, step_key: str, token: str) -> Asker:
    """Raises Unauthorized."""
    link, author = await call.engine.approvals.read_link(token, execution_id, step_key)
    call.recognize()
    return Asker(link.project_id, author, AnswerChannel.LINK, link.question_id, link.id or None)
