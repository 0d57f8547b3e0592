"""Schedules: a report on each weekday at nine in Berlin. Time is skipped here, so that a week takes a moment."""

import asyncio

from perdure import Context, Registry, Schedule, ScheduledFor
from perdure.testing import embedded

registry = Registry()


@registry.workflow(schedule=Schedule("0 9 * * MON-FRI", timezone="Europe/Berlin"))
async def report(ctx: Context, due: ScheduledFor) -> None:
    await ctx.publish("reports", f"{due.timestamp:%A at %H:%M}")


@registry.workflow
async def a_week(ctx: Context) -> list[str]:
    await ctx.sleep(7 * 86_400)
    found: list[str] = []
    after = 0
    for _ in range(5):
        event = await ctx.wait_for_event("reports", after=after, data_type=str)
        found.append(event.data)
        after = event.sequence_id
    return found


async def main() -> list[str]:
    async with embedded(registry) as p:
        return await (await p.start(a_week)).result()


if __name__ == "__main__":
    print(asyncio.run(main()))
