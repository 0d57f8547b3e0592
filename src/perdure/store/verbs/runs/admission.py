"""Rules of admission that count; the other rules are in `admission.sql`."""

import sys
from collections.abc import Collection

from msgspec import Struct

from perdure.store.base.interface import record
from perdure.wire.runs.admission import Rule


class GroupRoom(Struct, frozen=True, gc=False):
    """The limits of a (queue, key) group, and the places held under each limit."""

    total_limit: int | None = None
    held_of_queue: int | None = None
    key_limit: int | None = None
    held_of_key: int | None = None


def first_hold(failing: Collection[Rule]) -> Rule | None:
    """
    >>> first_hold({Rule.PYTHON, Rule.QUEUE_LIMIT})
    <Rule.QUEUE_LIMIT: 'queue_limit'>
    """
    return next((rule for rule in Rule if rule in failing), None)


async def group_room(project_id: str, queue_name: str, concurrency_key: str) -> GroupRoom:
    found = await record(
        GroupRoom, "group_room", project_id=project_id, queue_name=queue_name, concurrency_key=concurrency_key
    )
    return found or GroupRoom()


def room(group: GroupRoom) -> tuple[int, Rule | None]:
    """Return how many more executions may run, and the first limit reached.

    >>> room(GroupRoom(total_limit=10, held_of_queue=7, key_limit=2, held_of_key=2))
    (0, <Rule.KEY_LIMIT: 'key_limit'>)
    """
    free = sys.maxsize
    for rule, limit, held in (
        (Rule.QUEUE_LIMIT, group.total_limit, group.held_of_queue),
        (Rule.KEY_LIMIT, group.key_limit, group.held_of_key),
    ):
        if limit is not None:
            free = min(free, limit - (held or 0))
            if free <= 0:
                return 0, rule
    return free, None
