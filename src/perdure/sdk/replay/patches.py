"""asyncio and anyio keep some things in sets, by their addresses. Inside an inner loop they get an order that replays.

Outside of inner loops nothing changes.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Iterable, Set
from typing import Any

from perdure.sdk.errors import Misplaced

_get_running_loop = asyncio._get_running_loop
anyio_is_patched = False


def patch_asyncio(loop_class: type[Any]) -> None:
    """`gather`'s futures hash by number.

    `as_completed` makes its tasks in the order of a set of coroutines, that is, of addresses. Inside an inner loop
    it gets tasks made in the order of the list, and refuses a set of coroutines, which has no order that a replay could
    repeat. The function's code is exchanged, so that `from asyncio import as_completed` gets it too, however early it
    ran.
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

    there = vars(asyncio.tasks)
    original = asyncio.as_completed
    stdlib = types.FunctionType(original.__code__, there, "as_completed", original.__defaults__)
    stdlib.__kwdefaults__ = original.__kwdefaults__

    def in_order(fs: Any, *, timeout: float | None = None) -> Any:
        if isinstance(asyncio._get_running_loop(), loop_class) and isinstance(fs, Iterable):
            if isinstance(fs, Set) and any(asyncio.iscoroutine(one) for one in fs):
                for one in fs:
                    if asyncio.iscoroutine(one):
                        one.close()
                raise Misplaced(
                    "as_completed() got a set of coroutines, whose order differs in every run of a workflow; give it a "
                    "list, or a set of tasks."
                )
            fs = [asyncio.ensure_future(one) for one in dict.fromkeys(fs)]
        return stdlib(fs, timeout=timeout)

    def as_completed(fs: Any, *, timeout: float | None = None) -> Any:
        return _perdure_as_completed(fs, timeout=timeout)  # type: ignore[name-defined]  # noqa: F821  # found in asyncio.tasks

    there["_perdure_as_completed"] = in_order
    original.__code__ = as_completed.__code__


def patch_anyio(loop_class: type[Any]) -> None:
    """anyio keeps cancel scopes in sets; those of an inner loop get a number instead of their address."""
    global anyio_is_patched
    anyio_is_patched = True
    from anyio._backends import _asyncio as backend  # An optional guest: never imported unless the user did.

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
        # Refused before the thread exists: it could never report back, and would keep the process from ending.
        loop = _get_running_loop()
        if isinstance(loop, loop_class):
            loop.call_soon_threadsafe(lambda: None)
        return await plain_run(*args, **kwargs)

    backend.AsyncIOBackend.run_sync_in_worker_thread = run_sync_in_worker_thread  # type: ignore[method-assign]  # a patch
    NumberedScope.__name__ = NumberedScope.__qualname__ = "CancelScope"
    backend.CancelScope = NumberedScope  # type: ignore[misc]  # the name by which anyio makes its scopes
