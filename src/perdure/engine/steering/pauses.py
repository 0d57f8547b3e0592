"""The service of pauses, and the loop that marks, releases and ends pauses."""

from __future__ import annotations

import logging
from typing import Final

from perdure.engine.base.callers import Callers
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.runs import queues
from perdure.store.verbs.steering import pauses
from perdure.store.verbs.steering.pauses import PauseTarget
from perdure.wire.runs.queues import GetQueue, Pause, PauseKind, PauseQueue, QueueState, ResumeQueue, in_words
from perdure.wire.steering.pauses import EndedPause, EndPause, PutPause

logger = logging.getLogger("perdure.engine")

HELD_UP_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 5.0


class Pauses(Service):
    def __init__(self, core: Core, callers: Callers) -> None:
        super().__init__(core)
        self._callers = callers

    @serves(PutPause)
    async def put(self, scope: Scope, op: PutPause) -> Pause:
        what = _what(scope, op.kind, op.name, op.concurrency_key)
        paused = await self.write(
            pauses.pause(
                what=what,
                until_us=op.until,
                note=op.note,
                paused_by=await self._callers.name(scope.principal),
                now_us=self.now_us(),
            )
        )
        logger.info("Paused %s, by %s.", paused.what, paused.paused_by)
        self._notify()
        return await self.scan(pauses.read_pause(what=what)) or paused

    @serves(EndPause)
    async def end(self, scope: Scope, op: EndPause) -> EndedPause:
        what = _what(scope, op.kind, op.name, op.concurrency_key)
        paused = await self.scan(pauses.read_pause(what=what))
        if not await self.write(pauses.unpause(what=what)):
            return EndedPause(was_paused=False)
        _log_end(what)
        self._notify()
        return EndedPause(was_paused=True, held=0 if paused is None else paused.held)

    @serves(PauseQueue)
    async def pause_queue(self, scope: Scope, op: PauseQueue) -> QueueState:
        await self.put(scope, PutPause(PauseKind.QUEUE, op.name))
        return await self.scan(queues.get_queue(self.at(scope), GetQueue(op.name)))

    @serves(ResumeQueue)
    async def resume_queue(self, scope: Scope, op: ResumeQueue) -> QueueState:
        await self.end(scope, EndPause(PauseKind.QUEUE, op.name))
        return await self.scan(queues.get_queue(self.at(scope), GetQueue(op.name)))

    def _notify(self) -> None:
        self._core.notifier.notify(("loop", "pause"))

    async def work(self) -> float:
        """Run a round: end the pauses whose time is over, then mark and release a batch for each."""
        now_us = self.now_us()
        found = await self.read(pauses.pauses_to_work())
        if any(one.until_us is not None and one.until_us <= now_us for one in found):
            for what in await self.write(pauses.end_due(now_us=now_us)):
                _log_end(what)
            return 0.0
        busy = False
        for one in found:
            if one.state == "marking":
                busy |= await self.write(pauses.mark(number=one.number))
            elif one.state == "ending":
                busy |= await self.write(pauses.release(number=one.number))
        if busy:
            return 0.0
        ends = [one.until_us for one in found if one.until_us is not None]
        held_up = any(one.state != "holding" for one in found)  # by another server, or by locked executions
        pause = self._core.spread(HELD_UP_SECONDS if held_up else IDLE_SECONDS)
        return min((min(ends) - now_us) / 1e6, pause) if ends else pause


def _what(scope: Scope, kind: PauseKind, name: str, concurrency_key: str | None) -> PauseTarget:
    return PauseTarget(scope.project_id, kind, name, concurrency_key or "")


def _log_end(what: PauseTarget) -> None:
    logger.info("The pause of %s has ended.", in_words(what.kind, what.name, what.concurrency_key or None))
