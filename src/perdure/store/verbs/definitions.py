"""Definitions of agents and tools: the server stores and returns them."""

from typing import NamedTuple

from perdure.store.interface import query, verb
from perdure.store.verbs.deployments import RegistryPlace, active_deployment
from perdure.wire.errors import BadRequest, NotFound
from perdure.wire.limits import REPLY_BYTES_MAX


class Definition(NamedTuple):
    """`value` is the JSON that was registered."""

    deployment_id: str
    value: bytes
    created_at_us: int
    updated_at_us: int


@verb(sweep=True)
async def register_definition(
    *, project_id: str, kind: str, deployment_id: str | None, id: str, value: bytes, now_us: int
) -> None:
    """Make or replace a definition, by default in the current deployment.

    Raises DeploymentNotFound, BadRequest if the project has no deployment.
    """
    await query(
        "put_definition",
        project_id=project_id,
        kind=kind,
        deployment_id=await active_deployment(project_id, deployment_id),
        id=id,
        value=value,
        now_us=now_us,
    )


@verb(looks=True)
async def get_definition(*, project_id: str, kind: str, deployment_id: str | None, id: str) -> Definition:
    """One definition, by default of the current deployment. Raises NotFound, BadRequest."""
    deployment_id = await active_deployment(project_id, deployment_id)
    rows = await query("read_definition", project_id=project_id, kind=kind, deployment_id=deployment_id, id=id)
    if not rows:
        raise NotFound(f"Deployment {deployment_id!r} has no {kind} {id!r}.")
    return Definition(*rows[0])


@verb(looks=True)
async def list_definitions(
    *, project_id: str, kind: str, after: RegistryPlace, limit: int, offset: int, bytes_max: int = REPLY_BYTES_MAX
) -> tuple[list[Definition], RegistryPlace | None]:
    """The definitions of active deployments after a place, by name, then the newest first; and the next place.

    A page cannot end early, because its reader counts on `limit`. Raises BadRequest if it is too large.
    """
    wanted = {"project_id": project_id, "kind": kind, "offset": offset, **after._asdict()}
    found = await query("definition_sizes", limit=limit + 1, **wanted)
    sizes = [row[0] for row in found[:limit]]
    if len(sizes) > 1 and sum(sizes) > bytes_max:
        raise BadRequest(
            f"These {len(sizes)} definitions are {sum(sizes):,} bytes; an answer has at most {bytes_max:,}. Ask for "
            "fewer at once with `limit`."
        )
    following = RegistryPlace(*found[limit - 1][1:]) if len(found) > limit else None
    return [Definition(*row) for row in await query("list_definitions", limit=limit, **wanted)], following
