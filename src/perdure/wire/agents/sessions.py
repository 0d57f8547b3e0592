"""Sessions, the conversations of agents."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Raw, Struct, field
from msgspec.structs import fields, replace

from perdure.wire.agents.agent_runs import Usage, assistant_message, decoded, preview, tool_calls, usage, user_message
from perdure.wire.agents.agent_steps import CallUsage, tool_outcome, tool_status
from perdure.wire.agents.transcripts import NewVersion
from perdure.wire.agents.usage import CallSums
from perdure.wire.agents.usage_sums import SUMMED
from perdure.wire.base.access import Role
from perdure.wire.base.brief_executions import BriefExecution
from perdure.wire.base.codec import check_json
from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.fields import (
    INT64_MAX,
    Cursor,
    Header,
    Int64,
    KeyName,
    Position,
    Time,
    Uuid,
    Value,
    between,
    id_check,
    text_check,
)
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.base.records import NULL
from perdure.wire.base.status import STATUS, Phase, Status

SUMMARY_BYTES_MAX: Final = 1 << 20
LIST_MAX: Final = 500
OFFSET_MAX: Final = 10_000
SEARCHED_BYTES_MAX: Final = 500
TOOL_CALL: Final = "tool_call"


class SessionTool(Struct, frozen=True):
    """A durable agent's tool call. A value that is too large is None."""

    name: str
    ok: bool
    at_us: int
    value: bytes | None


class SessionTotals(CallSums, frozen=True, kw_only=True):
    """Sums of a whole session: its turns, and the models' cost of the turns and their descendants."""

    turns: Int64 = 0
    exact: bool = True
    """False: the sums cover only some turns or calls."""

    def plus(self, call: CallUsage) -> "SessionTotals":
        return replace(
            self,
            calls=self.calls + 1,
            usd=self.usd + (call.usd or 0.0),
            unpriced=self.unpriced + (call.usd is None),
            **{name: getattr(self, name) + getattr(call, name) for name in SUMMED},
        )

    def with_turn(self, turn: "SessionTotals") -> "SessionTotals":
        sums = {one.name: getattr(self, one.name) + getattr(turn, one.name) for one in fields(self)}
        return replace(self, **sums | {"turns": self.turns + 1, "exact": self.exact and turn.exact})


class SessionRun(BriefExecution, frozen=True, kw_only=True):
    """A root execution. A payload or result of None was too large to be shown."""

    session_id: str
    error: str | None
    payload: bytes | None
    result: bytes | None
    approvals: int
    """How many suspended steps asked a question."""
    input_tokens: int = 0
    output_tokens: int = 0
    spent: SessionTotals = SessionTotals()
    """Sums of the model calls in the journals of the run and its descendants."""
    tools: Sequence[SessionTool] = ()


class AskedQuestion(Struct, frozen=True):
    execution_id: str
    step_key: str
    open: bool
    asked_at_us: int
    request: bytes | None = None
    answered_at_us: int | None = None
    response: bytes | None = None


class Memory(Record, frozen=True):
    """An agent's memory of a session; `{null, []}` in version 0 for an unknown session."""

    shown_as: ClassVar[str] = "SessionMemoryResponse"

    messages: Raw
    version: Int64
    """Counts the writes."""
    summary: str | None = None


class SessionSummary(Record, frozen=True):
    """A session, built from the runs on this page."""

    execution_id: Uuid
    """The session's newest run."""
    agent_id: str
    """The agent of the first run."""
    status: Status
    """The newest run's status."""
    phase: Phase
    """The newest run's phase."""
    created_at_us: Time = field(name="created_at")
    """When the first run was created."""
    total_tokens: Int64
    tool_call_count: Int64
    approval_count: Int64
    execution_count: Int64
    session_id: str | None = None
    user_message_preview: str | None = None
    """The user's first message, up to 200 bytes."""
    error: str | None = None
    """The newest run's error."""
    last_at_us: Time | None = field(default=None, name="last_at")
    """When the newest run was created."""
    last_message_preview: str | None = None
    """The user's newest message, up to 200 bytes."""
    whole: SessionTotals | None = None
    """Sums of all runs of the session."""


class TimelineEntry(Record, frozen=True):
    entry_type: str
    """user_message, tool_call, assistant_message, approval_request or approval_response."""
    at_us: Time = field(name="timestamp")
    data: Raw


class SessionApproval(Record, frozen=True):
    """`data` has the `request`, and later the `response`."""

    step_key: str
    requested_at_us: Time = field(name="requested_at")
    status: str
    """pending, or resolved: answered, or given up."""
    data: Raw
    resolved_at_us: Time | None = field(default=None, name="resolved_at")


class SessionDetail(Record, frozen=True):
    """A run and its session. Sums, timeline and approvals cover the whole session."""

    execution_id: Uuid
    agent_id: str
    status: Status
    created_at_us: Time = field(name="created_at")
    payload: Raw
    total_input_tokens: Int64
    total_output_tokens: Int64
    total_tokens: Int64
    tool_call_count: Int64
    approval_count: Int64
    timeline: list[TimelineEntry]
    approvals: list[SessionApproval]
    session_id: str | None = None
    started_at_us: Time | None = field(default=None, name="started_at")
    completed_at_us: Time | None = field(default=None, name="completed_at")
    duration_ms: Int64 | None = None
    error: str | None = None
    result: Value = None
    whole: SessionTotals | None = None
    """Sums of all runs of the session."""


sessions: Final = Noun("Sessions")


@sessions.get("/api/v1/sessions", contract=True, under="sessions", reply="SessionsResponse")
class GetSessions(Operation[Listed[SessionSummary]], frozen=True):
    """Sessions of agents, ordered by their newest runs."""

    limit: Annotated[Int64, between(1, LIST_MAX)] = 50
    """Count of runs, 1 to 500, before they are grouped into sessions."""
    offset: Annotated[Int64, between(0, OFFSET_MAX)] = 0
    """Runs to leave out, up to 10,000. New runs shift an offset, but not a cursor."""
    cursor: Cursor | None = None
    start_time: Time | None = None
    """Leave out runs that began earlier."""
    end_time: Time | None = None
    """Leave out runs that began later."""
    status: Status | None = None
    agent_id: str | None = None
    q: Annotated[str, text_check(SEARCHED_BYTES_MAX)] = ""
    """The beginning of a session's name, a run's id or a run's key, or a part of a user's message in the newest 500
    runs. The matches are a single page."""


@sessions.get("/api/v1/sessions/{execution_id}", contract=True)
class GetSessionDetail(Operation[SessionDetail], frozen=True):
    """A session, named by the id of a root execution."""

    execution_id: Annotated[str, id_check("execution")]


@sessions.get("/internal/session/{session_id}/memory", contract=True)
class GetSessionMemory(Operation[Memory], frozen=True):
    """An agent's memory of a session."""

    session_id: KeyName


@sessions.put("/internal/session/{session_id}/memory", role=Role.WORK, contract=True, reply="PutSessionMemoryResponse")
class PutSessionMemory(Operation[NewVersion], frozen=True):
    """Replace an agent's memory of a session.

    409 if `version`, the version read (in the body or as `If-Match`), has changed. Without `version` the last write
    wins.
    """

    session_id: KeyName
    messages: Raw
    summary: str | None = None
    version: Position | None = None
    if_match: Annotated[str, Header("If-Match")] | None = None

    def check(self) -> None:
        check_json(bytes(self.messages), where="messages")
        if self.summary is not None and len(self.summary.encode()) > SUMMARY_BYTES_MAX:
            raise BadValue(f"summary: more than {SUMMARY_BYTES_MAX:,} bytes of UTF-8", {"path": "summary"})

    def read_version(self) -> int | None:
        """Read the version from the body or the header. Raises BadRequest."""
        if self.version is not None or self.if_match is None:
            return self.version
        found = _VERSION.fullmatch(self.if_match.strip())
        if found is None or int(found[1]) > INT64_MAX:
            raise BadRequest(f'The header If-Match must be a version, like "3"; got {self.if_match!r}.')
        return int(found[1])


_VERSION: Final = re.compile(r'"?([0-9]{1,19})"?', re.ASCII)


def said_in(run: SessionRun, words: str) -> bool:
    message = preview(user_message(decoded(run.payload)))
    return message is not None and words.casefold() in message.casefold()


def group_runs(runs: Sequence[SessionRun], totals: Mapping[str, SessionTotals]) -> list[SessionSummary]:
    """`runs` are ordered from the newest."""
    by_session: dict[str, list[SessionRun]] = {}
    for run in runs:
        by_session.setdefault(run.session_id, []).append(run)
    return [_summary(members, totals.get(id)) for id, members in by_session.items()]


def _summary(runs: Sequence[SessionRun], whole: SessionTotals | None) -> SessionSummary:
    newest, first = runs[0], runs[-1]
    phase = newest.phase
    results = [decoded(run.result) for run in runs]
    last_message = preview(user_message(decoded(newest.payload)))
    return SessionSummary(
        execution_id=newest.id,
        agent_id=first.workflow_id,
        status=STATUS[phase],
        phase=phase,
        created_at_us=first.created_at_us,
        total_tokens=sum(_used(run, result).total for run, result in zip(runs, results, strict=True)),
        tool_call_count=sum(len(_tools(run, result)) for run, result in zip(runs, results, strict=True)),
        approval_count=sum(run.approvals for run in runs),
        execution_count=len(runs),
        session_id=first.session_id,
        user_message_preview=preview(user_message(decoded(first.payload))),
        error=newest.error,
        last_at_us=newest.created_at_us,
        last_message_preview=last_message,
        whole=whole,
    )


def show_session(
    run: SessionRun, runs: Sequence[SessionRun], questions: Sequence[AskedQuestion], whole: SessionTotals
) -> SessionDetail:
    """Show a run with all runs of its session, oldest first."""
    results = [decoded(one.result) for one in runs]
    used = [_used(one, result) for one, result in zip(runs, results, strict=True)]
    timeline = [entry for one, result in zip(runs, results, strict=True) for entry in _said_in(one, result)]
    for question in questions:
        timeline += _asked(question)
    timeline.sort(key=lambda entry: entry.at_us)
    duration_ms = None
    if run.started_at_us is not None and run.completed_at_us is not None:
        duration_ms = (run.completed_at_us - run.started_at_us) // 1_000
    return SessionDetail(
        execution_id=run.id,
        agent_id=run.workflow_id,
        status=STATUS[run.phase],
        created_at_us=run.created_at_us,
        payload=_raw(run.payload),
        total_input_tokens=sum(one.input for one in used),
        total_output_tokens=sum(one.output for one in used),
        total_tokens=sum(one.total for one in used),
        tool_call_count=sum(entry.entry_type == TOOL_CALL for entry in timeline),
        approval_count=len(questions),
        timeline=timeline,
        approvals=[_approval(question) for question in questions],
        session_id=run.session_id,
        started_at_us=run.started_at_us,
        completed_at_us=run.completed_at_us,
        duration_ms=duration_ms,
        error=run.error,
        result=None if run.result is None else Raw(run.result),
        whole=whole,
    )


def _used(run: SessionRun, result: Any) -> Usage:
    """Return the tokens, which the result of a durable agent lacks."""
    said = usage(result)
    if said.total or not run.input_tokens + run.output_tokens:
        return said
    return Usage(run.input_tokens, run.output_tokens, run.input_tokens + run.output_tokens)


def _said_in(run: SessionRun, result: Any) -> list[TimelineEntry]:
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
    """List the tools in the result at the result's end, or a durable agent's journaled tools, each at its time."""

    def called(name: Any, status: Any, result: Any, at_us: int) -> TimelineEntry:
        data = {"tool_name": name, "status": status, "result": result, "root_execution_id": run.id}
        return _entry(TOOL_CALL, at_us, data)

    if run.completed_at_us is not None and (calls := tool_calls(result)):
        return [called(*call, run.completed_at_us) for call in calls]
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


def _asked(question: AskedQuestion) -> list[TimelineEntry]:
    key = question.step_key
    request = {"event_type": f"suspend_{key}", "payload": _raw(question.request)}
    found = [_entry("approval_request", question.asked_at_us, request)]
    if question.answered_at_us is not None:
        response = {"event_type": f"resume_{key}", "payload": _raw(question.response)}
        found.append(_entry("approval_response", question.answered_at_us, response))
    return found


def _approval(question: AskedQuestion) -> SessionApproval:
    data: dict[str, Raw] = {"request": _raw(question.request)}
    if question.response is not None:
        data["response"] = _raw(question.response)
    return SessionApproval(
        step_key=question.step_key,
        requested_at_us=question.asked_at_us,
        status="pending" if question.open else "resolved",
        data=Raw(msgspec.json.encode(data)),
        resolved_at_us=question.answered_at_us,
    )


def _entry(entry_type: str, at_us: int, data: dict[str, Any]) -> TimelineEntry:
    return TimelineEntry(entry_type, at_us, Raw(msgspec.json.encode(data)))


def _raw(value: bytes | None) -> Raw:
    return NULL if value is None else Raw(value)
