"""The lock by which one process has an SQLite store, and the modes of a store's files.

**Two locks.** The first is on the file `STORE.lock`, since a restore replaces the database file. The second is on the
database file itself, so it holds on every path: a bind mount, another container.

**Why flock(2).** SQLite takes POSIX record locks, which on Linux do not see flock. A process loses its record locks
when it closes any descriptor of the file, so no function here opens a database file that is open in this process. Only
Linux gets the second lock, on local file systems: macOS, NFS and SMB turn flock into record locks, which lock SQLite
out.

**One name.** SQLite finds the write-ahead log by the name of the database file, so a file with hard links is refused.
"""

import os
import sys
from contextlib import suppress
from typing import Final

from perdure.store.drivers.disk import network_file_system
from perdure.wire.base.errors import PerdureError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PRIVATE: Final = 0o600
"""A store holds payloads, password hashes and signing secrets."""
_opened: Final[set[tuple[int, int]]] = set()
"""Device and inode of each locked database file."""


class StoreInUse(PerdureError):
    """Another process has the file open."""

    code = "STORE_IN_USE"
    status = 503


class FileLock:
    """`make` creates a missing file. Raises StoreInUse, OSError."""

    def __init__(self, path: str, *, make: bool = False) -> None:
        self._path = os.path.realpath(path)
        self._handles: list[int] = []
        self._inode: tuple[int, int] | None = None
        try:
            if os.path.exists(self._path) and _inode(self._path) in _opened:
                raise _in_use(self._path, os.getpid())
            self._lock(_open(f"{self._path}.lock"))
            if make or os.path.exists(self._path):
                self._lock_database()
        except BaseException:
            self.release()
            raise

    def _lock_database(self) -> None:
        if sys.platform == "linux" and network_file_system(self._path) is None:
            self._lock(_open(self._path))
        else:
            make_private(self._path)
        self._inode = _inode(self._path)
        _opened.add(self._inode)

    def _lock(self, handle: int) -> None:
        self._handles.append(handle)
        try:
            if sys.platform == "win32":
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if sys.platform != "win32" and not isinstance(error, BlockingIOError):
                raise  # this file system has no locks
            raise _in_use(self._path, _holder(handle)) from None

    def release(self) -> None:
        """Call after SQLite closed the file."""
        if self._inode is not None:
            _opened.discard(self._inode)
            self._inode = None
        while self._handles:
            os.close(self._handles.pop())


def several_names(path: str) -> str | None:
    """The error for a file with hard links."""
    links = os.stat(path).st_nlink
    if links == 1:
        return None
    return (
        f"{path!r} has {links} names (hard links). SQLite keeps a log (`-wal`) beside each name, so changes made under "
        "one name can be lost under another. Keep the name that has a log beside it, or any name if none has, and "
        f"delete the others: `find FOLDER -samefile {path}` lists them. `perdure backup` makes a copy that is its own "
        "file."
    )


def make_private(path: str | os.PathLike[str]) -> None:
    """Create a file readable by its owner only. An existing file is not opened: closing it would end SQLite's record
    locks."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))


def readable_by_others(path: str) -> int | None:
    """The mode if the group or other users may read the file; None on Windows."""
    mode = os.stat(path).st_mode & 0o777
    return mode if sys.platform != "win32" and mode & 0o044 else None


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), PRIVATE)


def _inode(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _in_use(path: str, pid: int | None) -> StoreInUse:
    who = "this process" if pid == os.getpid() else "another process" if pid is None else f"another process ({pid})"
    return StoreInUse(
        f"{path!r} is open in {who}. An SQLite file belongs to one process: stop the other one, let it serve this one "
        "over HTTP (`perdure serve`, `perdure.Client`), or use PostgreSQL, which several processes share."
    )


def _holder(handle: int) -> int | None:
    """The process with the lock. None outside of Linux and for a process in another container."""
    if sys.platform != "linux":
        return None
    status = os.fstat(handle)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as lines:
            found = [line.split() for line in lines]
    except OSError:
        return None
    return next((int(line[4]) for line in found if line[1] == "FLOCK" and line[5] == place and int(line[4]) > 0), None)
