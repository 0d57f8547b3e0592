"""Event triggers: the service, and the loop to start executions for events."""

from __future__ import annotations

import logging
from typing import Final

from uuid_utils import uuid7

from perdure.engine.base.core import Core
from perdure.engine.base.service import Service
from perdure.store.verbs.clock import triggers
from perdure.wire.base.errors import PerdureError, Unavailable, UnknownOutcome

logger = logging.getLogger("perdure.engine")

STARTS: Final = 100
"""Most executions started by a verb for a trigger."""


class Triggers(Service):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._stuck: set[str] = set()
        self.topics: frozenset[tuple[str, str]] = frozenset()
        """Project and topic of every trigger at the latest look."""

    def notify(self) -> None:
        self._core.notifier.notify(("loop", "trigger"))

    def published(self, project_id: str, topic: str) -> None:
        """Call after a publish here or on another server."""
        if (project_id, topic) in self.topics:
            self.notify()

    async def take_due(self) -> float:
        """Start due executions. The look is only a hint: each verb looks again under the trigger's row lock, and skips
        a trigger served by another server."""
        core = self._core
        now_us = core.clock.now_us()
        watched = await core.store.read(triggers.watched_topics())
        self.topics = frozenset((one.project_id, one.topic) for one in watched)
        due = [one for one in watched if one.due_at_us is not None and one.due_at_us <= now_us]
        if not due:
            coming = min((one.due_at_us for one in watched if one.due_at_us is not None), default=None)
            pause = core.spread(1.0)
            return pause if coming is None else min((coming - now_us) / 1e6, pause)
        answers = await core.store.write_all(
            [
                triggers.take_for_trigger(
                    project_id=one.project_id,
                    trigger_id=one.trigger_id,
                    ids=[str(uuid7()) for _ in range(STARTS)],
                    now_us=now_us,
                )
                for one in due
            ]
        )
        went_on = False
        for one, answer in zip(due, answers, strict=True):
            if isinstance(answer, Unavailable | UnknownOutcome):
                raise answer
            if isinstance(answer, Exception):
                self._complain(one.trigger_id, str(answer), None if isinstance(answer, PerdureError) else answer)
            elif answer.refused is not None:
                self._complain(one.trigger_id, answer.refused, None)
            else:
                self._stuck.discard(one.trigger_id)
                went_on = went_on or answer.started > 0
        return 0.0 if went_on else 1.0

    def _complain(self, trigger_id: str, why: str, error: Exception | None) -> None:
        if trigger_id not in self._stuck:
            self._stuck.add(trigger_id)
            logger.error("Event trigger %s cannot start anything: %s", trigger_id, why, exc_info=error)
