import asyncio

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.insight import stats
from perdure.wire.insight.stats import GetOverview, Overview, Range


class Statistics(Service):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._running: dict[tuple[str, Range], asyncio.Task[Overview]] = {}

    @serves(GetOverview)
    async def overview(self, scope: Scope, op: GetOverview) -> Overview:
        """Requests of the same moment share a look."""
        name = (scope.project_id, op.range)
        running = self._running.get(name)
        if running is None:
            look = stats.overview(project_id=scope.project_id, range=op.range, now_us=self.now_us())
            running = self._running[name] = asyncio.ensure_future(self.scan(look))
            running.add_done_callback(lambda _: self._running.pop(name))
        return await asyncio.shield(running)
