"""An execution's journal as spans. The same rows give the same spans.

A step is a span from the first try to the outcome, with an event per failed try. A wait is a span from its opening to
its end.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from perdure.wire.agents.agent_steps import genai_attributes, genai_name
from perdure.wire.base.brief_executions import BriefExecution
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.records import Kind
from perdure.wire.base.status import Phase
from perdure.wire.base.times import rfc3339
from perdure.wire.insight.traces import SpanValues, StoredSpan
from perdure.wire.runs.waits import RecordedWait
from perdure.wire.runs.workflows import WorkflowType

STEP: Final = "step"
WAIT: Final = "wait"
_STEPS: Final = {Kind.STEP, Kind.STEP_FAILED}
_WAITS: Final = {Kind.EVENT, Kind.RESUME, Kind.TIMER}
_encode: Final = msgspec.json.Encoder().encode


class TracedExecution(BriefExecution, frozen=True, kw_only=True):
    """`cut`: a value is too large to be shown."""

    parent_execution_id: str | None
    root_execution_id: str | None
    step_key: str | None
    deployment_id: str | None
    user_id: str | None
    attempt: int
    retry_count: int
    failure: str | None
    values: SpanValues
    cut: bool
    kind: str = "workflow"
    """workflow, agent or tool."""
    rows: Sequence[JournalEntry] = ()
    waits: Sequence[RecordedWait] = ()


def execution_id_of(trace_id: str) -> str:
    """Return the execution that a trace would belong to."""
    t = trace_id
    return f"{t[:8]}-{t[8:12]}-{t[12:16]}-{t[16:20]}-{t[20:]}"


def trace_id_of(execution_id: str) -> str:
    return execution_id.replace("-", "")


def _span_id(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def execution_span(execution: TracedExecution) -> StoredSpan:
    e = execution
    attributes: dict[str, Any] = {
        "execution_id": e.id,
        "id": e.workflow_id,
        "type": e.kind,
        "phase": e.phase.value,
        "attempt": e.attempt,
        "retry_count": e.retry_count,
        "deployment_id": e.deployment_id,
        "parent_execution_id": e.parent_execution_id,
        "step_key": e.step_key,
        "session_id": e.session_id,
        "user_id": e.user_id,
    }
    others: dict[str, Any] = {}
    if e.kind == WorkflowType.AGENT:
        others = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": e.workflow_id,
            "gen_ai.conversation.id": e.session_id,
        }
    error = None
    if e.failure is not None or e.phase is Phase.CANCELLED:
        error = _raw({"message": e.failure or "The execution was cancelled."})
    return StoredSpan(
        trace_id=trace_id_of(e.root_execution_id or e.id),
        span_id=_span_id(e.id),
        parent_span_id=None if e.parent_execution_id is None else _span_id(e.parent_execution_id),
        name=f"{e.kind}.{e.workflow_id}",
        span_type=e.kind,
        started_at_us=e.created_at_us if e.started_at_us is None else e.started_at_us,
        ended_at_us=e.completed_at_us,
        values=replace(e.values, attributes=_attributes(attributes, e.kind, others, cut=e.cut), error=error),
    )


def own_rows(execution: TracedExecution) -> Sequence[JournalEntry]:
    """Leave out the rows that a fork has copied: the source's trace has them."""
    rows = execution.rows
    copied = next((n for n in range(len(rows), 0, -1) if rows[n - 1].kind is Kind.FORKED), 0)
    return rows[copied:]


def journal_spans(execution: TracedExecution) -> list[StoredSpan]:
    """Make the spans of a journal. Children have other spans."""
    own = execution_span(execution)
    found = [own]
    tries: dict[str, list[JournalEntry]] = {}
    waits = {wait.key: wait for wait in execution.waits}
    seen: set[str] = set()
    before_us = own.started_at_us
    for row in own_rows(execution):
        if row.kind in _STEPS and row.key is not None:
            members = tries.setdefault(row.key, [])
            members.append(row)
            if row.kind is Kind.STEP:
                found.append(_step(execution, own, members, over=True))
                del tries[row.key]
        elif row.kind in _WAITS:
            key = row.key or f"{row.kind.value} {row.seq}"
            seen.add(key)
            opened = waits.get(key)
            since_us = row.started_at_us if opened is None else opened.opened_at_us
            topic = row.name if opened is None else opened.topic
            found.append(_wait(own, key, row, before_us if since_us is None else min(since_us, row.at_us), topic))
        before_us = row.at_us
    over = execution.completed_at_us is not None
    found.extend(_step(execution, own, members, over=over) for members in tries.values())
    for key, opened in waits.items():
        if opened.state == "open" and key not in seen:
            found.append(_wait(own, key, None, opened.opened_at_us, opened.topic))
    return found


def _step(execution: TracedExecution, own: StoredSpan, tries: Sequence[JournalEntry], *, over: bool) -> StoredSpan:
    last = tries[-1]
    assert last.key is not None
    failed = [row for row in tries if row.kind is Kind.STEP_FAILED]
    events = [
        {"name": "try_failed", "timestamp": rfc3339(row.at_us), "attributes": {"error": _shown(row.value)}}
        for row in failed
    ]
    attributes = {
        "key": last.key,
        "function": last.name,
        "tries": last.tries or len(tries),
        "execution_id": execution.id,
    }
    value = None if last.value is None else Raw(last.value)
    others = genai_attributes(last.name, last.key, last.value if last.ok else None)
    return StoredSpan(
        trace_id=own.trace_id,
        span_id=_span_id(execution.id, STEP, last.key),
        parent_span_id=own.span_id,
        name=genai_name(others) or last.key,
        span_type=STEP,
        started_at_us=min(row.at_us if row.started_at_us is None else row.started_at_us for row in tries),
        ended_at_us=last.at_us if over else None,
        values=SpanValues(
            _attributes(attributes, STEP, others, cut=last.value is None),
            _raw(events) if events else None,
            output=value if last.ok else None,
            error=None if last.ok else value,
        ),
    )


def _wait(own: StoredSpan, key: str, row: JournalEntry | None, since_us: int, topic: str | None) -> StoredSpan:
    attributes: dict[str, Any] = {"key": key, "topic": topic}
    if row is not None:
        attributes["kind"] = row.kind.value
    value = None if row is None or row.value is None else Raw(row.value)
    return StoredSpan(
        trace_id=own.trace_id,
        span_id=_span_id(own.span_id, WAIT, key),
        parent_span_id=own.span_id,
        name=key,
        span_type=WAIT,
        started_at_us=since_us,
        ended_at_us=None if row is None else row.at_us,
        values=SpanValues(
            _attributes(attributes, WAIT, {}, cut=row is not None and row.value is None),
            output=value if row is not None and row.ok else None,
            error=None if row is None or row.ok else value,
        ),
    )


def _attributes(values: dict[str, Any], kind: str, others: dict[str, Any], *, cut: bool) -> Raw:
    """Nest attributes under the span's type, as workers name theirs; `others` have their own names."""
    named = {f"{kind}.{name}": value for name, value in values.items() if value is not None}
    named.update((name, value) for name, value in others.items() if value is not None)
    if cut:
        named["perdure.left_out"] = "values too large to be shown"
    return _raw(named)


def _shown(value: bytes | None) -> Raw | None:
    return None if value is None else Raw(value)


def _raw(value: object) -> Raw:
    return Raw(_encode(value))
