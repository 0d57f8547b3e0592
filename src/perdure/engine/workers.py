"""The service of the list of workers."""

from perdure.engine.cursors import read_cursor, write_cursor
from perdure.engine.dispatch import LEASE_US
from perdure.engine.service import Scope, Service, serves
from perdure.store.verbs import workers
from perdure.wire.workers import ListWorkers, WorkerPage


class Workers(Service):
    @serves(ListWorkers)
    async def list(self, scope: Scope, op: ListWorkers) -> WorkerPage:
        (after,) = ("",) if op.cursor is None else read_cursor(op.cursor, tuple[str], "first")
        found = await self.scan(
            workers.list_workers(
                project_id=scope.project_id,
                after=after,
                limit=op.limit + 1,
                now_us=self.now_us(),
                lease_us=self._core.lease_us,
                push_lease_us=LEASE_US,
            )
        )
        page = found[: op.limit]
        return WorkerPage(page, write_cursor((page[-1].id,)) if len(found) > op.limit else None)
