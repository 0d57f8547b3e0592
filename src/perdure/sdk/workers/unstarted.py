"""Hands work back while the event loop is blocked."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from perdure.wire.runs.requests import Claimed

LOOK_SECONDS: Final = 0.25
BLOCKED_SECONDS: Final = 0.5


class UnstartedRunner(Protocol):
    """The parts of a runner needed here."""

    claimed: Claimed
    gone: bool
    ours_until: float
    unbegun: Unstarted | None

    def drop(self) -> None: ...
    def acknowledged(self) -> None: ...


class HandBack(NamedTuple):
    given: Sequence[UnstartedRunner]
    """Runners that begin elsewhere."""
    kept: Sequence[UnstartedRunner]
    """Runners that begin here. An acknowledgement stops the server from taking them back."""
    blocked_seconds: float


class Unstarted:
    """Executions without any begun step or report.

    The lease's thread calls `is_blocked` and `hand_back`, the event loop's thread everything else. The first thread to
    take an execution out owns the execution.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runners: dict[UnstartedRunner, bool] = {}
        """Runners in order of arrival. True: the code has run up to the first call."""
        self._running: UnstartedRunner | None = None
        self._acknowledged: set[UnstartedRunner] = set()
        """Kept runners acknowledged to the server."""
        self._progress = 0
        self._probe: _Probe | None = None
        self._looked = 0.0

    def __len__(self) -> int:
        return len(self._runners)

    def add(self, runners: Iterable[UnstartedRunner]) -> None:
        with self._lock:
            for runner in runners:
                if not runner.claimed.cancelling:  # it cannot go back to a queue
                    self._runners[runner] = False
                    runner.unbegun = self

    def enter(self, runner: UnstartedRunner) -> bool:
        """The runner's code is about to run. False: the runner was handed back."""
        with self._lock:
            if runner not in self._runners:
                return False
            self._running = runner
            self._progress += 1
            return True

    def leave(self, runner: UnstartedRunner) -> None:
        """The runner's code waits."""
        with self._lock:
            self._running = None
            if runner in self._runners:
                self._runners[runner] = True

    def begin(self, runner: UnstartedRunner) -> bool:
        """The runner belongs to this worker from now on. False: the runner was handed back."""
        with self._lock:
            self._progress += 1
            self._acknowledged.discard(runner)
            return self._runners.pop(runner, None) is not None

    def discard(self, runner: UnstartedRunner) -> None:
        with self._lock:
            self._acknowledged.discard(runner)
            self._runners.pop(runner, None)

    def is_blocked(self, loop: asyncio.AbstractEventLoop, now: float) -> bool:
        """Ask the loop, or look whether the loop has answered in time. If this thread is late, the machine is busy."""
        probe, is_late = self._probe, now - self._looked > BLOCKED_SECONDS
        self._looked = now
        if not self._runners:
            self._probe = None
        elif probe is None or probe.answered:
            self._probe = probe = _Probe(now, self._progress)
            loop.call_soon_threadsafe(probe.answer)
        elif is_late:
            probe.looked = now
        elif now - probe.looked >= BLOCKED_SECONDS:
            return True
        return False

    def hand_back(self, now: float, *, others_wait: bool) -> HandBack | None:
        """Half of the runners, or all if nothing has begun since the last time. Two workers share blocking code best by
        halves.

        Without another waiting worker, only runners that the server may take back move. While code runs, executions
        whose code has run stay.
        """
        probe = self._probe
        if probe is None or probe.answered:
            return None
        with self._lock:
            running = self._running
            moving: list[UnstartedRunner] = []
            for one, has_run in self._runners.items():
                if one is not running and not (has_run and running) and (others_wait or one.ours_until != math.inf):
                    moving.append(one)
            given = moving[len(moving) // 2 :] if self._progress > probe.progress else moving
            for runner in given:
                del self._runners[runner]
            self._acknowledged.difference_update(given)
            kept = [one for one in self._runners if one.ours_until != math.inf and one not in self._acknowledged]
            self._acknowledged.update(kept)
            probe.looked, probe.progress = now, self._progress
        return HandBack(given, kept, now - probe.sent)


class _Probe:
    def __init__(self, now: float, progress: int) -> None:
        self.sent = self.looked = now
        self.progress = progress
        self.answered = False

    def answer(self) -> None:
        self.answered = True
