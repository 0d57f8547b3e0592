"""The service of open waits, and of the live workers of a deployment."""

from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.runs import queries, waits
from perdure.wire.runs.waits import GetWaits, GetWorkerStatus, PendingWaits, WorkerStatus


class OpenWaits(Service):
    @serves(GetWaits)
    async def get(self, scope: Scope, op: GetWaits) -> PendingWaits:
        return await self.read(waits.list_waits(project_id=scope.project_id, execution_id=op.execution_id))

    @serves(GetWorkerStatus)
    async def workers(self, scope: Scope, op: GetWorkerStatus) -> WorkerStatus:
        now_us = self.now_us()
        known = await self.read(queries.list_workers(project_id=scope.project_id))
        online = sum(one.deployment_id == op.deployment_id and one.is_online(now_us) for one in known)
        return WorkerStatus(online, has_workers=online > 0)
