"""The service of queues."""

from msgspec.structs import asdict

from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.outside.dispatch import LEASE_US
from perdure.store.verbs.insight import why
from perdure.store.verbs.runs import queues
from perdure.wire.base.operation import Listed
from perdure.wire.insight.explain import explain
from perdure.wire.insight.why import GetNextInQueue, NextExecution, NextInQueue
from perdure.wire.runs.queues import GetQueue, ListQueues, QueueState


class QueueService(Service):
    @serves(ListQueues)
    async def list(self, scope: Scope, op: ListQueues) -> Listed[QueueState]:
        return Listed(await self.scan(queues.list_queues(project_id=scope.project_id)))

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
