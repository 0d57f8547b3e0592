"""Questions of push workers. A suspending step publishes `suspend_{key}` on the run's topic, then reports the wait.

The event alone opens the wait, so an answer finds the question even if the worker dies.
"""

from msgspec import Raw

from perdure.store.base.executions import StoredWait
from perdure.store.base.interface import query, record, records, value
from perdure.store.verbs.outside.push_steps import ENDS
from perdure.store.verbs.runs.rows import deliver
from perdure.wire.agents.approvals import ANSWERED, ASKED, AnswerChannel
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import EventItem


def asks(data: bytes | None) -> bool:
    """True if a wait shows a question, which takes no earlier answer."""
    return data is not None and data != b"null"


async def alone_in(project_id: str, topic: str) -> str | None:
    """The run's only execution. None for a run with several."""
    found: str | None = await value("alone_in_run", project_id=project_id, id=topic.rpartition("/")[2])
    return found


async def ask(project_id: str, execution_id: str, topic: str, seq: int, event: EventItem, now_us: int) -> None:
    """Open the wait for a published question's answer, if the execution is of the topic's run."""
    assert event.event_type is not None
    key = event.event_type.removeprefix(ASKED)
    if not await query("lock_asking", project_id=project_id, id=execution_id, topic=topic):
        return
    if await outcome_there(execution_id, key):
        return
    known = await record(StoredWait, "read_wait", execution_id=execution_id, key=key)
    if known is None or known.state != "open" or known.event_type == f"{ANSWERED}{key}":
        await open_question(
            project_id, execution_id, key, known, topic=topic, after=seq, data=bytes(event.data), now_us=now_us
        )


async def open_question(
    project_id: str,
    execution_id: str,
    key: str,
    known: StoredWait | None,
    *,
    topic: str,
    after: int,
    data: bytes | None,
    now_us: int,
    asked_at_us: int | None = None,
) -> None:
    """Open the wait of a question, and deliver an early answer: kept under the key, or published after the question.

    The next attempt may repeat the question. With other data, or after an early answer, it is new, and an answer must
    name its id. `asked_at_us`: before now.
    """
    answer_type = f"{ANSWERED}{key}"
    if known is not None and known.state == "open" and (known.event_type, known.data) == (answer_type, data):
        return
    early = known if known is not None and known.state == "early" else None
    if early is not None and asks(data) and (asked_at_us is None or early.opened_at_us < asked_at_us):
        early = None
    await query(
        "ask_question",
        execution_id=execution_id,
        key=key,
        project_id=project_id,
        topic=topic,
        after_seq=after,
        event_type=answer_type,
        data=data,
        now_us=early.opened_at_us if early is not None else later(0 if known is None else known.opened_at_us, now_us),
        must_name=int(early is None and known is not None and known.data is not None),
    )
    if early is not None:
        assert early.data is not None
        seq, answer = None, early.data
    else:
        found = await query(
            "first_event_of_type", project_id=project_id, topic=topic, after=after, event_type=answer_type
        )
        if not found:
            return
        seq, answer = found[0]
        answered_by = f"event {seq} of topic {topic!r}"
        await note_answer(project_id, execution_id, key, Raw(answer), answered_by=answered_by, now_us=now_us)
    await query("meet_wait", execution_id=execution_id, key=key, event_seq=seq, data=None)
    await deliver(project_id, execution_id, Kind.RESUME, now_us, key=key, name=topic, value=answer)


def later(opened_at_us: int, now_us: int) -> int:
    """A time after `opened_at_us`: a question's time is part of its id, so two questions under a key need different
    times."""
    return max(now_us, opened_at_us + 1)


async def outcome_there(execution_id: str, key: str) -> bool:
    rows = await records(Row, "outcomes_of_key", execution_id=execution_id, key=key)
    return any(row.kind in ENDS for row in rows)


async def note_answer(
    project_id: str,
    execution_id: str,
    key: str,
    data: Raw,
    answered_by: str,
    now_us: int,
    how: AnswerChannel = AnswerChannel.API,
) -> None:
    """Only the first answer is noted."""
    answer = {"answered_by": answered_by, "how": how.value, "data": bytes(data), "now_us": now_us}
    await query("note_approval", execution_id=execution_id, key=key, project_id=project_id, **answer)
