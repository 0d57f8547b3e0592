"""The steps and timers that a worker lists as pending."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from perdure.sdk.long_calls import LISTED_MAX, LONG_SECONDS, LongCalls
from perdure.sdk.replay.machine import Machine
from perdure.wire.requests import OpenCall


class Run:
    """A runner whose steps do not end."""

    is_ending = False

    def __init__(self, keys: list[str]) -> None:
        self.listed: list[OpenCall] = []
        self.asked = 0
        tasks = cast("Mapping[str, asyncio.Task[None]]", {key: object() for key in keys})
        self.step_runner: Any = SimpleNamespace(tasks=tasks)
        calls = [SimpleNamespace(key=key, name=f"name of {key}") for key in keys]

        def outstanding() -> list[Any]:
            self.asked += 1
            return list(calls)

        machine = SimpleNamespace(outstanding=outstanding, failed_tries=lambda key: 0, loop=SimpleNamespace(timers={}))
        self.machine = cast("Machine", machine)

    def now_us(self) -> int:
        return 10_000_000

    def list_calls(self, calls: list[OpenCall]) -> None:
        self.listed = calls


def test_the_list_of_many_long_steps_is_bounded() -> None:
    run = Run([f"k{n}" for n in range(2 * LISTED_MAX)])
    calls = LongCalls()
    calls.look([run], 100.0)
    assert run.listed == []
    calls.look([run], 100.0 + LONG_SECONDS)
    assert len(run.listed) == LISTED_MAX
    assert run.listed[0] == OpenCall("k0", "step", "name of k0", 5_000_000)
    assert run.asked == 1
