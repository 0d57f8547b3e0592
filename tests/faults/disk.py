"""A disk of a few megabytes that tests can fill, if the machine lets us mount a disk."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.run import NotHere


class SmallDisk:
    """A file system in memory, of a fixed size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> int:
        """Take all free space. Returns the number of bytes taken."""
        taken = 0
        with self._ballast.open("wb") as file:
            for size in (1 << 20, 1 << 12):  # to the last page
                block = b"\0" * size
                with contextlib.suppress(OSError):
                    while True:
                        taken += os.write(file.fileno(), block)
        return taken

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Mount a small disk until the block ends. Raises `NotHere` where mounting is not allowed."""
    path = Path(tempfile.mkdtemp(prefix="perdure-disk-"))
    path.chmod(0o755)
    try:
        options = f"size={megabytes}m,mode=755"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        try:
            mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise NotHere(f"a small disk cannot be mounted: {error}") from error
        if mounted.returncode:
            raise NotHere(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
        try:
            yield SmallDisk(path)
        finally:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
    finally:
        path.rmdir()
