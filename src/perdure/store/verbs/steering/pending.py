"""Pending calls: calls of an execution's code without an outcome."""

from collections.abc import Iterable
from typing import Final

from msgspec import structs

from perdure.store.base.executions import unknown_execution
from perdure.store.base.interface import query, record, records, serves, verb
from perdure.store.verbs.base.idempotency import At
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.failures import Failure, read_failure
from perdure.wire.base.operation import Listed
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, LEASED, Phase
from perdure.wire.runs.executions import Act
from perdure.wire.runs.waits import RecordedWait
from perdure.wire.steering.acts import ACTIONS, Actable, Action, GetPending, PendingCall, PendingKind

LOOK_ROWS: Final = 10_000
"""Newest journal rows searched for failed tries."""
LISTED_MAX: Final = 1_000


class Tries:
    """Failed tries of steps without an outcome, read from rows exactly as workers read them."""

    def __init__(self, rows: Iterable[JournalEntry]) -> None:
        self.paused: dict[str, tuple[JournalEntry, int]] = {}
        """Paused steps, each with the time of the next try."""
        self.held: dict[str, JournalEntry] = {}
        self.hold: Failure | None = None
        """The last hold."""
        self.hold_row: JournalEntry | None = None
        for row in rows:
            if row.kind is Kind.HELD:
                self.hold_row, self.hold = row, read_failure(row.value)
            elif row.kind is Kind.FORKED:
                self.held.clear()
            elif row.key is not None:
                self.paused.pop(row.key, None)
                self.held.pop(row.key, None)
                failure = read_failure(row.value) if row.kind is Kind.STEP_FAILED else Failure()
                if failure.retry_at_us is not None:
                    self.paused[row.key] = row, failure.retry_at_us
                elif failure.held:
                    self.held[row.key] = row


async def read_actable(project_id: str, execution_id: str) -> Actable:
    found = await record(Actable, "actable", project_id=project_id, id=execution_id)
    if found is None:
        raise unknown_execution(execution_id)
    return found


async def read_tries(execution_id: str, next_seq: int) -> Tries:
    after = max(0, next_seq - 1 - LOOK_ROWS)
    return Tries(await records(JournalEntry, "recent_tries", execution_id=execution_id, after=after))


@serves(GetPending, reads=True)
async def pending(at: At, op: GetPending) -> Listed[PendingCall]:
    project_id, execution_id, now_us = at.project_id, op.execution_id, at.now_us
    of = await read_actable(project_id, execution_id)
    if of.phase in FINAL:
        return Listed([])
    tries = await read_tries(execution_id, of.next_seq)
    calls = [*steps(of, tries, now_us), *await others(project_id, execution_id, of)]
    return Listed(allowed(calls, of)[:LISTED_MAX])


@verb(reads=True)
async def acts_between(*, execution_id: str, first: int, last: int) -> list[Act]:
    return await records(Act, "acts_between", execution_id=execution_id, first_seq=first, last_seq=last)


def allowed(calls: Iterable[PendingCall], of: Actable) -> list[PendingCall]:
    """Push workers ask for answers only."""
    if not of.push:
        return list(calls)
    return [structs.replace(one, actions=[Action.COMPLETE]) for one in calls if one.kind is PendingKind.ANSWER]


def steps(of: Actable, tries: Tries, now_us: int) -> list[PendingCall]:
    calls: list[PendingCall] = []
    if of.phase is Phase.HELD and tries.hold is not None and tries.hold_row is not None and not tries.hold.held:
        error, since_us = str(tries.hold), tries.hold_row.at_us
        actions = [Action.TRY, Action.FAIL]
        calls.append(PendingCall(key=None, kind=PendingKind.HELD, since_us=since_us, error=error, actions=actions))
        for key in tries.hold.take_back:
            actions = [Action.TRY, Action.COMPLETE]
            calls.append(PendingCall(key=key, kind=PendingKind.HELD, since_us=since_us, error=error, actions=actions))
    calls += [_failed(PendingKind.HELD, row) for row in tries.held.values()]
    for row, at_us in tries.paused.values():
        if at_us > now_us or of.phase is Phase.WAITING:
            calls.append(_failed(PendingKind.PAUSE, row, due_at_us=at_us))
    return calls


def _failed(kind: PendingKind, row: JournalEntry, due_at_us: int | None = None) -> PendingCall:
    assert row.key is not None and row.value is not None
    call = _made(row.key, kind, row.name, row.at_us, due_at_us)
    return structs.replace(call, tries=row.tries, error=str(read_failure(row.value)))


async def others(project_id: str, execution_id: str, of: Actable, key: str | None = None) -> list[PendingCall]:
    """List children, timers, waits and long steps: all, or those under `key`."""
    calls = await children(project_id, execution_id, key)
    calls += [call for call in await running(execution_id, of) if key in (None, call.key)]
    for wait in await open_waits(execution_id, key=key):
        kind = PendingKind.ANSWER if wait.topic is None or wait.is_question else PendingKind.EVENT
        calls.append(_made(wait.key, kind, wait.topic, wait.opened_at_us, wait.expires_at_us))
    return sorted(calls, key=lambda one: (one.since_us or 0, one.key or ""))


async def open_waits(execution_id: str, *, key: str | None = None, bytes_max: int = 0) -> list[RecordedWait]:
    """List open waits, oldest first, without values above `bytes_max`."""
    of = {"execution_id": execution_id, "key": key, "bytes_max": bytes_max}
    return await records(RecordedWait, "explained_waits", limit=LISTED_MAX, **of)


async def children(project_id: str, execution_id: str, key: str | None = None) -> list[PendingCall]:
    """List open children whose start is journaled and whose outcome no act decided."""
    found = await query("open_children", project_id=project_id, id=execution_id, key=key, limit=LISTED_MAX)
    return [
        structs.replace(_made(step_key, PendingKind.CHILD, workflow_id, created_at_us), child_id=id)
        for id, workflow_id, step_key, created_at_us in found
    ]


async def running(execution_id: str, of: Actable) -> list[PendingCall]:
    calls = {}
    if of.phase is Phase.WAITING and of.timer_key is not None and of.due_at_us is not None:
        calls[of.timer_key] = _made(of.timer_key, PendingKind.TIMER, None, of.ready_at_us, of.due_at_us)
    found = await query("pending_calls", execution_id=execution_id, attempt=of.attempt)
    for key, kind, name, since_us, due_us, tries in found:
        if key not in calls and (kind != PendingKind.STEP or of.phase in LEASED):
            call = _made(key, PendingKind(kind), name, since_us, due_us)
            calls[key] = structs.replace(call, tries=tries or None)
    return list(calls.values())


def _made(
    key: str, kind: PendingKind, name: str | None, since_us: int | None, due_at_us: int | None = None
) -> PendingCall:
    return PendingCall(
        key=key, kind=kind, name=name, since_us=since_us, due_at_us=due_at_us, actions=list(ACTIONS[kind])
    )
