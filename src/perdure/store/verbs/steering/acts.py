"""Acts on pending calls. An act writes the outcome that the code waits for; `acts` keeps the author and the reason."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw, structs

from perdure.store.base.executions import (
    ChangedExecution,
    EndedExecution,
    JournalRow,
    State,
    StoredWait,
    unknown_execution,
)
from perdure.store.base.interface import Notify, Ready, Written, query, query_many, record, records, verb
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.outside.push_questions import note_answer
from perdure.store.verbs.runs.endings import take_back
from perdure.store.verbs.runs.events import event_value
from perdure.store.verbs.runs.rows import add_row, note_end
from perdure.store.verbs.runs.start_targets import target_of
from perdure.store.verbs.runs.waits import answer_wait, lock_topic_of_wait, refusal
from perdure.store.verbs.steering.pending import Tries, allowed, others, read_actable, read_tries, steps
from perdure.wire.agents.approvals import question_name
from perdure.wire.base.errors import BadValue, Conflict, NotFound
from perdure.wire.base.failures import Failure, error_of
from perdure.wire.base.records import NULL, Kind, Problem, fingerprint_of_timer
from perdure.wire.base.status import FINAL, LEASED, Phase
from perdure.wire.base.times import rfc3339
from perdure.wire.runs.events import Event
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import StartItem
from perdure.wire.steering.acts import Actable, Acted, Action, ActOnExecution, PendingCall, PendingKind

NEW_PROTOCOL: Final = 2
"""Workers of an older protocol do not know acts."""
NAMED_MAX: Final = 20
"""Keys listed in a refusal."""
_ACTED = msgspec.json.Decoder(Acted)
_WAITED: Final = frozenset({Kind.EVENT, Kind.RESUME})
_WORDS: Final[Mapping[Kind, str]] = {
    Kind.STEP: "Step",
    Kind.TIMER: "Timer",
    Kind.EVENT: "The wait",
    Kind.RESUME: "The question",
    Kind.CHILD: "Child",
}
_ENDS: Final = frozenset(_WORDS)
_KIND_WORDS: Final[Mapping[PendingKind, str]] = {
    PendingKind.HELD: "a held step",
    PendingKind.PAUSE: "a pause between tries",
    PendingKind.STEP: "a running step",
    PendingKind.TIMER: "a timer",
    PendingKind.EVENT: "a wait for an event",
    PendingKind.ANSWER: "a question",
    PendingKind.CHILD: "a child",
}


class _ActContext(NamedTuple):
    project_id: str
    act: ActOnExecution
    acted_by: str
    now_us: int
    state: State
    of: Actable
    tries: Tries

    @property
    def id(self) -> str:
        return self.act.execution_id

    @property
    def is_held(self) -> bool:
        return self.state.phase is Phase.HELD


class _WrittenRow(NamedTuple):
    """The act's last row."""

    seq: int
    at_us: int


@verb(locks="execution=op.execution_id")
async def act(at: At, op: ActOnExecution, acted_by: str) -> Acted:
    """Raises NotFound, Conflict, BadValue."""
    first = await at.recall()
    if first is not None:
        return _ACTED.decode(first)
    acted = await act_on(at.project_id, op, acted_by=acted_by, event_id=at.new_id, now_us=at.now_us)
    await at.remember(acted, [op.execution_id])
    return acted


async def act_on(project_id: str, request: ActOnExecution, *, acted_by: str, event_id: str, now_us: int) -> Acted:
    """Act without a transaction of its own. Refuses before the first write."""
    execution_id = request.execution_id
    wait = None
    if request.key is not None:
        wait = await lock_topic_of_wait(project_id, execution_id, request.key)
    state = await record(State, "lock_state", project_id=project_id, id=execution_id)
    if state is None:
        raise unknown_execution(execution_id)
    if state.phase in FINAL:
        raise Conflict(
            f"Execution {execution_id!r} is {state.phase} already, and nothing is pending in it. Retry or fork it."
        )
    of = await read_actable(project_id, execution_id)
    on = _ActContext(
        project_id=project_id,
        act=request,
        acted_by=acted_by,
        now_us=now_us,
        state=state,
        of=of,
        tries=await read_tries(execution_id, state.next_seq),
    )
    await _check_target(on)
    if state.phase in LEASED and of.protocol < NEW_PROTOCOL:
        raise Conflict(
            f"Execution {execution_id!r} runs on a worker of an older release, which does not know acts. Act once it "
            "waits, or update the worker."
        )
    if request.key is None:
        done = await _on_hold(on)
    else:
        if wait is not None:  # as it is now
            wait = await record(StoredWait, "read_wait", execution_id=execution_id, key=request.key)
        done = await _on_call(on, request.key, wait, event_id)
    return Acted(
        execution_id=execution_id,
        key=request.key,
        action=request.action,
        seq=done.seq,
        acted_by=acted_by,
        at_us=done.at_us,
    )


async def _on_hold(on: _ActContext) -> _WrittenRow:
    hold = on.tries.hold
    if not on.is_held or hold is None:
        raise Conflict(
            f"Execution {on.id!r} is {on.state.phase}, not held. Name the key of what is pending; `perdure pending "
            f"{on.id}` lists it."
        )
    if on.act.action is Action.FAIL:
        return await _give_up(on, hold)
    released = [_row(on, Kind.RETRIED, key) for key in on.tries.held]
    return await _release(on, released) if hold.held else await _try_code(on, hold, *released)


async def _on_call(on: _ActContext, key: str, wait: StoredWait | None, event_id: str) -> _WrittenRow:
    there = [call for call in steps(on.of, on.tries, on.now_us) if call.key == key]
    calls = allowed([*there, *await others(on.project_id, on.id, on.of, key)], on.of)
    if not calls:
        raise await _not_pending(on, key)
    action = on.act.action
    call = next((one for one in calls if action in one.actions), None)
    if call is None:
        raise _wrong_action(calls[0], action)
    if on.act.deployment_id is not None and not on.is_held:
        raise BadValue("deployment_id: only a held execution moves to another deployment", {"path": "deployment_id"})
    if call.kind in (PendingKind.HELD, PendingKind.PAUSE, PendingKind.STEP):
        return await _on_step(on, key, call)
    if call.kind is PendingKind.ANSWER and action is Action.COMPLETE:
        assert wait is not None
        return await _answer_as_caller(on, key, wait)
    if call.kind is PendingKind.CHILD:
        name = Phase.COMPLETED if action is Action.COMPLETE else Phase.FAILED
        return await _add(on, _row(on, Kind.CHILD, key, name=name, **_outcome(on)))
    if call.kind is PendingKind.TIMER:
        # A suspended execution's own timer has its due time in the row `waiting`, as `wake_timers` leaves it.
        is_next = on.of.phase is Phase.WAITING and key == on.of.timer_key
        due = None if is_next or call.due_at_us is None else fingerprint_of_timer(call.due_at_us)
        return await _add(on, _row(on, Kind.TIMER, key, fingerprint=due), new=True)
    assert wait is not None
    # Met, also if it is timed out: a report under way may open a closed wait again.
    await query("meet_wait", execution_id=on.id, key=key, event_seq=None, data=None)
    if action is Action.TIME_OUT:
        kind = Kind.EVENT if call.kind is PendingKind.EVENT else Kind.RESUME
        message = f"The wait was timed out by {on.acted_by}."
        timed_out = msgspec.json.encode({"type": "TimeoutError", "message": message})
        return await _add(on, _row(on, kind, key, name=wait.topic, ok=False, value=timed_out), new=True)
    assert wait.topic is not None
    event = Event(
        id=event_id, sequence_id=0, topic=wait.topic, data=_value(on), created_at_us=on.now_us, event_type=None
    )
    return await _add(on, _row(on, Kind.EVENT, key, name=wait.topic, value=event_value(event)))


async def _on_step(on: _ActContext, key: str, call: PendingCall) -> _WrittenRow:
    hold = on.tries.hold
    if on.act.action is Action.TRY:
        if on.is_held and hold is not None and key in hold.take_back:
            return await _try_code(on, hold)
        if call.kind is PendingKind.PAUSE:
            return await _add(on, _row(on, Kind.WOKEN, key), new=True)
        row = _row(on, Kind.RETRIED, key)
        return await _release(on, [row]) if on.is_held else await _add(on, row, new=True)
    failed = on.tries.held.get(key) or next((row for row, _ in on.tries.paused.values() if row.key == key), None)
    recorded = None if failed is None or failed.value is None else error_of(failed.value)
    outcome = _row(on, Kind.STEP, key, name=call.name, tries=call.tries or 0, **_outcome(on, recorded))
    if not on.is_held:
        return await _add(on, outcome, new=on.state.phase in LEASED)
    if hold is not None and key in hold.take_back:
        return await _try_code(on, hold, outcome)
    if call.kind is PendingKind.HELD:
        return await _release(on, [outcome])
    return await _add(on, outcome)


async def _try_code(on: _ActContext, hold: Failure, *more: JournalRow) -> _WrittenRow:
    """Take back the failures that ended the code, as a retry of the workflow does."""
    taken = await take_back(on.id, hold.take_back)
    retried = _row(on, Kind.RETRIED, None, name=hold.message[:500], ok=False, value=taken)
    return await _release(on, [retried, *more], fresh=True)


async def _release(on: _ActContext, rows: list[JournalRow], *, fresh: bool = False) -> _WrittenRow:
    """Release a held execution. `fresh` restarts the count of the workflow's own retries."""
    deployment_id = on.act.deployment_id
    moved = await record(
        ChangedExecution,
        "release_hold",
        project_id=on.project_id,
        id=on.id,
        now_us=on.now_us,
        rows=len(rows),
        fresh=int(fresh),
        deployment_id=deployment_id,
    )
    assert moved is not None  # locked, and held
    await _insert(on, rows, moved.seq, moved.at_us, moved.attempt)
    await Notify(Ready(on.project_id, moved.deployment_id), Written(on.id))
    return _WrittenRow(moved.seq, moved.at_us)


async def _give_up(on: _ActContext, hold: Failure) -> _WrittenRow:
    """End a held execution. Held steps get their failures as outcomes, so a retry finds the failed steps."""
    rows = [
        _row(on, Kind.STEP, key, name=row.name, ok=False, value=error_of(row.value or b"{}"), tries=row.tries)
        for key, row in on.tries.held.items()
    ]
    values = {"project_id": on.project_id, "id": on.id, "now_us": on.now_us, "error": on.act.error}
    end = await record(EndedExecution, "give_up", rows=len(rows) + 1, **values)
    assert end is not None and on.tries.hold_row is not None  # locked, and held
    await _insert(on, rows, end.seq - 1, end.at_us, end.attempt)
    await query_many("insert_act", [_act(on, end.seq, end.at_us)])
    detail = error_of(on.tries.hold_row.value or b"{}")
    if on.act.error is not None:
        detail = msgspec.json.encode(msgspec.json.decode(detail) | {"message": on.act.error})
    error = on.act.error or on.of.error or str(hold)
    await note_end(on.project_id, on.id, Phase.FAILED, end, on.now_us, error=error, detail=detail)
    return _WrittenRow(end.seq, end.at_us)


async def _answer_as_caller(on: _ActContext, key: str, wait: StoredWait) -> _WrittenRow:
    """Answer like any caller, so the first answer counts and its author is shown."""
    data = _value(on)
    question = None if wait.topic is not None else question_name(on.id, wait.opened_at_us)
    became = await answer_wait(on.project_id, on.id, key, data, on.now_us, question_id=question, at="value")
    if isinstance(became, Problem):
        raise refusal(became)
    await note_answer(on.project_id, on.id, key, data, answered_by=on.acted_by, now_us=on.now_us)
    [row] = [one for one in await records(Row, "outcomes_of_key", execution_id=on.id, key=key) if one.kind in _WAITED]
    await query_many("insert_act", [_act(on, row.seq, row.at_us)])
    return _WrittenRow(row.seq, row.at_us)


async def _add(on: _ActContext, row: JournalRow, *, new: bool = False) -> _WrittenRow:
    """Add a row. `new`: workers of an older protocol do not understand the row, or a late outcome after the row."""
    moved = await add_row(
        on.project_id,
        on.id,
        on.now_us,
        lambda seq, at_us, attempt: structs.replace(row, seq=seq, at_us=at_us, attempt=attempt),
    )
    assert moved is not None  # locked, and open
    if new:
        await query("need_protocol", project_id=on.project_id, id=on.id)
    await query_many("insert_act", [_act(on, moved.seq, moved.at_us)])
    return _WrittenRow(moved.seq, moved.at_us)


async def _insert(on: _ActContext, rows: Sequence[JournalRow], last: int, at_us: int, attempt: int) -> None:
    first = last + 1 - len(rows)
    made = [structs.replace(row, seq=first + n, at_us=at_us, attempt=attempt) for n, row in enumerate(rows)]
    await query_many("insert_journal", made)
    await query_many("insert_act", [_act(on, row.seq, at_us, row.key) for row in made])


def _act(on: _ActContext, seq: int, at_us: int, key: str | None = None) -> dict[str, object]:
    return {
        "execution_id": on.id,
        "seq": seq,
        "project_id": on.project_id,
        "at_us": at_us,
        "action": on.act.action.value,
        "key": key or on.act.key,
        "acted_by": on.acted_by,
        "note": on.act.note,
    }


def _row(on: _ActContext, kind: Kind, key: str | None, **values: Any) -> JournalRow:
    """Make a row; its place in the journal is known later."""
    return JournalRow(on.id, 0, 0, kind, 0, key=key, **values)


def _value(on: _ActContext) -> Raw:
    return NULL if on.act.value is None else on.act.value


def _outcome(on: _ActContext, recorded: bytes | None = None) -> dict[str, Any]:
    """Return the act's outcome: a value or, for `fail`, the requested message or the recorded error."""
    if on.act.action is Action.COMPLETE:
        return {"ok": True, "value": _value(on)}
    if on.act.error is None and recorded is not None:
        return {"ok": False, "value": recorded}
    message = on.act.error or f"It was failed by {on.acted_by}."
    return {"ok": False, "value": msgspec.json.encode({"type": "Failed", "message": message})}


async def _check_target(on: _ActContext) -> None:
    deployment_id = on.act.deployment_id
    if deployment_id is not None:
        target = await target_of(on.project_id, StartItem(on.state.workflow_id, deployment_id=deployment_id))
        if target.push:
            raise Conflict(f"Deployment {deployment_id!r} is served by push workers, which cannot go on with it.")


async def _not_pending(on: _ActContext, key: str) -> NotFound | Conflict:
    what = f"{key!r} of execution {on.id!r}"
    rows = await records(Row, "outcomes_of_key", execution_id=on.id, key=key)
    for row in sorted(rows, key=lambda one: -one.seq):
        if row.kind in _ENDS:
            return Conflict(
                f"{_WORDS[row.kind]} {what} has its outcome since {rfc3339(row.at_us)}, in row {row.seq}: the first "
                "outcome stands."
            )
    if on.of.push:
        return Conflict(f"Execution {on.id!r} is served by push workers; acts answer its questions only.")
    calls = [*steps(on.of, on.tries, on.now_us), *await others(on.project_id, on.id, on.of)]
    keys = [repr(call.key) for call in calls if call.key is not None][:NAMED_MAX]
    listed = f"Pending: {', '.join(keys)}." if keys else "Nothing else is pending."
    return NotFound(f"Nothing is pending under {what}. {listed}")


def _wrong_action(call: PendingCall, action: Action) -> BadValue:
    able = " or ".join(f"`{one}`" for one in call.actions)
    return BadValue(f"action: {_KIND_WORDS[call.kind]} takes {able}, not `{action}`", {"path": "action"})
