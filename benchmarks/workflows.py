"""What is measured: bodies that do nothing, so that what is left is the engine.

Served by the embedded programs here, and over HTTP by `perdure work benchmarks.workflows:app`.
"""

import asyncio
import os
import time
from datetime import datetime
from typing import Final

from perdure import Context, Registry, current_step

app = Registry()

Value = dict[str, str]
PAYLOAD: Final[Value] = {"k": "x" * 91}
"""100 bytes of JSON."""
SIDE_FILE: Final = "PERDURE_BENCHMARK_SIDE_FILE"


async def body(value: Value) -> Value:
    return value


@app.workflow
async def noop1(ctx: Context, value: Value) -> Value:
    return await ctx.step("step", body, value)


@app.workflow
async def steps10(ctx: Context, value: Value) -> Value:
    for _ in range(10):
        value = await ctx.step("step", body, value)
    return value


@app.workflow
async def parent(ctx: Context, children: int) -> int:
    return len((await ctx.map_children(noop1, [PAYLOAD] * children, limit=children)).results())


@app.workflow
async def nothing(ctx: Context, n: int) -> int:
    return n


@app.workflow
async def steps100(ctx: Context, value: Value) -> int:
    for _ in range(100):
        await ctx.step("step", body, value)
    return 100


@app.workflow
async def waits100(ctx: Context, value: Value) -> int:
    return sum([await ctx.run_child(nothing, n) for n in range(100)])


@app.workflow
async def sleeper(ctx: Context, seconds: float) -> None:
    await ctx.sleep(seconds)


@app.workflow
async def sleeper_until(ctx: Context, moment: datetime) -> None:
    await ctx.sleep_until(moment)


async def model(tokens: int) -> None:
    """A model that says something every 10 ms: each token is when it was said, on a clock that all processes share."""
    for _ in range(tokens):
        await asyncio.sleep(0.01)
        current_step().emit("token", time.monotonic_ns())


@app.workflow
async def streaming(ctx: Context, tokens: int) -> None:
    await ctx.step("model", model, tokens)


async def slow_body(seconds: float) -> None:
    """Leaves a line in the side file before it does anything: one write, so that a kill tears none."""
    info = current_step()
    file = os.open(os.environ[SIDE_FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{os.getpid()} {info.execution_id} {info.key}\n".encode())
    finally:
        os.close(file)
    await asyncio.sleep(seconds)


@app.workflow
async def slow10(ctx: Context, seconds: float) -> None:
    for _ in range(10):
        await ctx.step("slow", slow_body, seconds)
