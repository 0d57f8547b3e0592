"""The steps and timers that a worker lists as pending."""

import asyncio
import gc
import weakref
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from perdure.sdk.replay.machine import Machine
from perdure.sdk.workers.long_calls import LISTED_MAX, LONG_SECONDS, LongCalls
from perdure.wire.base.limits import IN_FLIGHT_MAX
from perdure.wire.runs.requests import Claimed, OpenCall


class Task:
    """What a look needs of a task: a place in a dict."""


class Run:
    """A runner whose steps do not end."""

    is_ending = False

    def __init__(self, keys: list[str], begun_us: int | None = None) -> None:
        self.claimed = cast("Claimed", SimpleNamespace(id="execution"))
        self.listed: list[OpenCall] = []
        self.asked = 0
        tasks = cast("Mapping[str, asyncio.Task[None]]", {key: Task() for key in keys})
        self.step_runner: Any = SimpleNamespace(tasks=tasks)
        calls = [
            SimpleNamespace(key=key, name=f"name of {key}", begun=begun_us and (2, begun_us + n))
            for n, key in enumerate(keys)
        ]

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
    assert run.asked == 3, "once in each look, and once for the list"


def test_a_look_keeps_no_step_that_has_ended() -> None:
    run = Run(["k"])
    calls = LongCalls()
    calls.look([run], 100.0)
    task = weakref.ref(run.step_runner.tasks["k"])
    del run  # the worker is idle from here on, and looks no more
    gc.collect()  # `Run` is a cycle
    assert task() is None


def test_a_beat_names_the_oldest_steps() -> None:
    new = Run(["new"], begun_us=9_800_000)
    calls = LongCalls()
    calls.look([new, Run(["b", "a"], begun_us=3_000_000), Run(["c"], begun_us=1_000_000)], 100.0)
    assert calls.in_flight == [
        ("execution", "c", 2, 1_000_000),
        ("execution", "b", 2, 3_000_000),
        ("execution", "a", 2, 3_000_001),
    ]
    calls.look([Run([f"k{n}" for n in range(2 * IN_FLIGHT_MAX)], begun_us=1)], 101.0)
    assert len(calls.in_flight) == IN_FLIGHT_MAX
    calls.look([], 102.0)
    assert calls.in_flight == []
