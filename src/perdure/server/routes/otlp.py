"""Spans of exporters, in OpenTelemetry's protocol."""

import asyncio
import time
from typing import Final

from perdure.engine.insight.traces import FULL
from perdure.server.http.problems import Reply, json_headers
from perdure.server.http.routing import RouteCall, Routes
from perdure.server.telemetry import otlp
from perdure.wire.base.access import Role
from perdure.wire.insight.traces import StoredSpan

AT_ONCE_SECONDS: Final = 0.01
"""Seconds of decoding spans before other requests get a turn."""

routes = Routes("Traces")


@routes.route(
    "POST",
    "/v1/traces",
    repeated="no effect",
    role=Role.WORK,
    headers=("Content-Encoding",),
    raw_body=(otlp.PROTOBUF, otlp.JSON),
    body_bytes_max=otlp.REQUEST_BYTES_MAX,
)
async def export_traces(call: RouteCall) -> Reply:
    """Store spans in OpenTelemetry's protocol (OTLP over HTTP).

    The body is a trace request in protobuf (`application/x-protobuf`) or JSON, optionally gzipped, and at most 8 MiB
    unpacked. The answer has the number of rejected spans.
    """
    kind = otlp.media_type(call.headers.get(b"content-type"))
    bytes_max = call.route.bytes_max(call.settings)
    body = otlp.plain(await call.raw_body(), call.headers.get(b"content-encoding"), bytes_max)
    spans: list[StoredSpan] = []
    rejected, complaint = 0, ""
    since = time.monotonic()
    for span in otlp.spans_of(body, kind):
        if isinstance(span, StoredSpan):
            spans.append(span)
        else:
            rejected += span[1]
            complaint = complaint or span[0]
        if time.monotonic() > since + AT_ONCE_SECONDS:
            await asyncio.sleep(0)
            since = time.monotonic()
    left_out = await call.engine.traces.put(call.project_id, spans)
    if left_out:
        rejected += len(left_out)
        complaint = complaint or FULL
    answer = otlp.answer(kind, rejected, complaint)
    headers = json_headers(len(answer))
    return Reply(200, answer, ((b"content-type", kind.encode()), *headers[1:]))
