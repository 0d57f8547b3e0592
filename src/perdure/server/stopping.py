"""The signals that ask a process to end."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def when_asked_to_stop(
    loop: asyncio.AbstractEventLoop, callback: Callable[[], None], signals: Sequence[signal.Signals] = SIGNALS
) -> Callable[[], None]:
    """Returns a function that undoes this."""
    before: dict[signal.Signals, Any] = {}
    for number in signals:
        try:
            loop.add_signal_handler(number, callback)
        except NotImplementedError:  # on Windows the loop takes no signals, but they wake it up
            before[number] = signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback) and None)

    def undo() -> None:
        for number in signals:
            if number in before:
                signal.signal(number, before[number])
            else:
                loop.remove_signal_handler(number)

    return undo
