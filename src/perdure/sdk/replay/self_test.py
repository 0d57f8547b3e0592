"""Proves on an untested version of Python that workflow code runs and replays."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from perdure.sdk.base.errors import UnsupportedPython
from perdure.sdk.replay.calls import MachineState
from perdure.sdk.replay.machine import Machine
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import Row

TESTED: Final = ((3, 11), (3, 12), (3, 13), (3, 14))
EXPECTED: Final = ["a", "b", ["b", "a"], "timed out", "cleaned up", "cancelled", "group ended"]
TIMERS_MAX: Final = 20


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> None:
    """Raises `UnsupportedPython`. Takes some milliseconds, and nothing on a tested version."""
    if version in TESTED:
        return
    fault: object
    try:
        fault = _find_fault()
    except Exception as error:  # a new version may raise anything
        fault = f"{type(error).__name__}: {error}"
    if fault is not None:
        raise UnsupportedPython(
            f"Workflow code does not run on Python {version[0]}.{version[1]} with this release of perdure ({fault}). "
            f"Use Python {TESTED[0][0]}.{TESTED[0][1]} to {TESTED[-1][0]}.{TESTED[-1][1]}, or a newer release."
        )


async def _code() -> list[object]:
    said: list[object] = []

    async def member(name: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            said.append("cleaned up")
            raise
        said.append(name)
        return name

    said.append(await asyncio.gather(member("b", 0.2), member("a", 0.1)))
    try:
        async with asyncio.timeout(1):
            await asyncio.sleep(9)
    except TimeoutError:
        said.append("timed out")
    task = asyncio.create_task(member("never", 9))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        said.append("cancelled")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(9))
            raise KeyError("ends the group")
    except* KeyError:
        said.append("group ended")
    return said


def _find_fault() -> str | None:
    """None if the workflow runs live and replays from each row, and leaves the outer loop unchanged."""
    outside = _surroundings()
    rows = [Row(1, 1_000_000, Kind.CLAIMED, 1)]
    machine, due = _run_machine(rows, 1)
    seen = [due]
    while due is not None and len(rows) < TIMERS_MAX:
        key, due_us = due
        rows.append(Row(len(rows) + 1, due_us, Kind.TIMER, 1, key))
        due = _advance(machine, rows[-1:])
        seen.append(due)
    if machine.error is not None or machine.result != EXPECTED:
        return f"live: {machine.error or machine.result!r}"
    machine.close()
    for length in range(1, len(rows) + 1):
        replayed, due = _run_machine(rows, length)
        if due != seen[length - 1]:
            return f"replay of {length} rows: {due} in place of {seen[length - 1]}"
        if length == len(rows) and replayed.result != EXPECTED:
            return f"replay: {replayed.error or replayed.result!r}"
        replayed.close()
    return None if _surroundings() == outside else "the outer event loop has changed"


def _surroundings() -> object:
    try:
        return asyncio.get_running_loop(), asyncio.current_task()
    except RuntimeError:
        return None


def _run_machine(rows: Sequence[Row], length: int) -> tuple[Machine, tuple[str, int] | None]:
    machine = Machine(_code, seed="self-test")
    return machine, _advance(machine, rows[:length])


def _advance(machine: Machine, rows: Sequence[Row]) -> tuple[str, int] | None:
    """The awaited timer; None at the code's end."""
    effects = machine.advance(rows)
    while effects.state is MachineState.AGAIN:
        effects = machine.advance(())
    return effects.timer
