"""The service that sums what executions spent on models."""

import asyncio

from perdure.engine.service import Scope, Service, serves
from perdure.store.verbs import usage
from perdure.wire.usage import ExecutionUsage, GetUsage
from perdure.wire.usage_sums import sums


class Usages(Service):
    @serves(GetUsage)
    async def get(self, scope: Scope, op: GetUsage) -> ExecutionUsage:
        facts = await self.scan(usage.usage(project_id=scope.project_id, execution_id=op.execution_id))
        return await asyncio.to_thread(sums, facts)
