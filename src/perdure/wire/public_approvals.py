"""The API's shapes of approvals, with the contract's names where it has them (see `wire/public.py`)."""

from msgspec import Raw, Struct

from perdure.wire.approvals import Question, QuestionState, Resumed
from perdure.wire.public import Int32, ResumeResponse, Time, Uuid, rfc3339
from perdure.wire.records import MaybeRaw
from perdure.wire.status import STATUS, Phase


class EarlyAnswer(Struct, frozen=True):
    """An answer that came before the question, and does not count."""

    answer: Raw
    answered_by: str
    answered_at: Time


class ApprovalResponse(Struct, frozen=True):
    """The question of an execution under a key, and its answer."""

    execution_id: Uuid
    step_key: str
    status: str
    """`waiting` while the question is open, in any phase of the execution; otherwise the execution's status."""
    data: MaybeRaw = None
    """The data of an open question; null otherwise."""
    question: str | None = None
    """Names this question. An answer that carries it is for no other question."""
    state: str | None = None
    """`open`, `answered`, `expired` or `closed`; null if nothing was ever asked under the key."""
    asked_by: Uuid | None = None
    """The execution whose step asks: this one, or a descendant."""
    asked_at: Time | None = None
    expires_at: Time | None = None
    answer: MaybeRaw = None
    answered_by: str | None = None
    """An API key's name, a user's e-mail, or the name in a link."""
    answered_at: Time | None = None
    answered_how: str | None = None
    """`api`, `page` or `link`."""
    asked: MaybeRaw = None
    """The question's data, also after the answer."""
    early: EarlyAnswer | None = None


class SubmitApprovalRequest(Struct, frozen=True):
    """An answer."""

    data: Raw
    question: str | None = None
    """The id of the answered question. It may be missing while only one question is possible."""


class SubmitApprovalResponse(Struct, frozen=True):
    """The answer that stands."""

    execution_id: Uuid
    step_key: str
    answered_by: str
    answered_at: Time


class OpenApproval(Struct, frozen=True):
    """An open question."""

    execution_id: Uuid
    """The execution whose step asks."""
    root_execution_id: Uuid
    workflow_id: str
    step_key: str
    question: str
    data: Raw
    asked_at: Time
    expires_at: Time | None


class ApprovalListResponse(Struct, frozen=True):
    """A page of open questions, oldest first."""

    approvals: list[OpenApproval]
    next_cursor: str | None


class ApprovalLinkRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The person who may answer with the link, and for how long."""

    name: str
    """The person's name, recorded as the author of the answer."""
    expires_in_seconds: Int32 = 86_400
    """At most 7,776,000 (90 days)."""


class ApprovalLinkResponse(Struct, frozen=True):
    """A link to the page of one question, valid until it expires or the question is answered."""

    path: str
    """The path on the server's address."""
    expires_at: Time


def approval_response(execution_id: str, step_key: str, phase: Phase, question: Question | None) -> ApprovalResponse:
    """The API's answer about a key."""
    status = STATUS[phase].value
    if question is None:
        return ApprovalResponse(execution_id, step_key, status)
    said = question.approval
    early = question.early
    is_open = question.state is QuestionState.OPEN
    return ApprovalResponse(
        execution_id,
        step_key,
        "waiting" if is_open else status,
        question.data if is_open else None,
        question.id,
        question.state.value,
        question.execution_id,
        rfc3339(question.asked_at_us),
        None if question.expires_at_us is None else rfc3339(question.expires_at_us),
        None if said is None else said.data,
        None if said is None else said.answered_by,
        None if said is None else rfc3339(said.answered_at_us),
        None if said is None else said.how.value,
        question.data,
        None if early is None else EarlyAnswer(early.data, early.answered_by, rfc3339(early.answered_at_us)),
    )


def open_approval(question: Question) -> OpenApproval:
    """An entry of a list."""
    return OpenApproval(
        question.execution_id,
        question.root_execution_id,
        question.workflow_id,
        question.step_key,
        question.id,
        question.data,
        rfc3339(question.asked_at_us),
        None if question.expires_at_us is None else rfc3339(question.expires_at_us),
    )


def resume_response(execution_id: str, step_key: str, resumed: Resumed) -> ResumeResponse:
    """The result of an answer by a step's key."""
    said = resumed.approval
    return ResumeResponse(
        execution_id,
        step_key,
        resumed.became.value,
        None if said is None else said.answered_by,
        None if said is None else rfc3339(said.answered_at_us),
    )
