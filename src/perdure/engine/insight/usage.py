"""The service that sums what executions spent on models."""

import asyncio

from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.insight import usage
from perdure.wire.agents.usage import ExecutionUsage, GetUsage
from perdure.wire.agents.usage_sums import sums
from perdure.wire.insight.spend import GetSpend, Spend


class Usages(Service):
    @serves(GetUsage)
    async def get(self, scope: Scope, op: GetUsage) -> ExecutionUsage:
        facts = await self.scan(usage.usage(project_id=scope.project_id, execution_id=op.execution_id))
        return await asyncio.to_thread(sums, facts)

    @serves(GetSpend)
    async def spend(self, scope: Scope, op: GetSpend) -> Spend:
        return await self.scan(
            usage.spend(project_id=scope.project_id, agent_id=op.agent_id, range=op.range, now_us=self.now_us())
        )
