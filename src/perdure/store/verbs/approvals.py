"""Questions and their answers: the first one stands, and who gave it is kept with it.

A suspended step of a native worker is answered in its execution's journal. One of a push worker looks for an event of
type `resume_{key}` on its root's topic, and asks by one of type `suspend_{key}`: the answer is published there, whether
its wait is registered already or not, so that an answer right after the question is not lost.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from perdure.store.interface import query, verb
from perdure.store.verbs.events import publish_events
from perdure.store.verbs.waits import answer_wait
from perdure.wire.approvals import Approval, How, Question, QuestionState
from perdure.wire.errors import Conflict, NotFound
from perdure.wire.requests import EventItem
from perdure.wire.status import FINAL, Phase


@verb
async def find_question(
    *, project_id: str, execution_id: str, step_key: str, now_us: int
) -> tuple[Phase, Question | None]:
    """What is asked under a key by an execution, or by one below it; and the execution's own phase. Raises NotFound."""
    return await _find(project_id, execution_id, step_key, now_us)


async def _find(project_id: str, execution_id: str, step_key: str, now_us: int) -> tuple[Phase, Question | None]:
    rows = await query("question_target", project_id=project_id, id=execution_id)
    if not rows:
        raise NotFound(f"Execution {execution_id!r} does not exist.")
    workflow_id, phase, root_id = rows[0][0], Phase(rows[0][1]), rows[0][2]
    waits = await query("question_of", execution_id=execution_id, key=step_key)
    if not waits and root_id is None:
        waits = await query("question_below", project_id=project_id, id=execution_id, key=step_key)
    if waits:
        asking, state, topic, data, asked_at_us, expires_at_us = waits[0]
        question_state = _state(state, expires_at_us, now_us)
        question_id = f"{asking}.{asked_at_us}"
    elif root_id is None:
        topic = run_topic(workflow_id, execution_id)
        asked = await query("newest_of_type", project_id=project_id, topic=topic, event_type=f"suspend_{step_key}")
        if not asked:
            return phase, None
        answered = await query("newest_of_type", project_id=project_id, topic=topic, event_type=f"resume_{step_key}")
        seq, data, asked_at_us = asked[0]
        asking, expires_at_us, question_id = execution_id, None, f"{execution_id}.{seq}"
        if answered and answered[0][0] > seq:
            question_state = QuestionState.ANSWERED
        else:
            question_state = QuestionState.CLOSED if phase in FINAL else QuestionState.OPEN
    else:
        return phase, None
    said = await query("read_approval", execution_id=asking, key=step_key)
    approval = None
    # A wait stands for one question. Without one a key may be asked again: then an answer is that of the one before.
    if said and (waits or said[0][0] >= asked_at_us):
        approval = Approval(said[0][0], said[0][1], How(said[0][2]), Raw(said[0][3]))
    return phase, Question(
        question_id,
        asking,
        root_id or execution_id,
        workflow_id,
        step_key,
        phase,
        question_state,
        Raw(data),
        asked_at_us,
        expires_at_us,
        topic,
        approval,
    )


def run_topic(workflow_id: str, execution_id: str) -> str:
    """Where the executions of a tree publish what they do."""
    return f"workflow/{workflow_id}/{execution_id}"


def _state(state: str, expires_at_us: int | None, now_us: int) -> QuestionState:
    over = expires_at_us is not None and expires_at_us <= now_us
    if state == "open":
        return QuestionState.EXPIRED if over else QuestionState.OPEN
    if state == "met":
        return QuestionState.ANSWERED
    return QuestionState.EXPIRED if over else QuestionState.CLOSED


@verb
async def answer_question(
    *,
    project_id: str,
    execution_id: str,
    step_key: str,
    question_id: str | None,
    data: Raw,
    answered_by: str,
    how: How,
    event_id: str,
    now_us: int,
) -> Approval:
    """Answer what is asked under a key. With `question_id` only that very question.

    The first answer stands; the same one again, of the same person, is told so. Raises NotFound, Conflict.
    """
    _, found = await _find(project_id, execution_id, step_key, now_us)
    if found is None:
        raise Conflict(f"Execution {execution_id!r} asks nothing under {step_key!r}.")
    if question_id is not None and question_id != found.id:
        raise Conflict(f"Step {step_key!r} of execution {execution_id!r} asks something else by now; look again.")
    again = _again(found, answered_by, data)
    if again is not None:
        return again
    if found.state is not QuestionState.OPEN:
        raise _late(found)
    if found.topic is None:
        problem = await answer_wait(project_id, found.execution_id, step_key, data, now_us)
        if problem is not None:
            raise Conflict(problem.error)
    else:
        await query("lock_topic", project_id=project_id, topic=found.topic)
    _, now = await _find(project_id, execution_id, step_key, now_us)  # with what others did before it was ours
    assert now is not None
    if (found.topic is not None and now.state is not QuestionState.OPEN) or now.approval is not None:
        again = _again(now, answered_by, data)
        if again is not None:
            return again
        raise _late(now)
    if found.topic is not None:
        event = EventItem(data, f"resume_{step_key}")
        await publish_events(project_id, found.topic, [event], [event_id], now_us)
    await record(project_id, found.execution_id, step_key, data, answered_by, how, now_us)
    return Approval(now_us, answered_by, how, data)


async def record(
    project_id: str, execution_id: str, step_key: str, data: Raw, answered_by: str, how: How, now_us: int
) -> None:
    """Keep who answered."""
    await query(
        "insert_approval",
        execution_id=execution_id,
        key=step_key,
        project_id=project_id,
        answered_by=answered_by,
        how=how.value,
        data=bytes(data),
        now_us=now_us,
    )


def _again(found: Question, answered_by: str, data: Raw) -> Approval | None:
    """The answer that stands, if it is this one."""
    said = found.approval
    if said is not None and said.answered_by == answered_by and bytes(said.data) == bytes(data):
        return said
    return None


def _late(found: Question) -> Conflict:
    what = f"Step {found.step_key!r} of execution {found.execution_id!r}"
    if found.state is QuestionState.EXPIRED:
        return Conflict(f"{what} waits no longer for an answer: its time is over.")
    if found.approval is not None:
        return Conflict(f"{what} was answered by {found.approval.answered_by!r} before; the first answer stands.")
    if found.state is QuestionState.ANSWERED:
        return Conflict(f"{what} was answered before; the first answer stands.")
    return Conflict(f"{what} no longer waits for an answer.")


@verb
async def list_questions(*, project_id: str, after: tuple[int, str, str], limit: int, now_us: int) -> list[Question]:
    """A page of open questions, oldest first."""
    rows: Sequence[tuple[Any, ...]] = await query(
        "list_questions", project_id=project_id, after_us=after[0], after_id=after[1], after_key=after[2], limit=limit
    )
    return [
        Question(
            f"{execution_id}.{asked_at_us}",
            execution_id,
            root_id,
            workflow_id,
            key,
            Phase(phase),
            _state("open", expires_at_us, now_us),
            Raw(data),
            asked_at_us,
            expires_at_us,
        )
        for execution_id, key, data, asked_at_us, expires_at_us, workflow_id, root_id, phase in rows
    ]
