"""Finds steps that run for long, so that acts find them. Shorter steps cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from perdure.wire.requests import OpenCall

if TYPE_CHECKING:
    from perdure.sdk.replay.machine import Machine

LONG_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 1.0


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
            calls: list[OpenCall] = []
            for key, task in run.step_runner.tasks.items():
                since = seen[task] = self._seen.get(task, now)
                if now - since >= LONG_SECONDS:
                    calls.append(_step_call(run, key, now - since))
            if calls and run.machine is not None:
                calls += timer_calls(run.machine)
            if not run.is_ending:
                run.list_calls(calls)
        self._seen = seen


def _step_call(run: Run, key: str, seconds: float) -> OpenCall:
    machine = run.machine
    assert machine is not None
    call = next((one for one in machine.outstanding() if one.key == key), None)
    name = None if call is None else call.name
    since_us = run.now_us() - int(seconds * 1_000_000)
    return OpenCall(key, "step", name, since_us, tries=machine.failed_tries(key))


def timer_calls(machine: Machine) -> list[OpenCall]:
    timers = sorted(machine.loop.timers.values(), key=lambda one: one.due_us)
    return [OpenCall(one.key, "timer", since_us=machine.now_us, due_us=one.due_us) for one in timers]
