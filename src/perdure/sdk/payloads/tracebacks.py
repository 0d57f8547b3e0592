"""Tracebacks as frames: the file, line, function and source of each call, and whether the code is the user's own.

`PERDURE_TRACEBACKS=no` leaves tracebacks out of what a process records.
"""

import os
import sysconfig
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from perdure.wire.base.codec import scrub_text
from perdure.wire.base.errors import BadRequest

FRAMES_MAX: Final = 20
"""Most frames of a traceback: the innermost are kept."""
FRAMES_BYTES_MAX: Final = 8 << 10
TEXT_BYTES_MAX: Final = 240
VARIABLE: Final = "PERDURE_TRACEBACKS"


class Frame(msgspec.Struct, frozen=True):
    """A call in a traceback. `own`: the code is neither Python's, nor Perdure's, nor an installed package's."""

    file: str
    line: int
    function: str
    source: str
    own: bool


def are_kept(environ: str | None) -> bool:
    """Raises `BadRequest` for a value other than yes or no."""
    said = (environ or "yes").strip().lower()
    if said not in ("yes", "no"):
        raise BadRequest(f"{VARIABLE} must be yes or no, got {environ!r}.")
    return said == "yes"


KEPT: Final = are_kept(os.environ.get(VARIABLE))


def frames_of(error: BaseException) -> list[Frame] | None:
    """The innermost frames that fit into 8 KiB, outermost first."""
    found: list[Frame] = []
    room = FRAMES_BYTES_MAX
    for one in reversed(traceback.extract_tb(error.__traceback__, limit=-FRAMES_MAX)):
        file = one.filename
        frame = Frame(
            scrub_text(file[-TEXT_BYTES_MAX:], TEXT_BYTES_MAX),
            one.lineno or 0,
            scrub_text(one.name, TEXT_BYTES_MAX),
            scrub_text(one.line or "", TEXT_BYTES_MAX),
            own=not is_library(file),
        )
        room -= len(msgspec.json.encode(frame))
        if room < 0:
            break
        found.append(frame)
    return found[::-1] or None


@lru_cache(maxsize=1_024)
def is_library(file: str) -> bool:
    path = Path(file)
    return file.startswith("<") or not _PACKAGES.isdisjoint(path.parts) or any(map(path.is_relative_to, _PLACES))


_PACKAGES: Final = frozenset({"site-packages", "dist-packages"})
_PLACES: Final = (Path(__file__).parents[2], *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")))
