"""A disk under SQLite that counts its syncs and fails on request."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw


class Disk:
    """The log of a disk, and its present faults."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        """("sync" | "write", the file's name), in order."""
        self.full_from: str | None = None
        """Files with such an ending cannot be written to."""
        self.full_after = 0
        """How many bytes of such a file still can."""
        self.half_syncs = 0
        """Syncs that leave data in the disk's own buffer, on systems with a choice."""
        self.sync_fails = False
        self.on_write: Callable[[str], None] = lambda name: None

    def syncs(self, ending: str) -> int:
        return sum(1 for what, name in self.log if what == "sync" and name.endswith(ending))


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, base: str, name: object, flags: list[int]) -> None:
        filename = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk = disk
        self._name = os.path.basename(str(filename)) if filename else "temporary"
        super().__init__(base, name, flags)  # type: ignore[arg-type]  # str, URIFilename or None

    def xSync(self, flags: int) -> None:
        self._disk.log.append(("sync", self._name))
        self._disk.half_syncs += flags & apsw.SQLITE_SYNC_FULL != apsw.SQLITE_SYNC_FULL
        if self._disk.sync_fails:
            error = apsw.IOError("the disk is gone")
            error.extendedresult = apsw.SQLITE_IOERR_FSYNC  # type: ignore[attr-defined]  # how apsw passes it on
            raise error
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.log.append(("write", self._name))
        full = self._disk.full_from is not None and self._name.endswith(self._disk.full_from)
        if full and offset + len(data) > self._disk.full_after:
            raise apsw.FullError("no space left")
        super().xWrite(data, offset)


class _Under(apsw.VFS):
    def __init__(self, disk: Disk, base: str) -> None:
        self._disk = disk
        self._base = base
        super().__init__("watched", base, makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> _File:
        return _File(self._disk, self._base, name, flags)


@contextmanager
def watched_disk() -> Iterator[Disk]:
    """Every store opened inside is on this disk."""
    disk = Disk()
    under = _Under(disk, apsw.vfs_names()[0])
    try:
        yield disk
    finally:
        under.unregister()
