"""Traces of sent spans. Requests add spans under the lock of the trace's row."""

import json
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from perdure.store.base.interface import query, query_many, records, verb
from perdure.store.base.records import to_values
from perdure.wire.insight.journal_spans import execution_id_of
from perdure.wire.insight.traces import SPANS_MAX, StoredSpan

_encode = msgspec.json.Encoder().encode


class TraceRow(Struct, frozen=True):
    root_span_id: str | None
    root_span_type: str | None
    root_span_name: str | None
    rooted: bool
    """Whether the root is a span without a parent."""
    started_at_us: int | None
    ended_at_us: int | None
    failed: bool
    spans: int


@verb(locks="trace=trace_id")
async def put_spans(*, project_id: str, trace_id: str, spans: Sequence[StoredSpan], now_us: int) -> list[str]:
    """Replace spans of the same id. Returns the ids of spans beyond the trace's limit."""
    fresh = {span.span_id: span for span in spans}
    execution = await query("lock_execution_of_trace", project_id=project_id, id=execution_id_of(trace_id))
    trace = {"project_id": project_id, "trace_id": trace_id}
    [found] = await records(TraceRow, "lock_trace", of_execution=int(bool(execution)), now_us=now_us, **trace)
    known = {id for (id,) in await query("known_spans", ids=json.dumps(list(fresh)), **trace)}
    room = SPANS_MAX - found.spans
    kept: list[StoredSpan] = []
    left_out: list[str] = []
    for span in fresh.values():
        if span.span_id not in known:
            if room <= 0:
                left_out.append(span.span_id)
                continue
            room -= 1
        kept.append(span)
    if kept:
        await query_many(
            "upsert_span",
            [
                {**to_values(span), "project_id": project_id, "failed": int(span.failed), "body": _encode(span.values)}
                for span in kept
            ],
        )
        after = replace(_with(found, kept), spans=SPANS_MAX - room)
        sorted_at_us = after.started_at_us if after.ended_at_us is None else after.ended_at_us
        await query("update_trace", after, sorted_at_us=sorted_at_us, **trace)
    return left_out


def _with(trace: TraceRow, spans: Sequence[StoredSpan]) -> TraceRow:
    """Add spans. The root is the first span without a parent. A run that continued after a wait has several, and the
    root's time covers all."""
    for span in spans:
        alone = span.parent_span_id is None
        if alone < trace.rooted:
            continue
        if alone > trace.rooted:
            trace = replace(trace, rooted=True, started_at_us=None, ended_at_us=None, failed=False)
        if (
            trace.started_at_us is None
            or span.started_at_us < trace.started_at_us
            or span.span_id == trace.root_span_id
        ):
            trace = replace(
                trace,
                root_span_id=span.span_id,
                root_span_type=span.span_type,
                root_span_name=span.name,
                started_at_us=span.started_at_us,
            )
        if span.ended_at_us is not None:
            trace = replace(trace, ended_at_us=max(trace.ended_at_us or 0, span.ended_at_us))
        if span.failed:
            trace = replace(trace, failed=True)
    return trace


async def delete_traces(project_id: str, trace_ids: Sequence[str]) -> None:
    for name in ("delete_spans", "delete_trace"):
        await query_many(name, [{"project_id": project_id, "trace_id": trace_id} for trace_id in trace_ids])
