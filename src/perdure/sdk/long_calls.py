"""Finds steps that run for long, so that acts find them. Shorter steps cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, Protocol

from perdure.wire.requests import OpenCall

if TYPE_CHECKING:
    from perdure.sdk.replay.machine import Machine

LONG_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 1.0
LISTED_MAX: Final = 1_000
"""Steps, and timers, of an execution. The server writes the whole list whenever it changes."""


class Steps(Protocol):
    @property
    def tasks(self) -> Mapping[str, asyncio.Task[None]]: ...


class Run(Protocol):
    """A runner, as far as its long calls depend on it."""

    @property
    def machine(self) -> Machine | None: ...
    @property
    def step_runner(self) -> Steps: ...
    @property
    def is_ending(self) -> bool: ...
    def now_us(self) -> int: ...
    def list_calls(self, calls: list[OpenCall]) -> None: ...


class LongCalls:
    """It samples the tasks of steps, so a step's begin is known to a second."""

    def __init__(self) -> None:
        self._seen: dict[asyncio.Task[None], float] = {}
        self._looked = 0.0

    def look(self, runs: Iterable[Run], now: float) -> None:
        """`now` is the loop's time. Looks at most once a second."""
        if now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        seen: dict[asyncio.Task[None], float] = {}
        for run in runs:
            long: dict[str, float] = {}
            for key, task in run.step_runner.tasks.items():
                since = seen[task] = self._seen.get(task, now)
                if now - since >= LONG_SECONDS and len(long) < LISTED_MAX:
                    long[key] = now - since
            if not run.is_ending:
                run.list_calls(_step_calls(run, long) if long else [])
        self._seen = seen


def _step_calls(run: Run, long: Mapping[str, float]) -> list[OpenCall]:
    """And the timers beside them."""
    machine = run.machine
    assert machine is not None
    now_us = run.now_us()
    names = {call.key: call.name for call in machine.outstanding()}
    calls = [
        OpenCall(key, "step", names.get(key), now_us - int(seconds * 1_000_000), tries=machine.failed_tries(key))
        for key, seconds in long.items()
    ]
    return calls + timer_calls(machine)


def timer_calls(machine: Machine) -> list[OpenCall]:
    timers = nsmallest(LISTED_MAX, machine.loop.timers.values(), key=lambda one: one.due_us)
    return [OpenCall(one.key, "timer", since_us=machine.now_us, due_us=one.due_us) for one in timers]
