"""The API's shapes of sessions, with the contract's names where it has them (see `wire/public.py`)."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from perdure.wire.agent_runs import Usage, assistant_message, decoded, preview, tool_calls, usage, user_message
from perdure.wire.agent_steps import tool_outcome, tool_status
from perdure.wire.public import Int64, Position, Time, Uuid, rfc3339
from perdure.wire.records import NULL, MaybeRaw
from perdure.wire.sessions import Question, Session, SessionRun
from perdure.wire.status import STATUS

TOOL_CALL: Final = "tool_call"


class SessionMemoryResponse(Struct, frozen=True):
    """An agent's memory of a session; `{null, []}` in version 0 for an unknown session."""

    messages: Raw
    version: Int64
    """Counts the writes. Sent with a change, it prevents a lost update."""
    summary: str | None = None


class PutSessionMemoryRequest(Struct, frozen=True):
    """Replace the memory of a session."""

    messages: Raw
    summary: str | None = None
    version: Position | None = None
    """The version that was read; if it has changed, the answer is 409. Without it the last write wins."""


class PutSessionMemoryResponse(Struct, frozen=True):
    """The new version."""

    version: Int64


class SessionSummary(Struct, frozen=True):
    """A session, as far as its runs are on this page."""

    execution_id: Uuid
    """Its newest run."""
    agent_id: str
    """The agent of the first run."""
    status: str
    """Of the newest run."""
    created_at: Time
    """Of the first run."""
    total_tokens: Int64
    tool_call_count: Int64
    approval_count: Int64
    execution_count: Int64
    session_id: str | None = None
    user_message_preview: str | None = None
    """The user's first message, up to 200 bytes."""
    error: str | None = None
    """Of the newest run."""


class SessionsResponse(Struct, frozen=True):
    """Sessions of agents, those with the newest runs first. `next_cursor` asks for the following runs and is null
    after the last. A page may hold fewer than `limit` and still have one."""

    sessions: list[SessionSummary]
    next_cursor: str | None = None


class TimelineEntry(Struct, frozen=True):
    """A message, tool call or approval."""

    entry_type: str
    """user_message, tool_call, assistant_message, approval_request or approval_response."""
    timestamp: Time
    data: Raw


class SessionApproval(Struct, frozen=True):
    """A suspended step's question. `data` has the `request`, and later the `response`."""

    step_key: str
    requested_at: Time
    status: str
    """pending, or resolved: answered, or given up."""
    data: Raw
    resolved_at: Time | None = None


class SessionDetail(Struct, frozen=True):
    """One run and its session: sums, timeline and approvals cover the whole session."""

    execution_id: Uuid
    agent_id: str
    status: str
    created_at: Time
    payload: Raw
    total_input_tokens: Int64
    total_output_tokens: Int64
    total_tokens: Int64
    tool_call_count: Int64
    approval_count: Int64
    timeline: list[TimelineEntry]
    approvals: list[SessionApproval]
    session_id: str | None = None
    started_at: Time | None = None
    completed_at: Time | None = None
    duration_ms: Int64 | None = None
    error: str | None = None
    result: MaybeRaw = None


def sessions_response(runs: Sequence[SessionRun], next_cursor: str | None) -> SessionsResponse:
    """Runs, newest first, as sessions."""
    by_session: dict[str, list[SessionRun]] = {}
    for run in runs:
        by_session.setdefault(run.session_id, []).append(run)
    return SessionsResponse([_summary(members) for members in by_session.values()], next_cursor)


def _summary(runs: Sequence[SessionRun]) -> SessionSummary:
    newest, first = runs[0], runs[-1]
    results = [decoded(run.result) for run in runs]
    return SessionSummary(
        newest.id,
        first.workflow_id,
        STATUS[newest.phase].value,
        rfc3339(first.created_at_us),
        sum(_used(run, result).total for run, result in zip(runs, results, strict=True)),
        sum(len(_tools(run, result)) for run, result in zip(runs, results, strict=True)),
        sum(run.approvals for run in runs),
        len(runs),
        newest.session_id,
        preview(user_message(decoded(first.payload))),
        newest.error,
    )


def session_detail(session: Session) -> SessionDetail:
    run = session.run
    results = [decoded(one.result) for one in session.runs]
    used = [_used(one, result) for one, result in zip(session.runs, results, strict=True)]
    timeline = [entry for one, result in zip(session.runs, results, strict=True) for entry in _said(one, result)]
    for question in session.questions:
        timeline += _asked(question)
    timeline.sort(key=lambda entry: entry.timestamp)
    duration_ms = None
    if run.started_at_us is not None and run.completed_at_us is not None:
        duration_ms = (run.completed_at_us - run.started_at_us) // 1_000
    return SessionDetail(
        run.id,
        run.workflow_id,
        STATUS[run.phase].value,
        rfc3339(run.created_at_us),
        NULL if run.payload is None else Raw(run.payload),
        sum(one.input for one in used),
        sum(one.output for one in used),
        sum(one.total for one in used),
        sum(entry.entry_type == TOOL_CALL for entry in timeline),
        len(session.questions),
        timeline,
        [_approval(question) for question in session.questions],
        run.session_id,
        None if run.started_at_us is None else rfc3339(run.started_at_us),
        None if run.completed_at_us is None else rfc3339(run.completed_at_us),
        duration_ms,
        run.error,
        None if run.result is None else Raw(run.result),
    )


def _used(run: SessionRun, result: Any) -> Usage:
    """The tokens in a run's result. A durable agent's result is only its output, so its journal has them."""
    said = usage(result)
    if said.total or not run.input_tokens + run.output_tokens:
        return said
    return Usage(run.input_tokens, run.output_tokens, run.input_tokens + run.output_tokens)


def _said(run: SessionRun, result: Any) -> list[TimelineEntry]:
    """The entries of one run in a conversation."""
    found: list[TimelineEntry] = []
    message = user_message(decoded(run.payload))
    if message is not None:
        found.append(_message("user", message, run.created_at_us, run.id))
    found += _tools(run, result)
    if run.completed_at_us is not None:
        answer = assistant_message(result)
        if answer is not None:
            found.append(_message("assistant", answer, run.completed_at_us, run.id))
    return found


def _tools(run: SessionRun, result: Any) -> list[TimelineEntry]:
    """The tools in a run's result, at its end. For a durable agent, those in its journal, each at its time."""

    def called(name: Any, status: Any, result: Any, at_us: int) -> TimelineEntry:
        data = {"tool_name": name, "status": status, "result": result, "root_execution_id": run.id}
        return _entry(TOOL_CALL, at_us, data)

    if run.completed_at_us is not None and (calls := tool_calls(result)):
        return [called(call.name, call.status, call.result, run.completed_at_us) for call in calls]
    return [
        called(
            tool.name,
            tool_status(tool.ok, tool.value),
            None if tool.value is None else tool_outcome(tool.value),
            tool.at_us,
        )
        for tool in run.tools
    ]


def _message(role: str, content: Any, at_us: int, run_id: str) -> TimelineEntry:
    return _entry(f"{role}_message", at_us, {"role": role, "content": content, "root_execution_id": run_id})


def _asked(question: Question) -> list[TimelineEntry]:
    key = question.step_key
    request = {"event_type": f"suspend_{key}", "payload": _raw(question.request)}
    found = [_entry("approval_request", question.asked_at_us, request)]
    if question.answered_at_us is not None:
        response = {"event_type": f"resume_{key}", "payload": _raw(question.response)}
        found.append(_entry("approval_response", question.answered_at_us, response))
    return found


def _approval(question: Question) -> SessionApproval:
    data: dict[str, Raw] = {"request": _raw(question.request)}
    if question.response is not None:
        data["response"] = _raw(question.response)
    return SessionApproval(
        question.step_key,
        rfc3339(question.asked_at_us),
        "pending" if question.open else "resolved",
        Raw(msgspec.json.encode(data)),
        None if question.answered_at_us is None else rfc3339(question.answered_at_us),
    )


def _entry(entry_type: str, at_us: int, data: dict[str, Any]) -> TimelineEntry:
    return TimelineEntry(entry_type, rfc3339(at_us), Raw(msgspec.json.encode(data)))


def _raw(value: bytes | None) -> Raw:
    return NULL if value is None else Raw(value)
