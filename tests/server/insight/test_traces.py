"""Traces over HTTP: spans come in, each judged alone; traces are listed and shown, with what journals say."""

import base64
import gzip
import json
import time
import tracemalloc
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from tests.server.serving import Hand, Served

from perdure.server.telemetry import otlp
from perdure.wire.insight.traces import StoredSpan

BATCH = "/internal/spans/batch"
TRACE = "0190a5f27c1e7b3a9d550242ac120002"


def span(id: str = "00f067aa0ba902b7", **fields: Any) -> dict[str, Any]:
    """A worker's span as sent."""
    return {
        "trace_id": TRACE,
        "span_id": id,
        "parent_span_id": None,
        "name": "workflow.w",
        "span_type": "workflow",
        "started_at": "2026-01-01T12:00:00+00:00",
        "ended_at": "2026-01-01T12:00:01.500000",
        "attributes": {"workflow.id": "w"},
        "events": None,
        "input": {"n": 1},
        "output": 12345678901234567890,
        "error": None,
        **fields,
    }


async def put(served: Served, *spans: Any, **options: Any) -> Any:
    reply = await served.client.post(BATCH, json={"spans": spans}, **options)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_one_bad_span_does_not_keep_the_others_out(served: Served) -> None:
    bad = [
        span(trace_id="xyz"),
        span(started_at="noon"),
        span(started_at="0001-01-01T00:00:00+14:00"),
        span(attributes=[]),
        span(events={}),
        span(name=""),
        {"trace_id": TRACE},
        7,
        span(input="x" * (1 << 20)),
    ]
    reply = await put(served, span("a"), *bad, span("b", trace_id=TRACE.upper()))
    assert reply["accepted"] == 2
    assert [one["index"] for one in reply["rejected"]] == list(range(1, 10))
    said = "\n".join(one["error"] for one in reply["rejected"])
    for what in ("32 hex digits", "'noon'", "1970", "span.attributes", "span.events", "span.name", "missing", "bytes"):
        assert what in said


async def test_a_batch_is_bounded(served: Served) -> None:
    reply = await served.client.post(BATCH, json={"spans": [0] * 10_001})
    assert (reply.status_code, reply.json()["details"]) == (422, {"path": "spans"})
    assert await put(served) == {"accepted": 0, "rejected": []}


# --- looking -------------------------------------------------------------------------------------------------------


async def get(served: Served, trace: str = TRACE, **options: Any) -> Any:
    reply = await served.client.get(f"/api/v1/traces/{trace}", **options)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def listed(served: Served, query: str = "", **options: Any) -> list[Any]:
    reply = await served.client.get(f"/api/v1/traces?{query}", **options)
    assert reply.status_code == 200, reply.text
    found: list[Any] = reply.json()["traces"]
    return found


async def test_a_trace_is_shown_as_it_was_sent(served: Served) -> None:
    child = span("b", parent_span_id="a", name="step", span_type="step", started_at="2026-01-01T12:00:00.5Z")
    await put(served, child, span("a"))
    await put(served, span("b", **{**child, "span_id": "b", "error": {"message": "no"}, "events": [{"name": "e"}]}))
    trace = await get(served)
    assert [one["span_id"] for one in trace["spans"]] == ["a", "b"]
    assert trace["spans"][0] == span("a", started_at="2026-01-01T12:00:00.000000+00:00", initial_state=None) | {
        "ended_at": "2026-01-01T12:00:01.500000+00:00",
        "final_state": None,
    }
    assert trace["spans"][1]["error"] == {"message": "no"} and trace["spans"][1]["events"] == [{"name": "e"}]
    assert {name: trace[name] for name in trace if name != "spans"} == {
        "trace_id": TRACE,
        "span_count": 2,
        "error_count": 1,
        "status": "unknown",
        "trace_start_time": "2026-01-01T12:00:00.000000+00:00",
        "trace_end_time": "2026-01-01T12:00:01.500000+00:00",
        "root_span_name": "workflow.w",
    }
    _, other = await served.other_project()
    empty = await get(served, headers=other)
    assert (empty["spans"], empty["span_count"], empty["status"]) == ([], 0, "unknown")
    assert await listed(served, headers=other) == []
    assert (await served.client.get("/api/v1/traces/xyz")).status_code == 400


async def test_a_run_that_went_on_after_waits_is_one_span(served: Served) -> None:
    def piece(id: str, second: int, previous: str | None, **fields: Any) -> dict[str, Any]:
        attributes = {"n": second, **({} if previous is None else {"workflow.previous_span_id": previous})}
        at = f"2026-01-01T12:00:0{second}Z"
        return span(id, started_at=at, ended_at=at, attributes=attributes, **fields)

    await put(
        served,
        piece("a", 1, None, input=1, output=None, initial_state={"s": 1}),
        piece("b", 2, "a", input=None, output=None, error={"message": "first"}, events=[1]),
        piece("c", 3, "b", input=None, output=7, error={"message": "second"}, events=[2]),
        span("inner", parent_span_id="b", span_type="step", name="step"),
        span("stranger", attributes={"workflow.previous_span_id": "inner"}, started_at="2026-01-01T12:00:09Z"),
        span("r1", started_at="2026-01-01T12:00:08Z", attributes={"workflow.previous_span_id": "r2"}),
        span("r2", started_at="2026-01-01T12:00:08Z", attributes={"workflow.previous_span_id": "r1"}),
    )
    spans = (await get(served))["spans"]
    parents = {one["span_id"]: one["parent_span_id"] for one in spans}
    whole = "linked_a"
    assert parents == {
        **{"a": whole, "b": whole, "c": whole, whole: None, "inner": "b"},
        **{"stranger": None, "r1": None, "r2": None},  # another parent, and a circle
    }
    linked = next(one for one in spans if one["span_id"] == whole)
    ids = [one["span_id"] for one in spans]
    assert ids.index(whole) == ids.index("a") - 1
    assert (linked["name"], linked["input"], linked["output"]) == ("workflow.w", 1, 7)
    assert (linked["error"], linked["events"], linked["initial_state"]) == ({"message": "first"}, [1, 2], {"s": 1})
    assert linked["attributes"] == {"n": 3, "workflow.previous_span_id": "b"}
    assert (linked["started_at"][17:19], linked["ended_at"][17:19]) == ("01", "03")


async def test_a_piece_that_was_told_nothing_goes_on_after_the_one_that_waits(served: Served) -> None:
    """The id of the span to be continued is sent in the background, and comes too late for a quick answer."""

    def piece(id: str, second: int, status: str, run: str = "1", **fields: Any) -> dict[str, Any]:
        attributes = {"tool.execution_id": run, "tool.status": status}
        at = f"2026-01-01T12:00:0{second}Z"
        return span(id, started_at=at, ended_at=at, name="tool.t", span_type="tool", attributes=attributes, **fields)

    await put(
        served,
        piece("a", 1, "waiting"),
        piece("b", 2, "completed"),
        piece("another's", 2, "completed", run="2"),
        piece("elsewhere", 2, "completed", parent_span_id="a"),
        piece("tried again", 3, "failed"),
        piece("and again", 4, "completed"),
        span("step", span_type="step", attributes={"step.execution_id": "1", "step.status": "waiting"}),
    )
    parents = {one["span_id"]: one["parent_span_id"] for one in (await get(served))["spans"]}
    assert parents == {
        **{"linked_a": None, "a": "linked_a", "b": "linked_a", "elsewhere": "a"},
        **{"another's": None, "tried again": None, "and again": None, "step": None},
    }


async def test_traces_are_listed_by_the_end_of_their_root(served: Served) -> None:
    def trace(n: int) -> str:
        return f"{n:032x}"

    roots: list[dict[str, Any]] = [
        {"name": "workflow.first"},
        {"span_type": "agent", "name": "agent.second", "error": {"message": "no"}},
        {"name": "workflow.open", "ended_at": None},
    ]
    for n, fields in enumerate(roots, 1):
        ended = {"ended_at": f"2026-01-0{n}T12:00:01Z", **fields}
        await put(served, span("root", trace_id=trace(n), started_at=f"2026-01-0{n}T12:00:00Z", **ended))
        await put(served, span("child", trace_id=trace(n), parent_span_id="root", error={"message": "inner"}))
    found = await listed(served)
    assert [one["trace_id"] for one in found] == [trace(3), trace(2), trace(1)]
    assert found[1] == {
        "trace_id": trace(2),
        "status": "unknown",
        "root_span_type": "agent",
        "root_span_name": "agent.second",
        "started_at": "2026-01-02T12:00:00.000000+00:00",
        "ended_at": "2026-01-02T12:00:01.000000+00:00",
        "duration_ms": 1_000,
        "input": {"n": 1},
        "output": 12345678901234567890,
        "root_error": {"message": "no"},
    }
    assert (found[0]["ended_at"], found[0]["duration_ms"]) == (None, None)
    for query, numbers in {
        "root_span_type=agent": [2],
        "root_span_name=fir": [1],
        "has_error=true": [2],
        "has_error=false": [3, 1],
        "start_time=2026-01-02T00:00:00Z": [3, 2],
        "end_time=2026-01-02T23:00:00Z": [2, 1],
        "limit=1&offset=1": [2],
        "offset=5": [],
    }.items():
        assert [one["trace_id"] for one in await listed(served, query)] == [trace(n) for n in numbers], query
    for query in ("limit=0", "limit=501", "offset=-1", "offset=10001", "has_error=perhaps", "start_time=noon"):
        assert (await served.client.get(f"/api/v1/traces?{query}")).status_code == 400, query


async def test_a_journal_is_a_trace(served: Served, hand: Hand) -> None:
    id = await served.start(payload={"n": 1}, session_id="s")
    item = await hand.claim()
    begun: dict[str, Any] = {"type": "step", "key": "charge", "name": "charge", "fingerprint": None}
    begun["started_at_us"] = served.engine.clock.now_us()
    tried = {**begun, "ok": False, "value": {"message": "away"}, "last": False}
    await hand.report(item, 1, entries=[tried, {**begun, "ok": True, "value": 7, "tries": 2}])
    await hand.report(item, 2, end={"type": "fail", "error": "broken", "detail": {"message": "broken"}})
    trace_id = id.replace("-", "")
    trace = await get(served, trace_id)
    assert (trace["status"], trace["root_span_name"], trace["span_count"]) == ("failed", "workflow.w", 2)
    root, charged = trace["spans"]
    assert (root["span_type"], root["input"], root["error"]) == ("workflow", {"n": 1}, {"message": "broken"})
    assert root["attributes"]["workflow.execution_id"] == id
    assert (charged["name"], charged["span_type"], charged["output"]) == ("charge", "step", 7)
    assert charged["parent_span_id"] == root["span_id"]
    assert [one["name"] for one in charged["events"]] == ["try_failed"]
    assert await get(served, trace_id) == trace, "the same rows, the same spans"
    assert [(one["trace_id"], one["status"]) for one in await listed(served, "has_error=true")] == [
        (trace_id, "failed")
    ]
    assert [len(await listed(served, f"root_span_type={kind}")) for kind in ("workflow", "agent")] == [1, 0]
    # What a worker sends of the same execution is not shown twice; what others send is beside the journal.
    await put(served, span("o", trace_id=trace_id, name="other", span_type="http"))
    assert len((await get(served, trace_id))["spans"]) == 3
    await put(served, span("w", trace_id=trace_id, attributes={"workflow.execution_id": id}))
    assert sorted(one["span_id"] for one in (await get(served, trace_id))["spans"]) == ["o", "w"]
    assert len(await listed(served)) == 1


async def test_spans_of_an_execution_come_home(served: Served, hand: Hand) -> None:
    """A worker's web framework may have spans of its own, which take the place of an execution's parent and trace."""
    id = await served.start()
    await hand.claim()
    child = await served.start("w", {"n": 2}, parent_execution_id=id, step_key="c")
    given = await served.start(otel_traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01")
    _, other = await served.other_project()

    def of(execution_id: str, span_id: str, kind: str = "workflow", **fields: Any) -> dict[str, Any]:
        attributes = {f"{kind}.execution_id": execution_id}
        return span(span_id, trace_id="f" * 32, name=f"{kind}.x", span_type=kind, attributes=attributes, **fields)

    sent = (
        span("request", trace_id="f" * 32, name="POST /execute", span_type="custom", attributes={"code": "run.py"}),
        of(id, "root", parent_span_id="request"),
        of(id, "step", "step", parent_span_id="root"),
        span("inner", trace_id="f" * 32, name="db", span_type="custom", parent_span_id="step", attributes=None),
        span("innermost", trace_id="f" * 32, name="db", span_type="custom", parent_span_id="inner", attributes=None),
        span("round", trace_id="f" * 32, name="db", span_type="custom", parent_span_id="round", attributes=None),
        of(child, "child", "tool", parent_span_id="root"),
        of(given, "given", parent_span_id="request"),
        of(given[:-1] + "~", "nobody", parent_span_id="request"),
        of("\0", "nothing", parent_span_id="request"),
    )
    assert (await put(served, *sent))["accepted"] == len(sent)
    assert (await put(served, of(id, "root", parent_span_id="request", error={"message": "sent again"})))[
        "accepted"
    ] == 1
    found = (await get(served, id.replace("-", "")))["spans"]
    assert {one["span_id"]: one["parent_span_id"] for one in found} == {
        **{"root": None, "step": "root", "child": "root"},
        **{"inner": "step", "innermost": "inner"},  # they say nothing of an execution, and are below one that does
    }
    assert next(one for one in found if one["span_id"] == "root")["error"] == {"message": "sent again"}
    left = {one["span_id"]: one["parent_span_id"] for one in (await get(served, "f" * 32))["spans"]}
    assert left == {
        **{"request": None, "given": "request", "nobody": "request", "nothing": "request", "round": "round"},
    }
    # It is no execution of another project's.
    await put(served, of(id, "theirs"), headers=other)
    assert [one["span_id"] for one in (await get(served, "f" * 32, headers=other))["spans"]] == ["theirs"]
    # Where there is no room in the trace at home, that is said of the right one.
    full = [span(str(n), trace_id=id.replace("-", "")) for n in range(10_000 - len(found))]
    await put(served, *full)
    reply = await put(served, sent[0], of(id, "one too many", parent_span_id="request"))
    assert (reply["accepted"], [one["index"] for one in reply["rejected"]]) == (1, [1])


async def test_waits_and_children_are_spans_of_the_tree(served: Served, hand: Hand) -> None:
    id = await served.start(payload="x" * 300_000)
    item = await hand.claim()
    question = {"type": "wait", "key": "approve", "fingerprint": None, "topic": None, "data": {"title": "?"}}
    await hand.report(item, 1, entries=[question])
    child = await served.start("w", {"n": 2}, parent_execution_id=id, step_key="c")
    await hand.complete(await hand.claim(), 3)
    trace_id = id.replace("-", "")
    trace = await get(served, trace_id)
    spans = {one["name"]: one for one in trace["spans"] if one["parent_span_id"] is not None}
    [root] = [one for one in trace["spans"] if one["parent_span_id"] is None]
    assert (trace["status"], root["input"], root["ended_at"]) == ("running", None, None)
    assert root["attributes"]["perdure.left_out"], "300,000 bytes are too many to be shown"
    assert set(spans) == {"approve", "workflow.w"}
    assert {one["parent_span_id"] for one in spans.values()} == {root["span_id"]}
    assert (spans["approve"]["span_type"], spans["approve"]["ended_at"]) == ("wait", None)
    assert (spans["workflow.w"]["input"], spans["workflow.w"]["output"]) == ({"n": 2}, 3)
    assert spans["workflow.w"]["attributes"]["workflow.execution_id"] == child
    assert (await get(served, child.replace("-", "")))["spans"] == [], "a child is part of its root's trace"
    await served.client.post(f"/api/v1/executions/{id}/resume/approve", json={"data": True})
    answered = next(one for one in (await get(served, trace_id))["spans"] if one["name"] == "approve")
    assert (answered["output"], answered["ended_at"] is not None) == (True, True)
    assert answered["span_id"] == spans["approve"]["span_id"]


# --- OpenTelemetry -------------------------------------------------------------------------------------------------


def request() -> ExportTraceServiceRequest:
    """Two spans of one trace; the second has a bad trace id."""
    found = ExportTraceServiceRequest()
    group = found.resource_spans.add()
    service = group.resource.attributes.add()
    service.key, service.value.string_value = "service.name", "shop"
    scope = group.scope_spans.add()
    for number, trace in enumerate((bytes.fromhex(TRACE), b"short")):
        one = scope.spans.add(trace_id=trace, span_id=bytes([7] * 8), name=f"GET /{number}", kind=2)
        one.start_time_unix_nano, one.end_time_unix_nano = 1_767_268_800_000_000_000, 1_767_268_801_000_000_000
        one.status.code, one.status.message = Status.STATUS_CODE_ERROR, "no"
        for key, kind, value in (
            ("text", "string_value", "a"),
            ("big", "int_value", 2**62),
            ("half", "double_value", 0.5),
            ("yes", "bool_value", True),
            ("raw", "bytes_value", b"\xff"),
        ):
            attribute = one.attributes.add()
            attribute.key = key
            setattr(attribute.value, kind, value)
        many = one.attributes.add()
        many.key = "many"
        many.value.array_value.values.add().kvlist_value.values.add().key = "inner"
        event = one.events.add(name="exception", time_unix_nano=1_767_268_800_500_000_000)
        event.attributes.add().key = "empty"
    return found


def as_json(sent: ExportTraceServiceRequest) -> bytes:
    """The JSON form: as protobuf's, but ids in hex."""
    from google.protobuf.json_format import MessageToDict

    found = MessageToDict(sent)
    for one in found["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId"):
            one[name] = base64.b64decode(one[name]).hex().upper()
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("form", "packed"),
    [("protobuf", False), ("protobuf", True), ("json", True), ("json enums as numbers", False)],
)
async def test_spans_come_in_by_opentelemetrys_protocol(served: Served, form: str, packed: bool) -> None:
    sent = request()
    body, kind = sent.SerializeToString(), "application/x-protobuf"
    if form != "protobuf":
        body, kind = as_json(sent), "application/json"
        if form != "json":
            body = body.replace(b'"STATUS_CODE_ERROR"', b"2").replace(b'"SPAN_KIND_SERVER"', b"2")
    headers = {"content-type": kind, **({"content-encoding": "gzip"} if packed else {})}
    reply = await served.client.post("/v1/traces", content=gzip.compress(body) if packed else body, headers=headers)
    assert (reply.status_code, reply.headers["content-type"]) == (200, kind), reply.text
    if form == "protobuf":
        partial = ExportTraceServiceResponse.FromString(reply.content).partial_success
        assert (partial.rejected_spans, "32 hex digits" in partial.error_message) == (1, True)
    else:
        partial = reply.json()["partialSuccess"]
        assert (partial["rejectedSpans"], "32 hex digits" in partial["errorMessage"]) == ("1", True)
    [one] = (await get(served))["spans"]
    assert (one["name"], one["span_type"], one["span_id"]) == ("GET /0", "server", "07" * 8)
    assert (one["error"], one["ended_at"]) == ({"message": "no"}, "2026-01-01T12:00:01.000000+00:00")
    assert one["attributes"] == {
        "resource.service.name": "shop",
        **{"text": "a", "big": 2**62, "half": 0.5, "yes": True, "raw": "/w==", "many": [{"inner": None}]},
    }
    assert one["events"][0]["name"] == "exception"


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


FORMS = [otlp.PROTOBUF, otlp.JSON]


def many(form: str, count: int, fields: dict[str, Any] | None = None, resource: str = "") -> bytes:
    """A request of `count` spans, with a text in the resource if given."""
    if form == otlp.JSON:
        said = {"attributes": [{"key": "r", "value": {"stringValue": resource}}]} if resource else {}
        spans = [fields or {}] * count
        return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}], "resource": said}]}).encode()
    sent = ExportTraceServiceRequest()
    scope = sent.resource_spans.add().scope_spans.add()
    for _ in range(count):
        scope.spans.add(**(fields or {}))
    group = sent.resource_spans[0].SerializeToString()
    if resource:
        late = ExportTraceServiceRequest().resource_spans.add()
        late.resource.attributes.add(key="r").value.string_value = resource
        group += late.SerializeToString()  # behind the spans, as is allowed
    return b"\x0a" + varint(len(group)) + group


def ids(form: str, n: int) -> dict[str, Any]:
    """A span's own ids and its time, in either form."""
    if form == otlp.JSON:
        return {"traceId": TRACE, "spanId": f"{n:016x}", "name": "n", "startTimeUnixNano": "1767268800000000000"}
    trace_id, span_id = bytes.fromhex(TRACE), n.to_bytes(8, "big")
    return {"trace_id": trace_id, "span_id": span_id, "name": "n", "start_time_unix_nano": 1_767_268_800_000_000_000}


async def export(served: Served, form: str, body: bytes) -> tuple[int, int, str]:
    """The status, how many were rejected, and why."""
    headers = {"content-type": form, "content-encoding": "gzip"}
    reply = await served.client.post("/v1/traces", content=gzip.compress(body), headers=headers)
    if reply.status_code != 200:
        return reply.status_code, 0, reply.json()["error"]
    if form == otlp.JSON:
        partial = reply.json().get("partialSuccess", {})
        return 200, int(partial.get("rejectedSpans", 0)), partial.get("errorMessage", "")
    found = ExportTraceServiceResponse.FromString(reply.content).partial_success
    return 200, found.rejected_spans, found.error_message


@pytest.mark.parametrize("form", FORMS)
async def test_spans_beyond_the_limit_are_counted_and_not_read(
    served: Served, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "SPANS_MAX", 3)
    read: list[int] = []
    kept = otlp._kept

    def noted(*asked: Any, **values: Any) -> Any:
        read.append(1)
        return kept(*asked, **values)

    monkeypatch.setattr(otlp, "_kept", noted)
    status, rejected, why = await export(served, form, many(form, 8, ids(form, 1)))
    assert (status, rejected, why) == (200, 5, "span: the request has more than 3")
    assert len(read) == 3
    assert len((await get(served))["spans"]) == 1


@pytest.mark.parametrize("form", FORMS)
async def test_a_small_request_of_very_many_spans_is_refused_before_they_are_made(served: Served, form: str) -> None:
    """A few thousand bytes that stand for millions of messages."""
    if form == otlp.JSON:
        begin = b'{"resourceSpans":['
        scope = begin + b'{"scopeSpans":[{"spans":['
        sent = [scope + b"{}," * n + b"{}]}]}]}" for n in (200_000, 2_700_000)]
        sent.append(begin + b"{}," * 2_700_000 + b"{}]}")
        tracemalloc.start()  # which sees nothing of protobuf's
    else:
        inner = b"\x12\x00" * (4_000_000 - 10)
        size = varint(len(inner))
        whole = b"\x12" + size + inner
        sent = [b"\x0a" + varint(len(whole)) + whole, b"\x0a" + size + inner, b"\x0a\x00" * 4_000_000]
    try:
        for body in sent:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            status, _, why = await export(served, form, body)
            assert status == 413, why
            assert tracemalloc.get_traced_memory()[1] - before < 10 * otlp.REQUEST_BYTES_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", FORMS)
async def test_what_a_resource_says_is_not_repeated_without_end(
    served: Served, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "KEPT_BYTES_MAX", 10_000)
    status, rejected, why = await export(served, form, many(form, 20, ids(form, 1), "x" * 1_000))
    assert (status, rejected) == (200, 10)
    assert "more than 10,000 bytes" in why
    [one] = (await get(served))["spans"]
    assert one["attributes"] == {"resource.r": "x" * 1_000}
    monkeypatch.setattr(otlp, "ONE_BYTES_MAX", 999)
    assert (await export(served, form, many(form, 20, ids(form, 2), "x" * 1_000)))[1] == 20
    assert (await export(served, form, many(form, 2, {**ids(form, 2), "name": "n" * 1_000})))[1] == 2
    assert (await export(served, form, many(form, 2, ids(form, 2), "x" * 900)))[1] == 0


@pytest.mark.parametrize("form", FORMS)
async def test_a_span_of_very_many_events(served: Served, form: str) -> None:
    fields = {**ids(form, 1), "events": [{}] * 16_385}
    status, rejected, why = await export(served, form, many(form, 1, fields))
    assert (status, rejected, why) == (200, 1, "span.events: holds 16,385 events; the limit is 16,384")


@pytest.mark.parametrize("form", FORMS)
async def test_the_events_of_all_spans_are_counted_before_they_are_read(
    served: Served, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    kept = otlp._kept

    def counted(*args: Any, **values: Any) -> Any:
        read.append(len(values["events"]))
        return kept(*args, **values)

    monkeypatch.setattr(otlp, "_kept", counted)
    fields = {**ids(form, 1), "events": [{}] * 10_000}
    status, _, why = await export(served, form, many(form, 20, fields))
    assert (status, why) == (413, "body: holds more than 100,000 spans, events and other parts; send fewer at a time.")
    assert sum(read) <= 100_000
    text = {**ids(form, 1), "name": "Z" * 20_000}
    assert (await export(served, form, many(form, 1, text)))[:2] == (200, 0)


@pytest.mark.parametrize("value", [{"intValue": "abc"}, {"intValue": None}, {"intValue": "9" * 5_000}])
async def test_a_resource_with_a_number_that_is_none_keeps_no_span_out(served: Served, value: Any) -> None:
    resource = {"attributes": [{"key": "r", "value": value}]}
    group = {"resource": resource, "scopeSpans": [{"spans": [ids(otlp.JSON, 1)]}]}
    assert await export(served, otlp.JSON, json.dumps({"resourceSpans": [group]}).encode()) == (200, 0, "")
    assert len((await get(served))["spans"]) == 1


async def test_fields_of_another_level_are_unknown_there(served: Served) -> None:
    scope = {"spans": [ids(otlp.JSON, 1)], "scopeSpans": "?", "resourceSpans": None}
    group = {"scopeSpans": [scope], "spans": 7}
    body: dict[str, Any] = {"resourceSpans": [group], "spans": {}, "scopeSpans": None}
    assert await export(served, otlp.JSON, json.dumps(body).encode()) == (200, 0, "")
    assert len((await get(served))["spans"]) == 1


async def test_what_is_no_trace_request(served: Served) -> None:
    as_json = {"content-type": "application/json"}
    packed = {**as_json, "content-encoding": "gzip"}
    protobuf = {"content-type": "application/x-protobuf"}
    cases: list[tuple[bytes, dict[str, str], int]] = [
        (b"\xff", protobuf, 400),
        (b"{", as_json, 422),
        (b"[]", as_json, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {**as_json, "content-encoding": "br"}, 415),
        (b"{}", packed, 400),
        (gzip.compress(b"{}")[:-4], packed, 400),
        (gzip.compress(bytes(33 << 20)), packed, 413),
        (gzip.compress(b" " * (8 << 20) + b"{}"), packed, 413),
        (b" " * (8 << 20) + b"{}", as_json, 413),
        (b"\x0a\x02\x12\x05", protobuf, 400),
        (b"\x0a\x80", protobuf, 400),
        (b"\x0a\x02\x0a\x09", protobuf, 400),
        (b"\x0a\x04\x12\x02\x12\x01", protobuf, 400),
        (b"\x0a\x05\x12\x03\x12\x01\xff", protobuf, 400),
        (b"\x0a\x03\x0a\x01\xff", protobuf, 400),
        (b"\x02\x00", protobuf, 400),
        (b"\x0b\x0c", protobuf, 400),
        (b'{"resourceSpans":[1]}', as_json, 400),
        (b'{"resourceSpans":[{"resource":1}]}', as_json, 400),
        (b'{"resourceSpans":[{"scopeSpans":[1]}]}', as_json, 400),
        (b"{}", {**as_json, "authorization": ""}, 401),
        (b"{}", as_json, 200),
    ]
    for body, headers, status in cases:
        reply = await served.client.post("/v1/traces", content=body, headers=headers)
        assert reply.status_code == status, reply.text
        assert reply.json() == {} if status == 200 else reply.json()["error"]


def test_numbers_with_long_exponents_cost_no_more_than_others(no_collector: None) -> None:
    """msgspec takes 8 µs for each: 8 MiB of them kept the event loop for 3.4 s."""

    def cost(kind: str, number: bytes) -> float:
        values = b",".join([b'{"%b":%b}' % (kind.encode(), number)] * 9_000)
        attribute = b'{"key":"a","value":{"arrayValue":{"values":[%b]}}}' % values
        span = b'{"traceId":"%032x","spanId":"%016x","startTimeUnixNano":1,"attributes":[%b]}' % (1, 2, attribute)
        body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[%b]}]}]}' % b",".join([span] * 8)
        begun = time.thread_time()
        assert [type(one).__name__ for one in otlp.spans_of(body, otlp.JSON)] == ["StoredSpan"] * 8
        return time.thread_time() - begun

    for number in (b"1e300", b"-2.5E-310"):
        assert cost("doubleValue", number) < 5 * cost("doubleValue", b"1e20")


async def test_values_are_kept_as_they_are_sent(served: Served) -> None:
    values = {"doubleValue": 1e300, "boolValue": True, "stringValue": "ä", "bytesValue": "YQ==", "intValue": "-7"}
    attributes = [{"key": kind, "value": {kind: value}} for kind, value in values.items()]
    attributes += [
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": 3}, {"doubleValue": 0.5}, {}, None]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"intValue": "4"}}, {}, 5]}}},
        {"key": "none"},
    ]
    span = {"traceId": f"{1:032x}", "spanId": f"{2:016x}", "startTimeUnixNano": "1", "attributes": attributes}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    [kept] = otlp.spans_of(body, otlp.JSON)
    assert isinstance(kept, StoredSpan) and kept.values.attributes is not None
    assert json.loads(bytes(kept.values.attributes)) == values | {
        "intValue": -7,
        "list": [3, 0.5, None, None],
        "map": {"k": 4, "": None},
        "none": None,
    }
