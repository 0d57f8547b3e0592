from __future__ import annotations

from typing import Final

from perdure.engine.base.cursors import none_of_ours, read_cursor, registry_place, write_cursor
from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.insight import workflow_runs
from perdure.store.verbs.runs import deployments
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import DONE, Done
from perdure.wire.runs.deployments import (
    ListDeployments,
    ListedDeployment,
    RegisterDeploymentWorkflow,
    RegisterQueues,
    RegisterWorkerDeployment,
)
from perdure.wire.runs.requests import QueueSpec
from perdure.wire.runs.workflows import (
    GetStartable,
    GetWorkflowRuns,
    GetWorkflows,
    RegisteredWorkflow,
    WorkflowRun,
    WorkflowType,
)

HOUR_US: Final = 3_600_000_000


class Deployments(Service):
    @serves(RegisterWorkerDeployment)
    async def register(self, scope: Scope, op: RegisterWorkerDeployment) -> Done:
        """Raises Conflict while native workers serve the deployment."""
        await self.write(
            deployments.register_push_deployment(
                project_id=scope.project_id, deployment_id=op.deployment_id, now_us=self.now_us()
            )
        )
        return DONE

    @serves(RegisterDeploymentWorkflow)
    async def register_workflow(self, scope: Scope, op: RegisterDeploymentWorkflow) -> Done:
        await self.write(
            deployments.register_push_workflow(
                project_id=scope.project_id,
                deployment_id=op.deployment_id,
                workflow_id=op.workflow_id,
                type=WorkflowType(op.workflow_type),
                trigger_on_event=bool(op.trigger_on_event),
                scheduled=bool(op.scheduled),
                now_us=self.now_us(),
            )
        )
        return DONE

    @serves(RegisterQueues)
    async def register_queues(self, scope: Scope, op: RegisterQueues) -> Done:
        queues = [QueueSpec(queue.name, queue.concurrency_limit) for queue in op.queues]
        await self.write(
            deployments.register_queues(project_id=scope.project_id, deployment_id=op.deployment_id, queues=queues)
        )
        return DONE

    @serves(ListDeployments)
    async def list(self, scope: Scope, op: ListDeployments) -> Listed[ListedDeployment]:
        before_us, after = (1 << 62, "") if op.cursor is None else _place(op.cursor)
        found = await self.scan(
            deployments.list_deployments(
                project_id=scope.project_id,
                retired=op.retired,
                before_us=before_us,
                after=after,
                limit=op.limit + 1,
                now_us=self.now_us(),
            )
        )
        return Listed.of(found, op.limit, lambda last: f"{last.created_at_us}-{last.id}")

    @serves(GetWorkflows)
    async def workflows(self, scope: Scope, op: GetWorkflows) -> Listed[RegisteredWorkflow]:
        page, following = await self.read(
            deployments.list_workflows(
                project_id=scope.project_id, after=registry_place(op.cursor), limit=op.limit, offset=op.offset
            )
        )
        return Listed(page, None if following is None else write_cursor(following))

    @serves(GetStartable)
    async def startable(self, scope: Scope, op: GetStartable) -> Listed[RegisteredWorkflow]:
        if op.tool is not None:
            return Listed(await self.scan(deployments.startable_by(project_id=scope.project_id, tool=op.tool)), None)
        after = "" if op.cursor is None else read_cursor(op.cursor, tuple[str], "first")[0]
        page, last = await self.scan(
            deployments.list_startable(project_id=scope.project_id, after_id=after, limit=op.limit)
        )
        return Listed(page, None if last is None else write_cursor((last,)))

    @serves(GetWorkflowRuns)
    async def runs(self, scope: Scope, op: GetWorkflowRuns) -> Listed[WorkflowRun]:
        before = op.cursor or FIRST_CURSOR
        if op.end_time is not None:
            # Ids grow with time, but not to the microsecond, and by other clocks.
            before = min(before, _id_of(op.end_time + HOUR_US))
        found, following = await self.scan(
            workflow_runs.list_runs(
                project_id=scope.project_id,
                type=op.workflow_type,
                workflow_id=op.workflow_id,
                created_after_us=op.start_time,
                created_before_us=op.end_time,
                before=before,
                limit=op.limit,
                offset=op.offset,
            )
        )
        return Listed(found, following)


def _id_of(at_us: int) -> str:
    """The smallest id of a moment."""
    ms = f"{min(max(at_us // 1_000, 0), 2**48 - 1):012x}"
    return f"{ms[:8]}-{ms[8:]}"


def _place(cursor: str) -> tuple[int, str]:
    at_us, dash, id = cursor.partition("-")
    if not (dash and id and at_us.isascii() and at_us.isdigit() and len(at_us) < 19):
        raise none_of_ours("youngest")
    return int(at_us), id
