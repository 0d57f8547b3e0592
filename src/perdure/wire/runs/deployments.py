"""Deployments. Callers list and switch deployments; push workers register deployments."""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Struct, field

from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.fields import (
    Int32,
    Int64,
    KeyName,
    Limit,
    MaxItems,
    Name,
    PageCursor,
    Time,
    Uuid,
    count_check,
    within,
)
from perdure.wire.base.operation import Listed, Noun, Operation, validated
from perdure.wire.base.record import Done, Record
from perdure.wire.runs.starts import INT32_MAX
from perdure.wire.runs.workflows import WorkflowType

QUEUES_MAX: Final = 10_000
QUEUES_BYTES_MAX: Final = 4 << 20
"""Room for the most queues of a request, with long names."""


class DeploymentStatus(StrEnum):
    ACTIVE = "active"
    RETIRED = "retired"


class ServedBy(StrEnum):
    NATIVE = "native"
    PUSH = "push"


def _workflow_type(text: str, where: str) -> WorkflowType:
    try:
        return WorkflowType(text)
    except ValueError:
        path = f"body.{where}"
        raise BadRequest(f"{path}: {text!r} is not one of {', '.join(WorkflowType)}", {"path": path}) from None


class Deployment(Record, frozen=True):
    """A named version of the workers' code."""

    id: str
    project_id: Uuid
    status: DeploymentStatus
    created_at_us: Time = field(name="created_at")
    current: bool = False
    """New executions go there unless a start names another deployment."""
    served_by: ServedBy = ServedBy.NATIVE
    """`native` workers ask for work; the server sends work to `push` workers."""
    registered_at_us: Time | None = field(default=None, name="registered_at")
    """When a worker last registered for the deployment."""
    superseded_at_us: Time | None = field(default=None, name="superseded_at")
    """When new executions began to go to another deployment. Null for the current one, or if the time is not known."""


class ListedDeployment(Deployment, frozen=True):
    """A deployment drains while it has open executions."""

    workers: Int64 = 0
    open: dict[str, Int64] = field(default_factory=dict)
    """Open executions by phase."""


deployments: Final = Noun("Deployments")


@deployments.get("/api/v1/deployments", under="deployments", reply="DeploymentsResponse")
class ListDeployments(Operation[Listed[ListedDeployment]], frozen=True):
    """Deployments, newest first, with the numbers of open executions and workers."""

    retired: bool = False
    """Include retired deployments."""
    cursor: PageCursor | None = None
    limit: Limit = 100


@deployments.post("/api/v1/deployments/{deployment_id}/use", repeated="no effect", role=Role.ADMIN)
class UseDeployment(Operation[Deployment], frozen=True):
    """Make a deployment current, so that new executions go there.

    Open executions stay on their own deployments. A registration makes its deployment current without this call.
    """

    deployment_id: str


@deployments.post("/api/v1/deployments/{deployment_id}/retire", repeated="no effect")
class RetireDeployment(Operation[Deployment], frozen=True):
    """Take a deployment out of use, until a worker registers for the deployment again.

    409 for the current deployment, and for a deployment with open executions or workers.
    """

    deployment_id: str


@deployments.get("/api/v1/deployments/{deployment_id}", contract=True)
class GetDeployment(Operation[Deployment], frozen=True):
    """One deployment."""

    deployment_id: str


@deployments.post("/api/v1/workers/deployments", role=Role.WORK, repeated="no effect", contract=True)
class RegisterWorkerDeployment(Operation[Done], frozen=True):
    """Make a deployment of push workers, or keep it.

    A new deployment becomes current. 409 while native workers serve a deployment of the same id.
    """

    deployment_id: KeyName


@deployments.post(
    "/api/v1/workers/deployments/{deployment_id}/workflows", role=Role.WORK, repeated="no effect", contract=True
)
class RegisterDeploymentWorkflow(Operation[Done], frozen=True):
    """Add a workflow, agent or tool to a deployment of push workers, or update the entry."""

    deployment_id: str
    workflow_id: Name
    workflow_type: Annotated[str, _workflow_type]
    """`workflow`, `agent` or `tool`."""
    trigger_on_event: bool | None = None
    scheduled: bool | None = None


class QueueInfo(Struct, frozen=True):
    name: Name
    concurrency_limit: Annotated[Int32, within(1, INT32_MAX)] | None = None
    """How many executions of a concurrency key may run at once; null: no limit."""


@deployments.post(
    "/api/v1/workers/queues", role=Role.WORK, repeated="no effect", contract=True, body_bytes_max=QUEUES_BYTES_MAX
)
class RegisterQueues(Operation[Done], frozen=True):
    """Make queues, or change how many executions run at once per concurrency key.

    Queues belong to the project, not to a deployment.
    """

    deployment_id: KeyName
    queues: Annotated[list[QueueInfo], MaxItems(QUEUES_MAX), count_check(QUEUES_MAX)]

    def check(self) -> None:
        for n, queue in enumerate(self.queues):
            validated(queue, f"queues[{n}].")
