"""Deployments. Workers of a deployment are all native or all push; the kind may change while no worker of the other
kind is registered."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec import json
from msgspec.structs import asdict

from perdure.store.base.executions import JournalRow
from perdure.store.base.interface import Notify, Ready, Written, query, query_many, record, records, serves, value, verb
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.runs.queues import put_queue
from perdure.wire.base.cursors import none_of_ours, read_cursor, write_cursor
from perdure.wire.base.errors import BadRequest, BadValue, Conflict, DeploymentNotFound, NotFound
from perdure.wire.base.limits import GATHERED_BYTES_MAX
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import DONE, Done
from perdure.wire.base.records import Kind
from perdure.wire.base.times import NEVER_US
from perdure.wire.runs.deployments import (
    Deployment,
    DeploymentStatus,
    GetDeployment,
    ListDeployments,
    ListedDeployment,
    RegisterDeploymentWorkflow,
    RegisterQueues,
    RegisterWorkerDeployment,
    RetireDeployment,
    UseDeployment,
)
from perdure.wire.runs.drains import Drain, GetDrain, IdleExecution, drain_of
from perdure.wire.runs.requests import QueueSpec
from perdure.wire.runs.workflows import (
    TOOL_CHARS_MAX,
    TOOL_PREFIX,
    WORKFLOWS_MAX,
    GetStartable,
    GetWorkflow,
    GetWorkflows,
    RegisteredWorkflow,
    WorkflowDescription,
    tool_name,
)

IDLE_MAX: Final = 1_000
"""Waiting executions examined for the end of a drain."""

_MARKED: Final = re.compile(r"_[0-9a-f]{6}$")
"""A tool name with this end lacks part of its workflow's id."""


async def look_at_deployment(project_id: str, deployment_id: str, now_us: int, *, push: bool) -> tuple[bool, bool]:
    """Check a registration before the first write. Raises Conflict if workers of the other kind serve the deployment.

    Returns whether the deployment is unknown or retired, so that new executions go there from now on, and whether its
    workers were of the other kind.
    """
    known = await _lock(project_id, deployment_id)
    if known is None:
        return True, False
    was_push, retired = known
    changes = was_push is not push
    if changes and await query("live_worker_of", project_id=project_id, deployment_id=deployment_id, now_us=now_us):
        other, this = ("push", "native") if was_push else ("native", "push")
        raise Conflict(
            f"Deployment {deployment_id!r} is served by {other} workers at this moment, and cannot be served by {this} "
            "workers beside them; give these another deployment id, or stop those first."
        )
    return retired, changes


async def _lock(project_id: str, deployment_id: str) -> tuple[bool, bool] | None:
    """Lock a deployment. Return whether its workers are push, and whether it is retired."""
    for push, retired_at_us in await query("lock_deployment", project_id=project_id, id=deployment_id):
        return bool(push), retired_at_us is not None
    return None


async def _lock_active(project_id: str, deployment_id: str) -> bool:
    """Lock a deployment, and return whether its workers are push. Raises DeploymentNotFound."""
    known = await _lock(project_id, deployment_id)
    if known is None or known[1]:
        raise unknown_deployment(deployment_id)
    return known[0]


async def enter_deployment(project_id: str, deployment_id: str, now_us: int, *, fresh: bool, push: bool) -> None:
    """Make the deployment active, after `look_at_deployment`."""
    await query("upsert_deployment", project_id=project_id, id=deployment_id, now_us=now_us, push=int(push))
    if fresh:
        await _make_current(project_id, deployment_id, now_us)


async def offer_work(project_id: str, deployment_id: str, now_us: int) -> None:
    """Release the executions that waited for a registration."""
    unblocked = await query("unblock", project_id=project_id, deployment_id=deployment_id, now_us=now_us)
    await query_many(
        "insert_journal",
        [JournalRow(id, seq, at_us, Kind.UNBLOCKED, attempt) for id, seq, at_us, attempt in sorted(unblocked)],
    )
    await Notify(Ready(project_id, deployment_id), *[Written(id) for id, _, _, _ in unblocked])


async def put_push_deployment(project_id: str, deployment_id: str, now_us: int) -> None:
    """Make or keep a deployment of push workers. Raises Conflict while native workers serve it."""
    fresh, changes_sides = await look_at_deployment(project_id, deployment_id, now_us, push=True)
    await enter_deployment(project_id, deployment_id, now_us, fresh=fresh, push=True)
    if changes_sides:
        await query("delete_workflows", project_id=project_id, deployment_id=deployment_id)
    await adopt_early("adopt_any_early", project_id, deployment_id)
    await offer_work(project_id, deployment_id, now_us)


async def adopt_early(name: str, project_id: str, deployment_id: str) -> int:
    """Adopt early executions by the query `name`. Pauses mark them again, because their gates become those of
    limits."""
    adopted = await query(name, project_id=project_id, deployment_id=deployment_id)
    if adopted:
        await query("mark_again", project_id=project_id)
    return len(adopted)


@verb(sweep=True)
async def catch_up() -> int:
    """Release starts that raced with their project's first registration. Servers of the previous release may also miss
    a queue's first limit. Returns the count."""
    amount = 0
    for project_id, name in await query("unmarked_queues"):
        limits = await query("lock_queue", project_id=project_id, name=name)
        if limits in ([], [(None, None)]):  # another server counts now, or the limits are gone
            continue
        amount += len(await query("mark_limited", project_id=project_id, name=name, gate=1))
        await Notify(Ready(project_id, None))
    for project_id, deployment_id, push in await query("forgotten_early"):
        adopt = "adopt_any_early" if push else "adopt_early"
        amount += await adopt_early(adopt, project_id, deployment_id)
        await Notify(Ready(project_id, deployment_id))
    return amount


@serves(RegisterWorkerDeployment, sweep=True)
async def register_push_deployment(at: At, op: RegisterWorkerDeployment) -> Done:
    await put_push_deployment(at.project_id, op.deployment_id, at.now_us)
    return DONE


@serves(RegisterDeploymentWorkflow, sweep=True)
async def register_push_workflow(at: At, op: RegisterDeploymentWorkflow) -> Done:
    if not await _lock_active(at.project_id, op.deployment_id):
        raise Conflict(
            f"Deployment {op.deployment_id!r} is served by native workers, whose registrations bring all its workflows."
        )
    await check_room(at.project_id, [op.workflow_id])
    flags = {"trigger_on_event": int(op.trigger_on_event or 0), "scheduled": int(op.scheduled or 0)}
    await query("put_workflow", at, op, id=op.workflow_id, type=op.workflow_type, **flags)
    return DONE


@serves(RegisterQueues, sweep=True)
async def register_queues(at: At, op: RegisterQueues) -> Done:
    """Total limits stay."""
    await active_deployment(at.project_id, op.deployment_id)
    for queue in op.queues:
        await put_queue(at.project_id, QueueSpec(queue.name, queue.concurrency_limit), keep_total=True)
    return DONE


async def active_deployment(project_id: str, deployment_id: str | None) -> str:
    """Return the deployment, by default the current one. Raises DeploymentNotFound if the deployment is not active,
    BadRequest if the project has none."""
    if deployment_id is None:
        deployment_id = await value("current_deployment", project_id=project_id)
        if deployment_id is None:
            raise BadRequest("The project has no deployment yet; register one first, or name one.")
    if (await read_deployment(project_id, deployment_id)).status is DeploymentStatus.RETIRED:
        raise unknown_deployment(deployment_id)
    return deployment_id


async def read_deployment(project_id: str, deployment_id: str) -> Deployment:
    """Raises DeploymentNotFound."""
    found = await record(Deployment, "read_deployment", project_id=project_id, id=deployment_id)
    if found is None:
        raise unknown_deployment(deployment_id)
    return found


def unknown_deployment(deployment_id: str) -> DeploymentNotFound:
    return DeploymentNotFound(
        f"Deployment {deployment_id!r} does not exist, or is retired; `perdure deployments ls -a` shows all."
    )


@serves(GetDeployment, reads=True)
async def get_deployment(at: At, op: GetDeployment) -> Deployment:
    return await read_deployment(at.project_id, op.deployment_id)


STARTABLE_ROWS: Final = 1_000
"""Old deployments have rows of the same names."""


class RegistryPlace(NamedTuple):
    """A place in registries: by name, then the newest first."""

    after_id: str
    before_us: int
    after: str
    """The deployment of the place."""


def registry_place(cursor: str | None) -> RegistryPlace:
    return RegistryPlace("", 0, "") if cursor is None else read_cursor(cursor, RegistryPlace, "first")


@serves(GetWorkflows, reads=True)
async def list_workflows(at: At, op: GetWorkflows) -> Listed[RegisteredWorkflow]:
    place = registry_place(op.cursor)._asdict()
    found = await records(RegisteredWorkflow, "list_workflows", at, op, **place | {"limit": op.limit + 1})
    return Listed.of(found, op.limit, lambda last: write_cursor((last.id, last.created_at_us, last.deployment_id)))


@serves(GetWorkflow, reads=True)
async def get_workflow(at: At, op: GetWorkflow) -> RegisteredWorkflow:
    found = await record(RegisteredWorkflow, "read_workflow", at, op)
    if found is None:
        where = "any deployment" if op.deployment_id is None else f"deployment {op.deployment_id!r}"
        raise NotFound(f"Workflow {op.workflow_id!r} is not registered in {where}.")
    return await _described(at.project_id, found)


async def _described(project_id: str, found: RegisteredWorkflow) -> RegisteredWorkflow:
    described = await value("read_description", project_id=project_id, deployment_id=found.deployment_id, id=found.id)
    return found if described is None else found.described_by(json.decode(described, type=WorkflowDescription))


@serves(GetStartable, scans=True)
async def list_startable(at: At, op: GetStartable) -> Listed[RegisteredWorkflow]:
    """List workflows and agents of active deployments, each from the newest."""
    if op.tool is not None:
        return Listed(await _startable_by(at.project_id, op.tool))
    (after_id,) = ("",) if op.cursor is None else read_cursor(op.cursor, tuple[str], "first")
    rows = await records(RegisteredWorkflow, "list_startable", at, after_id=after_id, limit=STARTABLE_ROWS)
    newest: dict[str, RegisteredWorkflow] = {}
    for one in rows:
        newest.setdefault(one.id, one)
    page: list[RegisteredWorkflow] = []
    size = 0
    for one in list(newest.values())[: op.limit]:
        if size > GATHERED_BYTES_MAX:
            break
        page.append(await _described(at.project_id, one))
        size += sum(len(bytes(schema or b"")) for schema in (page[-1].input_schema, page[-1].output_schema))
    more = len(newest) > len(page) or len(rows) == STARTABLE_ROWS
    return Listed(page, write_cursor((page[-1].id,)) if more else None)


async def _startable_by(project_id: str, tool: str) -> list[RegisteredWorkflow]:
    """Find the workflow or agent that an MCP tool runs, or none. Reads names, and the description of the match."""
    if len(tool) > TOOL_CHARS_MAX or not tool.startswith(TOOL_PREFIX):
        return []
    names = [tool.removeprefix(TOOL_PREFIX)]
    if _MARKED.search(tool):
        names += await _names(project_id)
    for name in names:
        if tool_name(name) == tool:
            found = await record(RegisteredWorkflow, "read_startable", project_id=project_id, workflow_id=name)
            if found is not None:
                return [await _described(project_id, found)]
    return []


async def _names(project_id: str) -> list[str]:
    return [id for (id,) in await query("workflow_names", project_id=project_id, limit=WORKFLOWS_MAX)]


async def check_room(project_id: str, ids: Sequence[str]) -> None:
    """Raises BadValue if a project would have too many workflows. Workflows of retired deployments count."""
    known = set(await _names(project_id))
    count = len(known.union(ids))
    if count > WORKFLOWS_MAX and not known.issuperset(ids):
        raise BadValue(
            f"workflows: the project would have {count:,} workflows, agents and tools of different names; the limit is "
            f"{WORKFLOWS_MAX:,}. Divide them among several projects.",
            {"path": "workflows"},
        )


async def _make_current(project_id: str, deployment_id: str, now_us: int) -> None:
    await query("supersede_deployments", project_id=project_id, deployment_id=deployment_id, now_us=now_us)
    await query("use_deployment", project_id=project_id, deployment_id=deployment_id)


@serves(UseDeployment, sweep=True)
async def use_deployment(at: At, op: UseDeployment) -> Deployment:
    await _lock_active(at.project_id, op.deployment_id)
    await _make_current(at.project_id, op.deployment_id, at.now_us)
    return await read_deployment(at.project_id, op.deployment_id)


@serves(RetireDeployment, sweep=True)
async def retire_deployment(at: At, op: RetireDeployment) -> Deployment:
    known = await _lock(at.project_id, op.deployment_id)
    if known is None:
        raise unknown_deployment(op.deployment_id)
    if await value("current_deployment", at) == op.deployment_id:
        raise Conflict(
            f"Deployment {op.deployment_id!r} is the current one: new executions go there. Let them go to another one "
            "first: `perdure deployments use ID`."
        )
    for id, phase in await query("any_open_of_deployment", at, op):
        raise Conflict(
            f"Deployment {op.deployment_id!r} is not empty: execution {id} is {phase}, for one. "
            "`perdure deployments ls` counts what is open."
        )
    if await query("live_worker_of", at, op):
        raise Conflict(f"Deployment {op.deployment_id!r} still has workers; stop them first.")
    _, retired = known
    if not retired:
        await query("retire_deployment", at, id=op.deployment_id)
    return await read_deployment(at.project_id, op.deployment_id)


@serves(ListDeployments, scans=True)
async def list_deployments(at: At, op: ListDeployments) -> Listed[ListedDeployment]:
    before_us, after = (1 << 62, "") if op.cursor is None else _place(op.cursor)
    page = {"retired": int(op.retired), "before_us": before_us, "after": after, "limit": op.limit + 1}
    found = await records(Deployment, "list_deployments", at, **page)
    workers: dict[str, int] = dict(await query("count_live_workers", at))
    open_: dict[str, dict[str, int]] = {}
    for deployment_id, phase, amount in await query("count_open_by_deployment", at):
        open_.setdefault(deployment_id, {})[phase] = amount
    listed = [
        ListedDeployment(**asdict(one), workers=workers.get(one.id, 0), open=open_.get(one.id, {})) for one in found
    ]
    return Listed.of(listed, op.limit, lambda last: f"{last.created_at_us}-{last.id}")


def _place(cursor: str) -> tuple[int, str]:
    at_us, dash, id = cursor.partition("-")
    if not (dash and id and at_us.isascii() and at_us.isdigit() and len(at_us) < 19):
        raise none_of_ours("youngest")
    return int(at_us), id


@serves(GetDrain, scans=True)
async def drain(at: At, op: GetDrain) -> Drain:
    deployment = await read_deployment(at.project_id, op.deployment_id)
    workers: dict[str, int] = dict(await query("count_live_workers", at))
    counts = await query("count_open_by_deployment", at)
    idle = await records(IdleExecution, "idle_of_deployment", at, op, limit=IDLE_MAX + 1)
    delayed = await record(IdleExecution, "last_delayed_of_deployment", at, op, beyond_us=NEVER_US)
    return drain_of(
        deployment,
        workers=workers.get(op.deployment_id, 0),
        open={phase: amount for id, phase, amount in counts if id == op.deployment_id},
        idle=idle[:IDLE_MAX] + ([] if delayed is None else [delayed]),
        exact=len(idle) <= IDLE_MAX,
    )
