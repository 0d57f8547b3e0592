import asyncio

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.insight import stats
from perdure.wire.base.cursors import read_cursor, write_cursor
from perdure.wire.insight.stats import (
    GetOverview,
    GetQueueStats,
    GetWorkflowStats,
    ListWorkflowStats,
    Overview,
    QueueStats,
    Range,
    WorkflowDetails,
    WorkflowStatsPage,
    buckets_of,
)


class Statistics(Service):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._running: dict[tuple[str, Range], asyncio.Task[Overview]] = {}

    @serves(GetOverview)
    async def overview(self, scope: Scope, op: GetOverview) -> Overview:
        """Requests of the same moment share a look."""
        name = (scope.project_id, op.range)
        running = self._running.get(name)
        if running is None:
            look = stats.overview(project_id=scope.project_id, range=op.range, now_us=self.now_us())
            running = self._running[name] = asyncio.ensure_future(self.scan(look))
            running.add_done_callback(lambda _: self._running.pop(name))
        return await asyncio.shield(running)

    @serves(ListWorkflowStats)
    async def workflows(self, scope: Scope, op: ListWorkflowStats) -> WorkflowStatsPage:
        now_us = self.now_us()
        (after,) = ("",) if op.cursor is None else read_cursor(op.cursor, tuple[str], "first")
        look = stats.workflow_stats(
            project_id=scope.project_id, range=op.range, now_us=now_us, after=after, limit=op.limit + 1
        )
        found, counted_from_us = await self.scan(look)
        page, buckets = found[: op.limit], buckets_of(op.range, now_us)
        return WorkflowStatsPage(
            as_of_us=now_us,
            range=op.range,
            from_us=buckets.from_us,
            step_seconds=buckets.seconds,
            counted_from_us=counted_from_us,
            workflows=page,
            next_cursor=write_cursor((page[-1].workflow_id,)) if len(found) > op.limit else None,
        )

    @serves(GetWorkflowStats)
    async def workflow(self, scope: Scope, op: GetWorkflowStats) -> WorkflowDetails:
        look = stats.workflow_details(
            project_id=scope.project_id, workflow_id=op.workflow_id, range=op.range, now_us=self.now_us()
        )
        return await self.scan(look)

    @serves(GetQueueStats)
    async def queue(self, scope: Scope, op: GetQueueStats) -> QueueStats:
        look = stats.queue_stats(project_id=scope.project_id, name=op.name, range=op.range, now_us=self.now_us())
        return await self.scan(look)
