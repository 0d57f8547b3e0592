"""The workflow whose journals have holds, acts, a retry and a fork. Never change it: add another beside it.

The source fails at its last step. The retry goes on from there, and the fork from the answer, with another first value.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from tests.kit.polling import until

from perdure import Client, Context, ExecutionFailed, Handle, step, workflow
from perdure.wire.steering.acts import Action

LONG = 3_600.0
overtaken = asyncio.Event()
"""An act has given the running step a value."""
mended = asyncio.Event()


async def double(n: int) -> int:
    return 2 * n


@step(on_failure="hold")
async def held(n: int) -> int:
    raise ValueError(f"{n} is held")


@step(on_failure="hold")
async def held_too(n: int) -> int:
    raise ValueError(f"{n} is held, too")


async def slow(n: int) -> int:
    await overtaken.wait()
    return n


async def last(n: int) -> int:
    if not mended.is_set():
        raise ValueError(f"{n} fails")
    return n


@workflow
async def steered(ctx: Context, n: int) -> list[Any]:
    first = await ctx.step("first", double, n)
    given, _ = await asyncio.gather(held(n), ctx.sleep(LONG))
    caught = await asyncio.gather(held_too(n), return_exceptions=True)
    took = await ctx.step("slow", slow, n)
    event = await ctx.wait_for_event("never", timeout=LONG, key="event")
    try:
        answer = await ctx.suspend("answer", timeout=LONG)
    except TimeoutError:
        answer = "no answer"
    return [first, given, len(caught), took, event.data, answer, await ctx.step("last", last, first)]


ACTS = (
    ("held", Action.TRY, None),
    ("held", Action.COMPLETE, 5),
    ("2/timer", Action.FIRE, None),
    ("held_too", Action.FAIL, None),
    ("slow", Action.COMPLETE, 7),
    ("event", Action.COMPLETE, "given"),
    ("answer", Action.TIME_OUT, None),
)


async def around_steered(client: Client, handle: Handle[Any]) -> None:
    """Each act as soon as its call is pending."""
    for key, action, value in ACTS:

        async def is_pending(key: str = key, action: Action = action) -> bool:
            return any(call.key == key and action in call.actions for call in await client.pending(handle.id))

        await until(is_pending)
        await client.act(handle.id, action.value, key=key, value=value, note=f"{action} {key}")
        if key == "slow":
            overtaken.set()
    with suppress(ExecutionFailed):
        await handle.result()
    mended.set()
