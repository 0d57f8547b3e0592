"""The helpers that users test their workflows with."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import Client, Context, ExecutionFailed, Fatal, Handle, Registry, RetryPolicy, step
from perdure.testing import crash_everywhere, harness

app = Registry()


@step(retry=RetryPolicy(max_attempts=3, initial_seconds=0.0))
async def charge(order_id: int) -> str:
    return f"receipt-{order_id}"


@app.workflow
async def ship(ctx: Context, parcel: int) -> int:
    return await ctx.step("ship", asyncio.sleep, 0, parcel)


@app.workflow
async def order(ctx: Context, order_id: int) -> str:
    receipt = await charge(order_id)
    await ctx.sleep(timedelta(days=1))
    parcels = await asyncio.gather(*[ctx.run_child(ship, n) for n in range(2)])
    answer = await ctx.suspend("approve", {"order": order_id}, answer_type=str)
    event = await ctx.wait_for_event("deliveries", int, match=None)
    return f"{receipt} {parcels} {answer} {event.data}"


@app.workflow
async def doomed(ctx: Context) -> None:
    await charge(1)
    raise Fatal("no way")


async def outside(client: Client, handle: Handle[Any]) -> None:
    await client.publish("deliveries", 3, dedup_key="one")
    await handle.resume("approve", "yes")


def test_a_workflow_survives_a_crash_at_every_commit() -> None:
    report = crash_everywhere(order, 7, registry=app, during=outside)
    assert report.result == "receipt-7 [0, 1] yes 3"
    assert report.crashes >= 8
    assert report.repeats > 0  # steps whose outcome the crash came before


def test_a_failure_is_the_same_after_every_crash() -> None:
    report = crash_everywhere(doomed, None, registry=app)
    assert "no way" in str(report.result)


def test_a_step_that_forgets_is_found_out() -> None:
    runs = 0

    async def forgetful() -> int:
        nonlocal runs
        runs += 1
        return runs

    broken = Registry()

    @broken.workflow
    async def counts_itself(ctx: Context) -> int:
        return await ctx.step("count", forgetful)

    with pytest.raises(AssertionError, match="instead of"):
        crash_everywhere(counts_itself, None, registry=broken)


async def test_time_moves_only_when_it_is_told_to() -> None:
    async with harness(app) as p:
        handle = await p.start(order, 7)
        await outside(p, handle)
        rows = [row.kind.value async for row in until_waiting(p, handle.id)]
        assert rows[-1] == "waiting"
        await p.advance(days=1)
        assert await handle.result(timeout=10) == "receipt-7 [0, 1] yes 3"


async def until_waiting(p: Client, id: str) -> Any:
    async for row in p.watch(id):
        yield row
        if row.kind.value == "waiting":
            return


async def test_a_failed_execution_says_why() -> None:
    async with harness(app) as p:
        handle = await p.start(doomed)
        with pytest.raises(ExecutionFailed, match="no way"):
            await handle.result(timeout=10)
