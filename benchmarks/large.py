"""What a large input costs the steps after it: `python -m benchmarks.large`.

One execution at a time, embedded on a file: a hundred steps with an input of so many bytes, the least of three. And
the bytes that the process wrote for one.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.figures import bytes_written, run_loop

from perdure import Context, workflow
from perdure.embedded import embedded

SIZES: Final = (100, 60_000, 1 << 20, 7 << 20)
STEPS: Final = 100
ROUNDS: Final = 3


@workflow
async def counts(ctx: Context, text: str) -> int:
    for _ in range(STEPS):
        await ctx.step("count", int)
    return len(text)


async def main() -> None:
    with TemporaryDirectory() as folder:
        async with embedded(str(Path(folder) / "perdure.db")) as p:
            await (await p.start(counts, "first")).result()
            for size in SIZES:
                seconds, written = [], []
                for _ in range(ROUNDS):
                    began, before = time.perf_counter(), bytes_written() or 0
                    assert await (await p.start(counts, "x" * size)).result() == size
                    seconds.append(time.perf_counter() - began)
                    written.append((bytes_written() or 0) - before)
                print(f"{size:>10,} bytes: {min(seconds) * 1e3:6.0f} ms, {min(written) / 1e6:6.1f} MB written")


if __name__ == "__main__":
    run_loop(main())
