from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.insight import search
from perdure.wire.insight.search import Search, SearchResults


class Searches(Service):
    @serves(Search)
    async def search(self, scope: Scope, op: Search) -> SearchResults:
        return await self.scan(search.search(project_id=scope.project_id, q=op.q, limit=op.limit))
