"""How many files and connections a process may have open."""

import sys
from contextlib import suppress
from typing import Final

WANTED: Final = (65_536, 10_240)
"""The second is the most that macOS grants under some of its settings."""


def allow_many() -> None:
    """Let this process and what it starts have as many files and connections open as the system lets it ask for, up to
    65,536. Each connection takes one; macOS allows 256 at first and Linux 1,024, and what comes after is cut off."""
    if sys.platform == "win32":  # nothing there counts them
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in WANTED:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= most:
            return
        with suppress(ValueError, OSError):  # more than the system ever grants, whatever it says: less will do
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return
