"""The end reported by a run of the code: the result, or the failed calls, and whether to retry, hold or suspend."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Raw

from perdure.sdk.base.errors import Diverged, RetryAfter, Stuck, is_fatal
from perdure.sdk.base.interrupts import is_interrupt
from perdure.sdk.payloads.errors import error_from_json, error_to_json, first_keys, unclear
from perdure.sdk.payloads.values import encode
from perdure.sdk.replay.failures import calls_to_blame, steps_to_blame
from perdure.wire.base.codec import scrub_text
from perdure.wire.base.records import Problem
from perdure.wire.base.retry import delay_us
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import (
    Block,
    Cancelled,
    Claimed,
    CloseWait,
    Complete,
    End,
    Entry,
    Fail,
    Hold,
    OpenWait,
    ReportItem,
    StartChild,
    StepDone,
    Suspend,
    TimerFired,
)

if TYPE_CHECKING:
    from perdure.sdk.replay.calls import DurableCall
    from perdure.sdk.replay.machine import Machine
    from perdure.sdk.workflows.workflow import Workflow


logger = logging.getLogger("perdure.worker")

SLEPT_IN_WORKER_US = 10_000_000
"""Longer pauses between tries suspend the execution."""


class RetryPause(Protocol):
    @property
    def until_us(self) -> int: ...


class EndingSteps(Protocol):
    @property
    def pauses(self) -> Mapping[str, RetryPause]: ...
    @property
    def held(self) -> Mapping[str, Row] | None: ...


class EndingRun(Protocol):
    """The parts of a runner needed for an end."""

    claimed: Claimed
    machine: Machine | None
    in_flight: ReportItem | None
    entries: list[Entry]

    @property
    def workflow(self) -> Workflow[Any, Any] | None: ...
    @property
    def is_cancelling(self) -> bool: ...
    @property
    def step_runner(self) -> EndingSteps: ...
    def now_us(self) -> int: ...
    def wanted(self) -> list[DurableCall]: ...


def is_over(end: End | None) -> bool:
    """Whether the attempt is over for the code, even if the server refuses the end."""
    if type(end) is Hold:
        return not end.steps
    return type(end) is Complete or type(end) is Fail or type(end) is Cancelled or type(end) is Block


def only_starts(entries: list[Entry]) -> bool:
    return all(type(entry) is StartChild or type(entry) in (OpenWait, CloseWait) for entry in entries)


def suspension(run: EndingRun, timer: tuple[str, int] | None, *, parked: bool) -> Suspend | None:
    """The execution may wait for children of the same report: the server suspends only if all of them were started."""
    machine = run.machine
    assert machine is not None
    if machine.cancel_requested or run.in_flight is not None:
        return None
    if any(type(entry) is TimerFired for entry in run.entries):
        return None
    return Suspend(machine.waits(), timer, parked)


def rest(run: EndingRun, timer: tuple[str, int] | None) -> Suspend | Hold | None:
    """The end of a run whose every step is paused or held."""
    wanted = run.wanted()
    pauses, held = run.step_runner.pauses, run.step_runner.held or {}
    failures = [held[call.key] for call in wanted if call.key in held]
    if len(pauses) + len(failures) != len(wanted):
        return None
    if pauses:
        return _suspension_for_pause(run, timer)
    return _hold(failures) if failures and _may_rest(run) else None


def _may_rest(run: EndingRun) -> bool:
    if run.is_cancelling or run.in_flight is not None:
        return False
    return all(type(entry) is StepDone for entry in run.entries)


def _suspension_for_pause(run: EndingRun, timer: tuple[str, int] | None) -> Suspend | None:
    machine = run.machine
    assert machine is not None
    first = min(pause.until_us for pause in run.step_runner.pauses.values())
    if first - run.now_us() <= SLEPT_IN_WORKER_US or not _may_rest(run):
        return None
    is_first = timer is not None and timer[1] < first
    return Suspend(machine.waits(), timer if is_first else (None, first))


def _hold(failures: list[Row]) -> Hold:
    """Names the last failed tries of the held steps. Timers and waits of other branches continue in the journal, and
    the code sees their outcomes later."""
    first = failures[0]
    tried = f" after {first.tries} tries" if first.tries > 1 else ""
    others = len(failures) - 1
    more = f", and {others:,} other steps" if others > 1 else ", and another step" if others else ""
    keys = [row.key for row in failures if row.key is not None]
    error = error_from_json(bytes(first.value))
    detail = msgspec.json.encode(msgspec.structs.replace(error, steps=first_keys(keys)))
    return Hold(f"step {first.key!r} failed{tried}: {error}{more}", Raw(detail), keys)


def outcome(run: EndingRun) -> End:
    machine = run.machine
    assert machine is not None
    error = machine.error
    if error is None:
        workflow = run.workflow
        assert workflow is not None
        try:
            return _completed(workflow, machine.result)
        except BaseException as problem:
            if is_interrupt(problem):
                raise
            return failed(run, problem)
    if isinstance(error, asyncio.CancelledError) and machine.cancel_requested:
        return Cancelled()
    return failed(run, error)


def returned(run: EndingRun, result: object) -> Complete | None:
    """Reports the result together with the returned step's outcome, which saves a commit. The code returns after the
    reply: callbacks, finalizers and tracers may follow."""
    workflow = run.workflow
    assert workflow is not None
    try:
        return _completed(workflow, result, returns_step=True)
    except BaseException as error:  # the code comes to that once the outcome is recorded
        if is_interrupt(error):
            raise
        return None


def _completed(workflow: Workflow[Any, Any], result: object, *, returns_step: bool = False) -> Complete:
    """Raises the errors of the result's own conversion."""
    return Complete(Raw(encode(result, workflow.result_type, where="result")), returns_step)


def failed(run: EndingRun, error: BaseException, *, with_detail: bool = True) -> Fail | Hold:
    holds = _holds(run)
    delay: int | None = None
    shown = error
    taken: list[str] = []
    steps: list[str] = []
    children: list[str] = []
    redo: list[str] = []
    try:
        delay = _delay_us(run, error)
        if delay is not None or holds:
            taken = _with_failed_beside(run, steps_to_blame(error))
            redo = [key for key, on_retry in (_later_than(run, taken) or {}).items() if on_retry == "redo"]
    except BaseException as wrong:  # raised by the error's own pause, or by its group
        if is_interrupt(wrong):
            raise
        delay, shown = None, unclear(error, wrong)
    later: dict[str, str | None] | None = None
    if delay is None:
        steps, children = _to_blame(run, error)
        later = _later_than(run, [*steps, *children])
    detail = error_to_json(shown, with_detail=with_detail, steps=steps, children=children, later=later)
    words = str(error_from_json(detail))
    if delay is None and holds:
        return Hold(words, Raw(detail), take_back=taken)
    return Fail(words, Raw(detail), delay, *(([], []) if delay is None else (taken, redo)))


def unknown(workflow_id: str) -> Block:
    message = f"Workflow {workflow_id!r} is not in this worker's registry; start a worker that has it."
    return Block(message, Raw(msgspec.json.encode({"type": "UnknownWorkflow", "message": message})))


def stopped(run: EndingRun, error: BaseException) -> End:
    """Ends the run because the machine cannot continue."""
    if isinstance(error, Diverged):
        detail = {"type": "Diverged", "message": error.message, **(error.details or {})}
        return Block(scrub_text(error.message), Raw(msgspec.json.encode(detail)))
    if not isinstance(error, Stuck):
        logger.error("Execution %s: the machine failed.", run.claimed.id, exc_info=error)
    return failed(run, error)


def refused(run: EndingRun, problem: Problem) -> Fail | Hold:
    """The server does not take a report."""
    message = scrub_text(problem.error)
    detail = Raw(msgspec.json.encode({"type": problem.error_type, "message": message}))
    return Hold(message, detail) if _holds(run) else Fail(message, detail)


def _holds(run: EndingRun) -> bool:
    workflow = run.workflow
    return workflow is not None and workflow.on_failure == "hold" and not run.is_cancelling


def _to_blame(run: EndingRun, error: BaseException) -> tuple[list[str], list[str]]:
    """The keys of the steps and children that ended the attempt; empty if the code itself failed."""
    try:
        steps, children = calls_to_blame(error)
    except BaseException as wrong:  # raised by the error's own group
        if is_interrupt(wrong):
            raise
        return [], []
    return (_with_failed_beside(run, steps) if steps or children else steps), children


def _delay_us(run: EndingRun, error: BaseException) -> int | None:
    """Returns None without a retry."""
    workflow = run.workflow
    if workflow is None or is_fatal(error) or isinstance(error, Stuck) or run.is_cancelling:
        return None
    asked = error.seconds if isinstance(error, RetryAfter) else None
    return delay_us(workflow.retry, run.claimed.retry_count + 1, random.random(), asked)


def _later_than(run: EndingRun, blamed: list[str]) -> dict[str, str | None] | None:
    return None if run.machine is None or not blamed else run.machine.later_than(blamed)


def _with_failed_beside(run: EndingRun, steps: list[str]) -> list[str]:
    """The steps that ended the attempt, plus failed steps under way, even if not recorded yet."""
    found = dict.fromkeys(steps)
    if run.machine is not None:
        found |= dict.fromkeys(run.machine.failed_beside(steps))
    unread = [*run.in_flight.entries, *run.entries] if run.in_flight is not None else run.entries
    for entry in unread:
        if type(entry) is StepDone and entry.last and not entry.ok:
            found[entry.key] = None
    return list(found)
