"""Forms: the workflow asks a person, and pages show a field for each field of the answer's type.

Here the program answers itself. Otherwise the Inbox of the dashboard, `perdure approve` or the API does.
"""

import asyncio
from contextlib import aclosing
from typing import Literal

from msgspec import Struct

from perdure import Context, Registry
from perdure.testing import embedded

registry = Registry()


class Shipping(Struct):
    way: Literal["land", "air"]
    boxes: int
    insured: bool = False


@registry.workflow
async def parcel(ctx: Context, number: int) -> str:
    chosen = await ctx.suspend("ship", {"parcel": number}, answer_type=Shipping, timeout=86_400)
    return f"parcel {number} goes by {chosen.way} in {chosen.boxes} boxes"


async def main() -> str:
    async with embedded(registry, skip_time=False) as p:
        handle = await p.start(parcel, 7)
        async with aclosing(handle.stream()) as items:
            async for item in items:
                if item.kind == "question":
                    await handle.resume(item.data["step_key"], {"way": "air", "boxes": 2})
                    break
        return await handle.result()


if __name__ == "__main__":
    print(asyncio.run(main()))
