"""Queues: at most one download per customer at a time, and four in all. An execution that waits holds no worker."""

import asyncio
from collections import Counter

from perdure import Context, Queue, Registry, step
from perdure.testing import embedded

registry = Registry()
RUNNING: Counter[str] = Counter()
MOST: Counter[str] = Counter()


@step
async def fetch(customer: str) -> str:
    for each in (customer, "all"):
        RUNNING[each] += 1
        MOST[each] = max(MOST[each], RUNNING[each])
    await asyncio.sleep(0.01)
    for each in (customer, "all"):
        RUNNING[each] -= 1
    return f"a file of {customer}"


@registry.workflow(queue=Queue("downloads", concurrency_limit=1, total_limit=4))
async def download(ctx: Context, customer: str) -> str:
    return await fetch(customer)


async def main() -> dict[str, int]:
    """The most that ran at once, by customer and in all."""
    MOST.clear()
    async with embedded(registry, skip_time=False) as p:
        customers = [f"customer-{number % 6}" for number in range(30)]
        handles = [await p.start(download, customer, concurrency_key=customer) for customer in customers]
        await asyncio.gather(*[handle.result() for handle in handles])
    return dict(MOST)


if __name__ == "__main__":
    print(asyncio.run(main()))
