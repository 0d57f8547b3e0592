from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.runs import queues
from perdure.wire.base.operation import Listed
from perdure.wire.runs.queues import GetQueue, ListQueues, QueueState


class QueueService(Service):
    @serves(ListQueues)
    async def list(self, scope: Scope, op: ListQueues) -> Listed[QueueState]:
        return Listed(await self.scan(queues.list_queues(project_id=scope.project_id)))

    @serves(GetQueue)
    async def get(self, scope: Scope, op: GetQueue) -> QueueState:
        found = await self.scan(queues.list_queues(project_id=scope.project_id, name=op.name))
        return found[0] if found else QueueState(op.name)
