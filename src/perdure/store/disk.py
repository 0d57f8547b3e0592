"""Syncs files, and tells network file systems apart."""

import os
import re
import sys
from contextlib import suppress
from typing import Final

_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs"})
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
"""An escaped character, such as a space, in the list of mounts."""


def sync(path: str | os.PathLike[str]) -> None:
    """Sync a file, or the names in a folder. Raises OSError."""
    if sys.platform == "win32" and os.path.isdir(path):
        return  # Windows cannot sync a folder
    handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)  # Windows syncs only writable files
    try:
        if sys.platform == "darwin":
            import fcntl

            with suppress(OSError):  # some file systems do not support it
                fcntl.fcntl(handle, fcntl.F_FULLFSYNC)  # fsync leaves data in the disk's own cache
                return
        os.fsync(handle)
    finally:
        os.close(handle)


def network_file_system(path: str | os.PathLike[str], mounts: str = "/proc/self/mountinfo") -> str | None:
    """The kind of a path's file system if it is on another machine; None outside of Linux."""
    place, deepest, kind = os.path.realpath(path), "", ""
    with suppress(OSError, IndexError, ValueError), open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            mount, _, file_system = line.partition(" - ")
            point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), mount.split(" ")[4])
            # The last mount at a place hides the earlier ones.
            if len(point) >= len(deepest) and os.path.commonpath([point, place]) == point:
                deepest, kind = point, file_system.split(" ")[0]
    return kind if kind in _NETWORK else None
