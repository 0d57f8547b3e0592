"""Effects of a report beyond its own execution: child starts, events, answers and transcripts. Each is the outcome of a
call and gets a journal row."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import structs

from perdure.store.base.executions import ChangedParent, JournalRow
from perdure.store.verbs.agents import turns
from perdure.store.verbs.outside.push_questions import note_answer
from perdure.store.verbs.runs.continued_keys import continue_keys, continued
from perdure.store.verbs.runs.direct_dispatch import DirectDispatch
from perdure.store.verbs.runs.endings import ReportContext
from perdure.store.verbs.runs.events import publish_events
from perdure.store.verbs.runs.starts import New, start_items
from perdure.store.verbs.runs.waits import answer_wait
from perdure.wire.base.errors import Conflict
from perdure.wire.base.records import Kind, Problem
from perdure.wire.base.status import Phase
from perdure.wire.runs.requests import (
    Answer,
    AppendMessages,
    LeaveMessages,
    Publish,
    ReadTranscript,
    StartChild,
    Summarize,
    TakeMessages,
    TranscriptEntry,
)

TRANSCRIPT: Final = (ReadTranscript, AppendMessages, Summarize, TakeMessages, LeaveMessages)


async def make_effect(
    at: ReportContext,
    seq: int,
    entry: StartChild | Publish | Answer | TranscriptEntry,
    fresh: Iterator[str],
    started: Iterator[tuple[bool, bytes]],
) -> JournalRow:
    """Make an effect and its row in one transaction (I6)."""
    name: str | None
    if isinstance(entry, TRANSCRIPT):
        name, ok, value = await turns.answer(at.project_id, at.execution_id, entry, at.now_us)
        kind = Kind.TRANSCRIPT
    elif type(entry) is StartChild:
        ok, value = next(started)
        kind, name = Kind.CHILD_STARTED, entry.item.workflow_id
    elif type(entry) is Publish:
        event_ids = [next(fresh) for _ in entry.events]
        seqs = await publish_events(
            at.project_id,
            entry.topic,
            entry.events,
            event_ids,
            at.now_us,
            answers=None if at.decides else "",
            answered_by=f"execution {at.execution_id}",
        )
        ok, value, kind, name = True, msgspec.json.encode(seqs), Kind.PUBLISHED, entry.topic
    else:
        assert type(entry) is Answer
        became = await answer_wait(
            at.project_id, entry.execution_id, entry.step_key, entry.data, at.now_us, decides=at.decides
        )
        problem = became if isinstance(became, Problem) else None
        if problem is None:
            await note_answer(
                at.project_id,
                entry.execution_id,
                entry.step_key,
                entry.data,
                answered_by=f"execution {at.execution_id}",
                now_us=at.now_us,
            )
        ok, value = problem is None, msgspec.json.encode(became) if problem is None else _problem(problem)
        kind, name = Kind.SENT, entry.step_key
    return JournalRow(
        at.execution_id,
        seq,
        at.at_us,
        kind,
        at.attempt,
        key=entry.key,
        name=name,
        fingerprint=getattr(entry, "fingerprint", None),
        ok=ok,
        value=value,
    )


def _problem(problem: Problem) -> bytes:
    return msgspec.json.encode({"type": problem.error_type, "message": problem.error})


async def start_children(
    at: ReportContext,
    entries: Sequence[StartChild],
    fresh: Iterator[str],
    moved: ChangedParent,
    dispatch: DirectDispatch | None,
) -> list[tuple[bool, bytes]]:
    """Start children. Returns for each whether it was started, and its id or the reason."""
    if moved.phase is Phase.CANCELLING:
        problem = Problem("The execution is being cancelled; it starts no more children.", "CANCELLING")
        return [(False, _problem(problem))] * len(entries)
    news = [
        New(
            next(fresh),
            structs.replace(
                entry.item,
                parent_execution_id=at.execution_id,
                step_key=entry.key,
                deployment_id=entry.item.deployment_id or moved.deployment_id,
            ),
        )
        for entry in entries
    ]
    told: list[tuple[bool, bytes]] = []
    parents = {at.execution_id: moved.parent}
    keys: dict[str, str] = {}
    if moved.parent.keys_id is not None or moved.parent.forked_from is not None:
        news, keys = await continued(at.project_id, moved.parent, news)
        if keys:
            dispatch = None  # the claim would lack the keys
    answers = await start_items(at.project_id, news, at.now_us, checks_input=True, dispatch=dispatch, parents=parents)
    if keys:
        await continue_keys(at.project_id, keys)
    for (_, item), answer in zip(news, answers, strict=True):
        if isinstance(answer, Problem):
            told.append((False, _problem(answer)))
        elif answer.existing:
            # That child's end goes to its own parent, so this execution would wait for ever.
            id = answer.execution_id
            message = f"Key {item.key!r} of workflow {item.workflow_id!r} names execution {id!r} already."
            told.append((False, _problem(Problem(message, Conflict.code))))
        else:
            told.append((True, msgspec.json.encode(answer.execution_id)))
    return told
