"""The service of topics."""

import asyncio

from perdure.engine.base.callers import Callers
from perdure.engine.base.core import Core
from perdure.engine.base.notifier import ChannelCursors
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.runs import events
from perdure.wire.agents.approvals import ANSWERED, ASKED
from perdure.wire.base.access import Role
from perdure.wire.base.cursors import read_cursor, write_cursor
from perdure.wire.base.fields import INT64_MAX, is_uuid
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.base.operation import Listed
from perdure.wire.runs.events import Event, EventPage, GetEvents, ListedTopic, ListTopics, PublishedEvents, PublishEvent


class Events(Service):
    def __init__(self, core: Core, callers: Callers) -> None:
        super().__init__(core)
        self._callers = callers

    @serves(PublishEvent)
    async def publish(self, scope: Scope, op: PublishEvent) -> PublishedEvents:
        types = [event.event_type or "" for event in op.events]
        asker = op.execution_id or op.events[0].execution_id or ""
        asks = is_uuid(asker) and any(one.startswith(ASKED) for one in types)
        answers = any(one.startswith(ANSWERED) for one in types)
        if answers:
            scope.check_role(Role.WRITE)
        return await self.write(
            events.publish(
                project_id=scope.project_id,
                topic=op.topic,
                events=op.events,
                ids=[self.new_id() for _ in op.events],
                now_us=self.now_us(),
                idempotency=scope.idempotency,
                asked_by=asker.lower() if asks else None,
                answered_by=await self._callers.name(scope.principal) if answers else None,
            )
        )

    @serves(GetEvents)
    async def get(self, scope: Scope, op: GetEvents) -> EventPage:
        after = op.last_sequence_id
        if after is None:
            after = await self.last_until(scope.project_id, op.topic, op.last_timestamp_us)
        look = events.read_events if op.sort == "asc" else events.newest_events
        found, more = await self.read(
            look(project_id=scope.project_id, topic=op.topic, after=after, limit=op.limit, bytes_max=REPLY_BYTES_MAX)
        )
        return EventPage(found, more, found[-1].sequence_id if found else None)

    @serves(ListTopics)
    async def topics(self, scope: Scope, op: ListTopics) -> Listed[ListedTopic]:
        (after,) = ("",) if op.cursor is None else read_cursor(op.cursor, tuple[str], "first")
        page, more = await self.read(
            events.list_topics(project_id=scope.project_id, prefix=op.prefix, after=after, limit=op.limit)
        )
        return Listed(page, write_cursor((page[-1].topic,)) if more else None)

    async def page(self, project_id: str, topic: str, after: int, limit: int, *, bytes_max: int) -> list[Event]:
        look = events.read_events(project_id=project_id, topic=topic, after=after, limit=limit, bytes_max=bytes_max)
        return (await self.read(look))[0]

    async def last_until(self, project_id: str, topic: str, at_us: int | None) -> int:
        """Return the number of the last event until `at_us`; 0 without a time. Numbers have no gaps, so a binary search
        finds the event."""
        if at_us is None:
            return 0

        async def next_until_then(number: int) -> int | None:
            found = await self.page(project_id, topic, number, 1, bytes_max=1)
            return found[0].sequence_id if found and found[0].created_at_us <= at_us else None

        low, step = 0, 1
        while low + step < INT64_MAX and (found := await next_until_then(low + step - 1)) is not None:
            low, step = found, step * 2
        while step > 1:
            step //= 2
            if low + step < INT64_MAX and (found := await next_until_then(low + step - 1)) is not None:
                low = found
        return low

    async def last(self, project_id: str, topic: str) -> int:
        return await self.read(events.topic_end(project_id=project_id, topic=topic))

    def watch_cursors(self, project_id: str, topic: str, run_id: str | None = None) -> ChannelCursors:
        """Take cursors before reading: `watch` then misses neither events nor changes of the run's journal."""
        channels: list[tuple[str, ...]] = [("topic", project_id, topic)]
        if run_id is not None:
            channels.append(("written", run_id))
        return self._core.notifier.cursors(*channels)

    async def watch(self, cursors: ChannelCursors, seconds: float = 1.0) -> bool:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return await self._core.notifier.wait_any(cursors, seconds, future)
