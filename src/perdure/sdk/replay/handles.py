from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Coroutine

    from perdure.sdk.replay.inner_loop import InnerLoop
    from perdure.sdk.replay.keys import KeyScope


class InnerTask(asyncio.Task[Any]):
    """A task named by the path of its scope."""

    __slots__ = ("_number", "failure", "made_at", "own_scope", "scope")

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        loop: InnerLoop,
        scope: KeyScope,
        name: str,
        context: contextvars.Context | None,
    ) -> None:
        self._number = loop.next_number()
        self.scope = scope
        """The task's own scope, or a named scope (see `InnerLoop.within`)."""
        self.own_scope = scope
        self.made_at = loop.turn
        self.failure: tuple[str, int, int] | None = None
        """The last failure raised in the task (see `StepFailures.raised_in`)."""
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._number

    def let_go(self) -> None:
        """Drop a done task's reference to the traceback of its error: the frames hold the task itself."""
        error = self._exception
        if error is None and not self.cancelled():
            return
        traceback = None if error is None else error.__traceback__
        with suppress(BaseException):
            self.result()
        if error is not None:
            BaseException.with_traceback(error, traceback)


class InnerFuture(asyncio.Future[Any]):
    __slots__ = ("_number",)

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            loop = cast("InnerLoop", self.get_loop())
            self._number: int = loop.next_number()
            return self._number


class InnerHandle(asyncio.Handle):
    __slots__ = ()

    _callback: Any
    _args: Any
    _loop: Any

    def __init__(  # The base class would look for a debug mode.
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: InnerLoop, context: contextvars.Context
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._loop = loop
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = None
            self._args = None


class InnerTimer(asyncio.TimerHandle):
    """Waits for the journal's timer row `key`."""

    __slots__ = ("due_us", "key")

    _callback: Any
    _args: Any
    _loop: Any

    def __init__(
        self,
        key: str,
        due_us: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: InnerLoop,
        context: contextvars.Context,
    ) -> None:
        self.key = key
        self.due_us = due_us
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._loop = loop
        self._repr = None
        self._source_traceback = None
        self._when = due_us / 1e6
        self._scheduled = True

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = None
            self._args = None
            self._loop.forget_timer(self)
