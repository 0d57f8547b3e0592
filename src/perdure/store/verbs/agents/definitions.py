"""Definitions of agents and tools."""

from msgspec import Struct

from perdure.store.base.interface import query, record, records, verb
from perdure.store.verbs.runs.deployments import RegistryPlace, active_deployment
from perdure.wire.base.errors import BadRequest, NotFound
from perdure.wire.base.limits import REPLY_BYTES_MAX
from perdure.wire.runs.workflows import WorkflowType


class StoredDefinition(Struct, frozen=True):
    """`value` is the registered JSON."""

    deployment_id: str
    value: bytes
    created_at_us: int
    updated_at_us: int


@verb(sweep=True)
async def register_definition(
    *, project_id: str, kind: WorkflowType, deployment_id: str | None, id: str, value: bytes, now_us: int
) -> None:
    """Registers in the current deployment by default. Raises DeploymentNotFound, BadRequest."""
    await query(
        "put_definition",
        project_id=project_id,
        kind=kind,
        deployment_id=await active_deployment(project_id, deployment_id),
        id=id,
        value=value,
        now_us=now_us,
    )


@verb(reads=True)
async def get_definition(
    *, project_id: str, kind: WorkflowType, deployment_id: str | None, id: str
) -> StoredDefinition:
    """Reads from the current deployment by default. Raises NotFound, BadRequest."""
    deployment_id = await active_deployment(project_id, deployment_id)
    found = await record(
        StoredDefinition, "read_definition", project_id=project_id, kind=kind, deployment_id=deployment_id, id=id
    )
    if found is None:
        raise NotFound(f"Deployment {deployment_id!r} has no {kind} {id!r}.")
    return found


@verb(reads=True)
async def list_definitions(
    *, project_id: str, kind: WorkflowType, after: RegistryPlace, limit: int, offset: int
) -> tuple[list[StoredDefinition], RegistryPlace | None]:
    """The definitions of active deployments after a place, and the next place. As in `list_runs`, a page cannot end
    early."""
    wanted = {"project_id": project_id, "kind": kind, "offset": offset, **after._asdict()}
    rows = await query("definition_sizes", limit=limit + 1, **wanted)
    page = [RegistryPlace(*place) for _, *place in rows[:limit]]
    total = sum(size for size, *_ in rows[:limit])
    if len(page) > 1 and total > REPLY_BYTES_MAX:
        raise BadRequest(
            f"These {len(page)} definitions are {total:,} bytes; an answer has at most {REPLY_BYTES_MAX:,}. Ask for "
            "fewer at once with `limit`."
        )
    found = await records(StoredDefinition, "list_definitions", limit=limit, **wanted)
    return found, page[-1] if len(rows) > limit else None
