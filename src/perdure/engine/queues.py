"""The service of queues."""

from perdure.engine.service import Scope, Service, serves
from perdure.store.verbs import queues
from perdure.wire.queues import GetQueue, ListQueues, PauseQueue, QueueList, QueueState, ResumeQueue


class Queues(Service):
    @serves(ListQueues)
    async def list(self, scope: Scope, op: ListQueues) -> QueueList:
        return QueueList(await self.scan(queues.list_queues(project_id=scope.project_id)))

    @serves(GetQueue)
    async def get(self, scope: Scope, op: GetQueue) -> QueueState:
        found = await self.scan(queues.list_queues(project_id=scope.project_id, name=op.name))
        return found[0] if found else QueueState(op.name)

    @serves(PauseQueue)
    async def pause(self, scope: Scope, op: PauseQueue) -> QueueState:
        return await self._put_pause(scope, op.name, self.now_us())

    @serves(ResumeQueue)
    async def resume(self, scope: Scope, op: ResumeQueue) -> QueueState:
        return await self._put_pause(scope, op.name, None)

    async def _put_pause(self, scope: Scope, name: str, paused_at_us: int | None) -> QueueState:
        await self.write(queues.put_pause(project_id=scope.project_id, name=name, paused_at_us=paused_at_us))
        return await self.get(scope, GetQueue(name))
