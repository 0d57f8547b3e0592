"""To the disk, with what is no statement of SQLite's."""

import os
import sys
from contextlib import suppress


def sync(path: str | os.PathLike[str]) -> None:
    """Have a file, or the names in a folder, on the disk before this returns. Raises OSError."""
    if sys.platform == "win32" and os.path.isdir(path):
        return  # Windows has no way to ask that of a folder
    handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)  # Windows syncs only what may be written
    try:
        if sys.platform == "darwin":
            import fcntl

            with suppress(OSError):  # some file systems do not know it
                fcntl.fcntl(handle, fcntl.F_FULLFSYNC)  # fsync leaves what the disk itself holds back
                return
        os.fsync(handle)
    finally:
        os.close(handle)
