import gc
import inspect
import logging
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import Any, Final

from perdure.sdk.base.errors import Evicted
from perdure.sdk.base.interrupts import is_interrupt

_log = logging.getLogger("perdure.workflow")

leaving: Final[ContextVar[bool]] = ContextVar("perdure_leaving", default=False)
"""True in `finally` blocks during an eviction, where a step would find no execution."""


def close(coro: Any) -> None:
    """Throw `Evicted` at each await of the `finally` blocks; `coro.close()` would leave an inner coroutine
    suspended."""
    if inspect.iscoroutine(coro) and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
        for held in [] if coro.cr_frame is None else list(coro.cr_frame.f_locals.values()):
            inner = getattr(held, "_coro", held)  # anyio's wrapper holds the coroutine that it never began
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
        except BaseException as error:
            if is_interrupt(error):
                raise
            return _log.debug("Error while an execution left memory", exc_info=error)
    _undead.append(coro)
    return _log.warning("%r does not end: it swallows every exception.", coro)


_undead: Final[list[Any]] = []
"""Keeps unending coroutines: freeing one would run its code again inside unrelated code."""


def close_generator(generator: AsyncGenerator[Any, Any]) -> None:
    closing = generator.aclose()
    before = leaving.set(True)
    try:
        closing.send(None)
    except BaseException as error:  # closed (StopIteration), or user code failed
        if is_interrupt(error):
            raise
        return
    finally:
        leaving.reset(before)
    close(closing)


def let_go(error: BaseException) -> None:
    """Cut `error` off its frames, whose variables lead back to the error: a cycle until a garbage collection."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        BaseException.with_traceback(one, None)  # works also if the user's class overrides it
        left += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def collecting() -> bool:
    """True during a garbage collection, whose moments do not replay."""
    return _collecting


_collecting = False


def _note_collection(phase: str, info: dict[str, int]) -> None:
    global _collecting
    _collecting = phase == "start"


gc.callbacks.append(_note_collection)
