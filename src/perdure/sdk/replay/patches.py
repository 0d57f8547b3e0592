"""Inside inner loops, sets iterate alike in every replay, and threads are refused."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Iterable, Set
from concurrent.futures import Future
from typing import Any

from perdure.sdk.base.errors import Misplaced
from perdure.sdk.replay.refusals import threads_misplaced

_get_running_loop = asyncio._get_running_loop
anyio_is_patched = False


def patch_asyncio(loop_class: type[Any]) -> None:
    """Make `gather`'s futures hash by number.

    `as_completed` makes tasks in the order of the list, and refuses a set of coroutines.

    `wrap_future` refuses futures of threads, since a thread cannot wake the code again.
    """

    def number_gathered(self: Any) -> int:
        loop = self.get_loop()
        if not isinstance(loop, loop_class):
            return object.__hash__(self)
        number: int | None = getattr(self, "_perdure_number", None)
        if number is None:
            number = self._perdure_number = loop.next_number()
        return number

    asyncio.tasks._GatheringFuture.__hash__ = number_gathered  # type: ignore[attr-defined]  # typeshed does not know it

    def in_order(fs: Any, *, timeout: float | None = None) -> Any:
        if isinstance(_get_running_loop(), loop_class) and isinstance(fs, Iterable) and not asyncio.isfuture(fs):
            if isinstance(fs, Set) and (found := [one for one in fs if asyncio.iscoroutine(one)]):
                for coroutine in found:
                    coroutine.close()  # it would warn that it was never awaited
                raise Misplaced(
                    "as_completed() got a set of coroutines, whose order differs in every run of a workflow; give it a "
                    "list, or a set of tasks."
                )
            fs = [asyncio.ensure_future(one) for one in dict.fromkeys(fs)]
        return stdlib(fs, timeout=timeout)

    def as_completed(fs: Any, *, timeout: float | None = None) -> Any:
        return _perdure_as_completed(fs, timeout=timeout)  # type: ignore[name-defined]  # noqa: F821  # see _exchange

    def of_no_thread(future: Any, *, loop: Any = None) -> Any:
        if isinstance(loop or _get_running_loop(), loop_class) and isinstance(future, Future):
            raise threads_misplaced("The future of a thread cannot be awaited in workflow code")
        return plain_wrap_future(future, loop=loop)

    def wrap_future(future: Any, *, loop: Any = None) -> Any:
        return _perdure_wrap_future(future, loop=loop)  # type: ignore[name-defined]  # noqa: F821  # see _exchange

    stdlib = _exchange(asyncio.as_completed, as_completed, in_order)
    plain_wrap_future = _exchange(asyncio.wrap_future, wrap_future, of_no_thread)


def _exchange(function: Any, caller: Any, replacement: Any) -> Any:
    """Make `function` call `replacement`, even where already imported, and return the original.

    The function gets the code of `caller`, which finds `replacement` in its module's globals.
    """
    there = function.__globals__
    was = types.FunctionType(function.__code__, there, function.__name__, function.__defaults__)
    was.__kwdefaults__ = function.__kwdefaults__
    there[f"_perdure_{function.__name__}"] = replacement
    function.__code__ = caller.__code__
    return was


def patch_anyio(loop_class: type[Any]) -> None:
    """anyio keeps cancel scopes in sets, so in inner loops cancel scopes hash by number."""
    global anyio_is_patched
    anyio_is_patched = True
    from anyio._backends import _asyncio as backend  # imported only if the user did

    class NumberedScope(backend.CancelScope):
        __slots__ = ("_number",)

        def __hash__(self) -> int:
            try:
                return self._number
            except AttributeError:
                loop = _get_running_loop()
                self._number: int = loop.next_number() if isinstance(loop, loop_class) else object.__hash__(self)
                return self._number

    plain_run = backend.AsyncIOBackend.run_sync_in_worker_thread

    async def run_sync_in_worker_thread(*args: Any, **kwargs: Any) -> Any:
        # Refused before the thread exists: it could not report back, and would keep the process alive.
        loop = _get_running_loop()
        if isinstance(loop, loop_class):
            loop.call_soon_threadsafe(lambda: None)
        return await plain_run(*args, **kwargs)

    backend.AsyncIOBackend.run_sync_in_worker_thread = run_sync_in_worker_thread  # type: ignore[method-assign]  # a patch
    NumberedScope.__name__ = NumberedScope.__qualname__ = "CancelScope"
    backend.CancelScope = NumberedScope  # type: ignore[misc]  # the name by which anyio makes its scopes
