"""Idempotency keys of children that a fork restarts: earlier starts' keys continue."""

from collections.abc import Sequence
from uuid import UUID, uuid5

import msgspec
from msgspec import structs

from perdure.store.base.executions import Parent
from perdure.store.base.interface import query, query_many, value
from perdure.store.verbs.runs.starts import New
from perdure.wire.runs.requests import WORKER_PROTOCOL


async def continued(project_id: str, parent: Parent, news: Sequence[New]) -> tuple[list[New], dict[str, str]]:
    """Return the children to start, and map their ids to the executions whose keys continue.

    If an earlier start of the child has a readable key, the key stays there.
    """
    found: dict[str, str] = {}
    started: list[New] = []
    for new in news:
        item = new.item
        old_id, keys_id = await _old_child(project_id, parent, item.step_key)
        if parent.keys_id is not None and keys_id is not None:
            found[new.id] = keys_id
        if item.key is not None:
            where = {"project_id": project_id, "workflow_id": item.workflow_id}
            for (holder,) in await query("holder_of_key", key=item.key, **where):
                if holder == old_id or await _keys_of(project_id, holder) == keys_id:
                    item = structs.replace(item, key=None)
        started.append(New(new.id, item))
    return started, found


async def _old_child(project_id: str, parent: Parent, key: str | None) -> tuple[str | None, str | None]:
    """Return the child started under `key` before, and the id whose keys the child has."""
    for id in (parent.forked_from, parent.keys_id):
        told = None if id is None else await value("started_child_of", execution_id=id, key=key)
        if told is not None:
            old_id: str = msgspec.json.decode(told)
            keys_id = await _keys_of(project_id, old_id)
            if keys_id is not None or id == parent.keys_id:  # the first execution's children have their own
                return old_id, keys_id or old_id
    if parent.keys_id is None or key is None:
        return None, None
    # The first execution did not come to it, but another fork may have: they all give it the same keys.
    return None, str(uuid5(UUID(parent.keys_id), key))


async def _keys_of(project_id: str, id: str) -> str | None:
    """Return the id whose keys an execution has. None: the execution is deleted."""
    keys: str | None = await value("keys_of", project_id=project_id, id=id)
    return keys


async def continue_keys(project_id: str, keys: dict[str, str]) -> None:
    """Copy the keys (by the ids of new executions) and their random numbers: a provider refuses a known key with
    another request."""
    same = {"project_id": project_id, "needs_protocol": WORKER_PROTOCOL}
    await query_many("set_keys", [{"id": id, "keys_id": keys_id, **same} for id, keys_id in keys.items()])
