"""Whether a coroutine only returns the awaited value, as after `return await …`.

The user's code then runs no line between the awaited value and the return.
"""

import dis
from types import CodeType, CoroutineType
from typing import Any, Final

_NOTHING: Final = frozenset({"CACHE", "END_SEND", "NOP"})
CODES_MAX: Final = 4_096

_known: dict[int, tuple[CodeType, list[range]]] = {}
"""Tails by the code's id, since hashing code costs more than a step may. Keeping the code reserves its id."""


def has_tails(coro: Any) -> bool:
    """Whether `only_returns` can be true of the coroutine."""
    return isinstance(coro, CoroutineType) and bool((_known.get(id(coro.cr_code)) or _tails_of(coro.cr_code))[1])


def only_returns(coro: Any, inner: CodeType) -> bool:
    """Whether `coro`, and each awaited coroutine down to the one running `inner`, only returns the awaited value."""
    while isinstance(coro, CoroutineType):
        code = coro.cr_code
        if code is inner:
            return True
        _, tails = _known.get(id(code)) or _tails_of(code)
        frame = coro.cr_frame if tails else None  # the interpreter makes an object for it
        if frame is None:
            return False
        at = frame.f_lasti
        for tail in tails:
            if at in tail:
                break
        else:
            return False
        coro = coro.cr_await
    return False


def _tails_of(code: CodeType) -> tuple[CodeType, list[range]]:
    if len(_known) >= CODES_MAX:
        _known.clear()
    found = _known[id(code)] = code, _find_tails(code)
    return found


def _find_tails(code: CodeType) -> list[range]:
    """Offsets at which code that only returns is suspended. An `await` is a loop of SEND, left by a jump."""
    tails: list[range] = []
    loop: range | None = None
    for one in dis.get_instructions(code):
        if one.opname == "SEND":
            loop = range(one.offset, one.argval)
        elif loop is not None and one.offset >= loop.stop and one.opname not in _NOTHING:
            if one.opname == "RETURN_VALUE":
                tails.append(loop)
            loop = None
    return tails
