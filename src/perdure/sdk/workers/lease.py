"""A worker's lease, renewed by a separate thread over a separate connection.

Beats continue while a step blocks the event loop or holds the interpreter. The connection stays open between beats, so
each side notices at once when the other side closes it.

If a server is silent, the thread, and with it the worker's requests, turns to another server. The thread then first
checks that answers arrive: if only requests do, a beat would renew a lease without this side knowing.

The deadline counts from the moment a beat was *sent*, on a clock that runs on while the machine sleeps. So a frozen
process starts steps only after a new beat.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import random
import selectors
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from perdure.sdk.transports.blocking import BlockingConnection
from perdure.sdk.workers.reports import acknowledgement, hand_back
from perdure.sdk.workers.unstarted import LOOK_SECONDS
from perdure.wire.base.errors import StoreAway
from perdure.wire.base.limits import REPORT_ITEMS_MAX
from perdure.wire.runs.requests import (
    BeatReply,
    BeatRequest,
    ItemReply,
    RegisterReply,
    ReportReply,
    ReportRequest,
    StepInFlight,
)

if TYPE_CHECKING:
    from perdure.sdk.workers.worker import Worker

logger = logging.getLogger("perdure.worker")

MARGIN = 0.1
"""Share of the lease at its end during which steps do not start."""
ANSWER_SECONDS = 5.0
"""Seconds for an answer, at most a third of the lease, which leaves time for two other servers."""
EARLY_SECONDS = 1.0
"""Seconds between beats that name different steps."""
_AWAY = f'"{StoreAway.code}"'.encode()
CONNECTION_GONE_SECONDS = 0.8
"""Seconds that the lease is trusted without a connection. The server allows a second more."""


def boottime() -> float:
    """Seconds since boot, with sleep."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":  # CLOCK_MONOTONIC stands still there in sleep
        return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
    return time.monotonic()


class Lease(ABC):
    def __init__(self) -> None:
        self._reply: RegisterReply | None = None
        self._worker: Worker | None = None
        self._worker_id = ""
        self._deadline = 0.0
        self._unreachable_since: float | None = None
        self._away_since: float | None = None
        """The time when a server first said that the store takes no writes."""
        self._good = asyncio.Event()

    def now(self) -> float:
        """Thread-safe."""
        return boottime()

    def begin(self, worker: Worker, worker_id: str, reply: RegisterReply, sent: float) -> None:
        self._worker, self._worker_id, self._reply = worker, worker_id, reply
        self._deadline = sent + reply.lease_us / 1e6
        self._unreachable_since = self._away_since = None
        self._good.set()
        self._keep()

    @abstractmethod
    def _keep(self) -> None:
        """Begin to beat, if not done yet."""

    @abstractmethod
    async def end(self) -> None:
        """Stop beating."""

    def steps(self) -> list[StepInFlight]:
        """The steps for the next beat to name. Thread-safe."""
        assert self._worker is not None and self._reply is not None
        return list(self._worker.in_flight) if self._reply.beats_name_steps else []

    def is_good(self) -> bool:
        if self._reply is None:
            return False
        now = boottime()
        if now >= self._deadline - MARGIN * self._reply.lease_us / 1e6:
            self._good.clear()
            return False
        gone = self._unreachable_since
        if gone is not None and now - gone > CONNECTION_GONE_SECONDS:
            self._good.clear()
            return False
        return True

    async def wait_good(self) -> None:
        await self._good.wait()

    def _is_given_up(self, sent: float) -> bool:
        """The store did not take the beat sent at `sent`. True after the longest allowed outage."""
        assert self._reply is not None
        self._away_since = self._away_since or sent
        if sent - self._away_since < self._reply.outage_us / 1e6:
            return False
        logger.warning("The store has taken no writes for %.0f s (`outage_seconds`).", sent - self._away_since)
        return True

    def _accepted(self, worker_id: str, holding: list[tuple[str, int, int]], sent: float) -> None:
        """Runs on the worker's loop. Drops executions missing from the server's list before their steps can start."""
        assert self._worker is not None
        if worker_id != self._worker_id:
            return
        self._worker.on_beat(holding, sent)
        self._good.set()
        self._worker.on_lease()


class HttpLease(Lease):
    """`urls` are servers of one store. On the worker's loop, `leave` gets the URL of a silent server, `begun` each
    registration's worker id and epoch."""

    def __init__(
        self,
        urls: Sequence[str],
        key: str | None,
        leave: Callable[[str], None] | None = None,
        begun: Callable[[str, str], None] | None = None,
    ) -> None:
        super().__init__()
        self._urls = urls
        self._leave = leave
        self._begun = begun
        self._turn = 0
        self._named: list[StepInFlight] = []
        self._is_blocked = False
        """Whether the last look found the event loop blocked."""
        self._key = key
        self._thread: threading.Thread | None = None
        self._line: BlockingConnection | None = None
        self._stop = threading.Event()

    def begin(self, worker: Worker, worker_id: str, reply: RegisterReply, sent: float) -> None:
        super().begin(worker, worker_id, reply, sent)
        if self._begun is not None:
            self._begun(worker_id, reply.epoch)

    def _keep(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_alive, name="perdure-lease", daemon=True)
            self._thread.start()

    async def end(self) -> None:
        self._stop.set()
        line = self._line
        if line is not None and line.socket is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                line.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout=5.0)

    def _keep_alive(self) -> None:
        pause = 0.05
        silent = False
        while not self._stop.is_set():
            assert self._reply is not None
            try:
                line = self._line = self._line or self._connect()
                if silent:
                    line.check_answers()
                    silent = False
                if not self._beat(line):
                    continue
                pause = 0.05
                if self._until_closed(line, self._reply.beat_us / 1e6):
                    # The server has seen it too, and cut the lease.
                    self._unreachable_since = boottime()
                    self._close()
            except Exception as error:  # without this thread the worker would lose everything
                if self._unreachable_since is None:
                    self._unreachable_since = boottime()
                logger.debug("Beat failed: %s", error)
                self._close()
                silent = silent or isinstance(error, TimeoutError)
                self._next_server(silent=isinstance(error, TimeoutError))
                self._stop.wait(pause * random.uniform(0.2, 1.0))  # not all workers of a server at once
                pause = min(pause * 2, 1.0)
        self._close()

    def _close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _url(self) -> str:
        return self._urls[self._turn % len(self._urls)]

    def _next_server(self, *, silent: bool) -> None:
        if silent and self._leave is not None and self._worker is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker is gone
                self._worker.loop.call_soon_threadsafe(self._leave, self._url())
        self._turn += 1

    def _connect(self) -> BlockingConnection:
        assert self._reply is not None
        return BlockingConnection(self._url(), self._key, seconds=min(ANSWER_SECONDS, self._reply.lease_us / 3e6))

    def _beat(self, line: BlockingConnection) -> bool:
        """False if the registration is lost."""
        assert self._reply is not None and self._worker is not None
        worker_id, reply = self._worker_id, self._reply
        sent = boottime()
        steps = self.steps()
        body = msgspec.json.encode(BeatRequest(worker_id, reply.epoch, steps))
        status, answer = line.post("/worker/v1/beat", body)
        given_up = _AWAY in answer and self._is_given_up(sent)
        if not given_up and (status >= 500 or status in (408, 429)):
            raise http.client.HTTPException(f"beat: status {status}")
        lost = status != 200 or (beat := msgspec.json.decode(answer, type=BeatReply)).lost
        loop = self._worker.loop
        try:
            if lost:
                if worker_id == self._worker_id:
                    self._deadline = 0.0
                    started_over = asyncio.run_coroutine_threadsafe(self._worker.start_over(), loop)
                    while not self._stop.is_set() and not started_over.done():
                        self._stop.wait(0.05)
                return False
            self._unreachable_since = self._away_since = None
            self._named = steps
            self._deadline = max(self._deadline, sent + reply.lease_us / 1e6)
            loop.call_soon_threadsafe(self._accepted, worker_id, beat.holding, sent)
            if self._is_blocked:
                self._is_blocked = False
                self._hand_back(line, worker_id, reply.epoch, others_wait=beat.others_wait)
        except RuntimeError:  # as in `_next_server`
            self._stop.set()
        return True

    def _hand_back(self, line: BlockingConnection, worker_id: str, epoch: str, *, others_wait: bool) -> None:
        assert self._worker is not None
        worker = self._worker
        found = worker.unbegun.hand_back(time.monotonic(), others_wait=others_wait)
        if found is None:
            return
        if found.given:
            worker.loop.call_soon_threadsafe(worker.drop, found.given)
            logger.warning(
                "The event loop of this worker has been blocked for %.1f s: %d executions that it has not begun go "
                "back to their queue, and it keeps %d.",
                found.blocked_seconds,
                len(found.given),
                len(worker.unbegun),
            )
        items = [hand_back(one.claimed.id, one.claimed.attempt) for one in found.given]
        items += [acknowledgement(one.claimed.id, one.claimed.attempt) for one in found.kept]
        replies: list[ItemReply] = []
        for n in range(0, len(items), REPORT_ITEMS_MAX):
            request = ReportRequest(worker_id, epoch, items[n : n + REPORT_ITEMS_MAX])
            status, answer = line.post("/worker/v1/report", msgspec.json.encode(request))
            if status != 200:
                raise http.client.HTTPException(f"hand-back: status {status}")
            replies += msgspec.json.decode(answer, type=ReportReply).items
        worker.loop.call_soon_threadsafe(worker.on_kept, found.kept, replies[len(found.given) :])

    def _until_closed(self, line: BlockingConnection, seconds: float) -> bool:
        """True if the peer closes before the next beat, due earlier if the steps to name change, or if the event loop
        is blocked."""
        if line.socket is None:
            return True
        assert self._worker is not None
        unbegun = self._worker.unbegun
        now = time.monotonic()
        until, early = now + seconds, now + EARLY_SECONDS
        with selectors.DefaultSelector() as selector:  # `select` cannot handle descriptors from 1024 on
            selector.register(line.socket, selectors.EVENT_READ)
            while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
                if selector.select(min(left, LOOK_SECONDS if unbegun else 0.5)) and not line.socket.recv(4096):
                    return True
                if unbegun and unbegun.is_blocked(self._worker.loop, time.monotonic()):
                    self._is_blocked = True
                    return False
                if time.monotonic() >= early and self.steps() != self._named:
                    return False
        return False
