"""User code may raise any exception, even `KeyboardInterrupt` and `SystemExit`, as the outcome of a step, callback or
workflow. So every `except` around user code catches `BaseException` and checks `is_interrupt` first."""

import functools
import logging
import signal
import threading
from asyncio import AbstractEventLoop, Task
from types import FunctionType, MethodType
from typing import Final, TypeVar

T = TypeVar("T")

ENDINGS: Final = (KeyboardInterrupt, SystemExit)
"""asyncio also raises these two out of its loop."""

logger = logging.getLogger("perdure.worker")


def is_interrupt(error: BaseException) -> bool:
    """True if the process's SIGINT handler raised `error`.

    Python's default handler, which `perdure work` and `asyncio.run` replace, leaves no frame in a traceback. With the
    default handler, each `KeyboardInterrupt` in the main thread counts as Ctrl-C.
    """
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        return True
    while isinstance(handler, functools.partial | MethodType):
        handler = handler.func if isinstance(handler, functools.partial) else handler.__func__
    traceback = error.__traceback__
    while traceback is not None:
        if isinstance(handler, FunctionType) and traceback.tb_frame.f_code is handler.__code__:
            return True
        traceback = traceback.tb_next
    return False


def run_until_complete(loop: AbstractEventLoop, main: Task[T]) -> T:
    """Run `main` past each `KeyboardInterrupt` and `SystemExit` except Ctrl-C.

    asyncio stops the loop if a task or a callback raises either.
    """
    while True:
        try:
            return loop.run_until_complete(main)
        except ENDINGS as error:
            if main.done() or is_interrupt(error):
                raise
            logger.error("A task or a callback of a step raised %s; the worker goes on.", type(error).__name__)
