"""The service of queues."""

from msgspec.structs import asdict

from perdure.engine.core import Core
from perdure.engine.dispatch import LEASE_US
from perdure.engine.pauses import Pauses
from perdure.engine.service import Scope, Service, serves
from perdure.store.verbs import queues, why
from perdure.wire.insight.explain import explain
from perdure.wire.insight.why import GetNextInQueue, NextExecution, NextInQueue
from perdure.wire.runs.queues import GetQueue, ListQueues, PauseKind, PauseQueue, QueueList, QueueState, ResumeQueue
from perdure.wire.steering.pauses import EndPause, PutPause


class Queues(Service):
    def __init__(self, core: Core, pauses: Pauses) -> None:
        super().__init__(core)
        self._pauses = pauses

    @serves(ListQueues)
    async def list(self, scope: Scope, op: ListQueues) -> QueueList:
        return QueueList(await self.scan(queues.list_queues(project_id=scope.project_id)))

    @serves(GetQueue)
    async def get(self, scope: Scope, op: GetQueue) -> QueueState:
        found = await self.scan(queues.list_queues(project_id=scope.project_id, name=op.name))
        return found[0] if found else QueueState(op.name)

    @serves(GetNextInQueue)
    async def next(self, scope: Scope, op: GetNextInQueue) -> NextInQueue:
        now_us = self.now_us()
        found, exact = await self.scan(
            why.next_in_queue(
                project_id=scope.project_id,
                name=op.name,
                limit=op.limit,
                now_us=now_us,
                lease_us=self._core.lease_us,
                push_lease_us=LEASE_US,
            )
        )
        explained = [
            NextExecution(**asdict(one), why=None if facts is None else explain(facts, (), now_us))
            for one, facts in found
        ]
        return NextInQueue(explained, exact)

    @serves(PauseQueue)
    async def pause(self, scope: Scope, op: PauseQueue) -> QueueState:
        await self._pauses.put(scope, PutPause(PauseKind.QUEUE, op.name))
        return await self.get(scope, GetQueue(op.name))

    @serves(ResumeQueue)
    async def resume(self, scope: Scope, op: ResumeQueue) -> QueueState:
        await self._pauses.end(scope, EndPause(PauseKind.QUEUE, op.name))
        return await self.get(scope, GetQueue(op.name))
