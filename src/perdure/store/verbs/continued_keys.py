"""The idempotency keys of children that a fork starts anew: they continue those of its source's children."""

from collections.abc import Sequence

import msgspec
from msgspec import structs

from perdure.store.executions import Parent
from perdure.store.interface import query_many, value
from perdure.store.verbs.starts import New
from perdure.wire.requests import WORKER_PROTOCOL


async def continued(project_id: str, parent: Parent, news: Sequence[New]) -> tuple[list[New], dict[str, str]]:
    """The children to start, and by their ids the executions whose keys they continue.

    A readable key that the source's child has stays with that one.
    """
    found: dict[str, str] = {}
    started: list[New] = []
    for new in news:
        item = new.item
        old_id = await _old_child(parent, item.step_key)
        if old_id is not None:
            keys_id = await value("keys_of", project_id=project_id, id=old_id)
            found[new.id] = keys_id or old_id
            if item.key is not None:
                holder = await value("holder_of_key", project_id=project_id, workflow_id=item.workflow_id, key=item.key)
                if holder == old_id:
                    item = structs.replace(item, key=None)
        started.append(New(new.id, item))
    return started, found


async def _old_child(parent: Parent, key: str | None) -> str | None:
    for id in (parent.forked_from, parent.keys_id):
        told = None if id is None else await value("started_child_of", execution_id=id, key=key)
        if told is not None:
            old_id: str = msgspec.json.decode(told)
            return old_id
    return None


async def continue_keys(project_id: str, keys: dict[str, str]) -> None:
    """`keys` are by the ids of executions that were started just now."""
    same = {"project_id": project_id, "needs_protocol": WORKER_PROTOCOL}
    await query_many("set_keys", [{"id": id, "keys_id": keys_id, **same} for id, keys_id in keys.items()])
