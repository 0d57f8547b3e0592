from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import structs

from perdure.sdk.transports.transport import Transport
from perdure.sdk.workers import reports
from perdure.wire.base.errors import InternalError, LeaseLost, PerdureError, error_classes
from perdure.wire.base.limits import GATHERED_BYTES_MAX, REPORT_ITEMS_MAX
from perdure.wire.base.records import Problem
from perdure.wire.runs.requests import Claimed, ItemReply, ReportItem, ReportRequest

logger = logging.getLogger("perdure.worker")

REPORTS_IN_FLIGHT = 2
EMIT_SECONDS = 0.01
"""Seconds that emitted items wait for more. The first item after such a pause leaves at once."""
BACKOFF_SECONDS_MAX = 5.0
RETRYABLE = frozenset(kind.code for kind in error_classes() if kind.retryable)


class ReportingRun(Protocol):
    """The parts of a runner needed here."""

    claimed: Claimed
    gone: bool

    @property
    def has_report(self) -> bool: ...
    @property
    def has_emitted(self) -> bool: ...
    def take_report(self) -> ReportItem | None: ...
    def without_end(self, item: ReportItem) -> ReportItem: ...
    def on_reply(self, item: ReportItem, reply: ItemReply) -> None: ...
    def broke(self, error: Exception) -> None: ...


class ReportingWorker(Protocol):
    """The parts of a worker needed here."""

    id: str
    loop: asyncio.AbstractEventLoop
    transport: Transport

    @property
    def epoch(self) -> str: ...
    def runner(self, execution_id: str) -> ReportingRun | None: ...
    async def start_over(self) -> None: ...


class Reporter:
    """Two reports at most are in flight, never with items of the same execution. Reports repeat until taken or too
    late."""

    def __init__(self, worker: ReportingWorker) -> None:
        self._worker = worker
        self._dirty: dict[ReportingRun, None] = {}
        self._flush_scheduled = False
        self._reports: set[asyncio.Task[None]] = set()
        self.notify_emitted = self._emitted_somewhere
        self._emitting: dict[str, None] = {}
        self._emitted_at = 0.0
        self._emit_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no runner waits to report. Reports may be in flight."""
        return not self._dirty

    def will_report(self, runner: ReportingRun) -> bool:
        return runner in self._dirty

    def forget(self, runner: ReportingRun) -> None:
        self._dirty.pop(runner, None)

    async def close(self) -> None:
        for task in list(self._reports):
            task.cancel()
        await asyncio.gather(*self._reports, return_exceptions=True)

    def dirty(self, runner: ReportingRun) -> None:
        self._dirty[runner] = None
        if not self._flush_scheduled and len(self._reports) < REPORTS_IN_FLIGHT:
            self._flush_scheduled = True
            self._worker.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        while self._dirty and len(self._reports) < REPORTS_IN_FLIGHT:
            runners: list[ReportingRun] = []
            items: list[ReportItem] = []
            room = GATHERED_BYTES_MAX
            for runner in list(self._dirty):
                del self._dirty[runner]
                item = runner.take_report()
                if item is None:
                    continue
                runners.append(runner)
                items.append(item)
                room -= reports.item_size(item)
                if room < 0 or len(items) == REPORT_ITEMS_MAX:
                    break
            if not items:
                return
            task = self._worker.loop.create_task(self._report(runners, items))
            self._reports.add(task)
            task.add_done_callback(self._reported)

    def _reported(self, task: asyncio.Task[None]) -> None:
        self._reports.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("A report failed.", exc_info=task.exception())
        if self._dirty and not self._flush_scheduled:
            self._flush()

    async def _report(self, runners: Sequence[ReportingRun], items: list[ReportItem]) -> None:
        request = ReportRequest(self._worker.id, self._worker.epoch, items)
        pause = 0.05
        while True:
            problem: PerdureError | Problem | None = None
            try:
                reply = await self._worker.transport.call(request)
            except LeaseLost:
                if request.worker_id == self._worker.id:
                    await self._worker.start_over()
                return
            except PerdureError as error:
                if reports.is_refused(error):
                    if reports.drop_schemas(request.items):
                        continue
                    if any(map(reports.returns_step, request.items)):
                        items = [runner.without_end(item) for runner, item in zip(runners, request.items, strict=True)]
                        request = structs.replace(request, items=items)
                        continue
                    await self._refused(runners, request.items, error)
                    return
                problem = error
            except Exception as error:  # one execution's value cannot be encoded; the others go on
                logger.error("A report failed.", exc_info=error)
                what = InternalError(f"The report could not be made: {type(error).__name__}: {error}")
                await self._refused(runners, request.items, what)
                return
            else:
                left: list[tuple[ReportingRun, ReportItem]] = []
                for runner, item, answer in zip(runners, request.items, reply.items, strict=True):
                    if answer.problem is not None and answer.problem.error_type in RETRYABLE:
                        again = item
                    elif answer.problem is not None and reports.returns_step(item):
                        again = runner.without_end(item)
                    else:
                        self._take_reply(runner, item, answer)
                        continue
                    left.append((runner, again))
                    problem = answer.problem
                if not left:
                    return
                runners = [runner for runner, _ in left]
                request = structs.replace(request, items=[item for _, item in left])
            why = problem.error if isinstance(problem, Problem) else problem
            await fall_back("Report", pause, why)
            pause = min(pause * 2, BACKOFF_SECONDS_MAX)

    async def _refused(self, runners: Sequence[ReportingRun], items: Sequence[ReportItem], error: PerdureError) -> None:
        logger.error("A report was refused: %s", error)
        if len(items) > 1:
            for runner, item in zip(runners, items, strict=True):
                await self._report([runner], [item])
        else:
            self._take_reply(runners[0], items[0], ItemReply(problem=Problem(error.message, error.code)))

    def _emitted_somewhere(self, execution_id: str) -> None:
        """Runs in any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: a thread outlived the worker
            self._worker.loop.call_soon_threadsafe(self._emitted, execution_id)

    def _emitted(self, execution_id: str) -> None:
        self._emitting[execution_id] = None
        if self._emit_timer is None:
            pause = self._emitted_at + EMIT_SECONDS - self._worker.loop.time()
            if pause <= 0:
                self._report_emitted()
            else:
                self._emit_timer = self._worker.loop.call_later(pause, self._report_emitted)

    def _report_emitted(self) -> None:
        """Reports items in batches: a commit for each token would cost more than the steps."""
        self._emit_timer = None
        self._emitted_at = self._worker.loop.time()
        for execution_id in self._emitting:
            runner = self._worker.runner(execution_id)
            if runner is not None:
                self.dirty(runner)
        self._emitting.clear()

    def _take_reply(self, runner: ReportingRun, item: ReportItem, answer: ItemReply) -> None:
        with outliving(runner):
            runner.on_reply(item, answer)
        if not runner.gone and runner.has_report:
            self.dirty(runner)
        elif not runner.gone and runner.has_emitted:
            self._emitted(runner.claimed.id)


@contextlib.contextmanager
def outliving(runner: ReportingRun) -> Iterator[None]:
    """An error in one execution must not stop the worker."""
    try:
        yield
    except Exception as error:
        logger.exception("Execution %s: the worker failed to run it.", runner.claimed.id)
        runner.broke(error)


async def fall_back(what: str, pause: float, why: object) -> None:
    """A random part of the pause: workers must not return together after an outage of their server."""
    part = pause * random.uniform(0.2, 1.0)
    logger.warning("%s failed, next try in %.2f s: %s", what, part, why)
    await asyncio.sleep(part)
