"""Takes work back from a worker that does not ask again, if other workers wait.

A worker sends the next claim before running new work. Without a next claim, the worker's event loop hangs or the answer
is lost, while a separate thread renews the lease.

With several servers, the next claim may reach another server. The claim names the claim whose answer arrived, and the
other server notes the arrival in the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Final

from perdure.engine.base.core import Core
from perdure.engine.runs.waiting_claims import ClaimPoll, WaitingClaims
from perdure.store.verbs.runs import claims
from perdure.wire.base.errors import PerdureError

logger = logging.getLogger("perdure.engine")

CONFIRM_SECONDS: Final = 2.0
"""Seconds that a worker with work may take to ask again. A worker with a blocked loop hands back sooner, by a
thread."""
LOOK_SECONDS: Final = 0.5
WORKERS_MAX: Final = 10_000


class Recalls:
    def __init__(self, core: Core, waiting: WaitingClaims) -> None:
        self._core = core
        self._waiting = waiting
        self._answered: OrderedDict[str, ClaimPoll] = OrderedDict()
        """Answered claims by worker, oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._recalls: set[asyncio.Task[None]] = set()

    def add(self, poll: ClaimPoll) -> bool:
        """Remember a claim that got work. True if another worker waits: this worker must then ask again at once."""
        if not self._waiting.any_like(poll):
            return False
        self._answered[poll.worker_id] = poll
        if len(self._answered) > WORKERS_MAX:
            self._answered.popitem(last=False)
        self.look_soon()
        return True

    def discard(self, worker_id: str) -> None:
        self._answered.pop(worker_id, None)

    def look_soon(self) -> None:
        if self._answered and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LOOK_SECONDS, self._look_for_claims, loop.time() + LOOK_SECONDS)

    def _look_for_claims(self, due: float) -> None:
        self._timer = None
        if self._core.closing:
            return
        loop = asyncio.get_running_loop()
        if loop.time() - due > LOOK_SECONDS / 2:  # this server hung: claims may lie here unread
            self.look_soon()
            return
        for poll in list(self._answered.values()):
            if poll.ended_at is None or loop.time() < poll.ended_at + CONFIRM_SECONDS:
                self.look_soon()
                break
            if self._waiting.any_like(poll):
                del self._answered[poll.worker_id]
                task = loop.create_task(self._recall(poll))
                self._recalls.add(task)
                task.add_done_callback(self._recalls.discard)

    async def _recall(self, poll: ClaimPoll) -> None:
        core = self._core
        try:
            await core.store.write(
                claims.recall(
                    project_id=poll.project_id,
                    worker_id=poll.worker_id,
                    claim_id=poll.claim_id,
                    now_us=core.clock.now_us(),
                )
            )
        except PerdureError as error:  # the work stays until the worker asks again or is given up
            logger.debug("Nothing was taken back from worker %s: %s", poll.worker_id, error)
