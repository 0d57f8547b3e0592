"""The API's shapes of deployments and their workflows, with the contract's names (see `wire/public.py`)."""

from msgspec import Raw, Struct

from perdure.wire.public import Int32, Int64, Time, Uuid, rfc3339
from perdure.wire.records import MaybeRaw
from perdure.wire.workflows import RegisteredWorkflow


class RegisterWorkerDeploymentRequest(Struct, frozen=True):
    """A deployment of push workers."""

    deployment_id: str


class RegisterDeploymentWorkflowRequest(Struct, frozen=True):
    """A workflow, an agent or a tool of a deployment of push workers."""

    workflow_id: str
    workflow_type: str
    """`workflow`, `agent` or `tool`."""
    trigger_on_event: bool | None = None
    scheduled: bool | None = None


class QueueInfo(Struct, frozen=True):
    """A queue and how many of its executions run at once per concurrency key; null: no limit."""

    name: str
    concurrency_limit: Int32 | None = None


class RegisterQueuesRequest(Struct, frozen=True):
    """Queues to make or to change. Queues belong to the project, not to a deployment."""

    deployment_id: str
    queues: list[QueueInfo]


class Deployment(Struct, frozen=True):
    """One deployment: a named version of the workers' code."""

    id: str
    project_id: Uuid
    status: str
    """`active` or `retired`."""
    created_at: Time
    current: bool = False
    """Whether new executions go there unless they name another."""
    served_by: str = "native"
    """`native` workers ask for work; the server sends it to `push` workers."""
    registered_at: Time | None = None
    """When a worker last registered for it."""


class ListedDeployment(Deployment, frozen=True):
    """A deployment with its open executions. It drains while it has some."""

    workers: Int64 = 0
    """How many workers serve it."""
    open: dict[str, Int64] = {}
    """How many executions have not ended, by phase."""


class DeploymentsResponse(Struct, frozen=True):
    """One page, the youngest first; `next_cursor` asks for the following one and is null after the last."""

    deployments: list[ListedDeployment]
    next_cursor: str | None = None


class DeploymentWorkflow(Struct, frozen=True):
    """A workflow of one deployment."""

    workflow_id: str
    deployment_id: str
    workflow_type: str
    """`workflow`, `agent` or `tool`."""
    trigger_on_event: bool
    scheduled: bool
    created_at: Time


def workflow_response(workflow: RegisteredWorkflow) -> DeploymentWorkflow:
    w = workflow
    return DeploymentWorkflow(
        w.id, w.deployment_id, w.type.value, w.trigger_on_event, w.scheduled, rfc3339(w.created_at_us)
    )


class WorkflowRunSummary(Struct, frozen=True):
    """A root execution, in short."""

    id: Uuid
    workflow_id: str
    created_at: Time
    status: str
    payload: Raw
    root_execution_id: str | None = None
    session_id: str | None = None
    completed_at: Time | None = None
    result: MaybeRaw = None
    error: str | None = None
