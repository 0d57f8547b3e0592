"""Desk: event triggers are made, listed, deleted; and what their topics have is started."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from uuid_utils import uuid7

from perdure.engine.executions import checked_cursor, checked_id
from perdure.store.verbs import triggers
from perdure.store.verbs.idempotency import Idempotency
from perdure.wire.codec import KEY_BYTES_MAX, TOPIC_BYTES_MAX, check_name
from perdure.wire.errors import BadRequest, BadValue, PerdureError, Unavailable, UnknownOutcome
from perdure.wire.requests import TriggerSpec
from perdure.wire.triggers import BATCH_MAX, TIMEOUT_SECONDS_MAX, StoredTrigger

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

logger = logging.getLogger("perdure.engine")

LIST_MAX: Final = 1_000
STARTS: Final = 100
"""How many executions one verb starts for a trigger."""


class Triggers:
    """What callers may ask of event triggers, and what the loop does with them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stuck: set[str] = set()
        self.topics: frozenset[tuple[str, str]] = frozenset()
        """Project and topic of every trigger, as the latest look found them."""

    async def register(
        self, project_id: str, deployment_id: str, spec: TriggerSpec, *, idempotency: Idempotency | None = None
    ) -> None:
        """Make a trigger, or bring the one of that (workflow, topic) up to date; it goes on where it was.

        Raises BadValue, DeploymentNotFound, WorkflowNotFound, TooManyTriggers.
        """
        check_name(deployment_id, where="deployment_id", max_bytes=KEY_BYTES_MAX)
        check_trigger(spec)
        await self._engine.store.write(
            triggers.register_trigger(
                project_id=project_id,
                deployment_id=deployment_id,
                id=str(uuid7()),
                spec=spec,
                now_us=self._engine.clock.now_us(),
                idempotency=idempotency,
            )
        )
        self.ring()

    async def delete(self, project_id: str, trigger_id: str) -> None:
        """Delete a trigger; executions that it started stay. Raises NotFound."""
        await self._engine.store.write(
            triggers.delete_trigger(project_id=project_id, trigger_id=checked_id(trigger_id, "event trigger"))
        )

    async def list(
        self, project_id: str, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[tuple[StoredTrigger, int]], str | None]:
        """A page of triggers, newest first, each with how many events wait for it; and where the next page starts."""
        if not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"`limit` must be 1 to {LIST_MAX:,}, got {limit}.")
        before = checked_cursor(cursor)
        found = await self._engine.store.read(
            triggers.list_triggers(project_id=project_id, before=before, limit=limit + 1)
        )
        page = found[:limit]
        return page, page[-1][0].id if len(found) > limit else None

    # --- the loop ----------------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """There may be something to take sooner than the loop knows."""
        self._engine.doorbell.ring(("loop", "trigger"))

    def published(self, project_id: str, topic: str) -> None:
        """A topic has new events, here or through another server."""
        if (project_id, topic) in self.topics:
            self.ring()

    async def take_due(self) -> float:
        """Start what topics have events for; answers after how many seconds to look again.

        The look is only a hint: each trigger is served by a verb that looks again under its row's lock, and leaves it
        to another server that is at it already.
        """
        engine = self._engine
        now_us = engine.clock.now_us()
        watched = await engine.store.read(triggers.watched_topics())
        self.topics = frozenset((one.project_id, one.topic) for one in watched)
        due = [one for one in watched if one.due_at_us is not None and one.due_at_us <= now_us]
        if not due:
            coming = min((one.due_at_us for one in watched if one.due_at_us is not None), default=None)
            pause = engine.spread(1.0)
            return pause if coming is None else min((coming - now_us) / 1e6, pause)
        answers = await engine.store.write_all(
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
        """One log line for a trigger whose executions cannot be started; its events wait."""
        if trigger_id not in self._stuck:
            self._stuck.add(trigger_id)
            logger.error("Event trigger %s cannot start anything: %s", trigger_id, why, exc_info=error)


def check_trigger(spec: TriggerSpec, where: str = "") -> None:
    """Refuse what could not be kept. Raises BadValue with the field."""
    check_name(spec.workflow_id, where=f"{where}workflow_id")
    check_name(spec.topic, where=f"{where}event_topic", max_bytes=TOPIC_BYTES_MAX)
    if spec.queue_name is not None:
        check_name(spec.queue_name, where=f"{where}queue_name", max_bytes=KEY_BYTES_MAX)
    if not 1 <= spec.batch_size <= BATCH_MAX:
        raise BadValue(
            f"{where}batch_size: must be 1 to {BATCH_MAX:,}, got {spec.batch_size}", {"path": f"{where}batch_size"}
        )
    seconds = spec.batch_timeout_seconds
    if seconds is not None and not 1 <= seconds <= TIMEOUT_SECONDS_MAX:
        path = f"{where}batch_timeout_seconds"
        raise BadValue(f"{path}: must be 1 to {TIMEOUT_SECONDS_MAX:,}, got {seconds}", {"path": path})
