"""Event triggers: each order that is published starts an execution, and each ten orders make a page of the ledger."""

import asyncio

from perdure import Context, EventBatch, EventTrigger, Registry, TopicEvent
from perdure.testing import embedded

registry = Registry()


@registry.workflow(trigger_on="orders")
async def confirm(ctx: Context, event: TopicEvent) -> None:
    await ctx.publish("done", f"confirmed {event.data}")


@registry.workflow(trigger_on=EventTrigger("orders", batch_size=10))
async def book(ctx: Context, batch: EventBatch) -> None:
    await ctx.publish("done", f"booked {len(batch.events)} orders")


@registry.workflow
async def watch(ctx: Context) -> list[str]:
    """Eleven events come: ten confirmations and one page."""
    lines: list[str] = []
    after = 0
    while len(lines) < 11:
        event = await ctx.wait_for_event("done", after=after, data_type=str)
        lines.append(event.data)
        after = event.sequence_id
    return sorted(lines)


async def main() -> list[str]:
    async with embedded(registry) as p:
        watching = await p.start(watch)
        for number in range(10):
            await p.publish("orders", number)
        return await watching.result()


if __name__ == "__main__":
    print(asyncio.run(main()))
