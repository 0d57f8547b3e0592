"""Finds long-running steps for acts and beats to name. Shorter steps cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakKeyDictionary

from perdure.wire.base.limits import IN_FLIGHT_MAX
from perdure.wire.runs.requests import Claimed, OpenCall, StepInFlight

if TYPE_CHECKING:
    from perdure.sdk.replay.machine import Machine

LONG_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 1.0
IN_FLIGHT_SECONDS: Final = 0.5
"""Age in seconds from which beats name a step."""
LISTED_MAX: Final = 1_000
"""Most steps and timers listed per execution. The server writes the whole list whenever the list changes."""


class CallTasks(Protocol):
    @property
    def tasks(self) -> Mapping[str, asyncio.Task[None]]: ...


class CallingRun(Protocol):
    """The parts of a runner needed for long calls."""

    claimed: Claimed

    @property
    def machine(self) -> Machine | None: ...
    @property
    def step_runner(self) -> CallTasks: ...
    @property
    def is_ending(self) -> bool: ...
    def now_us(self) -> int: ...
    def list_calls(self, calls: list[OpenCall]) -> None: ...


class LongCalls:
    """Samples the tasks of steps, so a step's begin is known to a second."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[asyncio.Task[None], float] = WeakKeyDictionary()
        """Weak keys, since an idle worker looks no more, and a failed task's traceback holds the execution."""
        self._looked = 0.0
        self.in_flight: Sequence[StepInFlight] = ()
        """Replaced at each look, and read by the lease's thread."""

    def look(self, runs: Iterable[CallingRun], now: float) -> None:
        """`now` is the loop's time. Looks at most once a second."""
        if now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        seen: WeakKeyDictionary[asyncio.Task[None], float] = WeakKeyDictionary()
        in_flight: list[StepInFlight] = []
        for run in runs:
            if run.step_runner.tasks and len(in_flight) < IN_FLIGHT_MAX:
                in_flight += _in_flight(run)
            long: dict[str, float] = {}
            for key, task in run.step_runner.tasks.items():
                since = seen[task] = self._seen.get(task, now)
                if now - since >= LONG_SECONDS and len(long) < LISTED_MAX:
                    long[key] = now - since
            if not run.is_ending:
                run.list_calls(_step_calls(run, long) if long else [])
        self._seen = seen
        in_flight.sort(key=lambda step: step[3])
        self.in_flight = in_flight[:IN_FLIGHT_MAX]


def _in_flight(run: CallingRun) -> Iterator[StepInFlight]:
    machine = run.machine
    assert machine is not None
    until_us = run.now_us() - int(IN_FLIGHT_SECONDS * 1_000_000)
    tasks = run.step_runner.tasks
    for call in machine.outstanding():
        if call.begun is not None and call.begun[1] <= until_us and call.key in tasks:
            tries, started_at_us = call.begun
            yield run.claimed.id, call.key, tries, started_at_us


def _step_calls(run: CallingRun, long: Mapping[str, float]) -> list[OpenCall]:
    """The steps of a run, followed by its timers."""
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
