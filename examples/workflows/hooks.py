"""Hooks around workflows: a decorator notes the begin and the end of each execution in steps, recorded once."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

from perdure import Context, Registry, step
from perdure.testing import embedded

registry = Registry()
NOTES: list[str] = []
T = TypeVar("T")
R = TypeVar("R")


@step
async def note(text: str) -> None:
    NOTES.append(text)


def noted(code: Callable[[Context, T], Coroutine[Any, Any, R]]) -> Callable[[Context, T], Coroutine[Any, Any, R]]:
    @wraps(code)
    async def run(ctx: Context, value: T) -> R:
        await note(f"{ctx.workflow_id} begins with {value!r}")
        try:
            result = await code(ctx, value)
        except Exception as error:
            await note(f"{ctx.workflow_id} failed: {error}")
            raise
        await note(f"{ctx.workflow_id} gave {result!r}")
        return result

    return run


@registry.workflow
@noted
async def order(ctx: Context, number: int) -> str:
    await ctx.sleep(3_600)
    return f"order {number} is paid"


async def main() -> list[str]:
    NOTES.clear()
    async with embedded(registry) as p:
        await (await p.start(order, 7)).result()
    return NOTES


if __name__ == "__main__":
    print(asyncio.run(main()))
