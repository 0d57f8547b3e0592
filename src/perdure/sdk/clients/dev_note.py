"""The note that a running `perdure dev`, or an application with `embedded(…, serve=…)`, leaves in its folder.

`.perdure/dev.json` has the process, address and key: `{"pid": 4711, "url": "http://127.0.0.1:8080", "api_key":
"sk_…"}`. Only the owner may read the note. The note of an ended process does not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

NOTE: Final = Path(".perdure") / "dev.json"
PROBE_SECONDS: Final = 0.5


class RunningDev(NamedTuple):
    url: str
    pid: int
    api_key: str | None = None


def find() -> RunningDev | None:
    """The process running in this folder, or in the nearest folder above."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the folder is gone
        return None
    return next(filter(None, (read(folder / NOTE) for folder in (here, *here.parents))), None)


def read(note: Path) -> RunningDev | None:
    """Returns None if the process has ended, if another process has reused the id and serves nothing there, or if the
    note is another user's."""
    try:
        if sys.platform != "win32" and note.stat().st_uid != os.getuid():
            return None
        said = json.loads(note.read_text(encoding="utf-8"))
        key = said.get("api_key")
        found = RunningDev(str(said["url"]), int(said["pid"]), key if isinstance(key, str) else None)
        if sys.platform != "win32":  # on Windows this would send it a Ctrl-C
            os.kill(found.pid, 0)
        address = urlsplit(found.url)
        socket.create_connection((address.hostname or "", address.port or 80), PROBE_SECONDS).close()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no note, or one of a killed process
        return None
    return found


def write(note: Path, running: RunningDev) -> None:
    """Raises OSError."""
    said = {name: value for name, value in running._asdict().items() if value is not None}
    write_private(note, json.dumps(said) + "\n")


@contextmanager
def written(url: str, api_key: str) -> Iterator[None]:
    """Leave a note of this process in the folder. Another process's note stays, and a read-only folder gets no note."""
    note = NOTE.absolute()
    mine = False
    made = not note.parent.exists()
    if read(note) is None:
        with contextlib.suppress(OSError):
            note.parent.mkdir(exist_ok=True)
            write(note, RunningDev(url, os.getpid(), api_key))
            mine = True
    try:
        yield
    finally:
        if mine:
            remove(note, os.getpid())
            with contextlib.suppress(OSError):
                if made:
                    note.parent.rmdir()


def remove(note: Path, pid: int) -> None:
    """Keeps another process's note."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(note.read_text(encoding="utf-8"))["pid"] == pid:
            note.unlink()


def write_private(file: Path, text: str) -> None:
    """Replaces the whole file, never readable by other users. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-")  # 0600 from the start
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
