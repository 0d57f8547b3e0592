"""Traces: spans come in."""

import asyncio
from typing import Final

from perdure.server.routing import Call, Routes
from perdure.wire.errors import BadValue
from perdure.wire.public_traces import RejectedSpan, SpansRequest, SpansResponse, span_of
from perdure.wire.traces import SPANS_MAX, Span

AT_ONCE: Final = 200
"""Spans decoded in one go, so that others get their turn between."""

routes = Routes("Traces")


@routes.post("/internal/spans/batch", contract=True)
async def put_spans(call: Call, body: SpansRequest) -> SpansResponse:
    """Keep spans. Each is judged alone, and one that comes again takes the place of the first.

    Any trace id is taken. A trace has at most 10,000 spans, a span at most 1 MiB.
    """
    if len(body.spans) > SPANS_MAX:
        raise BadValue(f"body.spans: holds {len(body.spans):,} spans; the limit is {SPANS_MAX:,}", {"path": "spans"})
    spans: dict[tuple[str, str], tuple[int, Span]] = {}
    rejected: list[RejectedSpan] = []
    for index, raw in enumerate(body.spans):
        if index % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        try:
            span = span_of(raw)
        except BadValue as error:
            rejected.append(RejectedSpan(index, error.message))
        else:
            spans[span.trace_id, span.span_id] = index, span
    for ids in await call.engine.traces.put(call.project_id, [span for _, span in spans.values()]):
        rejected.append(RejectedSpan(spans[ids][0], f"span: its trace has {SPANS_MAX:,} spans already"))
    return SpansResponse(len(body.spans) - len(rejected), rejected)
