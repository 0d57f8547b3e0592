"""Traces: a list of roots, and a whole trace. Both merge sent spans with journals."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import astuple, replace

from perdure.store.base.interface import query, record, records, verb
from perdure.store.verbs.base.pages import Place, read_entries
from perdure.store.verbs.insight.traces import TraceRow
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.status import Phase
from perdure.wire.insight.journal_spans import TracedExecution, execution_id_of, execution_span, trace_id_of
from perdure.wire.insight.traces import SPANS_MAX, GetTraces, SpanValues, StoredSpan, TraceSummary, shown_status
from perdure.wire.runs.waits import RecordedWait

LIST_DEPTH: Final = 20_000
EXECUTIONS_SHOWN_MAX: Final = 500
ROWS_SHOWN_MAX: Final = 5_000
VALUE_SHOWN_MAX: Final = 256 << 10
PAGE: Final = 20
ROWS_PAGE: Final = 100
_LEFT_OUT: Final = SpanValues(msgspec.Raw(b'{"perdure.left_out":"values too large to be shown"}'))
_decode_values: Final = msgspec.json.Decoder(SpanValues).decode


LAST_CURSOR: Final = "~"
LAST_US: Final = 1 << 62
NEWEST: Final = Place(LAST_US, LAST_CURSOR)


@verb(reads=True)
async def homes(*, project_id: str, ids: Sequence[str]) -> dict[str, str]:
    """Map executions to their roots, if the trace has the root's id."""
    rows = await query("homes_of", project_id=project_id, ids=msgspec.json.encode(ids).decode())
    return {id: root_id for id, root_id, traceparent in rows if traceparent is None}


@verb(reads=True)
async def list_traces(*, project_id: str, wanted: GetTraces, before: Place) -> tuple[list[TraceSummary], Place | None]:
    """A page of traces, the latest end first, and the next place, among the newest LIST_DEPTH of each kind."""
    since_us = max(wanted.start_time or 0, 0)
    until_us = LAST_US if wanted.end_time is None else wanted.end_time
    to_us = min(until_us, before.at_us)
    # An equal end time counts as after the place only if the place has that time.
    before_id = before.id if before.at_us <= until_us else LAST_CURSOR
    amount = wanted.offset + wanted.limit

    async def from_us(name: str) -> int:
        floor = await query(name, project_id=project_id, from_us=since_us, to_us=to_us, depth=max(LIST_DEPTH, amount))
        return next((at_us for (at_us,) in floor), since_us)

    # One floor for both kinds, so that no trace comes twice or too late.
    floor_us = max(await from_us("traces_floor"), await from_us("ended_floor"))
    where: dict[str, Any] = {
        "project_id": project_id,
        "from_us": floor_us,
        "to_us": to_us,
        "name": wanted.root_span_name or None,
        "span_type": wanted.root_span_type,
        "failed": None if wanted.has_error is None else int(wanted.has_error),
        "limit": amount + 1,
    }
    found = [(at_us, trace_id, True) for trace_id, at_us in await query("list_traces", before=before_id, **where)]
    found += [
        (at_us, trace_id_of(id), False)
        for id, at_us in await query("list_ended_roots", before=execution_id_of(before_id), **where)
    ]
    found.sort(reverse=True)
    following: Place | None = None
    if len(found) > amount:
        at_us, trace_id, _ = found[amount - 1]
        following = Place(at_us, trace_id)
    elif floor_us > since_us:
        following = Place(floor_us - 1, LAST_CURSOR)
    roots: list[TraceSummary] = []
    room = REPLY_BYTES_MAX
    for _, trace_id, sent in found[wanted.offset : amount]:
        root = await (_sent_root if sent else _execution_root)(project_id, trace_id, room)
        if root is not None:
            size = sum(len(bytes(value)) for value in (root.input, root.output, root.root_error) if value is not None)
            if size > room:
                root = replace(root, input=None, output=None)
            room -= min(size, room)
            roots.append(root)
    return roots, following


async def _sent_root(project_id: str, trace_id: str, room: int) -> TraceSummary | None:
    trace = {"project_id": project_id, "trace_id": trace_id}
    row = await record(TraceRow, "read_trace", **trace)
    if row is None:
        return None
    bytes_max = min(room // 2, VALUE_SHOWN_MAX)
    pieces = await query("root_spans", limit=PAGE, bytes_max=bytes_max, **trace) or await query(
        "read_span", span_id=row.root_span_id, bytes_max=bytes_max, **trace
    )
    values = [_decode_values(body) for name, body in pieces if name == row.root_span_name and body is not None]
    return TraceSummary(
        trace_id=trace_id,
        status=shown_status(await _phase(project_id, execution_id_of(trace_id))),
        root_span_type=row.root_span_type,
        root_span_name=row.root_span_name,
        started_at_us=row.started_at_us,
        ended_at_us=row.ended_at_us,
        input=_last(one.input for one in values),
        output=_last(one.output for one in values),
        root_error=_last(one.error for one in reversed(values)),
    )


def _last(values: Iterable[msgspec.Raw | None]) -> msgspec.Raw | None:
    return next((value for value in reversed([*values]) if value is not None), None)


async def _phase(project_id: str, execution_id: str) -> Phase | None:
    state = await query("read_state", project_id=project_id, id=execution_id)
    return next((Phase(phase) for phase, *_ in state), None)


async def _execution_root(project_id: str, trace_id: str, room: int) -> TraceSummary | None:
    execution = await record(
        TracedExecution,
        "traced_execution",
        project_id=project_id,
        id=execution_id_of(trace_id),
        bytes_max=min(room // 2, VALUE_SHOWN_MAX),
    )
    if execution is None:
        return None
    span = execution_span(execution)
    values = span.values
    return TraceSummary(
        trace_id=trace_id,
        status=shown_status(execution.phase),
        root_span_type=span.span_type,
        root_span_name=span.name,
        started_at_us=span.started_at_us,
        ended_at_us=span.ended_at_us,
        input=values.input,
        output=values.output,
        root_error=values.error,
    )


@verb(reads=True)
async def get_trace(*, project_id: str, trace_id: str) -> tuple[list[StoredSpan], list[TracedExecution], Phase | None]:
    """A trace's spans, the executions whose journals become spans, and the root's phase. Values that exceed a reply are
    left out, the largest first."""
    trace = {"project_id": project_id, "trace_id": trace_id}
    sizes = [size for (size,) in await query("span_sizes", limit=SPANS_MAX, **trace)]
    rows = await query("read_spans", bytes_max=_largest(sizes), limit=SPANS_MAX, **trace)
    spans = [
        replace(StoredSpan(*outline), values=_LEFT_OUT if body is None else _decode_values(body))
        for *outline, body in rows
    ]
    phase = await _phase(project_id, execution_id_of(trace_id))
    executions = [] if phase is None else await _tree(project_id, execution_id_of(trace_id))
    return spans, executions, phase


@verb(reads=True)
async def journal_of(*, project_id: str, execution_id: str) -> list[TracedExecution]:
    """Read the source of an execution's spans; empty if deleted."""
    found = await _executions("traced_execution", project_id, execution_id, bytes_max=VALUE_SHOWN_MAX)
    return [(await _with_rows(one, REPLY_BYTES_MAX))[0] for one in found]


async def _tree(project_id: str, id: str) -> list[TracedExecution]:
    """Read a root execution and descendants while a reply has room. Empty for a non-root."""
    room = REPLY_BYTES_MAX
    page = await _executions("traced_execution", project_id, id, bytes_max=VALUE_SHOWN_MAX)
    if any(one.root_execution_id is not None for one in page):
        return []
    found: list[TracedExecution] = []
    amount = 0
    while page:
        for one in page:
            execution, room = await _with_rows(one, room)
            found.append(execution)
            amount += len(execution.rows) + 1
            if len(found) >= EXECUTIONS_SHOWN_MAX or amount >= SPANS_MAX:
                return found
        after = "" if len(found) == 1 else found[-1].id
        bytes_max = min(room // (4 * PAGE), VALUE_SHOWN_MAX)
        page = await _executions("traced_below", project_id, id, after=after, limit=PAGE, bytes_max=bytes_max)
    return found


async def _executions(name: str, project_id: str, id: str, **values: object) -> list[TracedExecution]:
    return await records(TracedExecution, name, project_id=project_id, id=id, **values)


async def _with_rows(execution: TracedExecution, room: int) -> tuple[TracedExecution, int]:
    room -= min(room, sum(len(bytes(value)) for value in astuple(execution.values) if value is not None))
    rows = await read_entries(
        execution.id, 0, ROWS_SHOWN_MAX, chunk=ROWS_PAGE, bytes_max=VALUE_SHOWN_MAX, room=room, stops=False, every=1
    )
    room -= sum(len(row.value or b"") for row in rows)
    waits = await records(
        RecordedWait, "newest_waits", execution_id=execution.id, unmet=0, bytes_max=0, limit=ROWS_PAGE
    )
    return replace(execution, rows=rows, waits=waits), room


def _largest(sizes: Sequence[int]) -> int:
    """Return the largest size such that all smaller values fit into a reply."""
    room = REPLY_BYTES_MAX
    fits = 0
    for size in sorted(sizes):
        room -= size
        if room < 0:
            break
        fits = size
    return fits
