"""The API's shapes of traces, with the contract's names where it has them (see `wire/public.py`)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from perdure.wire.codec import KEY_BYTES_MAX, NAME_BYTES_MAX, check_json, check_name, split_path
from perdure.wire.errors import BadValue
from perdure.wire.public import Int64, Time, microseconds, rfc3339
from perdure.wire.records import MaybeRaw
from perdure.wire.status import STATUS, Phase
from perdure.wire.traces import SPAN_BYTES_MAX, SpanValues, StoredSpan, is_array, is_object

AT_US_MAX = 253_402_300_799_000_000  # the end of the year 9999


class SpanRequest(Struct, frozen=True):
    """One span as a worker sends it. A time without an offset is UTC."""

    trace_id: str
    """32 hex digits: the root execution's id without hyphens."""
    span_id: str
    name: str
    span_type: str
    started_at: str
    parent_span_id: str | None = None
    attributes: MaybeRaw = None
    events: MaybeRaw = None
    input: MaybeRaw = None
    output: MaybeRaw = None
    error: MaybeRaw = None
    initial_state: MaybeRaw = None
    final_state: MaybeRaw = None
    ended_at: str | None = None


class SpansRequest(Struct, frozen=True):
    """Spans to keep. Each is judged alone: a bad one does not exclude the rest."""

    spans: list[Raw]
    """Each with trace_id, span_id, name, span_type, started_at; optionally parent_span_id, attributes, events,
    input, output, error, initial_state, final_state, ended_at."""


class RejectedSpan(Struct, frozen=True):
    """A span that was not kept, by its place in the request, and why."""

    index: Int64
    error: str


class SpansResponse(Struct, frozen=True):
    """How many spans were kept, and the rejected ones."""

    accepted: Int64
    rejected: list[RejectedSpan]


class Span(Struct, frozen=True):
    """One span. A run that continued after a wait has a span over its pieces, `linked_…`, which is their parent."""

    trace_id: str
    span_id: str
    name: str
    span_type: str
    started_at: Time
    parent_span_id: str | None = None
    attributes: Annotated[
        MaybeRaw, Meta(extra_json_schema={"type": ["object", "null"], "additionalProperties": True})
    ] = None
    events: Annotated[MaybeRaw, Meta(extra_json_schema={"type": ["array", "null"], "items": {}})] = None
    input: MaybeRaw = None
    output: MaybeRaw = None
    error: MaybeRaw = None
    initial_state: MaybeRaw = None
    final_state: MaybeRaw = None
    ended_at: Time | None = None


class TraceResponse(Struct, frozen=True):
    """All spans of a trace, by their start. `error_count` counts those whose error is an object."""

    trace_id: str
    spans: list[Span]
    span_count: Int64
    error_count: Int64
    status: str
    """Of the execution with that id; `unknown` if it does not exist."""
    trace_start_time: Time | None = None
    trace_end_time: Time | None = None
    root_span_name: str | None = None


class TraceSummary(Struct, frozen=True):
    """A trace, described by its root span."""

    trace_id: str
    status: str
    """Of the execution with that id; `unknown` if it does not exist."""
    root_span_type: str | None = None
    root_span_name: str | None = None
    started_at: Time | None = None
    ended_at: Time | None = None
    duration_ms: Int64 | None = None
    input: MaybeRaw = None
    output: MaybeRaw = None
    root_error: MaybeRaw = None


class TracesResponse(Struct, frozen=True):
    """Traces by the end of their root span, newest first. `next_cursor` asks for the following page and is null
    after the last. A page may hold fewer than `limit` and still have one."""

    traces: list[TraceSummary]
    next_cursor: str | None = None


def trace_response(trace_id: str, spans: Sequence[StoredSpan], phase: Phase | None) -> TraceResponse:
    ends = [span.ended_at_us for span in spans if span.ended_at_us is not None]
    root = next((span for span in spans if span.parent_span_id is None), None)
    return TraceResponse(
        trace_id,
        [
            Span(
                span.trace_id,
                span.span_id,
                span.name,
                span.span_type,
                rfc3339(span.started_at_us),
                span.parent_span_id,
                span.values.attributes,
                span.values.events,
                span.values.input,
                span.values.output,
                span.values.error,
                span.values.initial_state,
                span.values.final_state,
                None if span.ended_at_us is None else rfc3339(span.ended_at_us),
            )
            for span in spans
        ],
        len(spans),
        sum(span.failed for span in spans),
        status_of(phase),
        rfc3339(spans[0].started_at_us) if spans else None,
        rfc3339(max(ends)) if ends else None,
        None if root is None else root.name,
    )


def status_of(phase: Phase | None) -> str:
    return "unknown" if phase is None else STATUS[phase].value


_decode = msgspec.json.Decoder(SpanRequest).decode


def span_of(raw: Raw) -> StoredSpan:
    """A span from a request. Raises BadValue with the fault."""
    data = bytes(raw)
    check_json(data, where="span", max_bytes=SPAN_BYTES_MAX)
    try:
        sent = _decode(data)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        path, what = split_path(str(error))
        raise BadValue(f"span{path}: {what}") from None
    values = SpanValues(
        *map(
            _something,
            (
                sent.attributes,
                sent.events,
                sent.input,
                sent.output,
                sent.error,
                sent.initial_state,
                sent.final_state,
            ),
        )
    )
    return checked_span(
        StoredSpan(
            sent.trace_id,
            sent.span_id,
            sent.parent_span_id or None,
            sent.name,
            sent.span_type,
            _at_us(sent.started_at, "span.started_at"),
            None if sent.ended_at is None else _at_us(sent.ended_at, "span.ended_at"),
            values,
        )
    )


def checked_span(span: StoredSpan) -> StoredSpan:
    """The span as it is stored, its trace id in lower case. Raises BadValue if it cannot be stored."""
    trace_id = checked_trace_id(span.trace_id)
    check_name(span.span_id, where="span.span_id", max_bytes=NAME_BYTES_MAX)
    if span.parent_span_id is not None:
        check_name(span.parent_span_id, where="span.parent_span_id", max_bytes=NAME_BYTES_MAX)
    check_name(span.name, where="span.name", max_bytes=KEY_BYTES_MAX)
    check_name(span.span_type, where="span.span_type", max_bytes=NAME_BYTES_MAX)
    if span.values.attributes is not None and not is_object(span.values.attributes):
        raise BadValue("span.attributes: must be an object or null")
    if span.values.events is not None and not is_array(span.values.events):
        raise BadValue("span.events: must be an array or null")
    for at_us in (span.started_at_us, span.ended_at_us or 0):
        if not 0 <= at_us <= AT_US_MAX:
            raise BadValue("span: its times must lie between 1970 and 9999")
    return msgspec.structs.replace(span, trace_id=trace_id)


def checked_trace_id(trace_id: str) -> str:
    """The id in lower case. Raises BadValue unless it is 32 hex digits."""
    lower = trace_id.lower()
    if len(lower) != 32 or set(lower) - set("0123456789abcdef"):
        raise BadValue(f"trace_id: must be 32 hex digits, got {trace_id!r}", {"path": "trace_id"})
    return lower


def _something(value: Raw | None) -> Raw | None:
    return None if value is None or bytes(value) == b"null" else value


def _at_us(text: str, where: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        return microseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise BadValue(f"{where}: is not an RFC 3339 time: {text!r}") from None
