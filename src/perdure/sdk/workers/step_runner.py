from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from perdure.sdk.base.errors import Fatal, asked_pause
from perdure.sdk.base.interrupts import is_interrupt
from perdure.sdk.payloads.errors import error_to_json, in_short, unclear
from perdure.sdk.payloads.values import encode_and_read
from perdure.sdk.replay.calls import DurableCall
from perdure.sdk.replay.eviction import let_go
from perdure.sdk.workflows.steps import StepCall, StepInfo, current_context, running_step
from perdure.wire.base.retry import delay_us
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import StepDone

if TYPE_CHECKING:
    from perdure.sdk.workers.runner import Runner

TRACED_TRIES: Final = 5
"""The journal keeps the traceback of a step's first tries, and of the last one."""
READ_BYTES_MAX: Final = 1 << 18
"""A larger value does not wait in memory; the worker reads the value again."""


class _Pause(NamedTuple):
    until_us: int
    handle: asyncio.TimerHandle


class StepRunner:
    __slots__ = ("_failed", "_not_before", "_runner", "_tasks", "_unsure", "held", "let_go", "pauses")

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.pauses: dict[str, _Pause] = {}
        # None until needed, to save memory.
        self._not_before: dict[str, int] | None = None
        """The earliest time of each failed step's next try, from the journal."""
        self.held: dict[str, Row] | None = None
        """The last failed try of each held step, from the journal."""
        self.let_go: list[str] | None = None
        """Steps whose hold or pause an act has ended, to start again."""
        self._failed: dict[str, int] | None = None
        """Failed tries here, perhaps not in the journal yet."""
        self._unsure: list[DurableCall] | None = None
        """Steps waiting for the server to acknowledge the claim."""

    @property
    def running(self) -> bool:
        return bool(self._tasks)

    def note_failure(self, row: Row) -> None:
        """The failed try may be another worker's."""
        assert row.key is not None
        if self.held is not None:
            self.held.pop(row.key, None)
        try:
            failure = msgspec.json.decode(row.value, type=_Failure)
        except msgspec.MsgspecError:
            return
        if failure.retry_at_us is not None:
            if self._not_before is None:
                self._not_before = {}
            self._not_before[row.key] = failure.retry_at_us
        elif failure.held:
            if self.held is None:
                self.held = {}
            self.held[row.key] = row

    def note_act(self, key: str) -> None:
        """An act has ended a step's pause, or a hold, which gives the step fresh tries."""
        released = self.held is not None and self.held.pop(key, None) is not None
        if released and self._failed is not None:
            self._failed.pop(key, None)
        if self._not_before is not None:
            self._not_before.pop(key, None)
        pause = self.pauses.pop(key, None)
        if pause is not None:
            pause.handle.cancel()
        if released or pause is not None:
            self.let_go = [*(self.let_go or ()), key]

    def start_let_go(self, calls: Sequence[DurableCall]) -> None:
        """Start the steps of `calls` whose hold or pause has ended."""
        if self.let_go is not None:
            keys, self.let_go = self.let_go, None
            for call in calls:
                if call.key in keys and call.issued and not self.has(call.key):
                    self.start(call)

    def go_on(self) -> None:
        if self._unsure is not None:
            calls, self._unsure = self._unsure, None
            for call in calls:
                self._runner.restart_step(call)

    def forget_failed(self) -> None:
        self._failed = None

    def start(self, call: DurableCall) -> None:
        runner = self._runner
        if self.held is not None and call.key in self.held:
            return
        if self._not_before:
            until_us = self._not_before.pop(call.key, 0)
            if until_us > runner.now_us():
                self._pause(call, until_us)
                return
        assert call.variables is not None
        # A copy for each try, as asyncio.create_task gives to each task.
        self._tasks[call.key] = runner.worker.loop.create_task(self._try(call), context=call.variables.copy())

    def has(self, key: str) -> bool:
        return key in self._tasks or key in self.pauses

    @property
    def tasks(self) -> Mapping[str, asyncio.Task[None]]:
        return self._tasks

    def give_up(self, key: str) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
        pause = self.pauses.pop(key, None)
        if pause is not None:
            pause.handle.cancel()

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        for pause in self.pauses.values():
            pause.handle.cancel()
        self.pauses.clear()

    def close(self) -> None:
        """Ends the runner for good, leaving no cycle."""
        self.stop()
        del self._runner

    def _pause(self, call: DurableCall, until_us: int) -> None:
        runner = self._runner
        delay = max(0.0, (until_us - runner.now_us()) / 1_000_000)
        self.pauses[call.key] = _Pause(until_us, runner.worker.loop.call_later(delay, self._pause_over, call))

    def _pause_over(self, call: DurableCall) -> None:
        runner = self._runner
        if runner.gone or call.key not in self.pauses:
            return
        if runner.end is not None:  # its end may not count: look again soon
            self._pause(call, runner.now_us() + 100_000)
            return
        del self.pauses[call.key]
        self.start(call)

    async def _try(self, call: DurableCall) -> None:
        runner = self._runner
        worker, step = runner.worker, call.request
        assert isinstance(step, StepCall)
        if not step.is_async:
            await worker.threads.free.acquire()  # before the lease check and the time-out
        machine = runner.machine
        assert machine is not None
        failed_here = self._failed.get(call.key, 0) if self._failed else 0
        tries = max(machine.failed_tries(call.key), failed_here) + 1
        is_ours = runner.ours_until == math.inf or worker.lease is None or worker.lease.now() < runner.ours_until
        if not (is_ours and worker.may_start_steps()):
            if not step.is_async:
                worker.threads.free.release()
            self._tasks.pop(call.key, None)
            if is_ours:
                worker.hold_back(runner, call)
            else:
                self._unsure = [*(self._unsure or ()), call]
                runner.wants_rows = True
                worker.reporter.dirty(runner)
            return
        if runner.unbegun is not None and not runner.may_begin():
            if not step.is_async:
                worker.threads.free.release()
            return
        task = self._tasks.get(call.key)  # while listed, its outcome is wanted
        started_at_us = runner.now_us()
        call.begun = tries, started_at_us
        name = call.name or call.key
        current_context.set(None)
        claimed = runner.claimed
        running_step.set(
            StepInfo(
                execution_id=claimed.id,
                key=call.key,
                name=name,
                tries=tries,
                context=runner.context,
                worker=worker,
                keys_id=claimed.keys_id,
            )
        )
        if worker.watcher is not None:
            worker.watcher.body_begins(claimed.id, claimed.attempt, call.key, started_at_us)
        scope: asyncio.Timeout | None = None
        try:
            if step.settings.timeout_seconds is None:
                value = await (step.call() if step.is_async else worker.threads.run(step))
            else:
                async with asyncio.timeout(step.settings.timeout_seconds) as scope:
                    value = await (step.call() if step.is_async else worker.threads.run(step))
            data, read = _recordable(value, step, call.key)
            done = StepDone(
                call.key,
                name,
                call.fingerprint,
                ok=True,
                value=Raw(data),
                started_at_us=started_at_us,
                tries=tries,
                label=step.label,
                quiet=step.settings.quiet is True,
            )
            if len(data) <= READ_BYTES_MAX:
                call.read = (done.value, read)
        except BaseException as error:
            if is_interrupt(error):
                raise
            if runner.gone or self._tasks.get(call.key) is not task:
                let_go(error)
                return  # given up: an error of its clean-up is not a failed try
            cancelled = isinstance(error, asyncio.CancelledError)
            cause = asyncio.CancelledError("the step cancelled itself") if cancelled else error
            expired = scope is not None and scope.expired()
            try:
                done = self._failure(call, step, cause, started_at_us, tries, expired=expired)
            except BaseException as wrong:  # raised by a predicate, or by the error's own pause
                if is_interrupt(wrong):
                    raise
                done = self._failure(call, step, unclear(cause, wrong), started_at_us, tries, expired=expired)
                let_go(wrong)
            let_go(error)
        if runner.gone or self._tasks.get(call.key) is not task:
            return
        del self._tasks[call.key]
        runner.step_done(done, call)

    def _failure(
        self, call: DurableCall, step: StepCall, error: BaseException, started_at_us: int, tries: int, *, expired: bool
    ) -> StepDone:
        """`expired`: the step's own time-out is over, not a time-out of its code."""
        asked = asked_pause(error)
        delay: int | None = None
        if not isinstance(error, asyncio.CancelledError) and not step.settings.is_final(error):
            delay = delay_us(step.settings.retry, tries, random.random(), asked)
        if expired and isinstance(error, TimeoutError) and not str(error):
            timeout = step.settings.timeout_seconds
            error = TimeoutError(f"step {call.key!r} took longer than its timeout of {timeout:g} s")
        # The tracebacks of very many tries would fill the journal.
        value = error_to_json(error, with_detail=delay is None or tries <= TRACED_TRIES)
        holds = delay is None and step.settings.on_failure == "hold" and not self._runner.is_cancelling
        if holds:
            value = msgspec.json.encode({**msgspec.json.decode(value), "held": True})
        if delay is not None:
            until_us = self._runner.now_us() + delay
            record = msgspec.json.decode(value)
            value = msgspec.json.encode({**record, "retry_at_us": until_us})
            if self._failed is None:
                self._failed = {}
            self._failed[call.key] = tries
            self._pause(call, until_us)
        name = call.name or call.key
        return StepDone(
            call.key,
            name,
            call.fingerprint,
            ok=False,
            value=Raw(value),
            started_at_us=started_at_us,
            tries=tries,
            last=delay is None and not holds,
            label=step.label,
            quiet=step.settings.quiet is True,
        )


def _recordable(value: object, step: StepCall, key: str) -> tuple[bytes, Any]:
    """Failing here must not run the step again: the step's work is done."""
    try:
        return encode_and_read(value, step.result_type, where=f"result of step {key!r}")
    except BaseException as error:
        if is_interrupt(error):
            raise
        what = error if isinstance(error, Exception) else f"result of step {key!r}: {in_short(error)}"
        raise Fatal(f"{what}. The step has run, so it is not tried again.") from error


class _Failure(msgspec.Struct):
    retry_at_us: int | None = None
    held: bool = False
