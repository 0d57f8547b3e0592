"""Executions: start, read, wait, follow, cancel, resume, delete."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from heapq import merge
from typing import Final

import msgspec
from msgspec import Struct
from uuid_utils import UUID, uuid7

from perdure.server.bodies import VALUES
from perdure.server.routes.approvals import name_of
from perdure.server.routing import Call, Routes
from perdure.server.streams import PIECE_BYTES, EventStream, frame
from perdure.store.verbs.idempotency import Idempotency
from perdure.wire.access import Role
from perdure.wire.codec import KEY_BYTES_MAX, check_name
from perdure.wire.errors import BadRequest, BadValue, NotFound, PerdureError, from_code
from perdure.wire.fields import Most, checked_id
from perdure.wire.public import (
    CancelExecutionResponse,
    EraseRequest,
    EraseResponse,
    ExecutionResponse,
    ExecutionsResponse,
    LogsResponse,
    Moment,
    Position,
    ResumeRequest,
    ResumeResponse,
    StartItemRequest,
    StartManyRequest,
    StepsResponse,
    SubmitWorkflowRequest,
    SubmitWorkflowResponse,
    SubmitWorkflowsRequest,
    SubmitWorkflowsResponse,
    WorkflowRequest,
    execution_response,
    log_response,
    microseconds,
    rfc3339,
    step_response,
)
from perdure.wire.records import Problem
from perdure.wire.requests import (
    ListFilters,
    StartAnswer,
    Started,
    StartItem,
    StartReply,
    WaitReply,
    WaitRequest,
)
from perdure.wire.status import STATUS, Phase

ITEMS_MAX: Final = 10_000
PAGE_MAX: Final = 1_000
STREAM_PAGE: Final = 200
# How often to look without a notification.
LOOK_SECONDS: Final = 1.0

routes = Routes("Executions")


# --- start ---------------------------------------------------------------------------------------------------------


@routes.post("/api/v1/workflows/{workflow_id}/run", contract=True, idempotent=True, body_bytes_max=VALUES)
async def submit_workflow(call: Call, workflow_id: str, body: SubmitWorkflowRequest) -> SubmitWorkflowResponse:
    """Start one execution."""
    item = _item(workflow_id, body, body.deployment_id, body.session_id, body.user_id)
    item = msgspec.structs.replace(
        item,
        parent_execution_id=_uuid(body.parent_execution_id),
        step_key=body.step_key,
        otel_traceparent=body.otel_traceparent,
        channel_context=body.channel_context,
    )
    if item.parent_execution_id is not None and item.step_key is not None:
        children = await call.engine.push.start_children(
            call.project_id,
            item.parent_execution_id,
            item.step_key,
            [item],
            batch=False,
            wait=bool(body.wait_for_subworkflow),
            idempotency=idempotency(call),
        )
        return _submitted(children[0])
    answers = await call.engine.executions.start(call.project_id, [item], idempotency=idempotency(call))
    return _submitted(_or_raise(answers[0]))


@routes.post(
    "/api/v1/workflows/batch_run",
    contract=True,
    idempotent=True,
    body_bytes_max=VALUES,
    lists={"workflows": Most(ITEMS_MAX)},
)
async def submit_workflows(call: Call, body: SubmitWorkflowsRequest) -> SubmitWorkflowsResponse:
    """Start several executions in one transaction, all or none, under one batch id."""
    if not body.workflows:
        raise BadRequest("body.workflows: is empty; name at least one workflow.")
    _check_count(body.workflows, "body.workflows")
    parent = _uuid(body.parent_execution_id)
    # A batch shares one session: its parent's, else a new one.
    session_id = body.session_id or (None if parent else str(uuid7()))
    items = [
        msgspec.structs.replace(
            _item(item.workflow_id, item, body.deployment_id, session_id, body.user_id),
            parent_execution_id=parent,
            step_key=body.step_key,
            otel_traceparent=body.otel_traceparent,
            channel_context=body.channel_context,
        )
        for item in body.workflows
    ]
    if parent is not None and body.step_key is not None:
        children = await call.engine.push.start_children(
            call.project_id,
            parent,
            body.step_key,
            items,
            batch=True,
            wait=bool(body.wait_for_subworkflow),
            idempotency=idempotency(call),
        )
        return SubmitWorkflowsResponse([_submitted(child) for child in children])
    answers = await call.engine.executions.batch(call.project_id, items, idempotency=idempotency(call))
    return SubmitWorkflowsResponse([_submitted(answer) for answer in answers])


@routes.post("/api/v1/executions", idempotent=True, body_bytes_max=VALUES, lists={"items": Most(ITEMS_MAX)})
async def start_executions(call: Call, body: StartManyRequest) -> StartReply:
    """Start many independent executions, each with its own answer."""
    _check_count(body.items, "body.items")
    items: Sequence[StartItem] = body.items
    if any(item.start_at is not None or item.parent_execution_id is not None for item in body.items):
        items = [_plain(item) for item in body.items]
    answers = await call.engine.executions.start(call.project_id, items, idempotency=idempotency(call))
    return StartReply([StartAnswer.of(answer) for answer in answers])


def _item(
    workflow_id: str,
    body: SubmitWorkflowRequest | WorkflowRequest,
    deployment_id: str | None,
    session_id: str | None,
    user_id: str | None,
) -> StartItem:
    return StartItem(
        workflow_id,
        body.payload,
        deployment_id=deployment_id,
        queue_name=body.queue_name,
        concurrency_key=body.concurrency_key,
        queue_concurrency_limit=body.queue_concurrency_limit,
        priority=body.priority or 0,
        session_id=session_id,
        user_id=user_id,
        tags=body.tags,
        delay_seconds=body.delay_seconds,
        start_at_us=None if body.start_at is None else microseconds(body.start_at),
        run_timeout_seconds=body.run_timeout_seconds,
        key=body.key,
        accept_early=bool(body.accept_early),
        initial_state=body.initial_state,
        webhook_url=body.webhook_url,
        on_conflict=body.on_conflict if isinstance(body, SubmitWorkflowRequest) else None,
        budget=body.budget,
    )


def _plain(item: StartItemRequest) -> StartItem:
    """The item in the store's form: its start as a number, its parent's id in lower case."""
    if item.parent_execution_id is not None:
        item = msgspec.structs.replace(item, parent_execution_id=item.parent_execution_id.lower())
    if item.start_at is None:
        return item
    return msgspec.structs.replace(item, start_at_us=microseconds(item.start_at))


def _submitted(answer: Started) -> SubmitWorkflowResponse:
    return SubmitWorkflowResponse(answer.execution_id, rfc3339(answer.created_at_us))


def _or_raise(answer: Started | Problem) -> Started:
    if isinstance(answer, Problem):
        raise from_code(answer.error_type, answer.error, answer.details)
    return answer


def _uuid(text: str | None) -> str | None:
    """A parent's id. The contract ignores text that is not a UUID."""
    try:
        return None if text is None else str(UUID(text))
    except ValueError:
        return None


def _check_count(items: Sequence[object], where: str) -> None:
    if len(items) > ITEMS_MAX:
        raise BadValue(f"{where}: holds {len(items):,} entries; the limit is {ITEMS_MAX:,}", {"path": where})


def idempotency(call: Call) -> Idempotency | None:
    """The request's Idempotency-Key. Two requests are the same if their paths and bytes are the same."""
    key = call.header(b"idempotency-key")
    if key is None:
        return None
    check_name(key, where="header Idempotency-Key", max_bytes=KEY_BYTES_MAX)
    return Idempotency(call.route.path, key, hashlib.sha256(call.raw_path + b"\n" + call.body).hexdigest())


# --- read ----------------------------------------------------------------------------------------------------------


class GetQuery(Struct, frozen=True):
    wait: float | None = None
    """Hold the answer until the execution is final, at most for this many seconds."""


@routes.get("/api/v1/executions/{execution_id}", contract=True)
async def get_execution(call: Call, execution_id: str, query: GetQuery) -> ExecutionResponse:
    """The state and result of one execution."""
    seconds = wait_seconds(call, query.wait)
    if seconds:
        async with call.poll():
            await call.engine.executions.wait(call.project_id, [execution_id], seconds)
    return execution_response(await call.engine.executions.get(call.project_id, execution_id))


class ListQuery(Struct, frozen=True):
    status: list[str] | None = None
    """pending, running, completed, failed, cancelled; several with commas."""
    phase: list[str] | None = None
    """Finer than status: queued, running, waiting, cancelling, blocked, completed, failed, cancelled."""
    workflow_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    queue_name: str | None = None
    batch_id: str | None = None
    parent_execution_id: str | None = None
    """Its children."""
    root_execution_id: str | None = None
    """Everything below this root, without the root itself, whose `root_execution_id` is null."""
    deployment_id: str | None = None
    key: str | None = None
    tag: str | None = None
    """`name=value`."""
    created_after: Moment | None = None
    created_before: Moment | None = None
    cursor: str | None = None
    """The `next_cursor` of the page before."""
    limit: int = 50
    """1 to 500."""


@routes.get("/api/v1/executions")
async def list_executions(call: Call, query: ListQuery) -> ExecutionsResponse:
    """List executions, newest first.

    A page may hold fewer than `limit` executions and still have a `next_cursor`.
    """
    if query.tag is not None and "=" not in query.tag:
        raise BadRequest(f"query.tag: must be name=value, got {query.tag!r}", {"path": "query.tag"})
    if query.key is not None and query.workflow_id is not None and query.cursor is None:
        return await _by_key(call, query.workflow_id, query.key)
    filters = ListFilters(
        phases=_phases(query.status, query.phase),
        workflow_id=query.workflow_id,
        session_id=query.session_id,
        user_id=query.user_id,
        queue_name=query.queue_name,
        batch_id=query.batch_id,
        parent_execution_id=query.parent_execution_id,
        root_execution_id=query.root_execution_id,
        deployment_id=query.deployment_id,
        key=query.key,
        tag=query.tag,
        created_after_us=None if query.created_after is None else microseconds(query.created_after),
        created_before_us=None if query.created_before is None else microseconds(query.created_before),
    )
    page = await call.engine.executions.list(call.project_id, filters, query.cursor, query.limit)
    return ExecutionsResponse([execution_response(execution) for execution in page.executions], page.next_cursor)


async def _by_key(call: Call, workflow_id: str, key: str) -> ExecutionsResponse:
    """A workflow's key names at most one execution, and has an index."""
    try:
        id = await call.engine.executions.find(call.project_id, workflow_id, key)
        return ExecutionsResponse([execution_response(await call.engine.executions.get(call.project_id, id))])
    except NotFound:
        return ExecutionsResponse([])


def _phases(statuses: list[str] | None, phases: list[str] | None) -> list[str] | None:
    if statuses is None and phases is None:
        return None
    for name, given, known in (("status", statuses, {*STATUS.values()}), ("phase", phases, {*Phase})):
        for word in given or ():
            if word not in known:
                raise BadRequest(
                    f"query.{name}: {word!r} is not one of {', '.join(sorted(known))}", {"path": f"query.{name}"}
                )
    return [
        phase.value
        for phase, status in STATUS.items()
        if (statuses is None or status in statuses) and (phases is None or phase in phases)
    ]


@routes.post("/api/v1/executions/wait", role=Role.READ)
async def wait_for_executions(call: Call, body: WaitRequest) -> WaitReply:
    """Hold the answer until one of the executions is final.

    The answer is empty if none was final in time. Large results may take several answers: ask again for the executions
    that are missing.
    """
    _check_count(body.ids, "body.ids")
    seconds = wait_seconds(call, body.wait_seconds)
    async with call.poll():
        return await call.engine.executions.wait(call.project_id, body.ids, seconds)
    return WaitReply([])


def wait_seconds(call: Call, seconds: float | None) -> float:
    """How long to hold a request: `seconds`, up to the server's maximum. Raises BadRequest."""
    if seconds is None:
        return 0.0
    if not seconds >= 0:  # false for NaN too
        raise BadRequest(f"A wait of {seconds!r} seconds is not possible; it must be 0 or more.")
    return min(seconds, call.settings.poll_seconds_max)


# --- follow --------------------------------------------------------------------------------------------------------


class StepsQuery(Struct, frozen=True):
    after: Position = 0
    """The `seq` of the last known row."""
    limit: int = 500
    """1 to 1,000."""
    after_log: Position | None = None
    """Include log lines after this number."""
    wait: float | None = None
    """If there is nothing new, hold the answer until there is, at most for this many seconds."""


@routes.get("/api/v1/executions/{execution_id}/steps")
async def get_steps(call: Call, execution_id: str, query: StepsQuery) -> StepsResponse:
    """The journal of an execution.

    Its rows have times, attempts, fingerprints of inputs, and outcomes. A page may hold fewer than `limit` rows and
    still say `has_more`.
    """
    limit = page_limit(query.limit)
    executions = call.engine.executions
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_seconds(call, query.wait)
    while True:
        cursor = executions.watch_cursor(execution_id)
        reply = await _page(call, execution_id, query, limit)
        left = until - loop.time()
        if reply.steps or reply.logs or left <= 0 or call.services.drain.closing:
            return reply
        async with call.poll():
            await executions.watch(execution_id, cursor, min(left, call.engine.own_look(LOOK_SECONDS)))


async def _page(call: Call, execution_id: str, query: StepsQuery, limit: int) -> StepsResponse:
    executions = call.engine.executions
    rows, full = await executions.journal(call.project_id, execution_id, query.after, limit)
    logs = None
    if query.after_log is not None:
        lines = await executions.logs(call.project_id, execution_id, query.after_log, limit)
        logs = [log_response(n, line) for n, line in lines]
        full = full or len(logs) == limit
    return StepsResponse([step_response(row) for row in rows], full, logs)


class LogsQuery(Struct, frozen=True):
    after: Position = 0
    """The number of the last known line."""
    limit: int = 500
    """1 to 1,000."""


@routes.get("/api/v1/executions/{execution_id}/logs")
async def get_logs(call: Call, execution_id: str, query: LogsQuery) -> LogsResponse:
    """The log lines of an execution."""
    limit = page_limit(query.limit)
    lines = await call.engine.executions.logs(call.project_id, execution_id, query.after, limit)
    return LogsResponse([log_response(n, line) for n, line in lines], len(lines) == limit)


def page_limit(limit: int) -> int:
    """Raises BadRequest for a limit out of bounds."""
    if not 1 <= limit <= PAGE_MAX:
        raise BadRequest(f"query.limit: must be 1 to {PAGE_MAX}, got {limit}", {"path": "query.limit"})
    return limit


class StreamQuery(Struct, frozen=True):
    last_event_id: str | None = None
    """Go on after this id. For clients that cannot set the header."""


@routes.get("/api/v1/executions/{execution_id}/events", headers=("Last-Event-ID",))
async def stream_execution(call: Call, execution_id: str, query: StreamQuery) -> EventStream:
    """Follow an execution as server-sent events: `row` (of the journal), `log`, and `end` when it is final."""
    execution_id = checked_id(execution_id)
    cursor = call.header(b"last-event-id") or query.last_event_id
    after, after_log = _cursor(cursor) if cursor else (0, 0)
    await call.engine.executions.how_ended(call.project_id, execution_id)  # raises NotFound
    return EventStream(_follow(call, execution_id, after, after_log))


def _cursor(text: str) -> tuple[int, int]:
    rows, dash, logs = text.partition("-")
    if not dash or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (rows, logs)):
        raise BadRequest(f"Last-Event-ID {text!r} is not one of this stream's; leave it out to start at the beginning.")
    return int(rows), int(logs)


async def _follow(call: Call, execution_id: str, after: int, after_log: int) -> AsyncGenerator[bytes, None]:
    executions = call.engine.executions
    while True:
        cursor = executions.watch_cursor(execution_id)
        try:
            # Ask first: a final execution has all its rows, and the rows are read afterwards.
            ended = await executions.how_ended(call.project_id, execution_id)
            after, after_log, piece = await _frames(call, execution_id, after, after_log)
        except PerdureError:
            return  # the execution was deleted, or the store is closed
        if piece:
            yield piece
        elif ended is not None:
            end = {"id": execution_id, "status": STATUS[Phase(ended.phase)], "phase": ended.phase}
            end["error"] = ended.error  # type: ignore[assignment]  # null if it did not fail
            yield frame(msgspec.json.encode(end), id=f"{after}-{after_log}", event="end")
            return
        else:
            await executions.watch(execution_id, cursor, call.engine.own_look(LOOK_SECONDS))


async def _frames(call: Call, execution_id: str, after: int, after_log: int) -> tuple[int, int, bytes]:
    """The next piece of the stream, with the cursors after it."""
    executions, project_id = call.engine.executions, call.project_id
    rows, _ = await executions.journal(project_id, execution_id, after, STREAM_PAGE, bytes_max=PIECE_BYTES)
    lines = await executions.logs(project_id, execution_id, after_log, STREAM_PAGE)
    frames: list[bytes] = []
    shown = merge(
        ((row.at_us, 0, row.seq, "row", step_response(row)) for row in rows),
        ((line.at_us, 1, n, "log", log_response(n, line)) for n, line in lines),
        key=lambda item: item[:3],
    )
    for _, which, number, event, struct in shown:
        after, after_log = (number, after_log) if which == 0 else (after, number)
        frames.append(frame(msgspec.json.encode(struct), id=f"{after}-{after_log}", event=event))
    return after, after_log, b"".join(frames)


# --- change --------------------------------------------------------------------------------------------------------


@routes.post("/api/v1/executions/{execution_id}/cancel", contract=True)
async def cancel_execution(call: Call, execution_id: str) -> CancelExecutionResponse:
    """Ask for cancellation of an execution and everything below it."""
    execution = await call.engine.executions.cancel(call.project_id, execution_id)
    at_us = execution.cancelled_at_us or call.engine.clock.now_us()
    return CancelExecutionResponse(execution.id, STATUS[execution.phase].value, rfc3339(at_us))


@routes.post("/api/v1/executions/{execution_id}/resume/{step_key}", body_bytes_max=VALUES)
async def resume_execution(call: Call, execution_id: str, step_key: str, body: ResumeRequest) -> ResumeResponse:
    """Answer a suspended step.

    The first answer stands. The same answer again, at any time, gets the first response again; another answer is 409.
    An answer that comes before the step asks is kept. It is taken only if the step shows nothing.
    """
    assert call.principal is not None
    who = await name_of(call, call.principal)
    resumed = await call.engine.executions.resume(
        call.project_id, execution_id, step_key, body.data, answered_by=who, question_id=body.question
    )
    said = resumed.approval
    return ResumeResponse(
        checked_id(execution_id),
        step_key,
        resumed.became.value,
        None if said is None else said.answered_by,
        None if said is None else rfc3339(said.answered_at_us),
    )


@routes.delete("/api/v1/executions/{execution_id}")
async def delete_execution(call: Call, execution_id: str) -> None:
    """Delete a final execution and its descendants, with their journals."""
    await call.engine.executions.delete(call.project_id, execution_id)


@routes.post("/api/v1/executions/erase", role=Role.ADMIN)
async def erase_executions(call: Call, body: EraseRequest) -> EraseResponse:
    """Delete the final executions of a user or of a session."""
    if (body.user_id is None) == (body.session_id is None):
        raise BadRequest("body: name either `user_id` or `session_id`.")
    erased, still_open = await call.engine.executions.erase(
        call.project_id, user_id=body.user_id, session_id=body.session_id
    )
    return EraseResponse(erased, still_open)
