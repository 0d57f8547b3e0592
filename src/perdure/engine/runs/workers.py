from msgspec import structs

from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.outside.dispatch import LEASE_US
from perdure.engine.runs.beats import Beats
from perdure.store.verbs.runs import queries, workers
from perdure.wire.base.cursors import read_cursor, write_cursor
from perdure.wire.base.operation import Listed
from perdure.wire.runs.waits import GetWorkerStatus, WorkerStatus
from perdure.wire.runs.workers import ListedWorker, ListWorkers


class Workers(Service):
    def __init__(self, core: Core, beats: Beats) -> None:
        super().__init__(core)
        self._beats = beats

    @serves(ListWorkers)
    async def list(self, scope: Scope, op: ListWorkers) -> Listed[ListedWorker]:
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
        return Listed.of([self._with_lease(one) for one in found], op.limit, lambda last: write_cursor((last.id,)))

    @serves(GetWorkerStatus)
    async def status(self, scope: Scope, op: GetWorkerStatus) -> WorkerStatus:
        now_us = self.now_us()
        known = await self.read(queries.list_workers(project_id=scope.project_id))
        online = sum(one.deployment_id == op.deployment_id and one.is_online(now_us) for one in known)
        return WorkerStatus(online, has_workers=online > 0)

    def _with_lease(self, worker: ListedWorker) -> ListedWorker:
        until_us = self._beats.lease_until_us(worker.id)
        if until_us <= (worker.lease_until_us or 0):
            return worker
        return structs.replace(worker, lease_until_us=until_us, last_beat_at_us=until_us - self._core.lease_us)
