"""Workflows that a topic's events start, declared in code."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from perdure import Context, EventBatch, EventTrigger, Registry, TopicEvent, workflow
from perdure.testing import Bench, embedded
from perdure.wire.base.errors import BadValue

app = Registry()
ran: list[object] = []


@app.workflow(trigger_on="orders")
async def each(ctx: Context, event: TopicEvent) -> None:
    assert isinstance(event.created_at, datetime)
    ran.append((event.topic, event.sequence_id, event.data))


@app.workflow(trigger_on=["refunds", EventTrigger("orders", batch_size=2, batch_timeout=timedelta(seconds=30))])
async def several(ctx: Context, what: dict[str, object]) -> None:
    ran.append(len(what["events"]) if "events" in what else what["topic"])  # type: ignore[arg-type]  # a list


@app.workflow(trigger_on=EventTrigger("parcels", batch_size=2))
async def typed(ctx: Context, batch: EventBatch) -> None:
    ran.append([event.data for event in batch.events])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    ran.clear()
    async with embedded(app, skip_time=False) as bench:
        yield bench


async def test_what_code_declares_is_started_by_events(bench: Bench) -> None:
    for n in range(3):
        await bench.publish("orders", {"n": n})
    await bench.settle()
    singles = [one for one in ran if isinstance(one, tuple)]
    assert sorted(singles, key=str) == [("orders", n + 1, {"n": n}) for n in range(3)]
    assert [one for one in ran if isinstance(one, int)] == [2]
    await bench.advance(30)
    await bench.settle()
    assert [one for one in ran if isinstance(one, int)] == [2, 1]
    await bench.publish("refunds", None)
    await bench.publish("parcels", "a")
    await bench.publish("parcels", "b")
    await bench.settle()
    assert ran[-2:] == ["refunds", ["a", "b"]]


async def test_time_skips_to_the_end_of_a_batch() -> None:
    ran.clear()
    async with embedded(app) as bench:
        await bench.publish("orders", 1)
        while 1 not in ran:
            await bench.settle()


def test_what_makes_no_sense_is_refused_where_it_stands() -> None:
    with pytest.raises(BadValue, match="batch_size must be 1 to"):
        EventTrigger("orders", batch_size=0)
    with pytest.raises(BadValue, match="batch_timeout must be 1 to"):
        EventTrigger("orders", batch_timeout=0)
    with pytest.raises(ValueError, match="have the topic 'orders'"):

        @workflow(trigger_on=["orders", EventTrigger("orders")])
        async def twice(ctx: Context, event: TopicEvent) -> None: ...
