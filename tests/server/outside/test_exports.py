"""Spans go to a collector once each, even after replay or an outage, with the collector's headers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.kit.polling import until
from tests.server.serving import Hand, Served, serving

from perdure.engine.outside import exports
from perdure.engine.outside.exports import destination
from perdure.wire.base.errors import BadRequest


class Collector:
    """Takes spans, and gives prepared answers."""

    def __init__(self) -> None:
        self.status = 200
        self.requests = 0
        self.headers: list[str] = []
        self.spans: list[Any] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
                )
                body = await reader.readexactly(length)
                self.requests += 1
                self.headers = head.splitlines()
                if self.status == 200:
                    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                        self.spans += [span for scope in group.scope_spans for span in scope.spans]
                writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\n\r\n".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    server = await asyncio.start_server(collector.answer, "127.0.0.1", 0)
    collector.port = server.sockets[0].getsockname()[1]
    try:
        yield collector
    finally:
        server.close()


@asynccontextmanager
async def exporting(database: str, collector: Collector) -> AsyncIterator[Served]:
    async with serving(
        database, otlp_endpoint=f"http://127.0.0.1:{collector.port}", otlp_headers=("x-key=secret",)
    ) as served:
        exports_begun = served.engine.exports
        await until(lambda: served.project_id in exports_begun._begun)
        yield served


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(exports, "AWAY_SECONDS_MAX", 0.1)


async def run(served: Served, hand: Hand) -> str:
    """One execution with a step."""
    id = await served.start()
    item = await hand.claim()
    step = {"type": "step", "key": "s", "name": "s", "fingerprint": None, "started_at_us": 1}
    tried = {**step, "ok": False, "value": {"message": "away"}, "last": False}
    await hand.report(item, 1, entries=[tried, {**step, "ok": True, "value": 1, "tries": 2}])
    await hand.report(item, 2, end={"type": "complete", "result": {"secret": 1}})
    return id


async def test_each_span_is_sent_once(database: str) -> None:
    async with collecting() as collector:
        collector.status = 503  # away at first
        async with exporting(database, collector) as served:
            hand = Hand(served.client)
            await hand.register()
            ids = [await run(served, hand) for _ in range(3)]
            await until(lambda: collector.requests >= 2)
            assert collector.spans == []
            collector.status = 200
            await until(lambda: served.engine.stats.counted.get("spans_exported") == 6)
            assert "x-key: secret" in [line.lower() for line in collector.headers]
        async with exporting(database, collector) as served:  # another server, later
            hand = Hand(served.client)
            await hand.register()
            ids.append(await run(served, hand))
            await until(lambda: served.engine.stats.counted.get("spans_exported") == 2)
    found = [(span.trace_id.hex(), span.name) for span in collector.spans]
    assert sorted(found) == sorted((id.replace("-", ""), name) for id in ids for name in ("s", "workflow.w"))
    assert len(found) == len({span.span_id for span in collector.spans}) == 8
    [event] = next(span for span in collector.spans if span.name == "s").events
    assert (event.name, event.attributes[0].value.string_value) == ("try_failed", "away")
    assert not [span for span in collector.spans if b"secret" in span.SerializeToString()], "values stay inside"


async def test_what_a_collector_refuses_is_not_sent_again(database: str, caplog: pytest.LogCaptureFixture) -> None:
    async with collecting() as collector, exporting(database, collector) as served:
        hand = Hand(served.client)
        await hand.register()
        collector.status = 400
        await run(served, hand)
        await until(lambda: "spans_refused" in served.engine.stats.counted)
        collector.status = 200
        second = await run(served, hand)
        await until(lambda: len(collector.spans) == 2)
        assert {span.trace_id.hex() for span in collector.spans} == {second.replace("-", "")}
    assert "refused 2 spans (400)" in caplog.text


def test_where_spans_go() -> None:
    assert destination("", ()) == (None, {})
    url = "http://collector:4318/v1/traces"
    assert destination("http://collector:4318", ("A=b=c",)) == (url, {"a": "b=c"})
    assert destination(url, ()) == (url, {})
    for endpoint, headers in (("collector:4318", ()), ("http://x", ("nonsense",))):
        with pytest.raises(BadRequest, match="Setting otlp"):
            destination(endpoint, headers)
