"""What workflow code and steps log goes to the log of their execution, once, however often the code is replayed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from perdure.sdk.steps import current_context, running_step
from perdure.wire.codec import scrub_text
from perdure.wire.requests import LogLine

if TYPE_CHECKING:
    from perdure.sdk.context import Context
    from perdure.sdk.replay.places import ChangedInputs

logger = logging.getLogger("perdure.worker")

LOG_TEXT_BYTES_MAX: Final = 8 << 10
LOG_LINES_MAX: Final = 1_000


def line_of(context: Context, level: int, text: str) -> LogLine:
    """A line as it is sent."""
    return LogLine(context.machine.now_us, level, scrub_text(text, LOG_TEXT_BYTES_MAX))


def add_line(context: Context, line: LogLine) -> None:
    """A line for the runner to report; of too many, the oldest go."""
    lines = context.logs
    if len(lines) >= LOG_LINES_MAX:
        del lines[: LOG_LINES_MAX // 10]
    lines.append(line)


def tell_of_changed_inputs(context: Context | None, changed: ChangedInputs) -> int:
    """Log the calls that were given the outcome of another input since the last time. Answers how many there are."""
    keys, changed.told = changed.keys[changed.told :], len(changed.keys)
    if not keys or context is None:
        return 0
    named = ", ".join(map(repr, keys[:10])) + (f" and {len(keys) - 10} more" if len(keys) > 10 else "")
    text = f"These calls have another input than the recorded one and got the recorded outcome: {named}."
    logger.warning("Execution %s: %s", context.execution_id, text)
    add_line(context, line_of(context, logging.WARNING, text))
    return len(keys)


class LogHandler(logging.Handler):
    """Sends what workflow code and steps log to the log of their execution. A worker installs it on the root logger.

    Lines that workflow code writes while it is replayed are left out: they were sent when it ran first.
    """

    def emit(self, record: logging.LogRecord) -> None:
        info = running_step.get()
        context = current_context.get() if info is None else info.context
        if context is None or (info is None and context.machine.replaying):
            return
        try:
            add_line(context, line_of(context, record.levelno, self.format(record)))
        except Exception:  # As every handler: logging must not end the program.
            self.handleError(record)


class ReplayFilter(logging.Filter):
    """For other handlers (console, files): keeps out what workflow code logs while it is replayed."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = current_context.get()
        return context is None or not context.machine.replaying


class WorkersLog:
    """Brings `logging` to the executions' logs: one handler for all workers of the process, while there are any."""

    def __init__(self) -> None:
        self._handler = LogHandler()
        self._workers = 0

    def begin(self) -> None:
        """A worker begins."""
        if self._workers == 0:
            logging.getLogger().addHandler(self._handler)
        self._workers += 1

    def end(self) -> None:
        """It has ended."""
        self._workers -= 1
        if self._workers == 0:
            logging.getLogger().removeHandler(self._handler)


WORKERS_LOG: Final = WorkersLog()
