"""Work that went to a worker which has not been heard of since: other workers get it.

A worker that got work sends its next claim at once, before the work's code runs. If it does not, its event loop stands
still, or the answer is lost. Its lease holds all the same, because a thread of its own renews it, and the work would
wait for as long as the loop does. So the server takes it back after a second, but only while another worker waits for
work. The attempt is the fence, as everywhere: what the worker still says of it is refused.

Where several servers share the store the next claim may reach another one. It names the claim whose answer arrived, and
that server notes it in the store, where the one that would take the work back looks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from perdure.store.verbs import claims
from perdure.wire.errors import PerdureError

if TYPE_CHECKING:
    from perdure.engine.claims import Poll
    from perdure.engine.engine import Engine

logger = logging.getLogger("perdure.engine")

UNHEARD_SECONDS: Final = 1.0
"""How long a worker that got work may take to ask on."""
LOOK_SECONDS: Final = 0.5
"""How often to look while there may be such workers."""
WORKERS_MAX: Final = 10_000


class Unheard:
    """The claims that brought work to workers, until these ask on.

    `waiting` are the claims that wait for work, by project.
    """

    def __init__(self, engine: Engine, waiting: Mapping[str, Iterable[Poll]]) -> None:
        self._engine = engine
        self._waiting = waiting
        self._answered: OrderedDict[str, Poll] = OrderedDict()
        """By worker, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._recalls: set[asyncio.Task[None]] = set()

    def add(self, poll: Poll) -> bool:
        """A claim is answered with work. Whether the work may be taken back: only if another worker waits now. Then the
        answer says so, and the worker has to ask on at once, which costs a request where it is full."""
        if not self._is_wanted(poll):
            return False
        self._answered[poll.worker_id] = poll
        if len(self._answered) > WORKERS_MAX:
            self._answered.popitem(last=False)
        self.look_soon()
        return True

    def discard(self, worker_id: str) -> None:
        """A worker asks on: what it got has arrived."""
        self._answered.pop(worker_id, None)

    def look_soon(self) -> None:
        """Look for work that can be taken back, if there may be some."""
        if self._answered and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LOOK_SECONDS, self._look, loop.time() + LOOK_SECONDS)

    def _look(self, due: float) -> None:
        self._timer = None
        if self._engine.closing:
            return
        loop = asyncio.get_running_loop()
        if loop.time() - due > LOOK_SECONDS / 2:  # this server stood still: what they have said may lie here unread
            self.look_soon()
            return
        for poll in list(self._answered.values()):
            if poll.ended_at is None or loop.time() < poll.ended_at + UNHEARD_SECONDS:
                self.look_soon()
                break
            if self._is_wanted(poll):
                del self._answered[poll.worker_id]
                task = loop.create_task(self._recall(poll))
                self._recalls.add(task)
                task.add_done_callback(self._recalls.discard)

    def _is_wanted(self, poll: Poll) -> bool:
        """Whether another worker waits here that could take what this claim brought."""
        mine = poll.offer
        return mine is not None and any(
            other.offer is not None
            and other.worker_id != mine.worker_id
            and (other.offer.deployment_id, other.offer.python) == (mine.deployment_id, mine.python)
            for other in self._waiting.get(poll.project_id, ())
        )

    async def _recall(self, poll: Poll) -> None:
        engine = self._engine
        try:
            await engine.store.write(
                claims.recall(
                    project_id=poll.project_id,
                    worker_id=poll.worker_id,
                    claim_id=poll.claim_id,
                    now_us=engine.clock.now_us(),
                )
            )
        except PerdureError as error:  # it stays where it is until its worker asks on, or is given up
            logger.debug("Nothing was taken back from worker %s: %s", poll.worker_id, error)
