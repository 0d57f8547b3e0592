"""Calls that workflow code made and never awaited. Such calls did not run, and the code continued without them."""

import dis
import linecache
import weakref
from collections.abc import Coroutine
from types import CodeType
from typing import Any, Final, TypeAlias

from perdure.sdk.base.errors import NotAwaited

NAMED_MAX: Final = 3
SHOWN_MAX: Final = 100


class Promise:
    """Stands for a call without a key yet."""

    __slots__ = ("key", "name")

    def __init__(self, name: str) -> None:
        self.key = ""
        self.name: str | None = name


Made: TypeAlias = tuple[Coroutine[Any, Any, Any], CodeType, int, int]
"""A plain tuple costs a fifth of a named one: the coroutine, the caller's code and place, and the errors met before."""


def not_awaited(made: dict[Any, Made], upsets: int) -> NotAwaited | None:
    """Closes all coroutines. A call does not count if the code closed the coroutine, if a branch still holds it, or if
    an error came before the `await`."""
    found: list[str] = []
    for call in list(made):
        coro, code, at, before = made.pop(call)
        if coro.cr_frame is None:  # type: ignore[attr-defined]  # a coroutine of ours has it
            continue
        coro.close()
        alive = weakref.ref(coro)
        del coro
        if alive() is None and (before == upsets or _is_a_statement(code, at)):
            line = next((line for start, end, line in code.co_lines() if start <= at < end), None)
            text = linecache.getline(code.co_filename, line or 0).strip()[:SHOWN_MAX]
            found.append(f"{call.name or call.key} at {code.co_filename}:{line}" + (f" (`{text}`)" if text else ""))
    if not found:
        return None
    more = f"; and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return NotAwaited(
        f"The code called these without `await`, so they did not run: {'; '.join(found[:NAMED_MAX])}{more}. Write "
        "`await` in front of the call, or remove it. Then start the workflow again."
    )


def _is_a_statement(code: CodeType, at: int) -> bool:
    """Whether the code drops the call's value at once."""
    following = (one.opname for one in dis.get_instructions(code) if one.offset > at and one.opname != "CACHE")
    return next(following, None) == "POP_TOP"
