"""The workflows whose recorded journals every later release must replay. Never change one: add another beside it."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perdure import ChildFailed, Client, Context, Handle, Registry, RetryPolicy, StepFailed, step

app = Registry()


@dataclass
class Item:
    name: str
    cents: int


@step(retry=RetryPolicy(max_attempts=3, initial_seconds=0.0))
async def price(item: Item) -> int:
    return item.cents * 2


async def fails(text: str) -> None:
    raise ValueError(text)


def in_a_thread(n: int) -> int:
    return n + 1


@app.workflow
async def steps_in_every_way(ctx: Context, items: list[Item]) -> list[int]:
    first = await price(items[0])
    both = await asyncio.gather(*[price(item) for item in items])
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.step("thread", in_a_thread, n)) for n in range(3)]
    try:
        await ctx.step("fails", fails, "on purpose")
    except StepFailed as error:
        caught = len(str(error))
    return [first, *both, *(task.result() for task in tasks), caught]


@app.workflow
async def time_and_chance(ctx: Context) -> str:
    await ctx.sleep(timedelta(milliseconds=20))
    chosen = ctx.random.choice(["a", "b", "c"])
    try:
        async with asyncio.timeout(0.02):
            await ctx.wait_for_event("never")
    except TimeoutError:
        chosen += " timed out"
    return f"{chosen} {ctx.uuid()}"


@app.workflow
async def small(ctx: Context, n: int) -> int:
    if n == 2:
        raise ValueError("two is refused")
    return await ctx.step("double", in_a_thread, n)


@app.workflow
async def family(ctx: Context) -> list[int]:
    done = await ctx.map_children(small, range(4), limit=2)
    failed = len(done.failures)
    handle = await ctx.start_child(small, 10)
    try:
        await ctx.run_child(small, 2)
    except ChildFailed:
        failed += 1
    return [await handle.result(), failed]


@app.workflow
async def conversation(ctx: Context, topic: str) -> str:
    await ctx.publish(topic, {"n": 1})
    event = await ctx.wait_for_event(topic, match={"n": 1})
    answer = await ctx.suspend("approve", {"asked": True}, answer_type=str)
    return f"{event.sequence_id} {answer}"


@app.workflow(on_cancel="wake")
async def cleans_up(ctx: Context) -> None:
    try:
        await ctx.suspend("for ever")
    finally:
        await ctx.step("clean up", in_a_thread, 1)


async def outside(client: Client, handle: Handle[Any], name: str) -> None:
    """What happens around an execution while its journal is recorded."""
    if name == "conversation":
        await handle.resume("approve", "yes")
    if name == "cleans_up":
        async for row in client.watch(handle.id):
            if row.kind.value == "waiting":
                await handle.cancel()
                return


INPUTS: dict[str, Any] = {
    "steps_in_every_way": [Item("saw", 950), Item("axe", 1200)],
    "time_and_chance": None,
    "family": None,
    "conversation": "talk",
    "cleans_up": None,
}
