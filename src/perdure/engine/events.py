"""The service of topics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from uuid_utils import uuid7

from perdure.engine.core import Core
from perdure.engine.notifier import ChannelCursors
from perdure.store.verbs import events
from perdure.store.verbs.idempotency import Idempotency
from perdure.wire.approvals import ASKED
from perdure.wire.codec import KEY_BYTES_MAX, TOPIC_BYTES_MAX, check_json, check_name
from perdure.wire.errors import BadRequest
from perdure.wire.fields import is_uuid
from perdure.wire.limits import REPLY_BYTES_MAX
from perdure.wire.records import Event
from perdure.wire.requests import EventItem

PUBLISH_MAX = 1_000
READ_MAX = 1_000


class Events:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def publish(self, project_id: str, topic: str, items: Sequence[EventItem]) -> list[int]:
        """In order, in one transaction. Returns their sequence numbers."""
        _check(topic, items)
        return await self._core.store.write(
            events.publish(
                project_id=project_id,
                topic=topic,
                events=items,
                ids=[str(uuid7()) for _ in items],
                now_us=self._core.clock.now_us(),
            )
        )

    async def publish_once(
        self,
        project_id: str,
        topic: str,
        items: Sequence[EventItem],
        idempotency: Idempotency | None,
        *,
        asked_by: str | None = None,
        answered_by: str | None = None,
    ) -> tuple[list[int], int]:
        """As `publish`, but a repetition gets the first numbers and time (µs).

        `asked_by`: the execution whose questions (`suspend_…`) are among the events. An invalid id counts as None.
        `answered_by`: the author of answers (`resume_…`) among them.
        """
        _check(topic, items)
        asks = any((item.event_type or "").startswith(ASKED) for item in items)
        return await self._core.store.write(
            events.publish_once(
                project_id=project_id,
                topic=topic,
                events=items,
                ids=[str(uuid7()) for _ in items],
                now_us=self._core.clock.now_us(),
                idempotency=idempotency,
                asked_by=asked_by.lower() if asked_by is not None and asks and is_uuid(asked_by) else None,
                answered_by=answered_by,
            )
        )

    async def read(
        self, project_id: str, topic: str, after: int = 0, limit: int = 100, *, bytes_max: int = REPLY_BYTES_MAX
    ) -> tuple[list[Event], bool]:
        """In order, up to the event that reaches `bytes_max`, and whether there may be more."""
        _check_limit(limit)
        return await self._core.store.read(
            events.read_events(project_id=project_id, topic=topic, after=after, limit=limit, bytes_max=bytes_max)
        )

    async def read_newest(self, project_id: str, topic: str, after: int, limit: int) -> tuple[list[Event], bool]:
        """As `read`, newest first."""
        _check_limit(limit)
        return await self._core.store.read(
            events.newest_events(project_id=project_id, topic=topic, after=after, limit=limit)
        )

    async def last(self, project_id: str, topic: str) -> int:
        """0 if the topic has no event."""
        return await self._core.store.read(events.topic_end(project_id=project_id, topic=topic))

    def watch_cursors(self, project_id: str, topic: str, run_id: str | None = None) -> ChannelCursors:
        """Take them before reading: `watch` then misses neither events nor changes of the run's journal."""
        channels: list[tuple[str, ...]] = [("topic", project_id, topic)]
        if run_id is not None:
            channels.append(("written", run_id))
        return self._core.notifier.cursors(*channels)

    async def watch(self, cursors: ChannelCursors, seconds: float = 1.0) -> bool:
        """Wait for news, at most `seconds`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return await self._core.notifier.wait_any(cursors, seconds, future)


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= READ_MAX:
        raise BadRequest(f"`limit` must be 1 to {READ_MAX}, got {limit}.")


def _check(topic: str, items: Sequence[EventItem]) -> None:
    """Raises BadRequest or BadValue."""
    check_name(topic, where="topic", max_bytes=TOPIC_BYTES_MAX)
    if not 1 <= len(items) <= PUBLISH_MAX:
        raise BadRequest(f"Publish 1 to {PUBLISH_MAX} events at once, got {len(items)}.")
    for item in items:
        check_json(bytes(item.data), where="data")
        for name in ("event_type", "dedup_key"):
            value = getattr(item, name)
            if value is not None:
                check_name(value, where=name, max_bytes=KEY_BYTES_MAX)
