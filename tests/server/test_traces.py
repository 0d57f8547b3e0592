"""Traces over HTTP: spans come in, each judged alone."""

from typing import Any

from tests.server.serving import Served

BATCH = "/internal/spans/batch"
TRACE = "0190a5f27c1e7b3a9d550242ac120002"


def span(id: str = "00f067aa0ba902b7", **fields: Any) -> dict[str, Any]:
    """A span as a worker sends it."""
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
