"""Reports of push workers: steps, waits, ends.

Steps and waits name no worker, so they count while any push worker holds the execution. An end names its worker.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from perdure.store.base.executions import ChangedExecution, State, StoredWait, unknown_execution
from perdure.store.base.interface import Due, Notify, Ready, Written, query, query_many, record, records, verb
from perdure.store.base.locks import Arguments, Locks
from perdure.store.verbs.base.idempotency import Idempotency, recall, remember
from perdure.store.verbs.outside.push_questions import asks, later, outcome_there, take_early
from perdure.store.verbs.outside.push_steps import ENDS
from perdure.store.verbs.runs.event_search import first_event
from perdure.store.verbs.runs.events import event_value, number_before
from perdure.store.verbs.runs.reports import report
from perdure.store.verbs.runs.rows import deliver, overrule
from perdure.store.verbs.runs.starts import New, news_locks, news_sweep, news_weight, start_items
from perdure.store.verbs.runs.transitions import Canceller, cancel_tree, lose
from perdure.wire.agents.approvals import ASKED
from perdure.wire.base.errors import BadRequest, Conflict
from perdure.wire.base.records import Kind
from perdure.wire.base.status import FINAL, LEASED, Phase
from perdure.wire.outside.push_workers import CompleteExecution, ConfirmCancellation, FailExecution
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import Cancelled, Complete, Fail, ReportItem, Started

RETRIES_MAX = 2
TIMED_OUT_US = 2_000_000
"""How far a worker's clock may be ahead."""


class HeldPush(Struct, frozen=True):
    phase: Phase
    attempt: int
    worker_id: str | None
    report_number: int
    next_seq: int
    retry_count: int
    acked: int
    due_at_us: int | None
    push_worker_id: str | None
    """The holder, if a push worker."""
    push: bool
    deployment_id: str | None


async def _lock(project_id: str, execution_id: str) -> HeldPush:
    held = await record(HeldPush, "lock_pushed", project_id=project_id, id=execution_id)
    if held is None:
        raise unknown_execution(execution_id)
    return held


@verb(locks="execution=execution_id")
async def save_step(
    *,
    project_id: str,
    execution_id: str,
    step_key: str,
    ok: bool,
    value: bytes,
    now_us: int,
    source_execution_id: str | None = None,
    output_schema_name: str | None = None,
) -> None:
    """Record a step's outcome; only the first outcome counts (I2). Raises NotFound, Conflict."""
    moved = await record(
        ChangedExecution, "record_pushed", project_id=project_id, id=execution_id, key=step_key, now_us=now_us
    )
    if moved is None:
        held = await _lock(project_id, execution_id)
        if held.phase not in LEASED or held.push_worker_id is None:
            raise Conflict(
                f"Execution {execution_id!r} is {held.phase}: no push worker holds it, so its steps cannot be saved."
            )
        return
    row = moved.row(
        execution_id,
        Kind.STEP,
        key=step_key,
        name=output_schema_name,
        fingerprint=source_execution_id,
        ok=ok,
        value=value,
        tries=1,
    )
    await query_many("insert_journal", [row])
    await Notify(Written(execution_id))


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
    held = await _lock(project_id, id)
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
    item = ReportItem(id, held.attempt, held.report_number + 1, held.next_seq - 1, end=_end(op, held))
    await report(project_id=project_id, worker_id=worker_id, item=item, now_us=now_us).start()


def _end(op: PushedEnd, held: HeldPush) -> Complete | Fail | Cancelled:
    if isinstance(op, CompleteExecution):
        return Complete(op.result)
    if isinstance(op, ConfirmCancellation) or held.phase is Phase.CANCELLING:
        return Cancelled()  # a worker that lets go confirms the cancel
    stack = {} if op.stack is None else {"stack": op.stack}
    detail = Raw(msgspec.json.encode({"type": "Error", "message": op.error, **stack}))
    retries = op.retryable is not False and held.retry_count < RETRIES_MAX
    return Fail(op.error, detail, retry_delay_us=0 if retries else None)


class Wait(NamedTuple):
    key: str
    told: bytes
    """The wait as JSON, for the journal."""
    until_us: int | None = None
    """The due time, or the time-out."""
    topic: str | None = None
    event_type: str | None = None


@verb(locks="execution=execution_id topic=wait.topic")
async def wait_pushed(*, project_id: str, execution_id: str, wait: Wait, now_us: int) -> None:
    """Suspend a running execution. If the outcome is there already, the execution continues at once (I5). Raises
    NotFound."""
    topic = wait.topic
    if topic is not None:
        await query("lock_topic", project_id=project_id, topic=topic)
    held = await _lock(project_id, execution_id)
    if held.phase is Phase.CANCELLING and held.push_worker_id is not None:
        # The worker lets go, so the cancel is complete.
        await overrule(project_id, execution_id, now_us, "confirmed")
        return
    if held.phase is not Phase.RUNNING or held.push_worker_id is None:
        return
    if await outcome_there(execution_id, wait.key):
        await _go_on(project_id, execution_id, held, now_us)
        return
    if topic is None:
        await _let_go(project_id, execution_id, held, now_us, key=wait.key, told=wait.told, until_us=wait.until_us)
        return
    place = {"execution_id": execution_id, "key": wait.key}
    known = await record(StoredWait, "read_wait", **place)
    # Its own event opened this question (`push_questions`).
    asked = wait.event_type is not None and known is not None and known.state == "open" and known.data is not None
    early = known if known is not None and known.state == "early" else None
    if await _open(project_id, execution_id, wait, now_us, asked=asked, early=early):
        early = None  # an answer from before the question does not answer it
    await _let_go(project_id, execution_id, held, now_us, key=wait.key, told=wait.told, until_us=wait.until_us)
    if asked:
        return
    [opened] = await records(StoredWait, "read_wait", **place)
    after = opened.after_seq or 0
    if wait.event_type is not None:
        await take_early(
            project_id,
            execution_id,
            wait.key,
            now_us,
            topic=topic,
            answer_type=wait.event_type,
            early=early,
            after=after,
        )
        return
    event = await first_event(project_id, execution_id, topic, None, after)
    if event is None:
        return
    await query("meet_wait", execution_id=execution_id, key=wait.key, event_seq=event.sequence_id, data=None)
    await deliver(project_id, execution_id, Kind.EVENT, now_us, key=wait.key, name=topic, value=event_value(event))


async def _open(
    project_id: str, execution_id: str, wait: Wait, now_us: int, *, asked: bool, early: StoredWait | None
) -> bool:
    """Open or reopen the wait. Returns True if a question came after the early answer, which is void then."""
    assert wait.topic is not None
    found = []
    if wait.event_type is not None and not asked:
        # The question named no execution: take the last one under this key.
        found = await query(
            "last_event_of_type", project_id=project_id, topic=wait.topic, event_type=f"{ASKED}{wait.key}"
        )
    after: int | None = None
    question: bytes | None = None
    asked_at_us = 0
    if found:
        after, question, asked_at_us = found[0]
    elif not asked:
        after = await number_before(project_id, execution_id, wait.topic)
    dropped = early is not None and early.opened_at_us < asked_at_us and asks(question)
    values: dict[str, object] = {
        "execution_id": execution_id,
        "key": wait.key,
        "project_id": project_id,
        "topic": wait.topic,
        "after_seq": after,
        "event_type": wait.event_type,
        "data": question,
    }
    if early is not None and dropped:
        await query("ask_question", **values, now_us=later(early.opened_at_us, now_us), must_name=1)
    await query("open_typed_wait", **values, batch_id=None, expires_at_us=wait.until_us, now_us=now_us)
    return dropped


async def _go_on(project_id: str, execution_id: str, held: HeldPush, now_us: int) -> None:
    assert held.worker_id is not None
    await lose(project_id, execution_id, held.attempt, held.worker_id, now_us, released=True, begun=True)


async def _let_go(
    project_id: str,
    execution_id: str,
    held: HeldPush,
    now_us: int,
    *,
    key: str,
    told: bytes,
    until_us: int | None = None,
) -> None:
    [moved] = await records(
        ChangedExecution,
        "suspend",
        project_id=project_id,
        id=execution_id,
        attempt=held.attempt,
        worker_id=held.worker_id,
        due_at_us=until_us,
        timer_key=None if until_us is None else key,
        parked_worker=None,
        parked_seq=None,
        now_us=now_us,
    )
    await query_many("insert_journal", [moved.row(execution_id, Kind.WAITING, key=key, value=told)])
    await Notify(Written(execution_id))
    if until_us is not None:
        await Notify(Due(until_us))
    if moved.gate:
        await Notify(Ready(project_id, None))


@verb(locks="execution=execution_id")
async def put_span_id(*, project_id: str, execution_id: str, otel_span_id: str | None) -> None:
    """Store the span for the next attempt. Raises NotFound."""
    if not await query("lock_state", project_id=project_id, id=execution_id):
        raise unknown_execution(execution_id)
    await query("put_span_id", execution_id=execution_id, otel_span_id=otel_span_id)


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
    held = await _lock(project_id, parent_id)
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
            told = msgspec.json.encode({"type": "child" if batch_id is None else "batch"})
            await _let_go(project_id, parent_id, held, now_us, key=step_key, told=told)
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
        await query(
            "open_typed_wait",
            execution_id=parent_id,
            key=step_key,
            project_id=project_id,
            topic=None,
            after_seq=None,
            event_type=None,
            batch_id=batch_id,
            data=None,
            expires_at_us=None,
            now_us=now_us,
        )
    return answers
