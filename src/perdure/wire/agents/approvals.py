"""Questions of suspended steps, and their answers."""

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from msgspec import Raw, Struct, field

from perdure.wire.base.errors import BadValue
from perdure.wire.base.fields import ExecutionId, Int32, Limit, Name, PageCursor, Time, Uuid, Value
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record, derived
from perdure.wire.base.status import STATUS, Phase

ASKED: Final = "suspend_"
ANSWERED: Final = "resume_"
"""Push workers name the event type of an answer by this and the step's key."""

ANSWER_SCHEMA_BYTES_MAX: Final = 16 << 10
ANSWER_CHECK: Final = "x-perdure-check"
"""This keyword of an answer's schema is `wide` or `none`, if the code reads more than the schema says."""
LINK_SECONDS: Final = 24 * 3_600
LINK_SECONDS_MAX: Final = 90 * 86_400


def _link_seconds(seconds: int, where: str) -> int:
    if not 1 <= seconds <= LINK_SECONDS_MAX:
        raise BadValue(f"{where}: must be 1 to {LINK_SECONDS_MAX:,}, got {seconds}.", {"path": where})
    return seconds


class QuestionState(StrEnum):
    OPEN = "open"
    ANSWERED = "answered"
    EXPIRED = "expired"
    CLOSED = "closed"
    """The code continued without an answer, or the execution ended."""


class AnswerChannel(StrEnum):
    API = "api"
    PAGE = "page"
    """A signed-in user answered."""
    LINK = "link"
    """A holder of the signed link answered."""


class AnswerState(StrEnum):
    ANSWERED = "answered"
    EARLY = "early"


class Approval(Struct, frozen=True):
    answered_at_us: int
    answered_by: str
    how: AnswerChannel
    data: Raw


class EarlyAnswer(Record, frozen=True):
    """An answer from before the question. It does not count."""

    answer: Raw
    answered_by: str
    answered_at_us: Time = field(name="answered_at")


class ListedState(StrEnum):
    OPEN = "open"
    ANSWERED = "answered"
    EXPIRED = "expired"


class OpenApproval(Record, frozen=True):
    """A question: open, answered or expired."""

    execution_id: Uuid
    """The execution whose step asks."""
    root_execution_id: Uuid
    workflow_id: str
    step_key: str
    data: Raw
    asked_at_us: Time = field(name="asked_at")
    expires_at_us: Time | None = field(name="expires_at")
    key: str | None = None
    """The key of the execution."""
    state: ListedState = ListedState.OPEN
    answer: Value = None
    answered_by: str | None = None
    """An API key's name, a user's e-mail, or a link's maker and person."""
    answered_at_us: Time | None = field(default=None, name="answered_at")
    answered_how: AnswerChannel | None = None

    @derived
    def question(self) -> str:
        return question_name(self.execution_id, self.asked_at_us)


class OpenQuestion(Record, frozen=True):
    """An open question, with the data that a form needs."""

    execution_id: Uuid
    """The execution whose step asks."""
    workflow_id: str
    step_key: str
    data: Raw
    asked_at_us: Time = field(name="asked_at")
    expires_at_us: Time | None = field(default=None, name="expires_at")
    answer_schema: Value = None
    """JSON Schema of the type that the code expects. Null: the code names no type."""

    @derived
    def question(self) -> str:
        return question_name(self.execution_id, self.asked_at_us)


class Question(Struct, frozen=True):
    id: str
    execution_id: str
    """The execution whose step asks."""
    workflow_id: str
    """The workflow of the execution named in the request."""
    step_key: str
    state: QuestionState
    data: Raw
    asked_at_us: int
    expires_at_us: int | None = None
    topic: str | None = None
    """The topic where the answer is published, if the asking step reads it there."""
    approval: Approval | None = None
    early: Approval | None = None
    """An answer from before the question, which does not count."""
    must_name: bool = False
    """Whether an answer must name the question, because several questions are possible."""
    answer_schema: Raw | None = None


class ApprovalStatus(Record, frozen=True):
    shown_as: ClassVar[str] = "ApprovalResponse"

    execution_id: Uuid
    step_key: str
    status: str
    """`waiting` while the question is open; otherwise the execution's status."""
    data: Value = None
    """The data of an open question; null otherwise."""
    question: str | None = None
    """The question's id. An answer with this id is for no other question."""
    state: QuestionState | None = None
    """Null if no question was ever asked under the key."""
    asked_by: Uuid | None = None
    """The execution whose step asks: the execution itself or a descendant."""
    asked_at_us: Time | None = field(default=None, name="asked_at")
    expires_at_us: Time | None = field(default=None, name="expires_at")
    answer: Value = None
    answered_by: str | None = None
    """An API key's name, a user's e-mail, or a link's maker and person."""
    answered_at_us: Time | None = field(default=None, name="answered_at")
    answered_how: AnswerChannel | None = None
    asked: Value = None
    """The question's data, also after the answer."""
    answer_schema: Value = None
    """JSON Schema of the type that the code expects. Null: the code names no type."""
    early: EarlyAnswer | None = None

    @classmethod
    def of(cls, execution_id: str, step_key: str, phase: Phase, question: Question | None) -> "ApprovalStatus":
        status = STATUS[phase].value
        if question is None:
            return cls(execution_id, step_key, status)
        is_open = question.state is QuestionState.OPEN
        said, early = question.approval, question.early
        return cls(
            execution_id=execution_id,
            step_key=step_key,
            status="waiting" if is_open else status,
            data=question.data if is_open else None,
            question=question.id,
            state=question.state,
            asked_by=question.execution_id,
            asked_at_us=question.asked_at_us,
            expires_at_us=question.expires_at_us,
            answer=None if said is None else said.data,
            answered_by=None if said is None else said.answered_by,
            answered_at_us=None if said is None else said.answered_at_us,
            answered_how=None if said is None else said.how,
            asked=question.data,
            answer_schema=question.answer_schema,
            early=None if early is None else EarlyAnswer(early.data, early.answered_by, early.answered_at_us),
        )


class SubmitApprovalRequest(Struct, frozen=True):
    data: Raw
    question: str | None = None
    """The answered question's id, needed if several are possible."""


class Submitted(Record, frozen=True):
    """The answer that counts."""

    shown_as: ClassVar[str] = "SubmitApprovalResponse"

    execution_id: Uuid
    step_key: str
    answered_by: str
    answered_at_us: Time = field(name="answered_at")


class ApprovalLink(Record, frozen=True):
    """A signed link, valid until it expires, is revoked, or the question is answered."""

    shown_as: ClassVar[str] = "ApprovalLinkResponse"

    path: str
    """The path on the server."""
    expires_at_us: Time = field(name="expires_at")
    id: str | None = None
    """The id to revoke the link with."""


class QuestionLink(Record, frozen=True):
    """A signed link to a question, without its token."""

    shown_as: ClassVar[str] = "ListedLink"

    id: str
    execution_id: Uuid
    step_key: str
    question: str
    name: str
    """The name of the person who shall answer."""
    made_by: str
    """An API key's name, or a user's e-mail."""
    created_at_us: Time = field(name="created_at")
    expires_at_us: Time = field(name="expires_at")
    used_at_us: Time | None = field(default=None, name="used_at")
    """When the link gave the answer that counts."""

    @property
    def author(self) -> str:
        return f"link made by {self.made_by} for {self.name!r}"


def question_name(execution_id: str, asked_at_us: int) -> str:
    """Name a question. A later question under the same key has another name."""
    return f"{execution_id}.{asked_at_us}"


questions: Final = Noun("Approvals")


@questions.get("/api/v1/approvals", under="approvals", reply="ApprovalListResponse", cursor_required=True)
class ListApprovals(Operation[Listed[OpenApproval]], frozen=True):
    """Open questions, oldest first.

    With a `state`: answered or expired questions, newest first.
    """

    state: ListedState = ListedState.OPEN
    cursor: PageCursor | None = None
    limit: Limit = 100


@questions.get(
    "/api/v1/executions/{execution_id}/questions",
    under="questions",
    reply="OpenQuestionsResponse",
    order="Oldest first, at most 100.",
)
class GetOpenQuestions(Operation[Listed[OpenQuestion]], frozen=True):
    """Open questions of an execution and its descendants."""

    execution_id: ExecutionId


@questions.post(
    "/api/v1/approvals/{execution_id}/{step_key}/links",
    repeated="another link to the same question",
    rest=True,
    body="ApprovalLinkRequest",
)
class MakeApprovalLink(Operation[ApprovalLink], frozen=True):
    """A signed link to the page of the open question.

    The holder may answer only this question. The link ends when it expires or is revoked, with the key or membership of
    its maker, and with the signing secret.
    """

    execution_id: ExecutionId
    step_key: str
    name: Name
    """The person's name. The author of the answer is recorded as `link made by MAKER for NAME`."""
    expires_in_seconds: Annotated[Int32, _link_seconds] = LINK_SECONDS
    """Seconds, at most 7,776,000 (90 days)."""


@questions.get("/api/v1/approval-links", under="links", reply="LinkListResponse", cursor_required=True)
class ListApprovalLinks(Operation[Listed[QuestionLink]], frozen=True):
    """Links to a question that are still valid, newest first."""

    cursor: PageCursor | None = None
    limit: Limit = 100


@questions.delete("/api/v1/approval-links/{link_id}")
class RevokeApprovalLink(Operation[None], frozen=True):
    """End a link at once."""

    link_id: Name
