"""What large values cost: `python -m benchmarks.large`.

Embedded on a file: ten small steps with an input of so many bytes, and W1 with a value of so many bytes as its input,
the result of its step and its own result. For each: executions/s, processor time of one, bytes written for one, and the
longest time for which the event loop stood still.
"""

import argparse
import asyncio
import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from benchmarks.figures import bytes_written, cpu_seconds, run_loop
from benchmarks.workflows import app

from perdure import Client, Context
from perdure.embedded import embedded

CALLERS: Final = 16
TICK_SECONDS: Final = 0.001


@app.workflow
async def small10(ctx: Context, value: Any) -> int:
    for _ in range(10):
        await ctx.step("count", int)
    return len(value)


async def same(value: Any) -> Any:
    return value


@app.workflow
async def large1(ctx: Context, value: Any) -> Any:
    return await ctx.step("step", same, value)


def value_of(size: int, text: bool) -> Any:
    """`size` bytes of JSON: one text, or records as a program would send them."""
    if text:
        return {"k": "x" * (size - 8)}
    draw = random.Random(size)
    records: list[dict[str, Any]] = []
    while len(msgspec.json.encode(records)) < size:
        for _ in range(max(1, size // 200)):
            number = draw.randrange(10**6)
            records.append(
                {"id": number, "name": f"customer {number}", "price": round(draw.random() * 100, 2), "tags": ["a", "b"]}
            )
    return records


async def ticks(longest: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK_SECONDS)
        longest[0] = max(longest[0], time.perf_counter() - before - TICK_SECONDS)


async def measure(client: Client, workflow: Any, size: int, text: bool, seconds: float) -> str:
    value = value_of(size, text)
    await (await client.start(workflow, value)).result()
    done, longest = 0, [0.0]
    ticker = asyncio.create_task(ticks(longest))
    begin, cpu, written = time.perf_counter(), cpu_seconds(), bytes_written() or 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - begin < seconds:
            await (await client.start(workflow, value)).result()
            done += 1

    await asyncio.gather(*[caller() for _ in range(CALLERS)])
    took = time.perf_counter() - begin
    ticker.cancel()
    each = ((bytes_written() or 0) - written) / done
    spent = (cpu_seconds() - cpu) / done
    return (
        f"{workflow.name:8} {size:>9,} bytes: {done / took:7,.0f} executions/s, {spent * 1e3:7.2f} ms of processor, "
        f"{each / 1e3:8.1f} KB written ({each / size:.1f} times), loop blocked {longest[0] * 1e3:.0f} ms"
    )


async def main(seconds: float, text: bool) -> None:
    for workflow, sizes in ((small10, (100, 4_000, 60_000, 100_000)), (large1, (100, 100_000, 1_000_000))):
        for size in sizes:
            with TemporaryDirectory() as folder:
                async with embedded(str(Path(folder) / "perdure.db"), app) as client:
                    print(await measure(client, workflow, size, text, seconds), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--text", action="store_true", help="one text in place of records")
    given = parser.parse_args()
    run_loop(main(given.seconds, given.text))
