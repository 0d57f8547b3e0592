"""Shared state: one execution holds the stock, and orders ask it by events. It decides one request after the other.

Its state is its local variable: after a crash the recorded events bring it back.
"""

import asyncio

from msgspec import Struct

from perdure import Context, Registry
from perdure.testing import embedded

registry = Registry()


class Take(Struct):
    order: int
    pieces: int


class Answer(Struct):
    granted: bool
    left: int


@registry.workflow
async def stock(ctx: Context, pieces: int) -> int:
    """Ends when nothing is left. A stock for months would start its successor after some thousand events."""
    after = 0
    while pieces > 0:
        event = await ctx.wait_for_event("stock", after=after, data_type=Take)
        after = event.sequence_id
        granted = event.data.pieces <= pieces
        if granted:
            pieces -= event.data.pieces
        await ctx.publish("answers", {"order": event.data.order, "granted": granted, "left": pieces})
    return after


@registry.workflow
async def order(ctx: Context, request: Take) -> Answer:
    await ctx.publish("stock", request)
    answer = await ctx.wait_for_event("answers", match={"order": request.order}, data_type=Answer)
    return answer.data


async def main() -> list[Answer]:
    async with embedded(registry) as p:
        held = await p.start(stock, 5)
        answers = [await (await p.start(order, Take(number, 2))).result() for number in (1, 2, 3)]
        await (await p.start(order, Take(4, answers[-1].left))).result()
        await held.result()
    return answers


if __name__ == "__main__":
    print(asyncio.run(main()))
