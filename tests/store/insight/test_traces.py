"""Spans from outside: kept once each, within limits, and deleted with the execution or by age."""

from typing import Any

import pytest
from tests.store.world import PROJECT, SECOND, World

from perdure.store.base.interface import Rows, query, verb
from perdure.store.verbs import retention
from perdure.store.verbs.insight import traces
from perdure.wire.insight.journal_spans import trace_id_of
from perdure.wire.insight.traces import StoredSpan

DAY_US = 86_400 * SECOND
TRACE = "0190a5f27c1e7b3a9d550242ac120002"


def span(world: World, id: str = "s1", trace: str = TRACE, **fields: Any) -> StoredSpan:
    values = {
        "parent_span_id": None,
        "name": "a span",
        "span_type": "step",
        "started_at_us": world.now_us,
        "ended_at_us": world.now_us + SECOND,
        **fields,
    }
    return StoredSpan(trace, id, **values)


async def put(world: World, *spans: StoredSpan) -> list[str]:
    return await world.store.write(
        traces.put_spans(project_id=PROJECT, trace_id=spans[0].trace_id, spans=spans, now_us=world.now_us)
    )


@verb(reads=True)
async def _known(*, trace_id: str, ids: str) -> Rows:
    return await query("known_spans", project_id=PROJECT, trace_id=trace_id, ids=ids)


async def known(world: World, trace: str = TRACE) -> set[str]:
    return {row[0] for row in await world.store.read(_known(trace_id=trace, ids='["s1", "s2", "s3"]'))}


async def prune(world: World, days: float) -> int:
    before_us = world.now_us - int(days * DAY_US)
    deleted, _, _ = await world.store.write(
        retention.prune(
            after=("", ""), finished_before_us=before_us, idempotency_before_us=before_us, now_us=world.now_us, limit=10
        )
    )
    return deleted


async def test_a_trace_has_room_for_so_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "SPANS_MAX", 2)
    assert await put(world, span(world, "s1"), span(world, "s2"), span(world, "s3")) == ["s3"]
    assert await put(world, span(world, "s3"), span(world, "s2", name="again")) == ["s3"]
    assert await known(world) == {"s1", "s2"}


async def test_spans_go_with_their_execution(world: World) -> None:
    id = await world.start(accept_early=True)
    trace = trace_id_of(id)
    await put(world, span(world, trace=trace))
    await put(world, span(world))
    world.advance(2 * 86_400)
    assert await prune(world, 1) == 1, "of no execution, and old"
    assert (await known(world), await known(world, trace)) == (set(), {"s1"})
    await world.cancel(id)
    await world.store.write(retention.delete(project_id=PROJECT, execution_id=id))
    assert await known(world, trace) == set()
    await put(world, span(world, trace=trace))
    world.advance(2 * 86_400)
    assert await prune(world, 1) == 1, "what comes after the execution has gone is of none"
