"""The service that explains executions."""

from perdure.engine.dispatch import LEASE_US
from perdure.engine.service import Scope, Service, serves
from perdure.store.verbs import why
from perdure.wire.explain import explain, with_path
from perdure.wire.why import ExplainExecution, Why


class Explanations(Service):
    @serves(ExplainExecution)
    async def explain(self, scope: Scope, op: ExplainExecution) -> Why:
        now_us = self.now_us()
        facts, acts = await self.scan(
            why.explained(
                project_id=scope.project_id,
                execution_id=op.execution_id,
                now_us=now_us,
                lease_us=self._core.lease_us,
                push_lease_us=LEASE_US,
            )
        )
        found = explain(facts, acts, now_us)
        if not op.slow:
            return found
        path = await self.scan(why.slow_path(project_id=scope.project_id, execution_id=op.execution_id, now_us=now_us))
        return with_path(found, path)
