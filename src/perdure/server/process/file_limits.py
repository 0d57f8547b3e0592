"""The limit for open files and connections."""

import sys
from contextlib import suppress
from typing import Final

WANTED: Final = (65_536, 10_240)
"""macOS may grant only the second."""


def raise_file_limit() -> None:
    """The defaults are 256 on macOS and 1,024 on Linux. Connections above the limit would fail."""
    if sys.platform == "win32":  # no such limit there
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in WANTED:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= most:
            return
        with suppress(ValueError, OSError):  # the system refuses what it announced: try less
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return
