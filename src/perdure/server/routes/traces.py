"""Traces: workers and exporters send spans, callers list and read traces."""

import asyncio
import time
from typing import Final

from msgspec import Struct

from perdure.server import otlp
from perdure.server.bodies import VALUES
from perdure.server.problems import Reply, json_headers
from perdure.server.routing import Call, Routes
from perdure.store.verbs.trace_queries import TraceFilters, TraceRoot
from perdure.wire.access import Role
from perdure.wire.errors import BadRequest, BadValue
from perdure.wire.fields import Most
from perdure.wire.public import Int64, Moment, microseconds, rfc3339
from perdure.wire.public_traces import (
    RejectedSpan,
    SpansRequest,
    SpansResponse,
    TraceResponse,
    TracesResponse,
    TraceSummary,
    checked_trace_id,
    span_of,
    status_of,
    trace_response,
)
from perdure.wire.traces import SPANS_MAX, StoredSpan

AT_ONCE: Final = 200
"""Spans to decode before other requests get a turn."""
AT_ONCE_SECONDS: Final = 0.01
"""The same limit as a time, for spans of any size."""

routes = Routes("Traces")


@routes.post("/internal/spans/batch", contract=True, body_bytes_max=VALUES, lists={"spans": Most(SPANS_MAX)})
async def put_spans(call: Call, body: SpansRequest) -> SpansResponse:
    """Store spans.

    Each span is checked alone, and a repeated span replaces the first. Any trace id is accepted. A span that names an
    execution goes to the trace of the root execution, unless the root was given a trace (`otel_traceparent`). A trace
    has at most 10,000 spans, and a span at most 1 MiB.
    """
    if len(body.spans) > SPANS_MAX:
        raise BadValue(f"body.spans: holds {len(body.spans):,} spans; the limit is {SPANS_MAX:,}", {"path": "spans"})
    good: list[tuple[int, StoredSpan]] = []
    rejected: list[RejectedSpan] = []
    for index, raw in enumerate(body.spans):
        if index % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        try:
            good.append((index, span_of(raw)))
        except BadValue as error:
            rejected.append(RejectedSpan(index, error.message))
    home = await call.engine.traces.at_home(call.project_id, [span for _, span in good])
    spans = {(span.trace_id, span.span_id): (index, span) for (index, _), span in zip(good, home, strict=True)}
    full = f"span: its trace has {SPANS_MAX:,} spans already"
    left_out = await call.engine.traces.put(call.project_id, [span for _, span in spans.values()])
    rejected.extend(RejectedSpan(spans[ids][0], full) for ids in left_out)
    return SpansResponse(len(body.spans) - len(rejected), rejected)


@routes.route(
    "POST",
    "/v1/traces",
    role=Role.WRITE,
    headers=("Content-Encoding",),
    raw_body=(otlp.PROTOBUF, otlp.JSON),
    body_bytes_max=otlp.REQUEST_BYTES_MAX,
)
async def export_traces(call: Call) -> Reply:
    """Store spans in OpenTelemetry's protocol (OTLP over HTTP).

    The body is a trace request in protobuf (`application/x-protobuf`) or JSON, optionally gzipped, and at most 8 MiB
    unpacked. The answer has the same form and the number of rejected spans.
    """
    kind = otlp.media_type(call.headers.get(b"content-type"))
    bytes_max = call.route.bytes_max(call.settings)
    body = otlp.plain(await call.raw_body(), call.headers.get(b"content-encoding"), bytes_max)
    spans: list[StoredSpan] = []
    rejected, complaint = 0, ""
    since = time.monotonic()
    for span in otlp.spans_of(body, kind):
        if isinstance(span, otlp.Rejected):
            rejected += span.spans
            complaint = complaint or span.why
        else:
            spans.append(span)
        if time.monotonic() > since + AT_ONCE_SECONDS:
            await asyncio.sleep(0)
            since = time.monotonic()
    left_out = await call.engine.traces.put(call.project_id, spans)
    if left_out:
        rejected += len(left_out)
        complaint = complaint or f"span: its trace has {SPANS_MAX:,} spans already"
    answer = otlp.answer(kind, rejected, complaint)
    headers = json_headers(len(answer))
    return Reply(200, answer, ((b"content-type", kind.encode()), *headers[1:]))


class TracesQuery(Struct, frozen=True):
    start_time: Moment | None = None
    """Only traces whose root ended then or later; an open root counts by its start."""
    end_time: Moment | None = None
    """The same, then or earlier."""
    root_span_type: str | None = None
    root_span_name: str | None = None
    """Part of the name."""
    has_error: bool | None = None
    limit: Int64 = 50
    """1 to 500."""
    offset: Int64 = 0
    """Traces to leave out after the cursor, up to 10,000. Newly ended traces shift an offset, not a cursor."""
    cursor: str | None = None
    """The `next_cursor` of the page before."""


@routes.get("/api/v1/traces", contract=True)
async def get_traces(call: Call, query: TracesQuery) -> TracesResponse:
    """Traces by the end of their root span, newest first.

    The list has the traces that were sent in, and the journals of root executions that have ended.
    """
    filters = TraceFilters(
        0 if query.start_time is None else max(microseconds(query.start_time), 0),
        1 << 62 if query.end_time is None else microseconds(query.end_time),
        query.root_span_type,
        query.root_span_name or None,
        query.has_error,
    )
    found, cursor = await call.engine.traces.list(call.project_id, filters, query.cursor, query.limit, query.offset)
    return TracesResponse([_summary(root) for root in found], cursor)


def _summary(root: TraceRoot) -> TraceSummary:
    duration_ms = None
    if root.started_at_us is not None and root.ended_at_us is not None:
        duration_ms = (root.ended_at_us - root.started_at_us) // 1_000
    return TraceSummary(
        root.trace_id,
        status_of(root.phase),
        root.span_type,
        root.name,
        None if root.started_at_us is None else rfc3339(root.started_at_us),
        None if root.ended_at_us is None else rfc3339(root.ended_at_us),
        duration_ms,
        root.values.input,
        root.values.output,
        root.values.error,
    )


@routes.get("/api/v1/traces/{trace_id}", contract=True)
async def get_trace_by_id(call: Call, trace_id: str) -> TraceResponse:
    """All spans of a trace; an unknown trace has none.

    The spans are those that were sent in, and the journals of the execution with that id (32 hex digits, no hyphens)
    and of all below it.
    """
    try:
        trace_id = checked_trace_id(trace_id)
    except BadValue as error:
        raise BadRequest(error.message) from None
    found = await call.engine.traces.get(call.project_id, trace_id)
    return trace_response(trace_id, found.spans, found.phase)
