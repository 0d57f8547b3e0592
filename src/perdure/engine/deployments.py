"""The service of deployments, their workflows, and the runs of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from perdure.engine.cursors import read_cursor, write_cursor
from perdure.engine.executions import checked_cursor
from perdure.store.verbs import deployments, runs
from perdure.store.verbs.deployments import FIRST_REGISTERED, Draining, RegistryPlace, StoredDeployment
from perdure.store.verbs.runs import Run
from perdure.wire.codec import KEY_BYTES_MAX, check_name
from perdure.wire.errors import BadRequest, BadValue
from perdure.wire.requests import QueueSpec
from perdure.wire.starts import INT32_MAX
from perdure.wire.workflows import RegisteredWorkflow, WorkflowType

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

LIST_MAX: Final = 1_000
OFFSET_MAX: Final = 100_000
QUEUES_MAX: Final = 10_000
HOUR_US: Final = 3_600_000_000


class Deployments:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def register_push(self, project_id: str, deployment_id: str) -> None:
        """For push workers. Raises Conflict while native workers serve it."""
        check_name(deployment_id, where="deployment_id", max_bytes=KEY_BYTES_MAX)
        await self._engine.store.write(
            deployments.register_push_deployment(
                project_id=project_id, deployment_id=deployment_id, now_us=self._engine.clock.now_us()
            )
        )

    async def register_workflow(
        self,
        project_id: str,
        deployment_id: str,
        workflow_id: str,
        type: WorkflowType,
        *,
        trigger_on_event: bool = False,
        scheduled: bool = False,
    ) -> None:
        """For push workers. Raises DeploymentNotFound, Conflict for a native one."""
        check_name(workflow_id, where="workflow_id")
        await self._engine.store.write(
            deployments.register_push_workflow(
                project_id=project_id,
                deployment_id=deployment_id,
                workflow_id=workflow_id,
                type=type,
                trigger_on_event=trigger_on_event,
                scheduled=scheduled,
                now_us=self._engine.clock.now_us(),
            )
        )

    async def register_queues(self, project_id: str, deployment_id: str, queues: Sequence[QueueSpec]) -> None:
        """Raises DeploymentNotFound, BadValue."""
        check_name(deployment_id, where="deployment_id", max_bytes=KEY_BYTES_MAX)
        if len(queues) > QUEUES_MAX:
            raise BadValue(f"queues: holds {len(queues):,} entries; the limit is {QUEUES_MAX:,}", {"path": "queues"})
        for n, queue in enumerate(queues):
            check_name(queue.name, where=f"queues[{n}].name")
            limit = queue.concurrency_limit
            if limit is not None and not 1 <= limit <= INT32_MAX:
                where = f"queues[{n}].concurrency_limit"
                raise BadValue(f"{where}: must be 1 to {INT32_MAX}, got {limit}", {"path": where})
        await self._engine.store.write(
            deployments.register_queues(project_id=project_id, deployment_id=deployment_id, queues=queues)
        )

    async def get(self, project_id: str, deployment_id: str) -> StoredDeployment:
        """Raises DeploymentNotFound."""
        return await self._engine.store.read(
            deployments.get_deployment(project_id=project_id, deployment_id=deployment_id)
        )

    async def list(
        self, project_id: str, cursor: str | None = None, limit: int = 100, *, retired: bool = False
    ) -> tuple[Sequence[Draining], str | None]:
        """Newest first, with open executions and the next cursor."""
        check_page(limit, 0)
        before_us, after = (1 << 62, "") if cursor is None else _place(cursor)
        found = await self._engine.store.scan(
            deployments.list_deployments(
                project_id=project_id,
                retired=retired,
                before_us=before_us,
                after=after,
                limit=limit + 1,
                now_us=self._engine.clock.now_us(),
            )
        )
        page = found[:limit]
        last = page[-1].deployment if len(found) > limit else None
        return page, None if last is None else f"{last.created_at_us}-{last.id}"

    async def use(self, project_id: str, deployment_id: str) -> StoredDeployment:
        """Send new executions to it. Raises DeploymentNotFound, also for a retired one."""
        return await self._engine.store.write(
            deployments.use_deployment(project_id=project_id, deployment_id=deployment_id)
        )

    async def retire(self, project_id: str, deployment_id: str) -> StoredDeployment:
        """Only without open executions. Raises DeploymentNotFound, Conflict."""
        return await self._engine.store.write(
            deployments.retire_deployment(
                project_id=project_id, deployment_id=deployment_id, now_us=self._engine.clock.now_us()
            )
        )

    async def workflows(
        self, project_id: str, cursor: str | None = None, limit: int = LIST_MAX, offset: int = 0
    ) -> tuple[Sequence[RegisteredWorkflow], str | None]:
        """One entry per deployment, and the next cursor. Raises BadRequest."""
        check_page(limit, offset)
        after = registry_place(cursor)
        page, following = await self._engine.store.read(
            deployments.list_workflows(project_id=project_id, after=after, limit=limit, offset=offset)
        )
        return page, None if following is None else write_cursor(following)

    async def workflow(self, project_id: str, workflow_id: str, deployment_id: str | None = None) -> RegisteredWorkflow:
        """The newest, unless a deployment is named. Raises NotFound."""
        return await self._engine.store.read(
            deployments.get_workflow(project_id=project_id, workflow_id=workflow_id, deployment_id=deployment_id)
        )

    async def runs(
        self,
        project_id: str,
        type: WorkflowType = WorkflowType.WORKFLOW,
        workflow_id: str | None = None,
        *,
        created_after_us: int | None = None,
        created_before_us: int | None = None,
        cursor: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Run], str | None]:
        """Root executions of one type of workflow, newest first, and the next cursor. Raises BadRequest."""
        check_page(limit, offset)
        before = checked_cursor(cursor)
        if created_before_us is not None:
            # Ids grow with time, but not to the microsecond, and by other clocks.
            before = min(before, _id_of(created_before_us + HOUR_US))
        return await self._engine.store.scan(
            runs.list_runs(
                project_id=project_id,
                type=type,
                workflow_id=workflow_id,
                created_after_us=created_after_us,
                created_before_us=created_before_us,
                before=before,
                limit=limit,
                offset=offset,
            )
        )


def check_page(limit: int, offset: int) -> None:
    """Raises BadRequest."""
    if not 1 <= limit <= LIST_MAX:
        raise BadRequest(f"`limit` must be 1 to {LIST_MAX:,}, got {limit}.")
    if not 0 <= offset <= OFFSET_MAX:
        raise BadRequest(f"`offset` must be 0 to {OFFSET_MAX:,}, got {offset}; narrow the list otherwise.")


def registry_place(cursor: str | None) -> RegistryPlace:
    """Raises BadRequest."""
    return FIRST_REGISTERED if cursor is None else read_cursor(cursor, RegistryPlace, "first")


def _id_of(at_us: int) -> str:
    """The smallest of a moment."""
    ms = f"{min(max(at_us // 1_000, 0), 2**48 - 1):012x}"
    return f"{ms[:8]}-{ms[8:]}"


def _place(cursor: str) -> tuple[int, str]:
    at_us, dash, id = cursor.partition("-")
    if not (dash and id and at_us.isascii() and at_us.isdigit() and len(at_us) < 19):
        raise BadRequest("`cursor` is not one that a list gave; leave it out to start with the youngest.")
    return int(at_us), id
