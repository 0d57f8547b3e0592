"""A durable agent beside the plain one, on a model that answers at once: `python -m benchmarks.agents --seconds 5`.

A run has two requests to the model and one call of a tool. Plain: `agent.run`. Durable: start to result, engine and
worker in this process, every outcome on disk. Both take turns, one caller each for the times, several for the rates.
The processor time of a run (`cpu`) is the least of many short rounds, and says something on a busy machine, too.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import percentiles, run_loop
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from perdure import Registry
from perdure.agents import durable
from perdure.embedded import embedded

CALLERS: Final = 16
TURNS: Final = 4
ROUNDS: Final = 25


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    if len(messages) == 1:
        return ModelResponse([ToolCallPart("temperature", {"city": "Rome"}, tool_call_id="call_1")])
    return ModelResponse([TextPart("It is 21 degrees.")])


agent = Agent(FunctionModel(answer), name="weather")


@agent.tool_plain
async def temperature(city: str) -> int:
    return 21


weather = durable(agent)


async def _rate(run: Callable[[], Awaitable[Any]], seconds: float, callers: int) -> tuple[float, list[float]]:
    """Runs per second, and how long each took in ms."""
    times: list[float] = []
    begin = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - begin < seconds or not times:
            start = time.perf_counter()
            await run()
            times.append((time.perf_counter() - start) * 1e3)

    await asyncio.gather(*[caller() for _ in range(callers)])
    return len(times) / (time.perf_counter() - begin), times


async def _cpu_ms(run: Callable[[], Awaitable[Any]]) -> float:
    """The processor time of a run, in a round of several callers."""
    begin = time.process_time()
    await asyncio.gather(*[run() for _ in range(CALLERS)])
    return (time.process_time() - begin) * 1e3 / CALLERS


async def measure(seconds: float, store: str) -> dict[str, Any]:
    async with embedded(store, Registry(weather)) as client:

        async def plain() -> None:
            assert (await agent.run("How warm is it?")).output == "It is 21 degrees."

        async def ours() -> None:
            assert await weather.run(client, "How warm is it?") == "It is 21 degrees."

        await _rate(plain, seconds / 10, 1)
        await _rate(ours, seconds / 10, 1)
        alone: list[float] = []
        alone_plain: list[float] = []
        rates: dict[str, list[float]] = {"plain": [], "ours": [], "ours_several": []}
        for _ in range(TURNS):
            rate, times = await _rate(plain, seconds / TURNS, 1)
            rates["plain"].append(rate)
            alone_plain += times
            rate, times = await _rate(ours, seconds / TURNS, 1)
            rates["ours"].append(rate)
            alone += times
            rates["ours_several"].append((await _rate(ours, seconds / TURNS, CALLERS))[0])
        rounds = [(await _cpu_ms(plain), await _cpu_ms(ours)) for _ in range(ROUNDS)]
    plain_cpu, cpu = (min(found) for found in zip(*rounds, strict=True))
    best = {name: sorted(found)[len(found) // 2] for name, found in rates.items()}
    return {
        "plain_runs_per_s": best["plain"],
        "runs_per_s": best["ours_several"],
        "runs_per_s_one_caller": best["ours"],
        "of_plain": best["ours_several"] / best["plain"],
        "plain_cpu_ms": plain_cpu,
        "cpu_ms": cpu,
        "of_plain_cpu": plain_cpu / cpu,
        "plain_p50_ms": percentiles(alone_plain)["p50_ms"],
        **percentiles(alone),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        print(json.dumps(run_loop(measure(given.seconds, str(Path(folder) / "perdure.db")))))


if __name__ == "__main__":
    main()
