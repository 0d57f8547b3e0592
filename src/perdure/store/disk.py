"""To the disk, with what is no statement of SQLite's; and which kind of disk that is."""

import os
import re
import sys
from contextlib import suppress
from typing import Final

_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs"})
"""File systems of other machines, as Linux calls them."""
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
"""A space, for instance, in the list of what is mounted."""


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


def network_file_system(path: str | os.PathLike[str], mounts: str = "/proc/self/mountinfo") -> str | None:
    """The kind of the file system that a path lies in, if that is another machine's. None, too, where nobody says:
    outside of Linux."""
    place, deepest, kind = os.path.realpath(path), "", ""
    with suppress(OSError, IndexError, ValueError), open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            mount, _, file_system = line.partition(" - ")
            point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), mount.split(" ")[4])
            # Of several at one place the last hides the others.
            if len(point) >= len(deepest) and os.path.commonpath([point, place]) == point:
                deepest, kind = point, file_system.split(" ")[0]
    return kind if kind in _NETWORK else None
