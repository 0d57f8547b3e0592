from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta, Raw, Struct, field
from msgspec.structs import asdict

from perdure.wire.base.access import Role
from perdure.wire.base.codec import KEY_BYTES_MAX, NAME_BYTES_MAX, check_json, check_name, split_path
from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.fields import Int64, MaxItems, PageCursor, Time, Value, between
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record, not_null, shown_before
from perdure.wire.base.records import MaybeRaw
from perdure.wire.base.status import STATUS, Phase
from perdure.wire.base.times import AT_US_MAX, microseconds

SPAN_BYTES_MAX: Final = 1 << 20
"""The largest span, as JSON."""
SPANS_MAX: Final = 10_000
"""Spans per trace and per request."""
LIST_MAX: Final = 500
OFFSET_MAX: Final = 10_000
RUNS: Final = frozenset({"workflow", "agent", "tool"})
"""Types of spans for a whole execution."""
_object: Final = msgspec.json.Decoder(dict[str, Raw]).decode


class SpanValues(Struct, frozen=True, omit_defaults=True):
    """JSON, byte for byte; null counts as missing."""

    attributes: MaybeRaw = None
    """An object."""
    events: MaybeRaw = None
    """An array."""
    input: MaybeRaw = None
    output: MaybeRaw = None
    error: MaybeRaw = None
    initial_state: MaybeRaw = None
    final_state: MaybeRaw = None


NOTHING: Final = SpanValues()


class StoredSpan(Struct, frozen=True):
    """Ids from OpenTelemetry are lower-case hex; a span id may be any short text."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    span_type: str
    started_at_us: int
    ended_at_us: int | None
    values: SpanValues = NOTHING

    def said(self, name: str) -> str | None:
        """Return the text attribute `<type>.<name>`, which a worker sets about its execution, if present."""
        attributes = self.values.attributes
        if attributes is None or f".{name}".encode() not in bytes(attributes):
            return None
        value = _object(bytes(attributes)).get(f"{self.span_type}.{name}")
        return None if value is None or not bytes(value).startswith(b'"') else str(msgspec.json.decode(value))

    @property
    def execution_id(self) -> str | None:
        id = self.said("execution_id")
        return None if id is None else id.lower()

    @property
    def is_run(self) -> bool:
        """Whether the span covers an execution, or a piece between two waits."""
        return self.span_type in RUNS and self.said("execution_id") is not None

    @property
    def failed(self) -> bool:
        return is_object(self.values.error)

    def shown(self) -> "Span":
        own = asdict(self)
        return Span(**asdict(own.pop("values")), **own)


def is_object(value: Raw | None) -> bool:
    return value is not None and bytes(value).lstrip().startswith(b"{")


def is_array(value: Raw | None) -> bool:
    return value is not None and bytes(value).lstrip().startswith(b"[")


class Span(Record, frozen=True):
    """A span. A run that continued after a wait has a span `linked_…` over its pieces, the pieces' parent."""

    trace_id: str
    span_id: str
    name: str
    span_type: str
    started_at_us: Time = field(name="started_at")
    parent_span_id: str | None = None
    attributes: Annotated[Value, Meta(extra_json_schema={"type": ["object", "null"], "additionalProperties": True})] = (
        None
    )
    events: Annotated[Value, Meta(extra_json_schema={"type": ["array", "null"], "items": {}})] = None
    input: Value = None
    output: Value = None
    error: Value = None
    initial_state: Value = None
    final_state: Value = None
    ended_at_us: Time | None = field(default=None, name="ended_at")


class Trace(Record, frozen=True):
    """A trace. `spans` are sorted by start. `error_count` counts errors that are objects."""

    shown_as: ClassVar[str] = "TraceResponse"

    trace_id: str
    spans: list[Span]
    span_count: Int64
    error_count: Int64
    status: str
    """The status of the execution with this id, or `unknown`."""
    start_us: Time | None = field(default=None, name="trace_start_time")
    end_us: Time | None = field(default=None, name="trace_end_time")
    root_span_name: str | None = None


class TraceSummary(Record, frozen=True):
    """A trace, described by its root span."""

    trace_id: str
    status: str
    """The status of the execution with this id, or `unknown`."""
    root_span_type: str | None = None
    root_span_name: str | None = None
    started_at_us: Time | None = field(default=None, name="started_at")
    ended_at_us: Time | None = field(default=None, name="ended_at")
    input: Value = None
    output: Value = None
    root_error: Value = None

    @shown_before("input")
    def duration_ms(self) -> Int64 | None:
        if self.started_at_us is None or self.ended_at_us is None:
            return None
        return (self.ended_at_us - self.started_at_us) // 1_000


class RejectedSpan(Record, frozen=True):
    """`index` is the span's place in the request."""

    index: Int64
    error: str


class SpansReply(Record, frozen=True):
    shown_as: ClassVar[str] = "SpansResponse"

    accepted: Int64
    rejected: list[RejectedSpan]


def to_trace(trace_id: str, spans: list[StoredSpan], phase: Phase | None) -> Trace:
    root = next((span for span in spans if span.parent_span_id is None), None)
    return Trace(
        trace_id=trace_id,
        spans=[span.shown() for span in spans],
        span_count=len(spans),
        error_count=sum(span.failed for span in spans),
        status=shown_status(phase),
        start_us=spans[0].started_at_us if spans else None,
        end_us=max((span.ended_at_us for span in spans if span.ended_at_us is not None), default=None),
        root_span_name=None if root is None else root.name,
    )


def shown_status(phase: Phase | None) -> str:
    return "unknown" if phase is None else STATUS[phase].value


class SentSpan(SpanValues, frozen=True, kw_only=True):
    """A time without an offset is UTC."""

    trace_id: str
    """32 hex digits: the root execution's id without hyphens."""
    span_id: str
    name: str
    span_type: str
    started_at: str
    parent_span_id: str | None = None
    ended_at: str | None = None


_decode: Final = msgspec.json.Decoder(SentSpan).decode


def read_span(raw: Raw) -> StoredSpan:
    """Raises BadValue with the fault."""
    data = bytes(raw)
    check_json(data, where="span", max_bytes=SPAN_BYTES_MAX)
    try:
        sent = _decode(data)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        path, what = split_path(str(error))
        raise BadValue(f"span{path}: {what}") from None
    given = asdict(sent)
    values = SpanValues(**{name: not_null(given.pop(name)) for name in SpanValues.__struct_fields__})
    given["parent_span_id"] = given["parent_span_id"] or None
    given["started_at_us"] = _at_us(given.pop("started_at"), "span.started_at")
    ended_at = given.pop("ended_at")
    given["ended_at_us"] = None if ended_at is None else _at_us(ended_at, "span.ended_at")
    return checked_span(StoredSpan(**given, values=values))


def checked_span(span: StoredSpan) -> StoredSpan:
    """Return the span as stored. Raises BadValue if the span is invalid."""
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
    """Return the id in lower case. Raises BadValue unless the id has 32 hex digits."""
    lower = trace_id.lower()
    if len(lower) != 32 or set(lower) - set("0123456789abcdef"):
        raise BadValue(f"trace_id: must be 32 hex digits, got {trace_id!r}", {"path": "trace_id"})
    return lower


def _at_us(text: str, where: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        return microseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise BadValue(f"{where}: is not an RFC 3339 time: {text!r}") from None


def _check_spans(spans: list[Raw], where: str) -> list[Raw]:
    if len(spans) > SPANS_MAX:
        raise BadValue(f"body.{where}: holds {len(spans):,} spans; the limit is {SPANS_MAX:,}", {"path": where})
    return spans


def _check_trace_id(trace_id: str, where: str) -> str:
    try:
        return checked_trace_id(trace_id)
    except BadValue as error:
        raise BadRequest(error.message) from None


traces: Final = Noun("Traces")


@traces.post("/internal/spans/batch", role=Role.WORK, repeated="no effect", contract=True, body="SpansRequest")
class PutSpans(Operation[SpansReply], frozen=True):
    """Store spans.

    Each span is checked alone, and a repeated span replaces the first. Any trace id is accepted. A span that names an
    execution goes to the trace of the root execution, unless the root was given a trace (`otel_traceparent`). A trace
    has at most 10,000 spans, and a span at most 1 MiB.
    """

    spans: Annotated[list[Raw], MaxItems(SPANS_MAX), _check_spans]
    """Each has trace_id, span_id, name, span_type, started_at; optionally parent_span_id, attributes, events, input,
    output, error, initial_state, final_state, ended_at."""


@traces.get("/api/v1/traces", contract=True, under="traces", reply="TracesResponse")
class GetTraces(Operation[Listed[TraceSummary]], frozen=True):
    """Traces by the end of their root span, newest first.

    Sent traces, and the journals of root executions that have ended.
    """

    start_time: Time | None = None
    """Leave out traces whose root ended earlier; an open root counts by its start."""
    end_time: Time | None = None
    """Leave out traces whose root ended later."""
    root_span_type: str | None = None
    root_span_name: str | None = None
    """Part of the name."""
    has_error: bool | None = None
    limit: Annotated[Int64, between(1, LIST_MAX)] = 50
    """1 to 500."""
    offset: Annotated[Int64, between(0, OFFSET_MAX)] = 0
    """Traces to leave out, up to 10,000. New traces shift an offset, but not a cursor."""
    cursor: PageCursor | None = None


@traces.get("/api/v1/traces/{trace_id}", contract=True)
class GetTraceById(Operation[Trace], frozen=True):
    """All spans of a trace; an unknown trace has none.

    Sent spans, and the journals of the execution with this id (32 hex digits, no hyphens) and its descendants.
    """

    trace_id: Annotated[str, _check_trace_id]
