"""Refuses what an inner loop cannot replay."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final, NoReturn

from perdure.sdk.base.errors import Misplaced

if TYPE_CHECKING:
    from collections.abc import Callable


def misplaced(name: str) -> Misplaced:
    return Misplaced(
        f"{name!r} was asked for outside of its workflow's code. A Context works only in the `async def` of its "
        "workflow, not inside a step, a thread or another event loop."
    )


_TO_STEP: Final = (
    'Do it in a step: `await ctx.step("name", function, …)` runs async functions in the worker\'s own loop '
    "and sync ones in a thread."
)


def no_threads() -> Misplaced:
    return Misplaced(_message("run_in_executor"))


def threads_misplaced(what: str) -> Misplaced:
    return Misplaced(
        f"{what}, because a replay has no threads. Put the threaded work into a step: "
        '`await ctx.step("name", function, …)` runs sync functions in a thread.'
    )


def refuse_the_rest(loop_class: type[Any]) -> None:
    for name, member in vars(asyncio.AbstractEventLoop).items():
        if name.startswith("_") or name in vars(loop_class) or not callable(member):
            continue
        setattr(loop_class, name, _refusal(name, inspect.iscoroutinefunction(member)))


def _message(name: str) -> str:
    return f"loop.{name} does not work in a workflow's body, which must replay without input/output. {_TO_STEP}"


def _refusal(name: str, is_async: bool) -> Callable[..., Any]:
    message = _message(name)

    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise Misplaced(message)

    async def refuse_async(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise Misplaced(message)

    chosen: Callable[..., Any] = refuse_async if is_async else refuse
    chosen.__name__ = name
    return chosen
