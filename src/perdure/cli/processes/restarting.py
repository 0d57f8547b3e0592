"""work --restart: a parent process starts a new worker when one dies, and tells the server.

A server sees only a closed connection, and keeps the lease for another second. The parent knows that the process ended,
so executions continue elsewhere at once. When memory runs out, the system kills the largest process, which is the
worker. A forked worker has loaded all but the application.
"""

import contextlib
import http.client
import logging
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

import msgspec
import typer

from perdure.cli.base.commands import Refused
from perdure.cli.processes.serve import end_with_parent
from perdure.sdk.clients.credentials import Access
from perdure.sdk.transports.blocking import BlockingConnection
from perdure.server.process.signals import SIGNALS
from perdure.wire.runs.requests import DrainRequest

logger = logging.getLogger("perdure.worker")

PASSED_ON: Final = (signal.SIGTERM,)
NOTE_BYTES: Final = 4096
SHORT_SECONDS: Final = 1.0
"""If a worker lived for less, the parent pauses as long."""
ANSWER_SECONDS: Final = 1.0


class Note:
    """The worker's id and epoch, in shared memory that survives every end of the process."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, NOTE_BYTES)

    def write(self, worker_id: str, epoch: str) -> None:
        self._memory[:] = msgspec.json.encode((worker_id, epoch)).ljust(NOTE_BYTES, b"\0")

    def take(self) -> tuple[str, str] | None:
        """None if the last process did not register."""
        written = self._memory[:].rstrip(b"\0")
        self._memory[:] = bytes(NOTE_BYTES)
        try:
            return msgspec.json.decode(written, type=tuple[str, str])
        except msgspec.DecodeError:  # empty, or killed while writing
            return None


class _Parent:
    def __init__(self, access: Access) -> None:
        self._access = access
        self._note = Note()
        self._asked = False
        self._child = 0
        self._lives, self._held = os.pipe()
        """A pipe. The child reads until the parent's end closes."""

    def keep_alive(self) -> Callable[[str, str], None]:
        for number in SIGNALS:
            signal.signal(number, self._pass_on)
        while not self._asked:
            began = time.monotonic()
            if not self._fork():
                return self._note.write
            code = self._until_it_ends()
            dead = self._note.take()
            if self._asked or (dead is None and code >= 0):  # a new process would fail again
                raise typer.Exit(code if code >= 0 else 128 - code)
            logger.warning(
                "The worker's process has ended%s. Its executions continue elsewhere, and another process starts.",
                _cause(code),
            )
            if dead is not None:
                tell(self._access, *dead)
            if time.monotonic() - began < SHORT_SECONDS:
                time.sleep(SHORT_SECONDS)
        raise typer.Exit(0)

    def _fork(self) -> bool:
        """True in the parent. Raises Refused."""
        if sys.platform == "win32":
            raise Refused("--restart needs a system that can fork processes, and Windows cannot; leave it out.")
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._child = os.fork()
        if self._child:
            if self._asked:
                self._pass_on(signal.SIGTERM)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(
                signal.SIGINT, lambda *_: None
            )  # a terminal sends SIGINT to parent and child, and the parent passes it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if not self._child:
            os.close(self._held)
            end_with_parent(self._lives)
        return self._child != 0

    def _until_it_ends(self) -> int:
        """The exit code, or minus the number of the signal."""
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        return os.waitstatus_to_exitcode(status)

    def _pass_on(self, number: int, frame: FrameType | None = None) -> None:
        self._asked = True
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, PASSED_ON[0])


def keep_alive(access: Access) -> Callable[[str, str], None]:
    """Returns in each worker process; call the result at each registration. The parent exits with the worker's code
    after a request to end, or if a worker cannot serve. Raises Refused."""
    return _Parent(access).keep_alive()


def tell(access: Access, worker_id: str, epoch: str) -> None:
    """If no server answers, the lease runs out."""
    body = msgspec.json.encode(DrainRequest(worker_id, epoch, died=True))
    for url in access.urls:
        try:
            line = BlockingConnection(url, access.api_key, seconds=ANSWER_SECONDS)
            with contextlib.closing(line):
                status, answer = line.post("/worker/v1/drain", body)
        except (OSError, http.client.HTTPException) as error:
            logger.debug("The worker's end could not be reported to %s: %s", url, error)
            continue
        if status < 300:
            return
        logger.warning("%s refused the report of the worker's end: %d %s", url, status, answer.decode())
        if status < 500:  # servers of the same store would refuse too
            return


def _cause(code: int) -> str:
    if code >= 0:
        return f" (exit code {code})"
    name = signal.Signals(-code).name if -code in [number.value for number in signal.Signals] else f"signal {-code}"
    return f" ({name}{', which the system also sends when memory runs out' if name == 'SIGKILL' else ''})"
