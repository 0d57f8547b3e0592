"""What a user's type checker sees. Never run: test_types.py gives it to mypy.

Each `assert_type` is a promise. Each `type: ignore[code]` is a mistake that must be found: mypy reports those that it
does not need.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_type

from perdure import (
    ChildHandle,
    Client,
    Context,
    Event,
    ExecutionInfo,
    Handle,
    Mapped,
    Registry,
    RetryPolicy,
    Schedule,
    ScheduledFor,
    Workflow,
    step,
    workflow,
)
from perdure.sdk.clients.sync import SyncHandle
from perdure.wire.agents.approvals import AnswerState


@dataclass
class Order:
    id: int


@dataclass
class Receipt:
    total: float


@step
async def charge(order: Order, currency: str = "EUR") -> Receipt:
    return Receipt(1.0)


@step(retry=RetryPolicy(max_attempts=3), timeout=10)
async def ship(order: Order) -> list[str]:
    return []


@step
def render(receipt: Receipt, *, loud: bool = False) -> str:  # a plain function: it runs in a thread
    return ""


@step(retry=3)
def weigh(order: Order) -> Sequence[float]:
    return []


class Shop:
    @step
    def price(self, order: Order) -> int:
        return 1


async def plain(order: Order, times: int = 1) -> bytes:
    return b""


def sync(a: int, b: str) -> dict[str, int]:
    return {}


@workflow
async def order_flow(ctx: Context, order: Order) -> Receipt:
    return await charge(order)


@workflow(retry=2, on_cancel="wake", run_timeout_seconds=60)
async def nightly(ctx: Context) -> int:
    return 1


@workflow
async def with_default(ctx: Context, order: Order = Order(7)) -> int:  # noqa: B008  # nobody changes it
    return order.id


@workflow(schedule=Schedule("0 9 * * *", timezone="Europe/Berlin", overlap="skip", missed="all", missed_window=60))
async def scheduled(ctx: Context, due: ScheduledFor) -> str:
    assert_type(due.last_timestamp, datetime | None)
    return due.timestamp.isoformat()


Schedule("0 9 * * *", overlap="never")  # type: ignore[arg-type]

app = Registry()


@app.workflow
async def added(ctx: Context, name: str | None) -> tuple[int, str]:
    return 1, ""


@app.workflow(queue="mail")
async def added_with_options(ctx: Context, count: int) -> None: ...


assert_type(order_flow, Workflow[Order, Receipt])
assert_type(nightly, Workflow[None, int])
assert_type(with_default, Workflow[Order | None, int])
assert_type(added, Workflow[str | None, tuple[int, str]])
assert_type(added_with_options, Workflow[int, None])


async def steps(ctx: Context, order: Order) -> None:
    assert_type(await charge(order, "USD"), Receipt)
    assert_type(await ship(order), list[str])
    assert_type(await render(Receipt(1.0), loud=True), str)
    assert_type(await weigh(order), Sequence[float])
    assert_type(await Shop().price(order), int)
    assert_type(await ctx.step(weigh, order, retry=2), Sequence[float])
    assert_type(await ctx.step(plain, order), bytes)
    assert_type(await ctx.step("named", plain, order, times=2), bytes)
    assert_type(await ctx.step("named", plain, order, retry=3, timeout=1.5, key="k"), bytes)
    assert_type(await ctx.step("named", plain, order, 2, retry=RetryPolicy(), fatal=ValueError), bytes)
    assert_type(await ctx.step("named", sync, 1, "b"), dict[str, int])
    assert_type(await ctx.step(sync, 1, "b", retry_if=lambda error: isinstance(error, OSError)), dict[str, int])
    assert_type(await ctx.step(charge, order, retry=2), Receipt)
    assert_type(await ctx.step("lambda", lambda: 5), int)
    assert_type(await ctx.step("partial", functools.partial(plain, order)), bytes)

    await charge("7")  # type: ignore[arg-type]
    await render("7")  # type: ignore[arg-type]
    await weigh()  # type: ignore[call-arg]
    await ctx.step("named", plain, "7")  # type: ignore[arg-type]
    await ctx.step("named", plain, "7", retry=3)  # type: ignore[arg-type,call-arg]
    await ctx.step("named", sync, 1)  # type: ignore[arg-type]
    await ctx.step("named", plain, order, retry="often")  # type: ignore[call-arg]


async def children(ctx: Context, order: Order) -> None:
    assert_type(await ctx.run_child(order_flow, order), Receipt)
    assert_type(await ctx.run_child(nightly), int)
    assert_type(await ctx.run_child(with_default), int)
    assert_type(await ctx.run_child(with_default, order), int)
    assert_type(await ctx.run_child("elsewhere", {"any": 1}), object)
    handle = await ctx.start_child(order_flow, order, tags={"a": "b"}, key="child")
    assert_type(handle, ChildHandle[Receipt])
    assert_type(await handle.result(), Receipt)
    assert_type(await order_flow(ctx, order), Receipt)
    assert_type(await nightly(ctx), int)

    async def orders() -> AsyncIterator[Order]:
        yield order

    done = await ctx.map_children(order_flow, [order], limit=5)
    assert_type(done, Mapped[Receipt])
    assert_type(done.results(), list[Receipt])
    assert_type((await ctx.map_children(order_flow, orders())).results(), list[Receipt])

    await ctx.run_child(order_flow)  # type: ignore[arg-type]
    await ctx.run_child(order_flow, 7)  # type: ignore[misc]
    await ctx.run_child(order_flow, order, tag="a")  # type: ignore[call-overload]
    await ctx.map_children(order_flow, [7])  # type: ignore[misc]


async def together(ctx: Context, order: Order) -> None:
    weights, page = await asyncio.gather(weigh(order), render(Receipt(1.0)))
    assert_type(weights, Sequence[float])
    assert_type(page, str)
    receipt, total, _ = await asyncio.gather(charge(order), ctx.run_child(nightly), ctx.sleep(1))
    assert_type(receipt, Receipt)
    assert_type(total, int)
    done, event = await asyncio.gather(ctx.step("named", plain, order), ctx.wait_for_event("topic", Order))
    assert_type(done, bytes)
    assert_type(event, Event[Order])
    child, answer = await asyncio.gather(ctx.start_child(nightly), ctx.suspend("approve", answer_type=bool))
    assert_type(child, ChildHandle[int])
    assert_type(answer, bool)
    inside, number = await asyncio.gather(order_flow(ctx, order), ctx.publish("topic", order))
    assert_type(inside, Receipt)
    assert_type(number, int)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ctx.step("named", plain, order))
    assert_type(task.result(), bytes)
    assert_type(await asyncio.wait_for(ctx.run_child(nightly), 5), int)


async def waits(ctx: Context) -> None:
    assert_type(await ctx.wait_for_event("topic"), Event[object])
    event = await ctx.wait_for_event("topic", Order, match={"id": 7}, timeout=60)
    assert_type(event, Event[Order])
    assert_type(event.data, Order)
    assert_type(await ctx.suspend("approve", {"n": 1}), object)
    assert_type(await ctx.suspend("approve", answer_type=bool, timeout=60), bool)
    assert_type(await ctx.publish("topic", Order(1)), int)
    assert_type(await ctx.resume("id", "approve", True), AnswerState)


async def client_side(client: Client, order: Order) -> None:
    handle = await client.start(order_flow, order)
    assert_type(handle, Handle[Receipt])
    assert_type(await handle.result(), Receipt)
    assert_type(await (await client.start(nightly)).result(), int)
    assert_type(await client.start("elsewhere", {"any": 1}), Handle[object])
    assert_type(await handle.get(), ExecutionInfo[Receipt])
    assert_type((await handle.get()).created_at, datetime)
    assert_type(client.handle(handle.id), Handle[object])
    assert_type(client.handle(handle.id, order_flow), Handle[Receipt])
    later = await client.start(order_flow, order, key="7", priority=2, delay=timedelta(days=1), tags={"a": "b"})
    assert_type(later, Handle[Receipt])

    scheduled_at = await client.schedules.create(order_flow, "0 9 * * *", input=order, missed="all")
    assert_type(await client.schedules.next(scheduled_at.id), Sequence[datetime])
    assert_type(await client.schedules.run(scheduled_at.id), Handle[object])
    await client.start(order_flow)  # type: ignore[arg-type]
    await client.start(order_flow, 7)  # type: ignore[misc]
    await client.start(order_flow, order, tag="a")  # type: ignore[call-overload]
    await client.start(order_flow, order, priority="high")  # type: ignore[call-overload]


def client_without_a_loop(order: Order) -> None:
    client = Client.sync()
    assert_type(client.start(order_flow, order, key="7"), SyncHandle[Receipt])
    assert_type(client.start(nightly, delay=60).result(), int)
    client.start(order_flow, order, tag="a")  # type: ignore[call-overload]


@workflow  # type: ignore[arg-type]
def not_async(ctx: Context) -> int:
    return 1


@step(retry="often")  # type: ignore[call-overload,untyped-decorator]
def tried_often() -> int:
    return 1
