"""work --restart: a parent that starts the worker anew when it dies, and says so to the server.

A server only sees a worker's connection close. The process behind it may live, so it leaves the lease another second.
The parent has seen the end itself: what the dead process held goes on elsewhere at once. It is there, too, where the
system takes the largest process because memory runs out: that is the child.

The worker is forked, so that all but the application is loaded already when another one has to begin.
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

from perdure.cli.common import Refused
from perdure.cli.serve import end_with_parent
from perdure.sdk.blocking import Line
from perdure.sdk.credentials import Access
from perdure.server.stopping import SIGNALS
from perdure.wire.requests import DrainRequest

logger = logging.getLogger("perdure.worker")

PASSED_ON: Final = (signal.SIGTERM,)
"""What the parent makes of all that asks it to end."""
NOTE_BYTES: Final = 4096
SHORT_SECONDS: Final = 1.0
"""Who lived shorter than this is followed by the next one only after as long a pause."""
ANSWER_SECONDS: Final = 1.0


class Note:
    """What a worker's process leaves for its parent: its present registration. In memory that both share, so that it is
    there whatever ends the process."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, NOTE_BYTES)

    def write(self, worker_id: str, epoch: str) -> None:
        self._memory[:] = msgspec.json.encode((worker_id, epoch)).ljust(NOTE_BYTES, b"\0")

    def take(self) -> tuple[str, str] | None:
        """What the last process wrote, once; None when it never came so far."""
        written = self._memory[:].rstrip(b"\0")
        self._memory[:] = bytes(NOTE_BYTES)
        try:
            return msgspec.json.decode(written, type=tuple[str, str])
        except msgspec.DecodeError:  # nothing, or it was killed in the middle
            return None


class _Parent:
    """It lives as long as there is to be a worker."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._note = Note()
        self._asked = False
        self._child = 0
        self._lives, self._held = os.pipe()
        """The child reads the one; the other closes when the parent is gone."""

    def keep_alive(self) -> Callable[[str, str], None]:
        for number in SIGNALS:
            signal.signal(number, self._pass_on)
        while not self._asked:
            began = time.monotonic()
            if not self._fork():
                return self._note.write
            code = self._until_it_ends()
            dead = self._note.take()
            if self._asked or (dead is None and code >= 0):  # one that could not serve would not do better again
                raise typer.Exit(code if code >= 0 else 128 - code)
            logger.warning(
                "The worker's process has ended%s. What it held goes on elsewhere, and another one starts.",
                _cause(code),
            )
            if dead is not None:
                tell(self._access, *dead)
            if time.monotonic() - began < SHORT_SECONDS:
                time.sleep(SHORT_SECONDS)
        raise typer.Exit(0)

    def _fork(self) -> bool:
        """Whether this is still the parent. Raises Refused."""
        if sys.platform == "win32":
            raise Refused("--restart needs a system that can fork processes, and Windows cannot; leave it out.")
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._child = os.fork()
        if self._child:
            if self._asked:
                self._pass_on(signal.SIGTERM)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, lambda *_: None)  # from a terminal both get it, and the parent passes it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if not self._child:
            os.close(self._held)
            end_with_parent(self._lives)
        return self._child != 0

    def _until_it_ends(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        return os.waitstatus_to_exitcode(status)

    def _pass_on(self, number: int, frame: FrameType | None = None) -> None:
        self._asked = True
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, PASSED_ON[0])


def keep_alive(access: Access) -> Callable[[str, str], None]:
    """Comes back in processes of their own only, one after the other, each of which is to be the worker; with what has
    to be called with each of its registrations (worker id, epoch). The parent stays here until it is asked to end or a
    worker cannot serve, and exits as that one did. Raises Refused where processes cannot be forked."""
    return _Parent(access).keep_alive()


def tell(access: Access, worker_id: str, epoch: str) -> None:
    """Have a server know that a worker's process has died; one is enough. Where none answers the lease tells, later."""
    body = msgspec.json.encode(DrainRequest(worker_id, epoch, died=True))
    for url in access.urls:
        try:
            line = Line(url, access.api_key, seconds=ANSWER_SECONDS)
            with contextlib.closing(line):
                status, answer = line.post("/worker/v1/drain", body)
        except (OSError, http.client.HTTPException) as error:
            logger.debug("%s was not told of the worker's end: %s", url, error)
            continue
        if status < 300:
            return
        logger.warning("%s does not take it that the worker's process has ended: %d %s", url, status, answer.decode())
        if status < 500:  # another one of the same store would not either
            return


def _cause(code: int) -> str:
    if code >= 0:
        return f" (exit code {code})"
    name = signal.Signals(-code).name if -code in [number.value for number in signal.Signals] else f"signal {-code}"
    return f" ({name}{', which the system sends, too, when memory runs out' if name == 'SIGKILL' else ''})"
