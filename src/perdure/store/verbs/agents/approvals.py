"""Questions and answers. The first answer counts and keeps its author."""

from typing import Final

from msgspec import Raw

from perdure.store.base.executions import unknown_execution
from perdure.store.base.interface import Rows, query, record, records, serves, verb
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.outside.push_questions import note_answer
from perdure.store.verbs.runs.waits import answer_wait, refusal, said_by, was_timed_out
from perdure.wire.agents.approvals import (
    AnswerChannel,
    Approval,
    GetOpenQuestions,
    ListApprovalLinks,
    ListApprovals,
    ListedState,
    OpenApproval,
    OpenQuestion,
    Question,
    QuestionLink,
    QuestionState,
    RevokeApprovalLink,
    question_name,
)
from perdure.wire.base.cursors import none_of_ours, read_cursor, write_cursor
from perdure.wire.base.errors import Conflict, NotFound
from perdure.wire.base.fields import is_uuid
from perdure.wire.base.operation import Listed
from perdure.wire.base.records import Problem
from perdure.wire.base.status import FINAL, Phase

SKEW_US: Final = 1_000_000
"""Microseconds that a worker's clock may be ahead when giving up an expired question."""
QUESTIONS_MAX: Final = 100
_END: Final = (1 << 62, "", "")


@verb(reads=True)
async def find_question(
    *, project_id: str, execution_id: str, step_key: str, now_us: int, question_id: str | None = None
) -> tuple[Phase, Question | None]:
    """The question under a key of an execution or a descendant (or the question `question_id`), and the execution's
    phase. Raises NotFound."""
    return await _find(project_id, execution_id, step_key, question_id, now_us)


async def _find(
    project_id: str, execution_id: str, step_key: str, question_id: str | None, now_us: int
) -> tuple[Phase, Question | None]:
    rows = await query("question_target", project_id=project_id, id=execution_id)
    if not rows:
        raise unknown_execution(execution_id)
    ((workflow_id, in_phase, root_id),) = rows
    phase = Phase(in_phase)
    waits: Rows = []
    named = execution_id if question_id is None else question_id.rpartition(".")[0]
    if named != execution_id:
        below = await query("question_target", project_id=project_id, id=named)
        if [root for _, _, root in below] == [execution_id]:
            waits = await query("question_of", execution_id=named, key=step_key)
    if not waits:
        waits = await query("question_of", execution_id=execution_id, key=step_key)
    if not waits and root_id is None:
        waits = await query("question_below", project_id=project_id, id=execution_id, key=step_key)
    if not waits:
        return phase, None
    (asking, state, topic, data, asked_at_us, expires_at_us, must_name, schema, closed_at_us), *more = waits
    said = await records(Approval, "read_approvals", execution_id=asking, key=step_key)
    ended = _state(state, expires_at_us, closed_at_us or now_us)
    if ended is QuestionState.ANSWERED and not said and await was_timed_out(asking, step_key):
        ended = QuestionState.EXPIRED  # by an act
    return phase, Question(
        id=question_name(asking, asked_at_us),
        execution_id=asking,
        workflow_id=workflow_id,
        step_key=step_key,
        state=ended,
        data=Raw(data),
        asked_at_us=asked_at_us,
        expires_at_us=expires_at_us,
        topic=topic,
        approval=next((one for one in said if one.answered_at_us >= asked_at_us), None),
        early=next((one for one in said if one.answered_at_us < asked_at_us), None),
        must_name=bool(must_name) or any(other == "open" for _, other, *_ in more),
        answer_schema=None if schema is None else Raw(schema),
    )


def _state(state: str, expires_at_us: int | None, at_us: int) -> QuestionState:
    """`at_us` is when the wait was given up, or now."""
    over = expires_at_us is not None and expires_at_us <= at_us + (SKEW_US if state == "closed" else 0)
    if state == "open":
        return QuestionState.EXPIRED if over else QuestionState.OPEN
    if state == "met":
        return QuestionState.ANSWERED
    return QuestionState.EXPIRED if over else QuestionState.CLOSED


@verb(sweep=True)
async def answer_question(
    *,
    project_id: str,
    execution_id: str,
    step_key: str,
    question_id: str | None,
    data: Raw,
    answered_by: str,
    how: AnswerChannel,
    now_us: int,
    link_id: str | None = None,
) -> Approval:
    """The same person may repeat the answer. Raises NotFound, Conflict."""
    phase, found = await _find(project_id, execution_id, step_key, question_id, now_us)
    several = False
    if found is not None:
        if found.topic is not None:  # topics are locked before executions
            await query("lock_topic", project_id=project_id, topic=found.topic)
        await query("lock_state", project_id=project_id, id=found.execution_id)
        several = found.must_name
        _, found = await _find(project_id, execution_id, step_key, found.id, now_us)  # locked from now on
    if found is None:
        if phase in FINAL:
            raise Conflict(f"Execution {execution_id!r} is {phase.value}, and asked nothing under {step_key!r}.")
        raise Conflict(
            f"Execution {execution_id!r} asks nothing under {step_key!r}, yet; `perdure approvals` lists the questions."
        )
    if question_id is not None and question_id != found.id:
        raise Conflict(f"Step {step_key!r} of execution {execution_id!r} asks something else by now; look again.")
    again = _again(found, answered_by, data)
    if again is not None:
        return again
    if found.state is not QuestionState.OPEN:
        raise _late(found)
    if question_id is None and (several or found.must_name):
        raise Conflict(
            f"Under {step_key!r} execution {execution_id!r} asked something else before, was answered before it asked, "
            "or several of its run ask. Look at what is asked now, and send the answer with its `question`."
        )
    became = await answer_wait(project_id, found.execution_id, step_key, data, now_us, question_id=found.id)
    if isinstance(became, Problem):
        raise refusal(became)
    await note_answer(project_id, found.execution_id, step_key, data, answered_by=answered_by, now_us=now_us, how=how)
    if link_id is not None:
        await query("note_link_used", id=link_id, execution_id=execution_id, now_us=now_us)
    return Approval(max(now_us, found.asked_at_us), answered_by, how, data)


def _again(found: Question, answered_by: str, data: Raw) -> Approval | None:
    said = found.approval
    if said is not None and said.answered_by == answered_by and bytes(said.data) == bytes(data):
        return said
    return None


def _late(found: Question) -> Conflict:
    what = f"Step {found.step_key!r} of execution {found.execution_id!r}"
    if found.state is QuestionState.EXPIRED:
        return Conflict(f"{what} waits no longer for an answer: its time is over.")
    if found.state is QuestionState.ANSWERED:
        return Conflict(f"{what} was answered {said_by(found.approval)}; the first answer stands.")
    return Conflict(f"{what} no longer waits for an answer.")


_LISTS: Final = {
    ListedState.OPEN: ("list_questions", "oldest", (0, "", ""), "asked_at_us"),
    ListedState.ANSWERED: ("list_answered", "newest", _END, "answered_at_us"),
    ListedState.EXPIRED: ("list_expired", "newest", _END, "expires_at_us"),
}
"""The statement, order, first place and sort field of each state."""


@serves(ListApprovals, reads=True)
async def list_approvals(at: At, op: ListApprovals) -> Listed[OpenApproval]:
    name, order, place, since = _LISTS[op.state]
    if op.cursor is not None:
        place = read_cursor(op.cursor, tuple[int, str, str], order)
        if not is_uuid(place[1]):
            raise none_of_ours(order)
    where = dict(zip(("place_us", "place_id", "place_key"), place, strict=True)) | {"limit": op.limit + 1}
    if op.state is ListedState.EXPIRED:
        where["skew_us"] = SKEW_US
    return Listed.of(
        await records(OpenApproval, name, at, **where),
        op.limit,
        lambda last: write_cursor((getattr(last, since), last.execution_id, last.step_key)),
    )


@serves(GetOpenQuestions, reads=True)
async def open_questions(at: At, op: GetOpenQuestions) -> Listed[OpenQuestion]:
    same = {"project_id": at.project_id, "id": op.execution_id}
    for *_, root_id in await query("question_target", **same):
        found = await records(OpenQuestion, "open_questions_of", **same, limit=QUESTIONS_MAX)
        if root_id is None:
            found += await records(OpenQuestion, "open_questions_below", **same, limit=QUESTIONS_MAX)
        return Listed(sorted(found, key=lambda one: (one.asked_at_us, one.execution_id, one.step_key))[:QUESTIONS_MAX])
    raise unknown_execution(op.execution_id)


@verb(locks="project=project_id execution=link.execution_id")
async def keep_link(*, project_id: str, link: QuestionLink, key_id: str | None, user_id: str | None) -> None:
    """Add a link, and delete expired links."""
    await query("delete_old_links", project_id=project_id, now_us=link.created_at_us)
    await query("insert_link", link, project_id=project_id, key_id=key_id, user_id=user_id)


@verb(reads=True)
async def read_link(*, project_id: str, id: str, now_us: int) -> QuestionLink | None:
    """None for a revoked or expired link, or for a deleted maker."""
    return await record(QuestionLink, "read_link", project_id=project_id, id=id, now_us=now_us)


@serves(ListApprovalLinks, reads=True)
async def list_links(at: At, op: ListApprovalLinks) -> Listed[QuestionLink]:
    at_us, id = (1 << 62, "") if op.cursor is None else read_cursor(op.cursor, tuple[int, str], "newest")
    found = await records(QuestionLink, "list_links", at, before_us=at_us, before_id=id, limit=op.limit + 1)
    return Listed.of(found, op.limit, lambda last: write_cursor((last.created_at_us, last.id)))


@serves(RevokeApprovalLink, locks="project=at.project_id")
async def revoke_link(at: At, op: RevokeApprovalLink) -> None:
    if not await query("revoke_link", at, id=op.link_id):
        raise NotFound(f"Link {op.link_id!r} does not exist: it was revoked, or has expired.")
