"""The program that test_restart kills: works through executions whose steps append to a side file.

    python survivor.py STORE SIDE_FILE EXECUTIONS

It starts them unless they are there, waits for all, and prints the results. Each line of the side file is one run of a
step's body: `key step`.
"""

import asyncio
import os
import sys
import threading
from pathlib import Path

from perdure.embedded import embedded
from perdure.engine.base.settings import EngineSettings
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry

STEPS = 5
# Where others may use the store, a killed process is waited for that long.
SETTINGS = EngineSettings(lease_seconds=1.0)
app = Registry()
SIDE = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(os.devnull)
WRITING = threading.Lock()


def note(line: str) -> None:
    """Write once, so that a kill tears no line, and under a lock, since Windows seeks the end before the write."""
    with WRITING:
        file = os.open(SIDE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode() + b"\n")
        os.close(file)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@app.workflow
async def leaf(ctx: Context, name: str) -> int:
    def work(n: int) -> int:
        note(f"{name} {n}")
        return n

    total = 0
    for n in range(STEPS):
        total += await ctx.step("work", work, n)
        if n == 2:
            await ctx.sleep(0.005)
    return total


@app.workflow
async def family(ctx: Context, name: str) -> int:
    child = await ctx.start_child(leaf, f"{name}-child")
    own = await leaf(ctx, name)
    event = await ctx.wait_for_event("release", int)
    return own + await child.result() + event.data


async def main(store: str, executions: int) -> None:
    async with embedded(store, app, settings=SETTINGS) as p:
        handles = [await p.start(family, f"e{n}", key=f"e{n}") for n in range(executions)]
        say("started")
        await p.publish("release", 1000, dedup_key="once")
        say(" ".join([str(await handle.result()) for handle in handles]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[3])))
