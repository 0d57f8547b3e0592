"""The deployment of a start: whether it can run the workflow and takes the input."""

import shlex

from msgspec import Raw, Struct

from perdure.store.base.executions import StoredWorker
from perdure.store.base.input_checks import check_input, compile_check, find_check
from perdure.store.base.interface import query, record, value
from perdure.store.verbs.runs.direct_dispatch import DirectDispatch
from perdure.wire.base.errors import DeploymentNotFound, NoDeployment, NotFound, WorkflowNotFound
from perdure.wire.base.wording import did_you_mean
from perdure.wire.runs.requests import StartItem

NEIGHBOURS = 20
"""Names compared with an unknown name, on each side."""


class StartTarget(Struct, frozen=True, gc=False):
    deployment_id: str | None
    registered: str | None
    """The workflow's name, if the deployment has registered it."""
    queue_name: str
    output_schema_name: str | None
    run_timeout_seconds: int | None
    wake_on_cancel: int | None
    input_check: str | None
    """The name of the check of inputs."""
    queue: str | None
    """The queue's name, if it has a row."""
    gate: int
    """Gates of pauses, except those of concurrency keys."""
    key_pauses: bool
    """Whether the queue has paused concurrency keys."""
    searchable: bool
    shares_budget: bool
    """Whether the project has shared budgets."""
    push: bool
    """Push workers run any workflow of their program, registered or not."""

    @property
    def runs(self) -> bool:
        return self.registered is not None or self.push


class DispatchTarget(StartTarget, frozen=True, gc=False):
    worker: StoredWorker | None
    """None: the worker is gone, or locked."""


Where = tuple[str | None, str, str | None, bool]


def where_of(item: StartItem) -> Where:
    return item.deployment_id, item.workflow_id, item.queue_name, item.accept_early


async def find_target(
    project_id: str, workflow_id: str, deployment_id: str | None = None, queue_name: str | None = None
) -> StartTarget | None:
    """Find the target in this deployment or the current one. None: the project does not exist."""
    place = {"deployment_id": deployment_id, "workflow_id": workflow_id, "queue_name": queue_name}
    return await record(StartTarget, "start_target", project_id=project_id, **place)


async def target_of(project_id: str, item: StartItem, *, suggests: bool = True) -> StartTarget:
    """Raises the refusal of an item that no worker could run. If `suggests`, the refusal names the nearest workflow."""
    found = await find_target(project_id, item.workflow_id, item.deployment_id, item.queue_name)
    hint = ""
    if found is not None and suggests and not found.runs:
        hint = await suggestion(project_id, found, item.workflow_id)
    return _checked(project_id, item, found, hint)


async def dispatch_target(project_id: str, item: StartItem, dispatch: DirectDispatch) -> StartTarget:
    """Find the target like `target_of`, and open the dispatch."""
    found = await record(
        DispatchTarget,
        "dispatch_target",
        worker_id=dispatch.waiting_claim.worker_id,
        project_id=project_id,
        deployment_id=item.deployment_id,
        workflow_id=item.workflow_id,
        queue_name=item.queue_name,
    )
    if found is not None:
        dispatch.see(project_id, found.worker)
    return _checked(project_id, item, found)


async def suggestion(project_id: str, target: StartTarget, workflow_id: str) -> str:
    """Suggest the deployment's nearest workflow in a sentence; empty: none is near."""
    near = {"project_id": project_id, "deployment_id": target.deployment_id, "workflow_id": workflow_id}
    return did_you_mean(
        workflow_id, [name for (name,) in await query("neighbouring_workflows", **near, limit=NEIGHBOURS)]
    )


def _checked(project_id: str, item: StartItem, target: StartTarget | None, hint: str = "") -> StartTarget:
    if target is None:
        raise NotFound(f"Project {project_id!r} does not exist.")
    if target.deployment_id is None:
        if item.deployment_id is not None:
            raise DeploymentNotFound(
                f"Deployment {item.deployment_id!r} does not exist, or is retired; "
                f"start a worker with `--deployment {shlex.quote(item.deployment_id)}`."
            )
        if not item.accept_early:
            raise NoDeployment(
                f"Workflow {item.workflow_id!r} cannot be started: the project has no deployment yet. Start a worker, "
                'or let the execution wait for one: "accept_early": true, or `perdure run --accept-early`.'
            )
    elif not target.runs:
        raise WorkflowNotFound(
            f"Workflow {item.workflow_id!r} is not registered in deployment {target.deployment_id!r}; check its name, "
            f"or restart the worker that should serve it.{hint}"
        )
    return target


async def check_payload(
    project_id: str, workflow_id: str, target: StartTarget | None, payload: Raw, at: str = "payload"
) -> None:
    """Raises BadValue if the payload does not fit the schema registered by the target."""
    if target is None or target.input_check is None:
        return
    check = find_check(target.input_check)
    if check is None:
        where = {"project_id": project_id, "deployment_id": target.deployment_id, "id": workflow_id}
        check = compile_check(await value("read_description", **where))
    check_input(check, bytes(payload), at)
