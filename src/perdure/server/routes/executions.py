"""Executions: start, follow as server-sent events, cancel, resume, delete."""

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
from perdure.wire.codec import KEY_BYTES_MAX, check_name
from perdure.wire.errors import (
    BadRequest,
    BadValue,
    NotFound,
    PerdureError,
    from_code,
)
from perdure.wire.fields import (
    Most,
    PAGE_MAX,
    checked_id,
)
from perdure.wire.executions import (
    IDS_MAX,
    LogLine,
    Row,
    check_count,
)
from perdure.wire.public import (
    ResumeRequest,
    ResumeResponse,
    StartItemRequest,
    StartManyRequest,
    SubmitWorkflowRequest,
    SubmitWorkflowResponse,
    SubmitWorkflowsRequest,
    SubmitWorkflowsResponse,
    WorkflowRequest,
    microseconds,
    rfc3339,
)
from perdure.wire.record import writer
from perdure.wire.records import Problem
from perdure.wire.requests import StartAnswer, Started, StartItem, StartReply
from perdure.wire.status import STATUS, Phase

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
    lists={"workflows": Most(IDS_MAX)},
)
async def submit_workflows(call: Call, body: SubmitWorkflowsRequest) -> SubmitWorkflowsResponse:
    """Start several executions in one transaction, all or none, under one batch id."""
    if not body.workflows:
        raise BadRequest("body.workflows: is empty; name at least one workflow.")
    check_count(body.workflows, "workflows")
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


@routes.post("/api/v1/executions", idempotent=True, body_bytes_max=VALUES, lists={"items": Most(IDS_MAX)})
async def start_executions(call: Call, body: StartManyRequest) -> StartReply:
    """Start many independent executions, each with its own answer."""
    check_count(body.items, "items")
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


def idempotency(call: Call) -> Idempotency | None:
    """The request's Idempotency-Key. Two requests are the same if their paths and bytes are the same."""
    key = call.header(b"idempotency-key")
    if key is None:
        return None
    check_name(key, where="header Idempotency-Key", max_bytes=KEY_BYTES_MAX)
    return Idempotency(call.route.path, key, hashlib.sha256(call.raw_path + b"\n" + call.body).hexdigest())


# --- follow --------------------------------------------------------------------------------------------------------


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
    to_row, to_line = writer(Row), writer(LogLine)
    shown = merge(
        ((row.at_us, 0, row.seq, "row", to_row(row)) for row in rows),
        ((line.at_us, 1, line.n, "log", to_line(line)) for line in lines),
        key=lambda item: item[:3],
    )
    for _, which, number, event, struct in shown:
        after, after_log = (number, after_log) if which == 0 else (after, number)
        frames.append(frame(msgspec.json.encode(struct), id=f"{after}-{after_log}", event=event))
    return after, after_log, b"".join(frames)


# --- change --------------------------------------------------------------------------------------------------------


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
