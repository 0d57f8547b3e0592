"""Syncs files, tells file systems apart, and logs refused writes."""

import logging
import os
import re
import sys
import time
from contextlib import suppress
from typing import Final

_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs"})
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
"""An escaped character, such as a space, in the list of mounts."""

TOLD_SECONDS_MAX: Final = 300.0


class Refusals:
    """Logs refused writes of a store: the first at once, later ones as a count after growing pauses, and the end."""

    def __init__(self, logger: logging.Logger, store: str) -> None:
        self._logger, self._store = logger, store
        self._amount, self._is_told = 0, False
        self._pause, self._began_at, self._due_at = 1.0, 0.0, 0.0

    def add(self, why: object) -> None:
        now = time.monotonic()
        self._began_at = self._began_at if self._amount else now
        self._amount += 1
        if now < self._due_at:
            return
        so_far = f" ({self._amount:,} times in {now - self._began_at:.0f} s)" if self._amount > 1 else ""
        self._logger.error("%s cannot write: %s%s", self._store, why, so_far)
        self._is_told = True
        self._pause = 1.0 if now > self._due_at + TOLD_SECONDS_MAX else min(2 * self._pause, TOLD_SECONDS_MAX)
        self._due_at = now + self._pause

    def end(self) -> None:
        """Call after a successful write."""
        if self._is_told:
            text = "%s writes again after %.0f s; it refused %d times."
            self._logger.warning(text, self._store, time.monotonic() - self._began_at, self._amount)
        self._amount, self._is_told = 0, False


def is_read_only(path: str) -> bool:
    """True if the path's file system is mounted read-only. False if unknown."""
    if sys.platform != "win32":  # which has no statvfs
        with suppress(OSError):
            return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


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
    """The kind of a path's file system on another machine; None for a local disk and outside of Linux."""
    place, deepest, kind = os.path.realpath(path), "", ""
    with suppress(OSError, IndexError, ValueError), open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            mount, _, file_system = line.partition(" - ")
            point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), mount.split(" ")[4])
            # The last mount at a place hides the earlier ones.
            if len(point) >= len(deepest) and os.path.commonpath([point, place]) == point:
                deepest, kind = point, file_system.split(" ")[0]
    return kind if kind in _NETWORK else None
