"""The service of acts, forks and retries: the store keeps who decided."""

from __future__ import annotations

from perdure.engine.base.callers import Callers
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.steering import acts, forks
from perdure.wire.steering.acts import Acted, ActOnExecution
from perdure.wire.steering.forks import Fork, ForkExecution, RetryExecution


class Acts(Service):
    def __init__(self, core: Core, callers: Callers) -> None:
        super().__init__(core)
        self._callers = callers

    @serves(ActOnExecution)
    async def act(self, scope: Scope, op: ActOnExecution) -> Acted:
        return await self.write(acts.act(self.at(scope), op, await self._callers.name(scope.principal)))

    @serves(ForkExecution)
    async def fork(self, scope: Scope, op: ForkExecution) -> Fork:
        return await self._fork(scope, op)

    @serves(RetryExecution)
    async def retry(self, scope: Scope, op: RetryExecution) -> Fork:
        return await self._fork(scope, op)

    async def _fork(self, scope: Scope, op: ForkExecution | RetryExecution) -> Fork:
        return await self.write(forks.fork(self.at(scope), op, acted_by=await self._callers.name(scope.principal)))
