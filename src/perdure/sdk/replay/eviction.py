"""How code leaves memory half-way: coroutines and generators are ended by `Evicted`."""

import gc
import inspect
import logging
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import Any, Final

from perdure.sdk.errors import Evicted
from perdure.sdk.interrupts import is_interrupt

_log = logging.getLogger("perdure.workflow")

leaving: Final[ContextVar[bool]] = ContextVar("perdure_leaving", default=False)
"""Whether the code that runs is a `finally` block of something that leaves memory. It runs in the context variables of
whoever closes it, where no step finds its execution: so this says that a step must not run."""


def close(coro: Any) -> None:
    """End a coroutine by `Evicted`, thrown in again at each await of its `finally` blocks.

    Not by `close()`: when an inner coroutine awaits while it is closed, that leaves it suspended and goes on outside.
    """
    if inspect.iscoroutine(coro) and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
        for held in [] if coro.cr_frame is None else list(coro.cr_frame.f_locals.values()):
            inner = getattr(held, "_coro", held)  # anyio's wrapper holds the coroutine that it never began.
            if inspect.iscoroutine(inner):
                inner.close()
        return coro.close()
    before = leaving.set(True)
    try:
        return _throw(coro)
    finally:
        leaving.reset(before)


def _throw(coro: Any) -> None:
    for _ in range(1_000):
        try:
            coro.throw(Evicted("The execution leaves memory; it goes on elsewhere."))
        except (StopIteration, StopAsyncIteration, Evicted):
            return None
        except BaseException as error:  # User code; there is nobody left to tell.
            if is_interrupt(error):
                raise
            return _log.debug("Error while an execution left memory", exc_info=error)
    _undead.append(coro)
    return _log.warning("%r does not end: it swallows every exception.", coro)


_undead: Final[list[Any]] = []
"""Coroutines that would not end: freeing one would run it again, in whatever code happens to let go of it."""


def close_generator(generator: AsyncGenerator[Any, Any]) -> None:
    closing = generator.aclose()
    before = leaving.set(True)
    try:
        closing.send(None)
    except BaseException as error:  # Closed (StopIteration), or user code failed and there is nobody left to tell.
        if is_interrupt(error):
            raise
        return
    finally:
        leaving.reset(before)
    close(closing)


def let_go(error: BaseException) -> None:
    """Cut `error`, and all errors that it came from, off the frames that they passed.

    The variables of these frames lead back to the error or to what holds it, as `ctx` does to the machine. Such a cycle
    stays in memory until the garbage collector comes by.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        BaseException.with_traceback(one, None)  # also where the user's class refuses to be changed
        left += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def collecting() -> bool:
    """Whether the garbage collector is at work: what it frees, it frees at a moment that no replay repeats."""
    return _collecting


_collecting = False


def _note_collection(phase: str, info: dict[str, int]) -> None:
    global _collecting
    _collecting = phase == "start"


gc.callbacks.append(_note_collection)
