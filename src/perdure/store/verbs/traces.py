"""Traces of spans that were sent in. Requests add spans under the lock of the trace's row."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.store.interface import query, query_many, verb
from perdure.wire.journal_spans import execution_id_of
from perdure.wire.traces import SPANS_MAX, StoredSpan

_encode = msgspec.json.Encoder().encode


@verb(locks="trace=trace_id")
async def put_spans(*, project_id: str, trace_id: str, spans: Sequence[StoredSpan], now_us: int) -> list[str]:
    """Store spans, replacing earlier ones of the same id. Answers the ids of spans beyond the trace's limit."""
    fresh = {span.span_id: span for span in spans}
    execution = await query("lock_execution_of_trace", project_id=project_id, id=execution_id_of(trace_id))
    [found] = await query(
        "lock_trace", project_id=project_id, trace_id=trace_id, of_execution=int(bool(execution)), now_us=now_us
    )
    known = {
        row[0]
        for row in await query("known_spans", project_id=project_id, trace_id=trace_id, ids=json.dumps(list(fresh)))
    }
    room = SPANS_MAX - found[7]
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
        await query_many("upsert_span", [_row(project_id, span) for span in kept])
        await query(
            "update_trace", project_id=project_id, trace_id=trace_id, spans=SPANS_MAX - room, **_seen(found, kept)
        )
    return left_out


def _row(project_id: str, span: StoredSpan) -> tuple[object, ...]:
    return (
        project_id,
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.name,
        span.span_type,
        int(span.failed),
        span.started_at_us,
        span.ended_at_us,
        _encode(span.values),
    )


def _seen(found: Sequence[Any], spans: Sequence[StoredSpan]) -> dict[str, object]:
    """The trace's row after these spans. The root is the first span without a parent; a run that continued after a
    wait has several, and the root's time covers them."""
    root_span_id, root_span_type, root_span_name, rooted, started_at_us, ended_at_us, failed, _ = found
    for span in spans:
        alone = span.parent_span_id is None
        if alone < rooted:
            continue
        if alone > rooted:
            rooted, started_at_us, ended_at_us, failed = True, None, None, 0
        if started_at_us is None or span.started_at_us < started_at_us or span.span_id == root_span_id:
            root_span_id, root_span_type, root_span_name = span.span_id, span.span_type, span.name
            started_at_us = span.started_at_us
        if span.ended_at_us is not None:
            ended_at_us = max(ended_at_us or 0, span.ended_at_us)
        failed = int(failed or span.failed)
    return {
        "root_span_id": root_span_id,
        "root_span_type": root_span_type,
        "root_span_name": root_span_name,
        "rooted": int(rooted),
        "started_at_us": started_at_us,
        "ended_at_us": ended_at_us,
        "sorted_at_us": started_at_us if ended_at_us is None else ended_at_us,
        "failed": failed,
    }


async def delete_traces(project_id: str, trace_ids: Sequence[str]) -> None:
    for name in ("delete_spans", "delete_trace"):
        await query_many(name, [(project_id, trace_id) for trace_id in trace_ids])
