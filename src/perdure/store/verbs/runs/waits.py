"""Answers to suspended steps. No answer is lost, whether before, during or after the wait (I5)."""

from uuid import UUID, uuid5

from msgspec import Raw

from perdure.store.base.executions import State, StoredWait
from perdure.store.base.input_checks import check_answer
from perdure.store.base.interface import query, query_many, record, records, verb
from perdure.store.verbs.outside.push_questions import asks, note_answer
from perdure.store.verbs.runs.events import publish_events
from perdure.store.verbs.runs.rows import deliver
from perdure.wire.agents.approvals import AnswerState, Approval, question_name
from perdure.wire.base.errors import BadValue, Conflict, Forbidden, NotFound, PerdureError, from_code
from perdure.wire.base.records import Kind, Problem
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.base.times import rfc3339
from perdure.wire.runs.executions import ResumeReply, Row
from perdure.wire.runs.requests import EventItem

EARLY_MAX = 1_000
"""Answers per execution for steps that have not asked yet; their keys may be mistyped."""


@verb(locks="execution=execution_id")
async def resume(
    *,
    project_id: str,
    execution_id: str,
    step_key: str,
    data: Raw,
    now_us: int,
    answered_by: str,
    question_id: str | None = None,
) -> ResumeReply:
    """Answer a step; with `question_id`, only this question. An early answer is kept until `open_wait` decides."""
    await lock_topic_of_wait(project_id, execution_id, step_key)
    return await give_answer(
        project_id, execution_id, step_key, data, now_us, answered_by=answered_by, question_id=question_id
    )


async def lock_topic_of_wait(project_id: str, execution_id: str, step_key: str) -> StoredWait | None:
    """Lock the topic before the execution: the outcome may be an event, like the answer to a push worker's question."""
    wait = await record(StoredWait, "read_wait", execution_id=execution_id, key=step_key)
    if wait is not None and wait.topic is not None:
        await query("lock_topic", project_id=project_id, topic=wait.topic)
    return wait


async def give_answer(
    project_id: str,
    execution_id: str,
    step_key: str,
    data: Raw,
    now_us: int,
    *,
    answered_by: str,
    question_id: str | None = None,
) -> ResumeReply:
    """Raises NotFound and Conflict."""
    became = await answer_wait(project_id, execution_id, step_key, data, now_us, question_id=question_id)
    if isinstance(became, Problem):
        raise refusal(became)
    await note_answer(project_id, execution_id, step_key, data, answered_by=answered_by, now_us=now_us)
    said = await standing(execution_id, step_key)
    if said is None:
        return ResumeReply(execution_id, step_key, became)
    return ResumeReply(execution_id, step_key, became, said.answered_by, said.answered_at_us)


def refusal(problem: Problem) -> PerdureError:
    return from_code(problem.error_type, problem.error, problem.details)


async def answer_wait(
    project_id: str,
    execution_id: str,
    step_key: str,
    data: Raw,
    now_us: int,
    question_id: str | None = None,
    *,
    decides: bool = True,
    at: str = "data",
) -> AnswerState | Problem:
    """Answer a wait; without `decides`, only if the wait shows nothing to a person.

    The first answer that fits counts. The same bytes again get the first result, because the reply may be lost.
    """
    state = await record(State, "lock_state", project_id=project_id, id=execution_id)
    if state is None:
        return Problem(f"Execution {execution_id!r} does not exist.", NotFound.code)
    wait = await record(StoredWait, "read_wait", execution_id=execution_id, key=step_key)
    if wait is not None and await _stands(execution_id, step_key, wait, bytes(data)):
        return AnswerState.EARLY if wait.state == "early" else AnswerState.ANSWERED
    if not decides and wait is not None and wait.state == "open" and asks(wait.data):
        what = f"Step {step_key!r} of execution {execution_id!r} asks a person"
        return Problem(f"{what}: a worker whose key has the role 'write' may answer for them.", Forbidden.code)
    problem = await _refusal(execution_id, step_key, wait, state.phase, now_us, question_id=question_id)
    if problem is not None:
        return Problem(problem, Conflict.code)
    if wait is None:
        early = (execution_id, step_key, project_id, "early", *(None,) * 6, bytes(data), now_us, None, None)
        await query_many("insert_wait", [early])
        return AnswerState.EARLY
    try:
        check_answer(wait.data, wait.answer_schema, bytes(data), at)
    except BadValue as error:
        return Problem(error.message, error.code, error.details)
    if wait.topic is not None and wait.event_type is not None:
        # A push worker's answer is also an event of the run's topic. UUID version 5 tells other waiting steps of the
        # run that it is not theirs.
        answer = EventItem(data, wait.event_type)
        event_id = str(uuid5(UUID(execution_id), wait.event_type))  # a question has just one answer
        await publish_events(project_id, wait.topic, [answer], [event_id], now_us, answers=execution_id)
        return AnswerState.ANSWERED
    await query("meet_wait", execution_id=execution_id, key=step_key, event_seq=None, data=None)
    await deliver(project_id, execution_id, Kind.RESUME, now_us, key=step_key, value=data)
    return AnswerState.ANSWERED


async def _refusal(
    execution_id: str, step_key: str, wait: StoredWait | None, phase: Phase, now_us: int, question_id: str | None
) -> str | None:
    """Return why an answer is refused; None: the answer is taken."""
    what = f"Step {step_key!r} of execution {execution_id!r}"
    state = None if wait is None else wait.state
    if phase in FINAL or state in ("met", "early", "closed"):
        before = ""
        if wait is not None and state == "met" and wait.awaits is not None:
            before = f"{what} waited for {wait.awaits}, and goes on."
        elif state in ("met", "early"):
            said = await standing(execution_id, step_key)
            before = f"{what} was answered {said_by(said)}; the first answer stands."
            if said is None and state == "met" and await was_timed_out(execution_id, step_key):
                before = f"{what} no longer waits for an answer: it was timed out."
        elif state == "closed":
            before = f"{what} no longer waits for an answer."
        elif wait is None:
            before = "No step has asked for it."
        if phase in FINAL:
            return f"Execution {execution_id!r} is {phase.value} already and takes no answers. {before}".rstrip()
        return before
    if wait is None:
        if question_id is not None:
            return f"Execution {execution_id!r} asks nothing under {step_key!r}, yet."
        ((early,),) = await query("count_early", execution_id=execution_id)
        if early >= EARLY_MAX:
            return (
                f"Execution {execution_id!r} holds {EARLY_MAX:,} early answers, for which no step has asked yet: that "
                f"is the most it may hold. Check the step key {step_key!r}, or answer once the step asks."
            )
        return None
    if wait.expires_at_us is not None and wait.expires_at_us <= now_us:
        return f"{what} waits no longer for an answer: its time is over."
    if wait.event_type is None and wait.batch_id is not None:
        return f"{what} waits for executions to end, not for an answer."
    if wait.event_type is None and wait.topic is not None:
        return f"{what} waits for an event of topic {wait.topic!r}, not for an answer."
    if question_id is None and wait.must_name:
        return (
            f"{what} asked something else before, or was answered before it asked. Look at what it asks now, and send "
            "the answer with its `question`."
        )
    if question_id not in (None, question_name(execution_id, wait.opened_at_us)):
        return f"{what} asks something else by now; look again."
    return None


async def was_timed_out(execution_id: str, step_key: str) -> bool:
    rows = await records(Row, "outcomes_of_key", execution_id=execution_id, key=step_key)
    return any(row.kind is Kind.RESUME and not row.ok for row in rows)


async def standing(execution_id: str, step_key: str) -> Approval | None:
    """Return the newest answer under a key."""
    return await record(Approval, "read_approvals", execution_id=execution_id, key=step_key)


def said_by(approval: Approval | None) -> str:
    if approval is None:
        return "before"
    return f"by {approval.answered_by!r} at {rfc3339(approval.answered_at_us)}"


async def _stands(execution_id: str, step_key: str, wait: StoredWait, data: bytes) -> bool:
    if wait.state == "early":
        return wait.data is not None and bytes(wait.data) == data
    if wait.state != "met":
        return False
    for (answer,) in await query("read_answer", execution_id=execution_id, key=step_key):
        return bytes(answer) == data
    return False
