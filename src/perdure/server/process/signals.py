"""The signals for ending a process."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_handlers: Final[list[dict[signal.Signals, Any]]] = []
"""The handlers of each `when_asked_to_stop` still in force."""
_forking: Final = threading.local()


def when_asked_to_stop(
    loop: asyncio.AbstractEventLoop, callback: Callable[[], None], signals: Sequence[signal.Signals] = SIGNALS
) -> Callable[[], None]:
    """Returns a function that restores the old handlers. Forked processes get the default handlers."""
    before: dict[signal.Signals, Any] = {}
    for number in signals:
        try:
            loop.add_signal_handler(number, callback)
        except NotImplementedError:  # on Windows the loop takes no signals, but they wake it up
            before[number] = signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback) and None)
    ours = {number: signal.getsignal(number) for number in signals}
    _handlers.append(ours)
    _watch_forks()

    def undo() -> None:
        _handlers[:] = [one for one in _handlers if one is not ours]
        for number in signals:
            if number in before:
                signal.signal(number, before[number])
            else:
                loop.remove_signal_handler(number)

    return undo


@cache
def _watch_forks() -> None:
    """A forked child inherits the handlers and the loop's wake-up descriptor, so a signal to the child would stop the
    parent."""
    if sys.platform != "win32":
        os.register_at_fork(before=_before_fork, after_in_parent=_unblock, after_in_child=_after_fork_in_child)


if sys.platform != "win32":

    def _before_fork() -> None:
        """A signal to the child must wait until the child has left the parent's handlers."""
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()) if _handlers else None

    def _unblock() -> None:
        if _forking.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)

    def _after_fork_in_child() -> None:
        if _forking.mask is not None:
            signal.set_wakeup_fd(-1)
        for number, handler in [one for ours in _handlers for one in ours.items()]:
            if signal.getsignal(number) == handler:  # not one that a step has set
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        _handlers.clear()
        _unblock()


WANTED: Final = (65_536, 10_240)
"""macOS may grant only the second."""


def raise_file_limit() -> None:
    """The defaults are 256 on macOS and 1,024 on Linux. Connections above the limit would fail."""
    if sys.platform == "win32":  # no such limit there
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in WANTED:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= most:
            return
        with suppress(ValueError, OSError):  # the system refuses what it announced: try less
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return
