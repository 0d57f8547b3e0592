"""Orders: each is charged once, and shipped."""

import asyncio
from dataclasses import dataclass

from perdure import Context, step, workflow


@dataclass
class Order:
    id: int
    items: int = 1


@step(retry=3)
async def charge(order: Order) -> str:
    return f"receipt-{order.id}"


@step(retry=3)
async def ship(order: Order, number: int) -> str:
    await asyncio.sleep(0.2)  # the parcel service takes its time
    return f"parcel-{order.id}-{number}"


@workflow
async def order(ctx: Context, order: Order) -> str:
    """Each step's outcome is on disk before the next line runs. Killed anywhere, it goes on at that line."""
    ctx.log("order %d with %d items", order.id, order.items)
    receipt = await charge(order)
    await asyncio.sleep(1)  # durable, for three days as well
    parcels = []
    for number in range(1, order.items + 1):
        parcels.append(await ship(order, number))
        ctx.progress(number, order.items, "shipping")
    return f"{receipt}: {', '.join(parcels)}"
