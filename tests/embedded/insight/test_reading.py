"""What a program reads about executions: decoded values and times."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.embedded.house import House, reaches

from perdure import BadRequest, BadValue, Context, Registry
from perdure.engine.base.clock import ManualClock
from perdure.wire.base.status import Phase


@dataclass
class Order:
    id: int
    lines: list[str]


@dataclass
class Receipt:
    total: float


app = Registry()


@app.workflow
async def order(ctx: Context, order: Order) -> Receipt:
    ctx.progress(1, 2, "packing")
    await ctx.wait_for_event("go")
    return Receipt(2.5)


@app.workflow
async def other(ctx: Context) -> str:
    return "no receipt"


NOW = datetime(2026, 11, 30, 7, 0, 0, 123456, tzinfo=UTC)


async def test_input_result_progress_tags_and_times_are_values_of_python(house: House) -> None:
    clock = ManualClock(int(NOW.timestamp() * 1_000_000))
    async with house.open(app, clock=clock) as p:
        handle = await p.start(order, Order(7, ["tea"]), key="order-7", tags={"shop": "berlin"})
        await reaches(handle, Phase.WAITING)
        one = await handle.get()
        assert (one.status, one.phase, one.result, one.completed_at) == ("running", "waiting", None, None)
        assert (one.input, one.progress) == (Order(7, ["tea"]), {"done": 1, "total": 2, "text": "packing"})
        assert one.tags == {"shop": "berlin"}
        assert one.created_at == NOW and one.created_at.utcoffset() == timedelta(0)
        await p.publish("go", None)
        await handle.result()
        assert (await handle.get()).result == Receipt(2.5)
        by_id = await p.get(handle.id)
        assert (by_id.input, by_id.result) == ({"id": 7, "lines": ["tea"]}, {"total": 2.5})
        assert (bytes(by_id.raw.payload), by_id.raw.created_at_us) == (b'{"id":7,"lines":["tea"]}', clock.now_us())
        [listed] = (await p.list()).executions
        assert (listed.id, listed.result, listed.tags) == (handle.id, {"total": 2.5}, {"shop": "berlin"})


async def test_the_repr_tells_an_execution_in_a_line(house: House) -> None:
    async with house.open(app, clock=ManualClock(int(NOW.timestamp() * 1_000_000))) as p:
        handle = await p.start(order, Order(7, ["x" * 200]), key="order-7")
        await p.publish("go", None)
        await handle.result()
        shown = repr(await handle.get())
    assert shown.startswith(f"<Execution {handle.id}, order completed, key='order-7', input={{'id': 7, 'lines': ['xxx")
    assert "x…, progress={'done': 1" in shown and "result={'total': 2.5}" in shown
    assert shown.endswith("created_at=2026-11-30T07:00:00Z>")


async def test_values_that_do_not_fit_the_workflow_are_named(house: House) -> None:
    async with house.open(app) as p:
        handle = await p.start(other)
        await handle.result()
        one = await p.handle(handle.id, order).get()
        with pytest.raises(BadValue, match=r"^result: "):
            _ = one.result
        assert one.raw.result is not None and "no receipt" in repr(one)


@pytest.fixture
def findable() -> Registry:
    app = Registry()

    @app.workflow
    async def child(ctx: Context) -> None: ...

    @app.workflow
    async def parent(ctx: Context) -> None:
        await ctx.run_child(child)

    return app


async def test_lists_are_asked_for_by_name_and_go_on_over_pages(house: House, findable: Registry) -> None:
    parent = findable["parent"]
    async with house.open(findable) as p:
        handles = [
            await p.start(parent, tags={"customer": name, "shop": shop})
            for name, shop in (("ann", "a"), ("ann", "b"), ("ben", "b"), ("ann, b", "b"))
        ]
        for handle in handles:
            await handle.result()
        ids = [handle.id for handle in handles]

        async def found(**filters: Any) -> list[str]:
            return [one.id async for one in p.list(limit=2, **filters)]

        assert await found(roots_only=True) == ids[::-1]
        assert await found(workflow=parent) == await found(workflow="parent", status="completed") == ids[::-1]
        assert len(await found(workflow=[parent.name, "child"])) == len(await found()) == 8
        assert await found(tags={"customer": "ann"}) == [ids[1], ids[0]]
        assert await found(tags={"customer": "ann", "shop": "b"}) == [ids[1]]
        assert await found(tags={"shop": "b", "customer": "ann, b"}) == [ids[3]]
        assert await found(status=["failed", "pending"]) == []
        children = [one async for one in p.list(parent=ids[0])]
        assert [(one.workflow_id, one.parent_execution_id) for one in children] == [("child", ids[0])]
        first = await p.get(ids[0])
        assert await found(created_before=first.created_at) == []
        page = await p.list(workflow=parent, limit=3)
        assert [one.id for one in page.executions] == ids[:0:-1]
        following = await page.next()
        assert following is not None and [one.id for one in following.executions] == ids[:1]
        assert following.next_cursor is None and await following.next() is None
        assert [one.id async for one in page] == ids[::-1]


async def test_a_wrong_filter_is_refused(house: House, findable: Registry) -> None:
    async with house.open(findable) as p:
        with pytest.raises(TypeError, match=r"list\(\) has no filter 'workflows'; it takes workflow, status"):
            await p.list(workflows="a")  # type: ignore[call-arg]
        with pytest.raises(BadRequest, match="'done' is not one of cancelled, completed"):
            await p.list(status="done")
        with pytest.raises(BadValue, match=r"tags\.customer: must be text"):
            await p.list(tags={"customer": 7})  # type: ignore[dict-item]
        with pytest.raises(BadValue, match="`created_after` needs a time zone"):
            await p.list(created_after=NOW.replace(tzinfo=None))
