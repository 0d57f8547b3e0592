from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Final

from perdure.sdk.workflows.steps import current_context, running_step
from perdure.wire.base.codec import scrub_text
from perdure.wire.runs.executions import LogLine

if TYPE_CHECKING:
    from perdure.sdk.replay.machine import Machine
    from perdure.sdk.replay.task_identity import ChangedInputs
    from perdure.sdk.workflows.execution_state import ExecutionState

logger = logging.getLogger("perdure.worker")

LOG_TEXT_BYTES_MAX: Final = 8 << 10
LOG_LINES_MAX: Final = 1_000
TOLD_MAX: Final = 1_000
TOLD: Final[dict[tuple[str, str], None]] = {}
"""Warnings about indistinguishable calls, by workflow. The log of the process has each warning once."""


def to_log_line(context: ExecutionState, level: int, text: str) -> LogLine:
    return LogLine(at_us=context.machine.now_us, level=level, text=scrub_text(text, LOG_TEXT_BYTES_MAX))


def add_line(context: ExecutionState, line: LogLine) -> None:
    """Beyond LOG_LINES_MAX the oldest lines are dropped."""
    lines = context.logs
    if len(lines) >= LOG_LINES_MAX:
        del lines[: LOG_LINES_MAX // 10]
    lines.append(line)


def log_findings(context: ExecutionState | None, machine: Machine) -> int:
    """Log each call once. Returns how many have another input than recorded."""
    doubts = machine.doubts
    if context is not None and doubts is not None and len(doubts.texts) > doubts.logged:
        for text in doubts.texts[doubts.logged :]:
            _tell(context, text)
        doubts.logged = len(doubts.texts)
    return 0 if machine.changed_inputs is None else _log_changed_inputs(context, machine.changed_inputs)


def _tell(context: ExecutionState, text: str) -> None:
    """The execution's log gets the text each time, the worker's log once for each line of the code."""
    if (context.workflow_id, text) not in TOLD:
        if len(TOLD) >= TOLD_MAX:
            TOLD.clear()
        TOLD[context.workflow_id, text] = None
        logger.warning("Workflow %r, first in execution %s: %s", context.workflow_id, context.execution_id, text)
    add_line(context, to_log_line(context, logging.WARNING, text))


def _log_changed_inputs(context: ExecutionState | None, changed: ChangedInputs) -> int:
    keys, changed.logged = changed.keys[changed.logged :], len(changed.keys)
    if not keys or context is None:
        return 0
    named = ", ".join(map(repr, keys[:10])) + (f" and {len(keys) - 10} more" if len(keys) > 10 else "")
    text = f"These calls have another input than the recorded one and got the recorded outcome: {named}."
    logger.warning("Execution %s: %s", context.execution_id, text)
    add_line(context, to_log_line(context, logging.WARNING, text))
    return len(keys)


class LogHandler(logging.Handler):
    """Sends logs of workflow code and steps to their execution, without the logs of replays."""

    def emit(self, record: logging.LogRecord) -> None:
        info = running_step.get()
        context = current_context.get() if info is None else info.context
        if context is None or (info is None and context.machine.replaying):
            return
        try:
            add_line(context, to_log_line(context, record.levelno, self.format(record)))
        except Exception:  # as in every handler: logging must not end the program
            self.handleError(record)


class ReplayFilter(logging.Filter):
    """Drops the lines of replays from other handlers (console, files)."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = current_context.get()
        return context is None or not context.machine.replaying


@cache
def keep_logs() -> None:
    """Start to keep the logs of steps and workflow code in executions.

    Wraps `callHandlers`: a handler of the root logger would end Python's output of last resort, and disable a later
    `logging.basicConfig()`.
    """
    handler, call_handlers = LogHandler(), logging.Logger.callHandlers

    def call_and_keep(logger: logging.Logger, record: logging.LogRecord) -> None:
        call_handlers(logger, record)
        if _reaches_root(logger):
            handler.handle(record)

    logging.Logger.callHandlers = call_and_keep  # type: ignore[assignment, method-assign]  # no other hook


def _reaches_root(logger: logging.Logger) -> bool:
    while logger.propagate and logger.parent is not None:
        logger = logger.parent
    return logger.parent is None
