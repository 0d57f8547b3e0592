"""The service of timelines."""

import asyncio

from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.insight import timelines
from perdure.wire.insight.timeline_fold import fold
from perdure.wire.insight.timelines import GetTimeline, Timeline


class Timelines(Service):
    @serves(GetTimeline)
    async def get(self, scope: Scope, op: GetTimeline) -> Timeline:
        facts = await self.scan(
            timelines.timeline(
                project_id=scope.project_id, execution_id=op.execution_id, after=op.after, limit=op.limit
            )
        )
        # Thousands of rows would hold the event loop for too long.
        return await asyncio.to_thread(fold, facts)
