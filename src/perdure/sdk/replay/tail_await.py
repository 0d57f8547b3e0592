"""Whether a coroutine only returns what it awaits, as after `return await …`.

Then no line of the user's runs between the awaited value and the return.
"""

import dis
from functools import lru_cache
from types import CodeType, CoroutineType
from typing import Any, Final

_NOTHING: Final = frozenset({"CACHE", "END_SEND", "NOP"})
CODES_MAX: Final = 4_096


def only_returns(coro: Any, inner: CodeType) -> bool:
    """Whether `coro`, and each coroutine that it awaits down to the one that runs `inner`, is at such a place."""
    while isinstance(coro, CoroutineType) and coro.cr_frame is not None:
        if coro.cr_code is inner:
            return True
        if not _is_tail(coro.cr_code, coro.cr_frame.f_lasti):
            return False
        coro = coro.cr_await
    return False


@lru_cache(CODES_MAX)
def _is_tail(code: CodeType, at: int) -> bool:
    """`at` is the offset at which the code is suspended. An `await` is a loop of SEND, which jumps out of it."""
    end: int | None = None
    for one in dis.get_instructions(code):
        if one.opname == "SEND" and one.offset <= at:
            end = one.argval
        elif end is not None and at < end <= one.offset and one.opname not in _NOTHING:
            return one.opname == "RETURN_VALUE"
    return False
