"""Reports of push workers: steps, waits, ends.

Steps and waits name no worker, so they count while any push worker holds the execution. An end names its worker.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from perdure.store.base.executions import ChangedExecution, State, StoredWait, unknown_execution
from perdure.store.base.interface import Notify, Written, query, query_many, record, records, verb
from perdure.store.base.locks import Arguments, Locks
from perdure.store.verbs.base.idempotency import Idempotency, recall, remember
from perdure.store.verbs.outside.push_questions import open_question, outcome_there
from perdure.store.verbs.outside.push_steps import ENDS, HeldPush, lock_held
from perdure.store.verbs.runs.events import number_before
from perdure.store.verbs.runs.reports import report
from perdure.store.verbs.runs.starts import New, news_locks, news_sweep, news_weight, start_items
from perdure.store.verbs.runs.transitions import Canceller, cancel_tree, lose
from perdure.wire.agents.approvals import ASKED
from perdure.wire.base.errors import BadRequest, Conflict
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, LEASED, Phase
from perdure.wire.outside.push_workers import (
    CompleteExecution,
    ConfirmCancellation,
    FailExecution,
    PutOtelSpanId,
    SaveStep,
)
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import (
    Cancelled,
    Complete,
    End,
    Entry,
    Fail,
    ItemReply,
    OpenWait,
    ReportItem,
    Started,
    Suspend,
)

_NULL = Raw(b"null")
RETRIES_MAX = 2
TIMED_OUT_US = 2_000_000
"""How far a worker's clock may be ahead."""


@verb(locks="execution=op.execution_id")
async def save_step(*, project_id: str, op: SaveStep, now_us: int) -> None:
    """Record a step's outcome; only the first outcome counts (I2). Raises NotFound, Conflict."""
    id, key = op.execution_id, op.step_key
    moved = await record(ChangedExecution, "record_pushed", project_id=project_id, id=id, key=key, now_us=now_us)
    if moved is None:
        held = await lock_held(project_id, id)
        if held.phase not in LEASED or held.push_worker_id is None:
            raise Conflict(f"Execution {id!r} is {held.phase}: no push worker holds it, so its steps cannot be saved.")
        return
    outputs, error = (_NULL if value is None else value for value in (op.outputs, op.error))
    ok = op.success if op.success is not None else bytes(error) == b"null"
    row = moved.row(
        id,
        Kind.STEP,
        key=key,
        name=op.output_schema_name,
        fingerprint=op.source_execution_id,
        ok=ok,
        value=outputs if ok else error,
        tries=1,
    )
    await query_many("insert_journal", [row])
    await Notify(Written(id))


PushedEnd = CompleteExecution | FailExecution | ConfirmCancellation
_ENDS: dict[type[PushedEnd], Phase] = {
    CompleteExecution: Phase.COMPLETED,
    FailExecution: Phase.FAILED,
    ConfirmCancellation: Phase.CANCELLED,
}


@verb(locks="execution=op.execution_id")
async def end_pushed(*, project_id: str, op: PushedEnd, now_us: int, grace_us: int) -> None:
    """Take a worker's end as a report of the attempt. A repeat changes nothing. Raises NotFound, Conflict."""
    id, worker_id = op.execution_id, op.worker_id
    held = await lock_held(project_id, id)
    if held.worker_id == worker_id and held.phase is _ENDS[type(op)]:
        return
    if held.worker_id != worker_id or held.phase not in LEASED:
        raise Conflict(
            f"Execution {id!r} is {held.phase} and not held by worker {worker_id!r} (any more); nothing that this "
            "worker says of it counts."
        )
    if isinstance(op, CompleteExecution) and op.output_schema_name is not None:
        await query("put_output_schema", project_id=project_id, id=id, output_schema_name=op.output_schema_name)
    if not isinstance(op, ConfirmCancellation):
        if op.final_state is not None:
            await query("put_final_state", execution_id=id, final_state=bytes(op.final_state))
    elif held.phase is Phase.RUNNING:
        # The run timeout is over, or the worker hands the execution back. Hand-backs count, because code may raise the
        # cancel error each time.
        if held.due_at_us is None or now_us < held.due_at_us - TIMED_OUT_US:
            await _go_on(project_id, id, held, now_us)
            return
        await cancel_tree(project_id, id, Canceller("system"), now_us, grace_us)
    await _report(project_id, id, held, _end(op, held), now_us)


def _end(op: PushedEnd, held: HeldPush) -> Complete | Fail | Cancelled:
    if isinstance(op, CompleteExecution):
        return Complete(op.result)
    if isinstance(op, ConfirmCancellation) or held.phase is Phase.CANCELLING:
        return Cancelled()  # a worker that lets go confirms the cancel
    stack = {} if op.stack is None else {"stack": op.stack}
    detail = Raw(msgspec.json.encode({"type": "Error", "message": op.error, **stack}))
    retries = op.retryable is not False and held.retry_count < RETRIES_MAX
    return Fail(op.error, detail, retry_delay_us=0 if retries else None)


async def _report(
    project_id: str, id: str, held: HeldPush, end: End, now_us: int, *, entries: Sequence[Entry] = ()
) -> ItemReply:
    """Report for the worker that holds the execution. The worker has seen the whole journal."""
    assert held.worker_id is not None
    item = ReportItem(id, held.attempt, held.report_number + 1, held.next_seq - 1, list(entries), end=end)
    return await report(project_id=project_id, worker_id=held.worker_id, item=item, now_us=now_us).start()


class Wait(NamedTuple):
    key: str
    until_us: int | None = None
    """The due time, or the time-out."""
    topic: str | None = None
    asks: bool = False
    """The wait is for an answer, an event of the run's topic."""


@verb(locks="execution=execution_id topic=wait.topic")
async def wait_pushed(*, project_id: str, execution_id: str, wait: Wait, now_us: int) -> None:
    """Suspend a running execution. If the outcome is there already, its attempt ends (I5). Raises NotFound."""
    if wait.topic is not None:
        await query("lock_topic", project_id=project_id, topic=wait.topic)
    held = await lock_held(project_id, execution_id)
    if held.push_worker_id is None:
        return
    if held.phase is Phase.CANCELLING:
        await _report(project_id, execution_id, held, Cancelled(), now_us)  # the worker lets go
    elif held.phase is Phase.RUNNING and await outcome_there(execution_id, wait.key):
        await _go_on(project_id, execution_id, held, now_us)
    elif held.phase is Phase.RUNNING:
        entries = []
        if wait.asks:
            await _ask(project_id, execution_id, wait, now_us)
        elif wait.topic is not None:
            entries.append(OpenWait(wait.key, None, wait.topic, expires_at_us=wait.until_us))
        await _let_go(project_id, execution_id, held, now_us, wait, entries=entries)
        if wait.topic is not None:
            await query("set_wait_expiry", execution_id=execution_id, key=wait.key, expires_at_us=wait.until_us)


async def _ask(project_id: str, execution_id: str, wait: Wait, now_us: int) -> None:
    assert wait.topic is not None
    known = await record(StoredWait, "read_wait", execution_id=execution_id, key=wait.key)
    if known is None or known.state != "open" or known.data is None:
        # The question named no execution: take the last one under this key.
        event_type = f"{ASKED}{wait.key}"
        found = await query("last_event_of_type", project_id=project_id, topic=wait.topic, event_type=event_type)
        before = 0 if found else await number_before(project_id, execution_id, wait.topic)
        after, data, asked_at_us = found[0] if found else (before, None, 0)
        await open_question(
            project_id,
            execution_id,
            wait.key,
            known,
            topic=wait.topic,
            after=after,
            data=data,
            now_us=now_us,
            asked_at_us=asked_at_us,
        )


async def _go_on(project_id: str, execution_id: str, held: HeldPush, now_us: int) -> None:
    assert held.worker_id is not None
    await lose(project_id, execution_id, held.attempt, held.worker_id, now_us, released=True, begun=True)


async def _let_go(
    project_id: str, execution_id: str, held: HeldPush, now_us: int, wait: Wait, *, entries: Sequence[Entry] = ()
) -> None:
    """Suspend until the wait's outcome. Other questions of the execution stay open."""
    waits = [one for (one,) in await query("open_waits", execution_id=execution_id)]
    end = Suspend([wait.key, *waits], None if wait.until_us is None else (wait.key, wait.until_us))
    reply = await _report(project_id, execution_id, held, end, now_us, entries=entries)
    if not reply.ended:  # the event or the answer is there already
        await _go_on(project_id, execution_id, held, now_us)


@verb(locks="execution=op.execution_id")
async def put_span_id(*, project_id: str, op: PutOtelSpanId) -> None:
    """Store the span for the next attempt. Raises NotFound."""
    if not await query("lock_state", project_id=project_id, id=op.execution_id):
        raise unknown_execution(op.execution_id)
    await query("put_span_id", op)


def _children_locks(arguments: Arguments) -> Locks:
    yield "execution", arguments["parent_id"]
    yield from news_locks(arguments)


@verb(locks=_children_locks, sweep=news_sweep, weight=news_weight)
async def start_children(
    *,
    project_id: str,
    parent_id: str,
    step_key: str,
    news: Sequence[New],
    batch_id: str | None,
    wait: bool,
    now_us: int,
    idempotency: Idempotency | None = None,
) -> list[Started]:
    """Start a step's child, or (`batch_id`) its batch; the same step again gets the same executions.

    With `wait` the parent suspends until all have ended. Raises NotFound, Conflict, BadRequest.
    """
    first = await recall(project_id, idempotency)
    if first is not None:
        return _STARTED.decode(first)
    held = await lock_held(project_id, parent_id)
    rows = await records(Row, "outcomes_of_key", execution_id=parent_id, key=step_key) if held.push else []
    before = [row.value for row in rows if row.kind is Kind.CHILD_STARTED]
    if before:
        answers = await _started_before(project_id, before[0])
    else:
        answers = await _start(project_id, parent_id, step_key, news, held=held, now_us=now_us, batch_id=batch_id)
    if wait and held.phase is Phase.RUNNING and held.push_worker_id is not None:
        if any(row.kind in ENDS for row in rows):
            await _go_on(project_id, parent_id, held, now_us)
        else:
            held = await lock_held(project_id, parent_id)
            await _let_go(project_id, parent_id, held, now_us, Wait(step_key))
    ids = [answer.execution_id for answer in answers]
    await remember(project_id, idempotency, msgspec.json.encode(answers), now_us, ids)
    return answers


_STARTED = msgspec.json.Decoder(list[Started])


async def _started_before(project_id: str, value: Raw) -> list[Started]:
    told = msgspec.json.decode(value)
    answers: list[Started] = []
    for id in told if isinstance(told, list) else [told]:
        state = await record(State, "read_state", project_id=project_id, id=id)
        answers.append(Started(id, 0 if state is None else state.created_at_us, existing=True))
    return answers


async def _start(
    project_id: str,
    parent_id: str,
    step_key: str,
    news: Sequence[New],
    held: HeldPush,
    now_us: int,
    *,
    batch_id: str | None,
) -> list[Started]:
    if held.push and (held.phase is Phase.CANCELLING or held.phase in FINAL):
        raise Conflict(f"Parent execution {parent_id!r} is {held.phase}; it starts no more children.")
    if (held.push or batch_id is not None) and any(new.item.key is not None for new in news):
        raise BadRequest("`key` does not go with `step_key`: the parent and its step name the child.")
    items = [
        New(
            id,
            msgspec.structs.replace(
                item,
                parent_execution_id=parent_id,
                step_key=step_key,
                deployment_id=item.deployment_id or held.deployment_id,
            ),
        )
        for id, item in news
    ]
    found = await start_items(project_id, items, now_us, batch_id=batch_id, independent=False, checks_input=True)
    answers = [answer for answer in found if isinstance(answer, Started)]
    if held.push:
        ids: object = [one.execution_id for one in answers] if batch_id is not None else answers[0].execution_id
        [moved] = await records(ChangedExecution, "next_row", project_id=project_id, id=parent_id, now_us=now_us)
        name = None if batch_id is not None else items[0].item.workflow_id
        row = moved.row(parent_id, Kind.CHILD_STARTED, key=step_key, name=name, value=msgspec.json.encode(ids))
        await query_many("insert_journal", [row])
        await Notify(Written(parent_id))
    if batch_id is not None:
        wait = {"project_id": project_id, "execution_id": parent_id, "key": step_key, "batch_id": batch_id}
        await query("open_batch_wait", now_us=now_us, **wait)
    return answers
