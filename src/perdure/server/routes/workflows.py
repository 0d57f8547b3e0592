"""Workflows as deployments register them, and their runs."""

from msgspec import Struct

from perdure.engine.deployments import LIST_MAX
from perdure.server.routing import Call, Routes
from perdure.store.verbs.runs import Run
from perdure.wire.errors import BadRequest
from perdure.wire.public import Int64, Moment, microseconds, rfc3339
from perdure.wire.public_deployments import DeploymentWorkflow, WorkflowRunSummary, workflow_response
from perdure.wire.status import STATUS
from perdure.wire.workflows import WorkflowType

routes = Routes("Workflows")


class PageQuery(Struct, frozen=True):
    limit: Int64 = LIST_MAX
    """1 to 1,000."""
    offset: Int64 = 0
    """How many to leave out; 0 to 100,000."""
    cursor: str | None = None
    """The header `Next-Cursor` of the page before."""


@routes.get("/api/v1/workflows", contract=True, paged=True)
async def get_workflows(call: Call, query: PageQuery) -> list[DeploymentWorkflow]:
    """Registered workflows, by name, then newest first.

    Each deployment that has a workflow has its own entry. Agents, tools and retired deployments are left out.
    """
    found, cursor = await call.engine.deployments.workflows(call.project_id, query.cursor, query.limit, query.offset)
    call.goes_on(cursor)
    return [workflow_response(one) for one in found]


class DeploymentQuery(Struct, frozen=True):
    deployment_id: str | None = None
    """Default: the newest deployment that has the workflow."""


class RunsQuery(Struct, frozen=True):
    workflow_type: str = "workflow"
    """workflow, agent or tool."""
    workflow_id: str | None = None
    limit: Int64 = 50
    """1 to 1,000."""
    offset: Int64 = 0
    """How many to leave out; 0 to 100,000. Newly begun runs shift an offset, not a cursor."""
    cursor: str | None = None
    """The header `Next-Cursor` of the page before."""
    start_time: Moment | None = None
    """Only runs created then or later."""
    end_time: Moment | None = None
    """Only runs created then or before."""


@routes.get("/api/v1/workflows/runs", contract=True, paged=True)
async def get_workflow_runs(call: Call, query: RunsQuery) -> list[WorkflowRunSummary]:
    """Root executions, newest first.

    `GET /api/v1/executions` has more filters. A page may hold fewer than `limit` runs and still have a `Next-Cursor`.
    """
    found, cursor = await call.engine.deployments.runs(
        call.project_id,
        workflow_type(query.workflow_type, "query.workflow_type"),
        query.workflow_id,
        created_after_us=None if query.start_time is None else microseconds(query.start_time),
        created_before_us=None if query.end_time is None else microseconds(query.end_time),
        cursor=query.cursor,
        limit=query.limit,
        offset=query.offset,
    )
    call.goes_on(cursor)
    return [_summary(run) for run in found]


@routes.get("/api/v1/workflows/{workflow_id}", contract=True)
async def get_workflow(call: Call, workflow_id: str, query: DeploymentQuery) -> DeploymentWorkflow:
    """One registered workflow.

    Agents and tools are not found here.
    """
    return workflow_response(await call.engine.deployments.workflow(call.project_id, workflow_id, query.deployment_id))


def workflow_type(text: str, where: str) -> WorkflowType:
    """Raises BadRequest."""
    try:
        return WorkflowType(text)
    except ValueError:
        known = ", ".join(WorkflowType)
        raise BadRequest(f"{where}: {text!r} is not one of {known}", {"path": where}) from None


def _summary(run: Run) -> WorkflowRunSummary:
    return WorkflowRunSummary(
        run.id,
        run.workflow_id,
        rfc3339(run.created_at_us),
        STATUS[run.phase].value,
        run.payload,
        run.root_execution_id,
        run.session_id,
        None if run.completed_at_us is None else rfc3339(run.completed_at_us),
        run.result,
        run.error,
    )
