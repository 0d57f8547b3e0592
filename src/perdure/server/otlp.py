"""OpenTelemetry's protocol for traces over HTTP: its requests, in protobuf or JSON, as spans; and its answers.

Every span is judged alone. What a resource says of itself goes into the attributes of its spans, under `resource.`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from perdure.wire.codec import DEPTH_MAX, KEY_BYTES_MAX, check_json, scrub_text
from perdure.wire.errors import BadRequest, BadValue, TooLarge, UnsupportedMediaType
from perdure.wire.public import rfc3339
from perdure.wire.public_traces import checked_span
from perdure.wire.traces import SPAN_BYTES_MAX, SPANS_MAX, Span, SpanValues

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
_KINDS: Final = ("internal", "internal", "server", "client", "producer", "consumer")
_ERROR: Final = 2
_encode: Final = msgspec.json.Encoder().encode


class _Event(NamedTuple):
    name: str
    time_ns: int
    attributes: dict[str, Any]


class _Span(NamedTuple):
    """A span as either form of the protocol tells it."""

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: Sequence[_Event]
    status: int
    message: str


def media_type(content_type: bytes | None) -> str:
    """In which form the request is. Raises UnsupportedMediaType."""
    kind = (content_type or b"").partition(b";")[0].strip().lower()
    if kind == JSON.encode():
        return JSON
    if kind in (PROTOBUF.encode(), b"application/protobuf"):
        return PROTOBUF
    text = (content_type or b"").decode("latin-1")
    raise UnsupportedMediaType(f"Content-Type {text!r} is not taken; send application/x-protobuf or application/json.")


def plain(body: bytes, encoding: bytes | None, bytes_max: int) -> bytes:
    """The body, unpacked if need be. Raises BadRequest, TooLarge, UnsupportedMediaType."""
    kind = (encoding or b"identity").strip().lower()
    if kind == b"identity":
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


def spans_of(body: bytes, kind: str) -> Iterator[Span | BadValue]:
    """The spans of a request, or what is wrong with each. Raises BadRequest for a body that is no such request."""
    found = _of_json(body) if kind == JSON else _of_protobuf(body)
    for number, (resource, one) in enumerate(found):
        if number >= SPANS_MAX:
            yield BadValue(f"span: the request has more than {SPANS_MAX:,}")
        elif isinstance(one, BadValue):
            yield one
        else:
            try:
                yield _kept(one, resource)
            except BadValue as error:
                yield error


def answer(kind: str, rejected: int, complaint: str) -> bytes:
    """The answer, in the form of the request."""
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


def _kept(span: _Span, resource: Mapping[str, Any]) -> Span:
    attributes = {**{f"resource.{name}": value for name, value in resource.items()}, **span.attributes}
    events = [
        {"name": event.name, "timestamp": rfc3339(event.time_ns // 1_000), "attributes": event.attributes}
        for event in span.events
        if 0 <= event.time_ns < 1 << 63
    ]
    error = None
    if span.status == _ERROR:
        said = [event.attributes for event in span.events if event.name == "exception"]
        message = span.message or (said[-1].get("exception.message") if said else None)
        error = Raw(_encode({"message": message or "The span failed."}))
    values = SpanValues(
        Raw(_encode(attributes)) if attributes else None, Raw(_encode(events)) if events else None, error=error
    )
    for value in (values.attributes, values.events, values.error):
        if value is not None:
            check_json(bytes(value), where="span", max_bytes=SPAN_BYTES_MAX)
    name = scrub_text(" ".join(span.name.split()), KEY_BYTES_MAX // 4)
    return checked_span(
        Span(
            span.trace_id,
            span.span_id,
            span.parent_span_id if span.parent_span_id.strip("0") else None,
            name or "(no name)",
            _KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else _KINDS[0],
            span.start_ns // 1_000,
            span.end_ns // 1_000 or None,
            values,
        )
    )


# --- JSON ----------------------------------------------------------------------------------------------------------


class _JsonKeyValue(Struct):
    key: str = ""
    value: Any = None


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
    resource: _JsonResource | None = None
    scope_spans: list[_JsonScope] = []


class _JsonRequest(Struct, rename="camel"):
    resource_spans: list[_JsonResourceSpans] = []


_request: Final = msgspec.json.Decoder(_JsonRequest).decode
_span: Final = msgspec.json.Decoder(_JsonSpan).decode
_STATUS_NAMES: Final = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": _ERROR}
_KIND_NAMES: Final = {f"SPAN_KIND_{name.upper()}": number for number, name in enumerate(_KINDS)}


def _of_json(body: bytes) -> Iterator[tuple[dict[str, Any], _Span | BadValue]]:
    check_json(body, where="body", max_bytes=len(body))
    try:
        sent = _request(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadRequest(f"body: is no trace request: {error}") from None
    for group in sent.resource_spans:
        try:
            resource = _json_values(group.resource.attributes if group.resource else [])
        except BadValue:
            resource = {}
        for scope in group.scope_spans:
            for raw in scope.spans:
                try:
                    yield resource, _of_json_span(bytes(raw))
                except BadValue as error:
                    yield resource, error
                except (msgspec.MsgspecError, ValueError, TypeError) as error:
                    yield resource, BadValue(f"span: {error}")


def _of_json_span(raw: bytes) -> _Span:
    span = _span(raw)
    status = span.status or _JsonStatus()
    return _Span(
        span.trace_id,
        span.span_id.lower(),
        span.parent_span_id.lower(),
        span.name,
        _KIND_NAMES.get(span.kind, 0) if isinstance(span.kind, str) else span.kind,
        int(span.start_time_unix_nano),
        int(span.end_time_unix_nano),
        _json_values(span.attributes),
        [_Event(event.name, int(event.time_unix_nano), _json_values(event.attributes)) for event in span.events],
        _STATUS_NAMES.get(status.code, 0) if isinstance(status.code, str) else status.code,
        status.message,
    )


def _json_values(pairs: Sequence[_JsonKeyValue]) -> dict[str, Any]:
    return {pair.key: _json_value(pair.value) for pair in pairs}


def _json_value(value: Any, depth: int = 0) -> Any:
    """An AnyValue in its JSON form, as the JSON that it stands for."""
    if depth > DEPTH_MAX:
        raise BadValue(f"span: nested deeper than {DEPTH_MAX} levels")
    if not isinstance(value, dict) or not value:
        return None
    [(kind, inner), *_] = value.items()
    if kind == "intValue":
        return int(inner)
    if kind == "arrayValue":
        return [_json_value(one, depth + 1) for one in _list_in(inner)]
    if kind == "kvlistValue":
        return {
            str(one.get("key", "")): _json_value(one.get("value"), depth + 1)
            for one in _list_in(inner)
            if isinstance(one, dict)
        }
    return inner


def _list_in(inner: Any) -> list[Any]:
    found = inner.get("values", []) if isinstance(inner, dict) else []
    return found if isinstance(found, list) else []


# --- protobuf ------------------------------------------------------------------------------------------------------


def _of_protobuf(body: bytes) -> Iterator[tuple[dict[str, Any], _Span | BadValue]]:
    # Loaded when the first one comes: most servers never see one.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        sent = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise BadRequest(f"body: is no trace request: {error}") from None
    for group in sent.resource_spans:
        resource = _values(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield (
                    resource,
                    _Span(
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.name,
                        span.kind,
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        _values(span.attributes),
                        [_Event(event.name, event.time_unix_nano, _values(event.attributes)) for event in span.events],
                        span.status.code,
                        span.status.message,
                    ),
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
