"""Turns: a session runs one execution at a time. A waiting turn is a queued execution with its start at the end of
time.

With `deliver`, an open turn of the same workflow may take a waiting turn's message, once. If the taker completes, the
taken turn is released and finds the taker's result; otherwise the taken turn waits again. If the taker leaves the
message, the turn waits again at once, and no other turn takes the message.
"""

import msgspec
from msgspec import Raw

from perdure.store.base.executions import State
from perdure.store.base.interface import Notify, Ready, query, query_many, record, value
from perdure.store.verbs.agents import transcripts
from perdure.wire.agents.transcripts import APPEND, LEAVE, MESSAGES_MAX, READ, SUMMARIZE, TAKE, OnConflict
from perdure.wire.base.errors import PerdureError, SessionBusy
from perdure.wire.base.status import Phase
from perdure.wire.base.times import NEVER_US
from perdure.wire.runs.requests import (
    AppendMessages,
    LeaveMessages,
    ReadTranscript,
    Summarize,
    TakeMessages,
    TranscriptEntry,
)


async def ask_for_turn(
    project_id: str, session_id: str, execution_id: str, on_conflict: OnConflict, now_us: int
) -> str | None:
    """Returns the holder; None: the new execution has the turn. Raises SessionBusy before the first write."""
    session = {"project_id": project_id, "session_id": session_id}
    seen = await value("open_turn", **session)
    if seen is not None and on_conflict is OnConflict.DELIVER:
        # It will be written to, and executions are locked before sessions.
        await query("lock_state", project_id=project_id, id=seen)
    await query("lock_transcript", **session)
    holder: str | None = await value("open_turn", **session)
    if holder is not None and on_conflict is OnConflict.REJECT:
        raise SessionBusy(
            f"Execution {holder!r} has its turn in session {session_id!r}; start again when it has ended, or with "
            '`on_conflict` "queue" or "deliver".',
            {"execution_id": holder},
        )
    n = await value("count_turn", now_us=now_us, **session)
    state = "open" if holder is None else "waiting"
    deliver = int(on_conflict is OnConflict.DELIVER)
    await query("insert_turn", execution_id=execution_id, state=state, n=n, deliver=deliver, **session)
    return holder


async def end_turns(project_id: str, execution_id: str, phase: Phase, now_us: int) -> None:
    """End the turns of an execution, and begin the next turns."""
    for session_id, _ in await query("turns_of_execution", execution_id=execution_id):
        session = {"project_id": project_id, "session_id": session_id}
        await query("lock_transcript", **session)
        state = dict(await query("turns_of_execution", execution_id=execution_id)).get(session_id)
        await query("delete_turn", execution_id=execution_id, session_id=session_id)
        if state == "open":
            if phase is Phase.COMPLETED:
                for (taken,) in await query("taken_turns", taken_by=execution_id, **session):
                    await _release(project_id, taken, now_us)
            else:
                await query("give_back_taken", taken_by=execution_id, **session)
            for (following,) in await query("next_turn", **session):
                await query("begin_turn", execution_id=following, session_id=session_id)
                await _release(project_id, following, now_us)
        await transcripts.drop_summarized(project_id, session_id)


async def _release(project_id: str, execution_id: str, now_us: int) -> None:
    rows = await query("release_turn", project_id=project_id, id=execution_id, now_us=now_us, held_us=NEVER_US)
    await Notify(*(Ready(project_id, deployment_id) for (deployment_id,) in rows))


async def answer(project_id: str, execution_id: str, entry: TranscriptEntry, now_us: int) -> tuple[str, bool, bytes]:
    """Answers name, success and value of the entry's journal row."""
    if isinstance(entry, ReadTranscript):
        return READ, True, await _read_version(project_id, execution_id, entry.session_id)
    if isinstance(entry, TakeMessages):
        return TAKE, True, await _take(project_id, execution_id, entry.session_id)
    if isinstance(entry, LeaveMessages):
        return LEAVE, True, await _leave(project_id, execution_id, entry.session_id, entry.execution_ids)
    name = APPEND if isinstance(entry, AppendMessages) else SUMMARIZE
    try:
        if isinstance(entry, AppendMessages):
            new = await transcripts.append(project_id, entry.session_id, entry.messages, entry.version, now_us)
        else:
            assert isinstance(entry, Summarize)
            new = await transcripts.append(
                project_id, entry.session_id, [entry.summary], entry.version, now_us, summary_of=entry.upto
            )
    except PerdureError as error:  # it refused before it wrote
        return name, False, msgspec.json.encode({"type": error.code, "message": error.message})
    return name, True, msgspec.json.encode({"version": new})


async def _read_version(project_id: str, execution_id: str, session_id: str) -> bytes:
    """The version read by the execution, kept for replays, and the end of the turn that took the message."""
    session = {"project_id": project_id, "session_id": session_id}
    stored = await record(transcripts.StoredTranscript, "lock_transcript", **session)
    version = 0 if stored is None else stored.version
    told: dict[str, object] = {"session_id": session_id, "version": version}
    if stored is not None:
        told["begun_at_us"] = stored.begun_at_us
    taker = await value("note_reading", execution_id=execution_id, version=version, **session)
    if taker is not None:
        for phase, result in await query("result_of", project_id=project_id, id=taker):
            if phase == Phase.COMPLETED:
                told["taken_by"] = taker
                told["result"] = Raw(result)
    return msgspec.json.encode(told)


async def workflow_of(project_id: str, execution_id: str) -> str | None:
    """Turns of different workflows do not understand each other's inputs and results."""
    state = await record(State, "read_state", project_id=project_id, id=execution_id)
    return None if state is None else state.workflow_id


async def _take(project_id: str, execution_id: str, session_id: str) -> bytes:
    session = {"project_id": project_id, "session_id": session_id}
    await query("lock_transcript", **session)
    if await value("open_turn", **session) != execution_id:
        return b"[]"
    workflow_id = await workflow_of(project_id, execution_id)
    rows = await query("messages_to_take", workflow_id=workflow_id, limit=MESSAGES_MAX, **session)
    taken = [{"taken_by": execution_id, "execution_id": id, "session_id": session_id} for id, _ in rows]
    await query_many("take_turn", taken)
    return msgspec.json.encode([{"execution_id": id, "message": Raw(payload)} for id, payload in rows])


async def _leave(project_id: str, execution_id: str, session_id: str, ids: list[str]) -> bytes:
    """Return taken messages: the executions are waiting turns again."""
    await query("lock_transcript", project_id=project_id, session_id=session_id)
    left = [{"taken_by": execution_id, "execution_id": id, "session_id": session_id} for id in ids]
    await query_many("leave_turn", left)
    return msgspec.json.encode(ids)
