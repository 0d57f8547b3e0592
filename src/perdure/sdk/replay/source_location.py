import asyncio
import contextlib
import os
import types
from pathlib import Path
from typing import Any, Final

_NOT_USERS: Final = (
    asyncio.__file__.rpartition("__init__")[0],
    contextlib.__file__,
    f"{Path(__file__).parents[1]}{os.sep}",
)


def source_location(coro: Any) -> str | None:
    """The user's line at which `coro` waits, as `file:line`."""
    found = None
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None) or getattr(coro, "ag_frame", None)
        if isinstance(frame, types.FrameType) and not frame.f_code.co_filename.startswith(_NOT_USERS):
            found = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None) or getattr(coro, "ag_await", None)
    return found
