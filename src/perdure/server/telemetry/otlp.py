"""OpenTelemetry traces over HTTP (OTLP), in protobuf or JSON. Each span is accepted or rejected alone.

A few bytes can expand: a gzip body, an empty span, a resource repeated in each span. So the parser first finds the
bytes of each span, then reads span by span up to a limit.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw, Struct

from perdure.wire.base.codec import KEY_BYTES_MAX, check_json, commas_in, scrub_text
from perdure.wire.base.errors import BadRequest, BadValue, TooLarge, UnsupportedMediaType
from perdure.wire.base.limits import DEPTH_MAX
from perdure.wire.base.records import NULL, MaybeRaw
from perdure.wire.base.times import rfc3339
from perdure.wire.insight.traces import SPAN_BYTES_MAX, SPANS_MAX, SpanValues, StoredSpan, checked_span

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
REQUEST_BYTES_MAX: Final = 8 << 20
"""The largest request, uncompressed."""
PARTS_MAX: Final = 100_000
"""Parts looked at to find the spans, and events."""
COMMAS_MAX: Final = 1_000_000
"""Each comma in a JSON request may mean an object."""
ONE_BYTES_MAX: Final = 2 * SPAN_BYTES_MAX
"""Most bytes of a span's attributes and events, which may each have a span's size."""
EVENTS_MAX: Final = SPAN_BYTES_MAX // 64
"""An empty event takes 68 bytes."""
KEPT_BYTES_MAX: Final = 32 << 20
"""All spans of a request together."""
_KINDS: Final = ("internal", "internal", "server", "client", "producer", "consumer")
_ERROR: Final = 2
_encode: Final = msgspec.json.Encoder().encode


class _Left:
    def __init__(self) -> None:
        self.parts = PARTS_MAX
        self.bytes = KEPT_BYTES_MAX

    def look(self, parts: int = 1) -> None:
        """Raises TooLarge."""
        self.parts -= parts
        if self.parts < 0:
            raise TooLarge(f"body: holds more than {PARTS_MAX:,} spans, events and other parts; send fewer at a time.")


def media_type(content_type: bytes | None) -> str:
    """Raises UnsupportedMediaType."""
    kind = (content_type or b"").partition(b";")[0].strip().lower()
    if kind == JSON.encode():
        return JSON
    if kind in (PROTOBUF.encode(), b"application/protobuf"):
        return PROTOBUF
    text = (content_type or b"").decode("latin-1")
    raise UnsupportedMediaType(f"Content-Type {text!r} is not taken; send application/x-protobuf or application/json.")


def plain(body: bytes, encoding: bytes | None, bytes_max: int) -> bytes:
    """Uncompress. Raises BadRequest, TooLarge, UnsupportedMediaType."""
    kind = (encoding or b"identity").strip().lower()
    if kind == b"identity":
        if len(body) > bytes_max:
            raise TooLarge(f"body: more than {bytes_max:,} bytes; send it in parts.")
        return body
    if kind != b"gzip":
        raise UnsupportedMediaType(f"Content-Encoding {kind.decode('latin-1')!r} is not taken; use gzip, or none.")
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        data = unpacking.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise BadRequest(f"body: is not gzip: {error}") from None
    if len(data) > bytes_max:
        raise TooLarge(f"body: more than {bytes_max:,} bytes when unpacked; send it in parts.")
    if not unpacking.eof:
        raise BadRequest("body: the gzip data ends too early.")
    return data


def spans_of(body: bytes, kind: str) -> Iterator[StoredSpan | tuple[str, int]]:
    """The spans. For rejected spans, the reason and their number. Raises BadRequest, TooLarge."""
    left = _Left()
    found, read = (_in_json(body, left), _json_span) if kind == JSON else (_in_protobuf(body, left), _protobuf_span)
    why, surplus = "", 0
    for number, (resource, raw) in enumerate(found):
        if not why and number >= SPANS_MAX:
            why = f"span: the request has more than {SPANS_MAX:,}"
        elif not why and left.bytes <= 0:
            why = f"span: with what their resources say, the request's spans take more than {KEPT_BYTES_MAX:,} bytes"
        if why:
            surplus += 1
            continue
        try:
            if resource is None or len(raw) > ONE_BYTES_MAX:
                raise BadValue(f"span: it, or its resource, takes more than {ONE_BYTES_MAX:,} bytes")
            yield read(raw, resource, left)
        except BadValue as error:
            yield error.message, 1
    if surplus:
        yield why, surplus


def answer(kind: str, rejected: int, complaint: str) -> bytes:
    if kind == JSON:
        if not rejected:
            return b"{}"
        return _encode({"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": complaint}})
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse  # slow to load

    reply = ExportTraceServiceResponse()
    if rejected:
        reply.partial_success.rejected_spans = rejected
        reply.partial_success.error_message = complaint
    data: bytes = reply.SerializeToString()
    return data


def _kept(
    resource: Mapping[str, Any],
    left: _Left,
    *,
    trace_id: str,
    span_id: str,
    parent_span_id: str,
    name: str,
    kind: int,
    start_ns: int,
    end_ns: int,
    attributes: dict[str, Any],
    events: Sequence[tuple[str, int, dict[str, Any]]],
    status: int,
    message: str,
) -> StoredSpan:
    attributes = {**resource, **attributes}
    shown = [
        {"name": event, "timestamp": rfc3339(at_ns // 1_000), "attributes": its}
        for event, at_ns, its in events
        if 0 <= at_ns < 1 << 63
    ]
    error = None
    if status == _ERROR:
        said = [its for event, _, its in events if event == "exception"]
        told = said[-1].get("exception.message") if said else None
        message = message or (_text(told) if isinstance(told, Raw) else told) or "The span failed."
        error = Raw(_encode({"message": message}))
    values = SpanValues(
        Raw(_encode(attributes)) if attributes else None, Raw(_encode(shown)) if shown else None, error=error
    )
    present = [value for value in (values.attributes, values.events, values.error) if value is not None]
    left.bytes -= sum(map(len, present))
    for value in present:
        check_json(bytes(value), where="span", max_bytes=SPAN_BYTES_MAX)
    return checked_span(
        StoredSpan(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent_span_id if parent_span_id.strip("0") else None,
            name=scrub_text(" ".join(name.split()), KEY_BYTES_MAX // 4) or "(no name)",
            span_type=_KINDS[kind] if 0 <= kind < len(_KINDS) else _KINDS[0],
            started_at_us=start_ns // 1_000,
            ended_at_us=end_ns // 1_000 or None,
            values=values,
        )
    )


def _of_resource(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"resource.{name}": value for name, value in values.items()}


def _check_events(count: int, left: _Left) -> None:
    """All events of a request count as parts. Raises BadValue, TooLarge."""
    if count > EVENTS_MAX:
        raise BadValue(f"span.events: holds {count:,} events; the limit is {EVENTS_MAX:,}")
    left.look(count)


class _JsonKeyValue(Struct):
    key: str = ""
    value: Raw = NULL


class _JsonResource(Struct):
    attributes: list[_JsonKeyValue] = []


class _JsonEvent(Struct, rename="camel"):
    name: str = ""
    time_unix_nano: int | str = 0
    attributes: list[_JsonKeyValue] = []


class _JsonStatus(Struct):
    code: int | str = 0
    message: str = ""


class _JsonSpan(Struct, rename="camel"):
    trace_id: str
    span_id: str
    name: str = ""
    parent_span_id: str = ""
    kind: int | str = 0
    start_time_unix_nano: int | str = 0
    end_time_unix_nano: int | str = 0
    attributes: list[_JsonKeyValue] = []
    events: list[_JsonEvent] = []
    status: _JsonStatus | None = None


class _JsonScope(Struct, rename="camel"):
    spans: list[Raw] = []


class _JsonResourceSpans(Struct, rename="camel"):
    resource: MaybeRaw = None
    scope_spans: list[Raw] = []


class _JsonRequest(Struct, rename="camel"):
    resource_spans: list[Raw] = []


_request: Final = msgspec.json.Decoder(_JsonRequest).decode
_group: Final = msgspec.json.Decoder(_JsonResourceSpans).decode
_scope: Final = msgspec.json.Decoder(_JsonScope).decode
_resource: Final = msgspec.json.Decoder(_JsonResource | None).decode
_span: Final = msgspec.json.Decoder(_JsonSpan).decode
_object: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_array: Final = msgspec.json.Decoder(list[Raw]).decode
_text: Final = msgspec.json.Decoder(str).decode
_STATUS_NAMES: Final = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": _ERROR}
_KIND_NAMES: Final = {f"SPAN_KIND_{name.upper()}": number for number, name in enumerate(_KINDS)}


def _in_json(body: bytes, left: _Left) -> Iterator[tuple[dict[str, Any] | None, bytes]]:
    """Yields None in place of a resource that is too large."""
    if body.count(b",") > COMMAS_MAX and commas_in(body) > COMMAS_MAX:
        raise TooLarge(f"body: more than {COMMAS_MAX:,} values; send it in parts.")
    try:
        body.decode()
        groups = _request(body).resource_spans
        left.look(len(groups))
        for raw_group in groups:
            group = _group(raw_group)
            resource = _json_resource(group.resource)
            left.look(len(group.scope_spans))
            for raw_scope in group.scope_spans:
                spans = _scope(raw_scope).spans
                left.look(len(spans))
                for raw in spans:
                    yield resource, bytes(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if not isinstance(error, msgspec.ValidationError):
            check_json(body, where="body", max_bytes=len(body))
        raise _no_request(error) from None


def _json_resource(raw: Raw | None) -> dict[str, Any] | None:
    if raw is None:
        return {}
    if len(raw) > ONE_BYTES_MAX:
        return None
    found = _resource(raw)
    try:
        return _of_resource(_json_values(found.attributes if found else []))
    except (BadValue, ValueError, TypeError):
        return {}


def _json_span(raw: bytes, resource: Mapping[str, Any], left: _Left) -> StoredSpan:
    try:
        span = _span(raw)
        _check_events(len(span.events), left)
        status = span.status or _JsonStatus()
        return _kept(
            resource,
            left,
            trace_id=span.trace_id,
            span_id=span.span_id.lower(),
            parent_span_id=span.parent_span_id.lower(),
            name=span.name,
            kind=_KIND_NAMES.get(span.kind, 0) if isinstance(span.kind, str) else span.kind,
            start_ns=int(span.start_time_unix_nano),
            end_ns=int(span.end_time_unix_nano),
            attributes=_json_values(span.attributes),
            events=[(one.name, int(one.time_unix_nano), _json_values(one.attributes)) for one in span.events],
            status=_STATUS_NAMES.get(status.code, 0) if isinstance(status.code, str) else status.code,
            message=status.message,
        )
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise BadValue(f"span: {error}") from None


def _json_values(pairs: Sequence[_JsonKeyValue]) -> dict[str, Any]:
    return {pair.key: _json_value(pair.value) for pair in pairs}


def _json_value(raw: Raw, depth: int = 0) -> Any:
    """Most values stay as sent: decoding a number like 1e300 takes 8 µs."""
    if depth > DEPTH_MAX:
        raise BadValue(f"span: nested deeper than {DEPTH_MAX} levels")
    for kind, inner in _members(raw).items():
        if kind == "intValue":
            text = bytes(inner)
            return (
                int(_text(inner)) if text.startswith(b'"') else int(text if text.strip(b"-").isdigit() else float(text))
            )
        if kind == "arrayValue":
            return [_json_value(one, depth + 1) for one in _list_in(inner)]
        if kind == "kvlistValue":
            pairs = [_members(one) for one in _list_in(inner) if bytes(one).startswith(b"{")]
            return {_name_of(one): _json_value(one.get("value", NULL), depth + 1) for one in pairs}
        return inner
    return None


def _members(raw: Raw) -> dict[str, Raw]:
    return _object(raw) if bytes(raw).startswith(b"{") else {}


def _name_of(pair: Mapping[str, Raw]) -> str:
    key = pair.get("key", NULL)
    return _text(key) if bytes(key).startswith(b'"') else ""


def _list_in(inner: Raw) -> list[Raw]:
    values = _members(inner).get("values", NULL)
    return _array(values) if bytes(values).startswith(b"[") else []


# Field numbers of ExportTraceServiceRequest, ResourceSpans, ScopeSpans and Span.
_RESOURCE_SPANS: Final = 1
_RESOURCE: Final = 1
_SCOPE_SPANS: Final = 2
_SPANS: Final = 2
_EVENTS: Final = 11
_EVENT_TAGS: Final = (b"\x5a", b"\xda")
"""The first byte of an event's tag, in the usual and in a longer form."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _in_protobuf(body: bytes, left: _Left) -> Iterator[tuple[dict[str, Any] | None, bytes]]:
    """Protobuf would make objects of 200 bytes for all empty messages before a check could run."""
    for group in _fields(body, (0, len(body)), _RESOURCE_SPANS, left):
        # A message may have several parts, which merge, also after the spans.
        resource = _protobuf_resource([body[start:end] for start, end in _fields(body, group, _RESOURCE, left)])
        for scope in _fields(body, group, _SCOPE_SPANS, left):
            for start, end in _fields(body, scope, _SPANS, left):
                yield resource, body[start:end]


def _fields(data: bytes, within: tuple[int, int], wanted: int, left: _Left) -> Iterator[tuple[int, int]]:
    """Positions of a message's field. Raises BadRequest, TooLarge."""
    at, end = within
    while at < end:
        left.look()
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(data, at, end)
            if at + size <= end and tag >> 3 == wanted:
                yield at, at + size
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise _no_request(f"wire type {kind}")
        if at > end or not tag >> 3:
            raise _no_request("a field that does not fit" if at > end else "a field without a number")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _no_request("a number that does not end")


def _no_request(why: object) -> BadRequest:
    return BadRequest(f"body: is not a trace request: {why}")


def _protobuf_resource(parts: Sequence[bytes]) -> dict[str, Any] | None:
    if not parts:
        return {}
    # Imported on first use: most servers receive no traces.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    if sum(map(len, parts)) > ONE_BYTES_MAX:
        return None
    try:
        return _of_resource(_values(Resource.FromString(b"".join(parts)).attributes))
    except DecodeError as error:
        raise _no_request(error) from None


def _protobuf_span(raw: bytes, resource: Mapping[str, Any], left: _Left) -> StoredSpan:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

    # Protobuf would make all events before a check could run. Other text may have the bytes of their tags, too.
    if sum(map(raw.count, _EVENT_TAGS)) > EVENTS_MAX:
        _check_events(sum(1 for _ in _fields(raw, (0, len(raw)), _EVENTS, left)), left)
    try:
        span = Sent.FromString(raw)
    except DecodeError as error:
        raise _no_request(error) from None
    _check_events(len(span.events), left)
    return _kept(
        resource,
        left,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        kind=span.kind,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        events=[(one.name, one.time_unix_nano, _values(one.attributes)) for one in span.events],
        status=span.status.code,
        message=span.status.message,
    )


def _values(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return _values(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, kind)
