"""Deployments: callers list and switch them, push workers register them."""

from typing import Final

from msgspec import Struct, structs

from perdure.engine.deployments import QUEUES_MAX
from perdure.server.bodies import USUAL
from perdure.server.routes.executions import page_limit
from perdure.server.routes.workflows import workflow_type
from perdure.server.routing import Call, Routes
from perdure.store.verbs.deployments import StoredDeployment
from perdure.wire.fields import Most
from perdure.wire.public import DONE, Done, rfc3339
from perdure.wire.public_deployments import (
    Deployment,
    DeploymentsResponse,
    ListedDeployment,
    RegisterDeploymentWorkflowRequest,
    RegisterQueuesRequest,
    RegisterWorkerDeploymentRequest,
)
from perdure.wire.requests import QueueSpec

routes = Routes("Deployments")

QUEUES_BYTES_MAX: Final = 4 * USUAL
"""Room for the most queues of one request, with long names."""


class DeploymentsQuery(Struct, frozen=True):
    retired: bool = False
    """Include retired deployments."""
    cursor: str | None = None
    """The `next_cursor` of the page before."""
    limit: int = 100
    """1 to 1,000."""


@routes.get("/api/v1/deployments")
async def list_deployments(call: Call, query: DeploymentsQuery) -> DeploymentsResponse:
    """Deployments, newest first.

    Each has the number of its open executions and of the workers that serve it.
    """
    page, cursor = await call.engine.deployments.list(
        call.project_id, query.cursor, page_limit(query.limit), retired=query.retired
    )
    listed = [
        ListedDeployment(**structs.asdict(_shown(call.project_id, one.deployment)), workers=one.workers, open=one.open)
        for one in page
    ]
    return DeploymentsResponse(listed, cursor)


@routes.post("/api/v1/deployments/{deployment_id}/use")
async def use_deployment(call: Call, deployment_id: str) -> Deployment:
    """Make a deployment current: new executions go to it.

    Open executions stay on their own deployments.
    """
    return _shown(call.project_id, await call.engine.deployments.use(call.project_id, deployment_id))


@routes.post("/api/v1/deployments/{deployment_id}/retire")
async def retire_deployment(call: Call, deployment_id: str) -> Deployment:
    """Take a deployment out of use, until a worker registers for it again.

    409 for the current deployment, and while it has open executions or workers.
    """
    return _shown(call.project_id, await call.engine.deployments.retire(call.project_id, deployment_id))


@routes.get("/api/v1/deployments/{deployment_id}", contract=True)
async def get_deployment(call: Call, deployment_id: str) -> Deployment:
    """One deployment."""
    return _shown(call.project_id, await call.engine.deployments.get(call.project_id, deployment_id))


@routes.post("/api/v1/workers/deployments", contract=True)
async def register_worker_deployment(call: Call, body: RegisterWorkerDeploymentRequest) -> Done:
    """Make a deployment of push workers, or keep it as it is.

    A new deployment becomes current. 409 while native workers serve a deployment of that id.
    """
    await call.engine.deployments.register_push(call.project_id, body.deployment_id)
    return DONE


@routes.post("/api/v1/workers/deployments/{deployment_id}/workflows", contract=True)
async def register_deployment_workflow(call: Call, deployment_id: str, body: RegisterDeploymentWorkflowRequest) -> Done:
    """Add a workflow, an agent or a tool to a deployment of push workers, or update it."""
    await call.engine.deployments.register_workflow(
        call.project_id,
        deployment_id,
        body.workflow_id,
        workflow_type(body.workflow_type, "body.workflow_type"),
        trigger_on_event=bool(body.trigger_on_event),
        scheduled=bool(body.scheduled),
    )
    return DONE


@routes.post(
    "/api/v1/workers/queues", contract=True, body_bytes_max=QUEUES_BYTES_MAX, lists={"queues": Most(QUEUES_MAX)}
)
async def register_queues(call: Call, body: RegisterQueuesRequest) -> Done:
    """Make queues, or change how many executions run at once per concurrency key."""
    queues = [QueueSpec(queue.name, queue.concurrency_limit) for queue in body.queues]
    await call.engine.deployments.register_queues(call.project_id, body.deployment_id, queues)
    return DONE


def _shown(project_id: str, deployment: StoredDeployment) -> Deployment:
    return Deployment(
        deployment.id,
        project_id,
        "active" if deployment.retired_at_us is None else "retired",
        rfc3339(deployment.created_at_us),
        deployment.current,
        "push" if deployment.push else "native",
        rfc3339(deployment.registered_at_us),
    )
