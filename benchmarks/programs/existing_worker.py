"""A worker of `polos-sdk`, unmodified, with one workflow of so many steps. Run in the package's own environment."""
# mypy: ignore-errors

import asyncio
import os
from typing import Any

from polos import Polos, WorkflowContext, workflow


@workflow(id="steps")
async def steps(ctx: WorkflowContext, payload: dict[str, Any]):
    async def one():
        return {"sum": payload["steps"]}

    for number in range(payload["steps"]):
        await ctx.step.run(f"step {number}", one)
    return {"steps": payload["steps"]}


async def main() -> None:
    polos = Polos(port=int(os.environ["WORKER_URL_PORT"]))
    await polos.start()
    print("online", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
