"""The service that reads journals for people: why, waits, timelines, spending."""

import asyncio
from typing import Final

from msgspec.structs import asdict

from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.outside.dispatch import LEASE_US
from perdure.store.verbs.insight import timelines, usage, why
from perdure.wire.agents.usage import ExecutionUsage, GetUsage
from perdure.wire.agents.usage_sums import sums
from perdure.wire.insight.critical_path import PathExecution, PathSpan, path_of
from perdure.wire.insight.explain import explain, with_path
from perdure.wire.insight.timeline_fold import fold
from perdure.wire.insight.timelines import GetTimeline, Timeline
from perdure.wire.insight.why import ExplainExecution, GetNextInQueue, NextExecution, NextInQueue, Why
from perdure.wire.runs.waits import GetWaits, PendingWaits

PATH_ROWS_MAX: Final = 20_000
PATH_EXECUTIONS_MAX: Final = 1_000


class Journals(Service):
    def _times(self) -> dict[str, int]:
        return {"now_us": self.now_us(), "lease_us": self._core.lease_us, "push_lease_us": LEASE_US}

    @serves(GetWaits)
    async def waits(self, scope: Scope, op: GetWaits) -> PendingWaits:
        times = self._times()
        return await self.read(why.list_waits(project_id=scope.project_id, execution_id=op.execution_id, times=times))

    @serves(ExplainExecution)
    async def explain(self, scope: Scope, op: ExplainExecution) -> Why:
        times = self._times()
        now_us = times["now_us"]
        facts, acts = await self.scan(
            why.explained(project_id=scope.project_id, execution_id=op.execution_id, times=times)
        )
        found = explain(facts, acts, now_us)
        if not op.slow:
            return found
        spans = await self._path(scope.project_id, op.execution_id, now_us)
        # Thousands of rows would hold the event loop for too long.
        return await asyncio.to_thread(with_path, found, spans)

    @serves(GetNextInQueue)
    async def next_in_queue(self, scope: Scope, op: GetNextInQueue) -> NextInQueue:
        times = self._times()
        look = why.next_in_queue(project_id=scope.project_id, name=op.name, limit=op.limit, times=times)
        found, exact = await self.scan(look)
        explained = [
            NextExecution(**asdict(one), why=None if facts is None else explain(facts, (), times["now_us"]))
            for one, facts in found
        ]
        return NextInQueue(explained, exact)

    @serves(GetTimeline)
    async def timeline(self, scope: Scope, op: GetTimeline) -> Timeline:
        look = timelines.timeline(
            project_id=scope.project_id, execution_id=op.execution_id, after=op.after, limit=op.limit
        )
        return await asyncio.to_thread(fold, await self.scan(look))

    @serves(GetUsage)
    async def usage(self, scope: Scope, op: GetUsage) -> ExecutionUsage:
        look = usage.usage(project_id=scope.project_id, execution_id=op.execution_id)
        return await asyncio.to_thread(sums, await self.scan(look))

    async def _path(self, project_id: str, execution_id: str, now_us: int) -> list[PathSpan]:
        """Read the path, with the descendants on the path only. Empty if the execution is deleted meanwhile."""
        root = await self._read_path(project_id, execution_id, PATH_ROWS_MAX)
        if root is None:
            return []
        rows, executions = PATH_ROWS_MAX - len(root.rows), PATH_EXECUTIONS_MAX - 1
        left = await _backwards(root, root.created_at_us, root.completed_at_us or now_us)
        found: list[PathSpan] = []
        while left:
            span = left.pop()
            child = None
            if span.child_id is not None and rows and executions:
                child = await self._read_path(project_id, span.child_id, rows)
            if child is None:
                found.append(span)
            else:
                rows -= len(child.rows)
                executions -= 1
                left += await _backwards(child, span.from_us, span.to_us)
        return found

    async def _read_path(self, project_id: str, id: str, rows_max: int) -> PathExecution | None:
        return await self.scan(why.path_execution(project_id=project_id, execution_id=id, rows_max=rows_max))


async def _backwards(one: PathExecution, from_us: int, to_us: int) -> list[PathSpan]:
    return (await asyncio.to_thread(path_of, one, from_us, to_us))[::-1]
