from __future__ import annotations

from perdure.engine.base.callers import Callers
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.steering import acts, pending
from perdure.wire.base.operation import Listed
from perdure.wire.steering.acts import Acted, ActOnExecution, GetPending, PendingCall


class Acts(Service):
    def __init__(self, core: Core, callers: Callers) -> None:
        super().__init__(core)
        self._callers = callers

    @serves(GetPending)
    async def pending(self, scope: Scope, op: GetPending) -> Listed[PendingCall]:
        return await self.read(
            pending.pending(project_id=scope.project_id, execution_id=op.execution_id, now_us=self.now_us())
        )

    @serves(ActOnExecution)
    async def act(self, scope: Scope, op: ActOnExecution) -> Acted:
        return await self.write(
            acts.act(
                project_id=scope.project_id,
                execution_id=op.execution_id,
                request=op,
                acted_by=await self._callers.name(scope.principal),
                event_id=self.new_id(),
                now_us=self.now_us(),
                idempotency=scope.idempotency,
            )
        )
