from perdure.engine.base.callers import Callers
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.steering import forks
from perdure.wire.steering.forks import Fork, ForkExecution, RetryExecution


class Forks(Service):
    def __init__(self, core: Core, callers: Callers) -> None:
        super().__init__(core)
        self._callers = callers

    @serves(ForkExecution)
    async def fork(self, scope: Scope, op: ForkExecution) -> Fork:
        return await self._make(scope, op)

    @serves(RetryExecution)
    async def retry(self, scope: Scope, op: RetryExecution) -> Fork:
        return await self._make(scope, op)

    async def _make(self, scope: Scope, op: ForkExecution | RetryExecution) -> Fork:
        return await self.write(
            forks.fork(
                project_id=scope.project_id,
                request=op,
                fork_id=self.new_id(),
                acted_by=await self._callers.name(scope.principal),
                now_us=self.now_us(),
                principal=scope.principal,
                idempotency=scope.idempotency,
            )
        )
