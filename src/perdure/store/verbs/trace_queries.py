"""Traces: a list of roots, and one whole trace. Both merge spans that were sent in with journals."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from perdure.store.interface import query, verb
from perdure.wire.journal_spans import (
    OpenedWait,
    TracedExecution,
    TracedRow,
    execution_id_of,
    execution_span,
    trace_id_of,
)
from perdure.wire.limits import REPLY_BYTES_MAX
from perdure.wire.records import Kind
from perdure.wire.status import Phase
from perdure.wire.traces import SPANS_MAX, SpanValues, StoredSpan

LIST_DEPTH: Final = 20_000
"""How many traces of the requested time a list looks at."""
EXECUTIONS_SHOWN_MAX: Final = 500
ROWS_SHOWN_MAX: Final = 5_000
"""Journal rows per execution that become spans."""
VALUE_SHOWN_MAX: Final = 256 << 10
PAGE: Final = 20
ROWS_PAGE: Final = 100
_LEFT_OUT: Final = SpanValues(msgspec.Raw(b'{"perdure.left_out":"values too large to be shown"}'))
_decode_values: Final = msgspec.json.Decoder(SpanValues).decode


class TracePlace(NamedTuple):
    """A place in lists: by the root's end, then by id, both descending."""

    at_us: int
    id: str


AFTER_ALL: Final = "~"
NEWEST: Final = TracePlace(1 << 62, AFTER_ALL)


class TraceFilters(NamedTuple):
    """Filters of a list: traces whose root ended in that time or, if open, began in it. None: any."""

    from_us: int = 0
    to_us: int = 1 << 62
    span_type: str | None = None
    name: str | None = None
    """Part of the root's name."""
    failed: bool | None = None


class TraceRoot(NamedTuple):
    """A trace in a list: its root span, with the status of its execution."""

    trace_id: str
    span_type: str | None
    name: str | None
    started_at_us: int | None
    ended_at_us: int | None
    values: SpanValues
    phase: Phase | None
    """None: it has no execution."""


@verb(looks=True)
async def homes(*, project_id: str, ids: Sequence[str]) -> dict[str, str]:
    """By id: the root ids of executions whose trace has their root's id."""
    rows = await query("homes_of", project_id=project_id, ids=msgspec.json.encode(ids).decode())
    return {id: root_id for id, root_id, traceparent in rows if traceparent is None}


@verb(looks=True)
async def list_traces(
    *, project_id: str, filters: TraceFilters, before: TracePlace, limit: int, offset: int
) -> tuple[list[TraceRoot], TracePlace | None]:
    """A page of traces after a place, latest end of the root first, and the next place.

    It merges sent traces with the journals of ended roots, among the newest LIST_DEPTH of each.
    """
    to_us = min(filters.to_us, before.at_us)
    # An equal end time counts as after the place only if the place has that time.
    before_id = before.id if before.at_us <= filters.to_us else AFTER_ALL
    wanted: dict[str, Any] = {"project_id": project_id, "to_us": to_us, "name": filters.name}
    wanted["span_type"] = filters.span_type
    wanted["failed"] = None if filters.failed is None else int(filters.failed)
    amount = offset + limit

    async def from_us(name: str) -> int:
        floor = await query(
            name, project_id=project_id, from_us=filters.from_us, to_us=to_us, depth=max(LIST_DEPTH, amount)
        )
        return floor[0][0] if floor else filters.from_us

    # One floor for both kinds: beyond one of them a trace would come too late on the next page, or twice.
    floor_us = max(await from_us("traces_floor"), await from_us("ended_floor"))
    wanted |= {"from_us": floor_us, "limit": amount + 1}
    found = [(at_us, trace_id, True) for trace_id, at_us in await query("list_traces", before=before_id, **wanted)]
    found += [
        (at_us, trace_id_of(id), False)
        for id, at_us in await query("list_ended_roots", before=execution_id_of(before_id), **wanted)
    ]
    found.sort(reverse=True)
    following: TracePlace | None = None
    if len(found) > amount:
        following = TracePlace(*found[amount - 1][:2])
    elif floor_us > filters.from_us:
        following = TracePlace(floor_us - 1, AFTER_ALL)
    roots: list[TraceRoot] = []
    room = REPLY_BYTES_MAX
    for _, trace_id, sent in found[offset:amount]:
        root = await (_sent_root if sent else _execution_root)(project_id, trace_id, room)
        if root is not None:
            values = root.values
            size = sum(len(bytes(value)) for value in (values.input, values.output, values.error) if value is not None)
            if size > room:
                root = root._replace(values=SpanValues(error=values.error))
            room -= min(size, room)
            roots.append(root)
    return roots, following


async def _sent_root(project_id: str, trace_id: str, room: int) -> TraceRoot | None:
    rows = await query("read_trace", project_id=project_id, trace_id=trace_id)
    if not rows:
        return None
    span_id, span_type, name, started_at_us, ended_at_us, _ = rows[0]
    here = {"project_id": project_id, "trace_id": trace_id, "bytes_max": min(room // 2, VALUE_SHOWN_MAX)}
    pieces = await query("root_spans", limit=PAGE, **here) or await query("read_span", span_id=span_id, **here)
    values = [_values(body) for _, piece, body in pieces if piece == name and body is not None]
    said = SpanValues(
        input=_last(one.input for one in values),
        output=_last(one.output for one in values),
        error=_last(one.error for one in reversed(values)),
    )
    state = await query("read_state", project_id=project_id, id=execution_id_of(trace_id))
    phase = Phase(state[0][0]) if state else None
    return TraceRoot(trace_id, span_type, name, started_at_us, ended_at_us, said, phase)


def _last(values: Iterable[msgspec.Raw | None]) -> msgspec.Raw | None:
    return next((value for value in reversed([*values]) if value is not None), None)


async def _execution_root(project_id: str, trace_id: str, room: int) -> TraceRoot | None:
    rows = await query(
        "traced_execution",
        project_id=project_id,
        id=execution_id_of(trace_id),
        bytes_max=min(room // 2, VALUE_SHOWN_MAX),
    )
    if not rows:
        return None
    e = traced_of(rows[0])
    span = execution_span(e)
    return TraceRoot(trace_id, span.span_type, span.name, span.started_at_us, span.ended_at_us, span.values, e.phase)


class Trace(NamedTuple):
    """The spans that were sent in, and the executions of its journal spans."""

    spans: list[StoredSpan]
    executions: list[TracedExecution]
    phase: Phase | None


@verb(looks=True)
async def get_trace(*, project_id: str, trace_id: str) -> Trace:
    """A trace. Values that do not fit into a reply are left out, the largest first."""
    sizes = [row[0] for row in await query("span_sizes", project_id=project_id, trace_id=trace_id, limit=SPANS_MAX)]
    rows = await query(
        "read_spans", project_id=project_id, trace_id=trace_id, bytes_max=_largest(sizes), limit=SPANS_MAX
    )
    spans = [
        StoredSpan(trace_id, id, parent, name, kind, started, ended, _LEFT_OUT if body is None else _values(body))
        for id, parent, name, kind, started, ended, body in rows
    ]
    state = await query("read_state", project_id=project_id, id=execution_id_of(trace_id))
    executions = await _tree(project_id, execution_id_of(trace_id)) if state else []
    return Trace(spans, executions, Phase(state[0][0]) if state else None)


@verb(looks=True)
async def journal_of(*, project_id: str, execution_id: str) -> list[TracedExecution]:
    """The source of one execution's spans; empty if it is deleted."""
    rows = await query("traced_execution", project_id=project_id, id=execution_id, bytes_max=VALUE_SHOWN_MAX)
    return [(await _with_rows(traced_of(row), REPLY_BYTES_MAX))[0] for row in rows]


async def _tree(project_id: str, id: str) -> list[TracedExecution]:
    """A root execution and its descendants, as far as a reply has room. Empty for a non-root."""
    room = REPLY_BYTES_MAX
    rows = await query("traced_execution", project_id=project_id, id=id, bytes_max=VALUE_SHOWN_MAX)
    if rows[0][7] is not None:
        return []
    found: list[TracedExecution] = []
    amount = 0
    while rows:
        for row in rows:
            execution, room = await _with_rows(traced_of(row), room)
            found.append(execution)
            amount += len(execution.rows) + 1
            if len(found) >= EXECUTIONS_SHOWN_MAX or amount >= SPANS_MAX:
                return found
        after = "" if len(found) == 1 else found[-1].id
        rows = await query(
            "traced_below",
            project_id=project_id,
            id=id,
            after=after,
            limit=PAGE,
            bytes_max=min(room // (4 * PAGE), VALUE_SHOWN_MAX),
        )
    return found


async def _with_rows(execution: TracedExecution, room: int) -> tuple[TracedExecution, int]:
    values = (execution.payload, execution.result, execution.initial_state, execution.final_state)
    room -= min(room, sum(len(value or b"") for value in values))
    rows: list[TracedRow] = []
    while len(rows) < ROWS_SHOWN_MAX:
        page = await query(
            "traced_rows",
            execution_id=execution.id,
            after=rows[-1].seq if rows else 0,
            limit=ROWS_PAGE,
            bytes_max=min(room // ROWS_PAGE, VALUE_SHOWN_MAX),
        )
        rows += [TracedRow(seq, at, Kind(kind), *rest) for seq, at, kind, *rest in page]
        room -= min(room, sum(len(row[6] or b"") for row in page))
        if len(page) < ROWS_PAGE:
            break
    waits = await query("traced_waits", execution_id=execution.id, limit=ROWS_PAGE)
    opened = {key: OpenedWait(opened_at_us, topic, state == "open") for key, topic, state, opened_at_us in waits}
    return msgspec.structs.replace(execution, rows=rows, waits=opened), room


def _largest(sizes: Sequence[int]) -> int:
    """The largest size at which all values up to it fit into a reply."""
    room = REPLY_BYTES_MAX
    fits = 0
    for size in sorted(sizes):
        room -= size
        if room < 0:
            break
        fits = size
    return fits


def _values(body: bytes) -> SpanValues:
    return _decode_values(body)


def traced_of(values: Sequence[Any]) -> TracedExecution:
    fields = list(values)
    fields[2] = Phase(fields[2])
    fields[17] = bool(fields[17])
    return TracedExecution(*fields)
