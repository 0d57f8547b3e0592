"""Plans of forks and retries: where to cut the source's journal, and which outcomes change."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct, structs

from perdure.store.base.interface import query, record, records, value
from perdure.store.verbs.outside.push_workers import PUSH_RUNTIME
from perdure.store.verbs.runs.events import event_value
from perdure.store.verbs.steering.later_outcomes import ReportedKeys, find_later, rows_to_drop
from perdure.wire.agents.budgets import ReserveReply, topic_of
from perdure.wire.base.errors import BadValue, Conflict, LaterOutcomes, NotFound
from perdure.wire.base.failures import Failure, read_failure
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, Phase
from perdure.wire.runs.events import Event
from perdure.wire.runs.executions import Execution, Row
from perdure.wire.steering.forks import Edits, RetryExecution

KEYS_SHOWN = 20
_EDITABLE = (Kind.STEP, Kind.RESUME, Kind.EVENT, Kind.CHILD)


class ForkSource(Execution, frozen=True, kw_only=True, gc=False):
    """The source, without its result. `session_id` is None if the source is the first execution of its session."""

    priority: int
    seed_id: str | None
    keys_id: str | None
    python: str | None
    next_seq: int
    created_number: int
    initial_state: bytes | None
    channel_context: bytes | None
    webhook_url: str | None


class Kept(Struct, frozen=True):
    value_bytes: int = 0
    at_us: int | None = None
    attempt: int = 0
    cancel_seq: int | None = None
    cut_at_us: int | None = None
    """When the first dropped row was written."""


class Plan(Struct, frozen=True):
    cut: int
    """The seq of the first dropped row."""
    at_step: str | None = None
    failures: dict[str, int] = {}
    """The rows of kept failures whose steps and children run again, by key."""
    lost: Sequence[str] = ()
    """Children's keys among `failures`."""
    dropped: Sequence[int] = ()
    """Kept rows whose outcomes do not count."""
    edits: Sequence[tuple[Row, Raw]] = ()
    payload: Raw | None = None
    retries: bool = False
    """The fork takes over the source's key, and the results that children have had since."""


async def plan_fork(source: ForkSource, from_step: str | None, edits: Edits) -> Plan:
    edited = [_edited(source, await _edited_row(source, key), given) for key, given in edits.steps.items()]
    cut = max((row.seq for row, _ in edited), default=0) + 1
    if from_step is not None:
        cut = await _first_row(source, from_step)
        for row, _ in edited:
            if row.seq >= cut:
                raise _bad_edit(row.key, f"it comes at or after {from_step!r}, so it runs again.")
    return Plan(cut, at_step=from_step, edits=edited, payload=edits.payload)


async def _edited_row(source: ForkSource, key: str) -> Row:
    rows = await records(Row, "outcomes_of_key", execution_id=source.id, key=key)
    for row in rows:
        if row.kind in _EDITABLE:
            return row
    if not rows:
        raise _bad_edit(key, f"execution {source.id!r} has no outcome of it.{_known(await _newest_keys(source))}")
    raise _bad_edit(key, f"a row of kind `{rows[0].kind.value}` has no value to replace.")


def _edited(source: ForkSource, row: Row, given: Raw) -> tuple[Row, Raw]:
    """An edited event keeps its topic and number. Events that an act decided have neither."""
    if row.kind is not Kind.EVENT:
        return row, given
    if not row.ok:
        event = Event(
            id=source.id, sequence_id=0, topic=row.name or "", data=given, created_at_us=row.at_us, event_type=None
        )
        return row, Raw(event_value(event))
    envelope = msgspec.json.decode(row.value, type=dict[str, Raw])
    return row, Raw(msgspec.json.encode(envelope | {"data": given}))


def _bad_edit(key: str | None, why: str) -> BadValue:
    return BadValue(f"edits.steps.{key}: {why}", {"path": f"edits.steps.{key}"})


async def _first_row(source: ForkSource, key: str) -> int:
    seq: int | None = await value("first_row_of", execution_id=source.id, key=key)
    if seq is not None:
        return seq
    keys = await _newest_keys(source)
    if source.phase not in FINAL:
        last = f"its last step is {keys[0]!r}" if keys else "it has not recorded a step"
        raise Conflict(f"Execution {source.id!r} is not at step {key!r} yet; {last}.")
    raise NotFound(f"Execution {source.id!r} has no step {key!r}.{_known(keys)}")


async def _newest_keys(source: ForkSource) -> list[str]:
    return [key for (key,) in await query("newest_keys", execution_id=source.id, limit=KEYS_SHOWN)]


def _known(keys: list[str]) -> str:
    return f" Its newest steps: {', '.join(keys)}." if keys else " It recorded none."


async def plan_retry(source: ForkSource, request: RetryExecution) -> Plan:
    """Plan a retry. Raises LaterOutcomes if outcomes after the failure need a decision."""
    end = source.next_seq - 1
    if request.from_step is not None:
        return Plan(await _first_row(source, request.from_step), at_step=request.from_step, retries=True)
    if request.from_end:
        return Plan(end, retries=True)
    if source.phase is Phase.COMPLETED or source.python == PUSH_RUNTIME:
        return Plan(1, retries=True)
    [before] = await records(Kept, "kept_facts", execution_id=source.id, cut=end)
    cut = before.cancel_seq or end
    if source.phase is Phase.CANCELLED:
        hold = await _hold_at(source, cut)
        held = {key: await _failed_row(source, key, (Kind.STEP,)) for key in hold.take_back}
        seqs = {key: seq for key, seq in held.items() if 0 < seq < cut}
        return await _plan_of_failures(source, request, cut, seqs, hold.later)
    [last] = await records(Row, "row_at", execution_id=source.id, seq=end)
    failure = read_failure(last.value)
    if failure.code == "POISONED":
        return Plan(cut, retries=True)
    steps, children = failure.steps or (), failure.children or ()
    if not steps and not children:  # the code failed, or an older worker did not say
        steps = [key for (key,) in await query("failed_step_of", execution_id=source.id)]
    blamed = {key: await _failed_row(source, key, (Kind.STEP,)) for key in steps}
    lost = {key: await _failed_row(source, key, (Kind.CHILD, Kind.CHILD_STARTED)) for key in children}
    seqs = {key: seq for key, seq in (blamed | lost).items() if seq}
    if not seqs:
        return Plan(1, retries=True)
    plan = await _plan_of_failures(source, request, cut, seqs, failure.later)
    return structs.replace(plan, lost=[key for key, seq in lost.items() if seq])


async def later_keys(project_id: str, execution_id: str) -> list[str]:
    """Return the steps for which a retry needs a decision."""
    source = await record(ForkSource, "read_source", project_id=project_id, id=execution_id)
    if source is None or source.phase not in FINAL:
        return []
    try:
        await plan_retry(source, RetryExecution(execution_id))
    except LaterOutcomes as error:
        return error.keys
    return []


async def _plan_of_failures(
    source: ForkSource, request: RetryExecution, cut: int, seqs: dict[str, int], reported: ReportedKeys
) -> Plan:
    later = await find_later(source.id, seqs, reported, cut)
    first = min(seqs, key=lambda key: seqs[key], default=None)
    return Plan(cut, at_step=first, failures=seqs, dropped=rows_to_drop(later, request), retries=True)


async def _hold_at(source: ForkSource, cut: int) -> Failure:
    return read_failure(await value("hold_at", execution_id=source.id, cut=cut))


async def ask_anew(source: ForkSource, plan: Plan) -> Plan:
    """Plan to repeat calls that waited for a budget at the cut: the fork has its own budget."""
    if plan.cut == 1:
        return plan
    waits = [(topic, after) for topic, after in await query("budget_waits_at", execution_id=source.id, cut=plan.cut)]
    if not waits:
        return plan
    refused = {
        row.key: row.seq
        for row in await records(Row, "failed_steps_before", execution_id=source.id, cut=plan.cut)
        if row.key is not None and _budget_wait(row) in waits
    }
    at_step = plan.at_step or min(refused, key=lambda key: refused[key], default=None)
    return structs.replace(plan, at_step=at_step, failures=plan.failures | refused)


def _budget_wait(row: Row) -> tuple[str, int] | None:
    """Return the topic that a refused call waits for, and the last event that the call has seen."""
    try:
        refused = msgspec.convert(read_failure(row.value).details, ReserveReply | None)
    except msgspec.ValidationError:  # it failed otherwise
        return None
    budget = None if refused is None else refused.budget
    return None if budget is None else (topic_of(budget.execution_id), budget.raises)


async def _failed_row(source: ForkSource, key: str, kinds: Sequence[Kind]) -> int:
    rows = await records(Row, "outcomes_of_key", execution_id=source.id, key=key)
    return next((row.seq for row in rows if row.kind in kinds and not row.ok), 0)
